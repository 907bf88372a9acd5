"""Gates and labellers: which episodes are guided, and which of their states are labelled, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdrl.guidance.labelling import GATES, FirstDecisions, GateConfig, GuidedEpisodes, NoLabels, Rounds
from sim.errors import UsageError
from tests.lgdrl.steps import step_of


def seeds(seed: int = 0) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    return tuple(np.random.SeedSequence(seed).spawn(2))


def gate(kind: str, seed: int = 0, **options):
    return GateConfig(kind, options).make(np.random.SeedSequence(seed))


def context(decisions: int, episodes):
    episodes = np.asarray(episodes)
    return step_of(np.zeros(len(episodes), np.int64), decisions=decisions, episodes=episodes)


# -------------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli_guides_its_share_of_episodes(share):
    found = gate("bernoulli", share=share)
    guided = found.guided(np.arange(20_000))
    assert found.share == share
    assert abs(guided.mean() - share) <= 4 * np.sqrt(share * (1 - share) / 20_000)  # 4 standard errors


def splitmix64(state: int) -> int:
    """The published generator, in plain integers: the output for a state that was just advanced."""
    z = state & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def test_bernoulli_draws_are_splitmix64_of_key_and_number():
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # first output of the published generator, seed 0
    key = int(np.random.SeedSequence(5).generate_state(1, np.uint64)[0])
    drawn = [splitmix64(number * 0x9E3779B97F4A7C15 + key) / 2**64 < 0.3 for number in range(200)]
    assert gate("bernoulli", seed=5, share=0.3).guided(np.arange(200)).tolist() == drawn


def test_neighbouring_episodes_are_guided_independently():
    guided = gate("bernoulli").guided(np.arange(20_001))
    assert abs(np.corrcoef(guided[:-1], guided[1:])[0, 1]) < 0.03


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_an_episode_is_guided_or_not_whatever_it_is_asked_with(numbers, random):
    for found in (gate("bernoulli"), gate("periodic", period=3, guided=2)):
        alone = {number: bool(found.guided(np.array([number]))[0]) for number in numbers}
        random.shuffle(numbers)
        assert found.guided(np.array(numbers)).tolist() == [alone[number] for number in numbers]


def test_the_seed_decides_which_episodes():
    numbers = np.arange(200)
    assert (gate("bernoulli", seed=1).guided(numbers) == gate("bernoulli", seed=1).guided(numbers)).all()
    assert (gate("bernoulli", seed=1).guided(numbers) != gate("bernoulli", seed=2).guided(numbers)).any()


def test_periodic_guides_the_first_episodes_of_every_period():
    found = gate("periodic", period=3, guided=2)
    assert found.guided(np.arange(7)).tolist() == [True, True, False, True, True, False, True]
    assert found.share == pytest.approx(2 / 3)
    assert gate("periodic").guided(np.arange(4)).tolist() == [True, False, True, False]


def test_always_and_never():
    numbers = np.array([0, 3, 10**9])
    assert gate("always").guided(numbers).tolist() == [True] * 3
    assert gate("never").guided(numbers).tolist() == [False] * 3
    assert (gate("always").share, gate("never").share) == (1, 0)


def test_every_registered_gate_keeps_its_contract():
    for kind in GATES.available():
        found, numbers = gate(kind), np.arange(1000)
        guided = found.guided(numbers)
        assert guided.dtype == bool
        assert guided.shape == (1000,)
        assert found.share == pytest.approx(guided.mean(), abs=0.07)
        assert (found.guided(numbers) == guided).all()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("bernouli", {}, "did you mean 'bernoulli'"),
        ("bernoulli", {"share": 1.5}, "choose 0 to 1"),
        ("bernoulli", {"share": -0.1}, "choose 0 to 1"),
        ("bernoulli", {"shre": 0.5}, "did you mean 'share'"),
        ("periodic", {"period": 2, "guided": 3}, "guided = 3 of period = 2"),
        ("periodic", {"guided": 0}, "guided = 0"),
        ("always", {"share": 1.0}, "unknown key in options of gate 'always'"),
    ],
)
def test_bad_gates_are_refused_in_one_line(kind, options, words):
    with pytest.raises(UsageError) as error:
        GateConfig(kind, options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("until", [-0.1, 1.1])
def test_guidance_ends_within_the_training(until):
    with pytest.raises(ValueError, match=r"until = .*: choose 0 to 1"):
        GateConfig(until=until)


# --------------------------------------------------------------------------------------------- guided episodes


def test_all_steps_of_guided_episodes_are_labelled_until_guidance_ends():
    labeller = GuidedEpisodes(GateConfig("periodic", until=0.5), 100, seeds())
    for decisions in (0, 49):
        wanted, allowed = labeller.select(context(decisions, [0, 1, 2, 7]))
        assert wanted.tolist() == allowed.tolist() == [True, False, True, False]
    for decisions in (50, 99):
        wanted, allowed = labeller.select(context(decisions, [0, 1, 2, 7]))
        assert not wanted.any()
        assert not allowed.any()


@pytest.mark.parametrize("until", [0.0, 1.0])
def test_guidance_may_last_for_all_of_the_training_or_for_none(until):
    labeller = GuidedEpisodes(GateConfig("always", until=until), 100, seeds())
    labelled = [labeller.select(context(decisions, [decisions]))[0][0] for decisions in range(100)]
    assert sum(labelled) == 100 * until


def count(labeller, total: int, num_envs: int, episode_length: int = 10, start: int = 0) -> tuple[int, int]:
    """(labels, steps in which the expert may drive) from the decision `start` to the end of a training."""
    labels = allowed_steps = 0
    for decisions in range(start, total, num_envs):
        step = decisions // num_envs
        episodes = step // episode_length * num_envs + np.arange(num_envs)
        wanted, allowed = labeller.select(context(decisions, episodes))
        assert not (wanted & ~allowed).any()  # only steps of guided episodes are labelled
        labels, allowed_steps = labels + int(wanted.sum()), allowed_steps + int(allowed.sum())
    return labels, allowed_steps


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 8000),  # 16,000 decisions x until 0.5
        ({"label_share": 0.25}, 2000),
        ({"label_share": 1.0}, 8000),
        ({"label_share": 0.0}, 0),
    ],
)
def test_labels_are_paced_to_their_expected_number(options, expected):
    labeller = GuidedEpisodes(GateConfig("always", until=0.5), 16_000, seeds(), **options)
    labels, allowed = count(labeller, 16_000, 8)
    share = expected / 8000
    assert abs(labels - expected) <= 4 * np.sqrt(8000 * share * (1 - share))
    assert allowed == 8000  # the share thins labels, not the steps in which the expert may drive


@settings(max_examples=60)
@given(st.integers(0, 9000), st.sampled_from([1, 8, 32]), st.integers(0, 99))
def test_a_budget_is_used_up_and_not_exceeded(budget, num_envs, seed):
    labeller = GuidedEpisodes(GateConfig("always", until=0.5), 16_000, seeds(seed), label_budget=budget)
    labels, allowed = count(labeller, 16_000, num_envs)
    assert labels == min(budget, 8000) == labeller.asked
    assert allowed == 8000


def test_a_given_share_is_kept_until_the_budget_ends():
    labeller = GuidedEpisodes(GateConfig("always"), 16_000, seeds(), label_share=0.25, label_budget=1000)
    first, _ = count(labeller, 2000, 8)
    assert first == pytest.approx(500, abs=4 * np.sqrt(375))
    assert first + count(labeller, 16_000, 8, start=2000)[0] == 1000


def test_a_budget_is_spread_over_the_share_of_episodes_that_are_guided():
    labeller = GuidedEpisodes(GateConfig("periodic", {"period": 4}, until=1.0), 16_000, seeds(), label_budget=1000)
    quarters = [count(labeller, end, 8, start=end - 4000)[0] for end in (4000, 8000, 12_000, 16_000)]
    assert sum(quarters) == pytest.approx(1000, abs=10)  # guided episodes end before the training does
    assert quarters == pytest.approx([250] * 4, abs=4 * np.sqrt(250))


# ------------------------------------------------------------------------------- other labellers, resumed runs


def test_no_labels():
    wanted, allowed = NoLabels().select(context(0, [0, 1]))
    assert wanted.tolist() == allowed.tolist() == [False, False]


def test_the_first_decisions_are_labelled_and_may_be_driven():
    labeller = FirstDecisions(5)
    for decisions, expected in ((0, [True, True]), (2, [True, True]), (4, [True, False]), (6, [False, False])):
        wanted, allowed = labeller.select(context(decisions, [0, 1]))
        assert wanted.tolist() == allowed.tolist() == expected
    assert not FirstDecisions(0).select(context(0, [0]))[0].any()


@pytest.mark.parametrize(("decisions", "envs", "steps"), [(5, 1, 5), (10, 1, 10), (25, 2, 13), (1000, 4, 250)])
def test_few_demonstrated_decisions_are_consecutive_ones_of_few_environments(decisions, envs, steps):
    labeller = FirstDecisions(decisions, consecutive=10)
    chosen = np.array([labeller.select(context(4 * k, [0, 1, 2, 3]))[0] for k in range(300)])
    assert chosen.sum() == decisions
    assert chosen.any(axis=0).sum() == envs
    assert chosen.any(axis=1).sum() == steps
    assert chosen[:steps].any(axis=1).all(), "they come first"


def test_rounds_are_daggers_schedule():
    """12 labels in 3 rounds of 20 decisions: the first 4 of each; the expert may drive in the first round only."""
    labeller = Rounds(labels=12, rounds=3, thinning=1, total_decisions=60, seed=np.random.SeedSequence(0))
    wanted, allowed = (
        np.array([labeller.select(context(decisions, [0, 1]))[k] for decisions in range(0, 60, 2)]).any(axis=1)
        for k in range(2)
    )
    assert (2 * np.flatnonzero(wanted)).tolist() == [0, 2, 20, 22, 40, 42]
    assert (2 * np.flatnonzero(allowed)).tolist() == [0, 2]


def test_thinned_rounds_label_as_much_in_longer_phases():
    labeller = Rounds(labels=900, rounds=3, thinning=4, total_decisions=9_000, seed=np.random.SeedSequence(0))
    per_round = []
    for number in range(3):
        rows = [labeller.select(context(number * 3000 + into, [0, 1])) for into in range(0, 3000, 2)]
        per_round.append(sum(int(wanted.sum()) for wanted, _ in rows))
        asked = [2 * i for i, (wanted, _) in enumerate(rows) if wanted.any()]
        assert 1150 < asked[-1] < 1200
    assert per_round[0] == 1200  # the expert drives at first, and each of its steps is a label
    for labels in per_round[1:]:
        assert abs(labels - 300) <= 4 * np.sqrt(1200 * 0.25 * 0.75)


def test_a_round_that_is_shorter_than_its_labels_is_labelled_throughout():
    labeller = Rounds(labels=1000, rounds=2, thinning=1, total_decisions=100, seed=np.random.SeedSequence(0))
    assert all(labeller.select(context(decisions, [0]))[0].all() for decisions in range(100))


def random_labellers():
    yield lambda: GuidedEpisodes(GateConfig(until=1.0), 1000, seeds(3), label_share=0.5)
    yield lambda: GuidedEpisodes(GateConfig(until=1.0), 1000, seeds(3), label_budget=77)
    yield lambda: Rounds(labels=600, rounds=2, thinning=3, total_decisions=1000, seed=np.random.SeedSequence(3))


@pytest.mark.parametrize("make", random_labellers(), ids=["guided episodes", "budget", "rounds"])
def test_a_restored_labeller_goes_on_where_it_was(make):
    straight, first, resumed = make(), make(), make()
    steps = [context(decisions, np.arange(4) + decisions // 40) for decisions in range(0, 1000, 4)]
    expected = [straight.select(step)[0].tolist() for step in steps]
    found = [first.select(step)[0].tolist() for step in steps[:160]]
    saved = first.state_dict()
    resumed.load_state_dict(saved)
    assert found + [resumed.select(step)[0].tolist() for step in steps[160:]] == expected
    assert [make().select(step)[0].tolist() for step in steps[160:]] != expected[160:]
