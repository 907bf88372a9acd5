"""Collected data sets are what the environments did, and labels are given in the states that were stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sim
from experts import registry
from experts.data.collection import MIXES, Plan, Policy, collect, measure_references
from experts.data.labelling import choose_states, label_states
from experts.data.transitions import NO_SEED, STATUSES, concatenate
from experts.provider import Decision, PolicyProvider, Status
from sim.errors import UsageError
from tests.recordings import bits

SCENARIOS = {"lane-change": ("rule", "random"), "gym:CartPole-v1": ("random",), "gym:Pendulum-v1": ("idle", "random")}


def policies(scenario, *shares):
    shares = shares or (1.0,) * len(SCENARIOS[scenario])
    names = SCENARIOS[scenario]
    return [Policy(registry.make(name, scenario, None, 3), share) for name, share in zip(names, shares, strict=True)]


@pytest.fixture(scope="module")
def environments():
    made = {name: sim.make_vec(name, 3) for name in SCENARIOS}
    yield made
    for envs in made.values():
        envs.close()


@pytest.fixture(scope="module")
def lane_change(environments):
    return collect(environments["lane-change"], policies("lane-change"), Plan(seed=40, episodes=5)).dataset


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_single_environment_does_the_same_from_seed_and_actions(environments, scenario):
    found = collect(environments[scenario], policies(scenario), Plan(seed=40, episodes=5))
    dataset, env, row = found.dataset, sim.make(scenario), 0
    assert dataset.seeds.tolist() == [40, 41, 42, 43, 44]
    for episode, summary in enumerate(found.summaries):
        obs, _ = env.reset(seed=40 + episode)
        ended = False
        while not ended:
            assert (dataset.episodes[row], dataset.observations[row].tolist()) == (episode, obs.tolist())
            if dataset.discrete:
                assert dataset.legal[row].tolist() == env.action_masks().tolist()
            obs, reward, terminated, truncated, _ = env.step(dataset.actions[row])
            ended = terminated or truncated
            assert dataset.next_observations[row].tolist() == obs.tolist()
            assert dataset.rewards[row] == np.float32(reward)
            assert (dataset.terminated[row], dataset.truncated[row]) == (terminated, truncated and not terminated)
            row += 1
        assert dataset.returns[episode] == pytest.approx(summary["episode_return"], rel=1e-5)
    assert row == len(dataset)
    assert dataset.finished.all()


def test_equal_plans_give_equal_data_sets_and_steps_cut_the_last_episode(environments):
    envs, plan = environments["gym:CartPole-v1"], Plan(seed=7, steps=100)
    one, two = (collect(envs, policies("gym:CartPole-v1"), plan).dataset for _ in range(2))
    assert bits(one) == bits(two)
    assert len(one) == 100
    assert one.finished[:-1].all()


def test_episodes_are_shared_as_asked_in_every_prefix(environments):
    plan = Plan(seed=0, episodes=8)
    dataset = collect(environments["lane-change"], policies("lane-change", 1, 3), plan).dataset
    for count in range(1, 9):
        by_random = (dataset.drivers[:count] == 1).sum()
        assert abs(by_random - 0.75 * count) < 1
    shared = MIXES["episodes"](np.array([0.5, 0.3, 0.2]), 0)
    chunks = [shared.begin(range(start, start + 10)) for start in range(0, 100, 10)]
    assert [sum(len(chunk[k]) for chunk in chunks) for k in range(3)] == [50, 30, 20]


def test_steps_are_drawn_by_their_shares(environments):
    plan = Plan(seed=0, steps=1000, mix="steps")
    dataset = collect(environments["gym:Pendulum-v1"], policies("gym:Pendulum-v1", 1, 3), plan).dataset
    assert 0.7 < (dataset.origin == 1).mean() < 0.8
    assert (dataset.actions[dataset.origin == 0] == 0).all()
    assert (dataset.actions[dataset.origin == 1] != 0).all()


def test_a_decision_that_failed_has_no_origin(environments):
    class Silent(PolicyProvider):
        name = "silent"

        def decide(self, contexts):
            return [Decision(None, status=Status.FAILED) if context.step % 2 else Decision(1) for context in contexts]

    found = collect(environments["gym:CartPole-v1"], [Policy(Silent())], Plan(seed=0, episodes=3))
    dataset = found.dataset
    assert (dataset.origin == np.where(dataset.steps % 2, -1, 0)).all()
    assert found.statuses == {"ok": (dataset.origin == 0).sum(), "failed": (dataset.origin == -1).sum()}


def test_references_are_means_over_the_same_episodes(environments):
    envs = environments["lane-change"]
    random, rule, slower = (registry.make(name, "lane-change") for name in ("random", "rule", "slower"))
    found = measure_references(envs, random, [slower, rule], 10_000)
    assert (found.policy, found.episodes) == ("rule", 20)
    driven = collect(envs, [Policy(rule)], Plan(seed=10_000, episodes=20)).dataset
    assert found.expert == pytest.approx(driven.returns.mean(), rel=1e-5)
    assert found.random < found.expert
    with pytest.raises(UsageError, match=r"--reference: the best policy 'random' has a mean return of .*name a better"):
        measure_references(envs, rule, [random], 10_000)


def test_observations_of_several_parts_are_refused():
    envs = sim.make_vec("parking-v0", 1)
    with pytest.raises(UsageError, match="observations of several parts"):
        collect(envs, [], Plan(seed=0, episodes=1))
    envs.close()


# --- labels -----------------------------------------------------------------------------------------------------------


def labelled(dataset, name, rows, report=None):
    with registry.make(name, dataset.about.scenario, None, 3) as expert:
        return label_states(dataset, expert, rows, {}, report)


def test_which_states_are_labelled():
    rows = choose_states(100, 20, seed=1)
    assert len(np.unique(rows)) == 20
    assert rows.tolist() == choose_states(100, 20, seed=1).tolist() != choose_states(100, 20, seed=2).tolist()
    assert choose_states(10, None, seed=0).tolist() == list(range(10)) == choose_states(10, 99, seed=0).tolist()
    assert choose_states(10, None, seed=0, every=4).tolist() == [0, 4, 8]
    assert choose_states(10, 2, seed=0, every=4).tolist() == [0, 4]


def test_an_expert_is_asked_in_the_scenes_of_the_stored_states(lane_change):
    """Where the rule itself drove, a replay in any other state would make it say something else."""
    found, tally = labelled(lane_change, "rule", np.arange(len(lane_change)))
    own = lane_change.origin == 0
    assert (found.labels.actions[own] == lane_change.actions[own]).all()
    assert len(set(lane_change.actions[own].tolist())) > 2
    assert 0 < (found.labels.actions[~own] == lane_change.actions[~own]).mean() < 0.9
    assert found.labels.given.all()
    assert (tally.asked, dict(tally.statuses)) == (len(lane_change), {"ok": len(lane_change)})
    assert found.about.made[-1]["statuses"] == {"ok": len(lane_change)}


def test_few_states_get_the_labels_that_all_would_get(lane_change):
    everywhere, _ = labelled(lane_change, "rule", np.arange(len(lane_change)))
    rows, seen = choose_states(len(lane_change), 15, seed=4), []
    few, _ = labelled(lane_change, "rule", rows, seen.append)
    assert np.flatnonzero(few.labels.given).tolist() == rows.tolist()
    assert few.labels.actions[rows].tolist() == everywhere.labels.actions[rows].tolist()
    assert (few.labels.status == np.where(few.labels.given, STATUSES.index("ok"), -1)).all()
    assert seen == list(range(1, 16))


def test_an_expert_may_look_ahead_from_the_stored_states(lane_change):
    found, _ = labelled(lane_change, "search", np.array([0, 5]))
    with registry.make("search", "lane-change") as expert:
        env = sim.make("lane-change")
        envs = sim.make_vec("lane-change", 1)
        driven = collect(envs, [Policy(expert)], Plan(seed=40, steps=1)).dataset
        env.close()
    assert found.labels.actions[0] == driven.actions[0]


def test_experts_of_observations_need_no_replay(environments):
    dataset = collect(environments["gym:Pendulum-v1"], policies("gym:Pendulum-v1"), Plan(seed=0, steps=50)).dataset
    dataset = dataclasses.replace(dataset, seeds=np.full(len(dataset.seeds), NO_SEED))
    found, _ = labelled(dataset.take(np.arange(50) % 2 == 0), "idle", np.arange(0, 25, 5))
    assert found.labels.given.sum() == 5
    assert found.labels.actions.shape == (25, 1)


def refusal(dataset, expert="rule", rows=None) -> str:
    with pytest.raises(UsageError) as error:
        labelled(dataset, expert, np.arange(len(dataset)) if rows is None else rows)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_scenes_that_cannot_be_rebuilt_are_one_line(lane_change, environments):
    later = np.arange(len(lane_change)) != 3
    assert "transitions were taken out of its episodes" in refusal(lane_change.take(later))
    unknown = dataclasses.replace(lane_change, seeds=np.full(5, NO_SEED))
    assert "does not know the seeds" in refusal(unknown)
    moved = dataclasses.replace(lane_change, seeds=lane_change.seeds + 1)
    assert "driven again from seed 41, differs at step 0 from what is stored" in refusal(moved)
    labels, _ = labelled(lane_change, "rule", np.array([0]))
    assert "holds labels already" in refusal(labels)
    pole = collect(environments["gym:CartPole-v1"], policies("gym:CartPole-v1"), Plan(seed=0, steps=5)).dataset
    assert "needs driving scenes, which scenario 'gym:CartPole-v1' does not offer" in refusal(
        dataclasses.replace(pole), "rule"
    )


def test_an_action_that_was_changed_is_found(lane_change):
    """The replay compares each observation with the stored one, so another action shows one step later."""
    actions = lane_change.actions.copy()
    row = int(np.flatnonzero(lane_change.legal[:, 3] & (actions != 3) & ~lane_change.lasts)[0])
    actions[row] = 3
    words = refusal(dataclasses.replace(lane_change, actions=actions))
    assert f"differs at step {lane_change.steps[row] + 1} " in words


def test_what_was_joined_can_be_labelled(environments):
    envs = environments["lane-change"]
    parts = [collect(envs, [p], Plan(seed=60, steps=30)).dataset for p in policies("lane-change")]
    joined = concatenate(parts)
    found, _ = labelled(joined, "rule", np.arange(60))
    assert (found.labels.actions[:30] == joined.actions[:30]).all()
    assert joined.about.origins == ("rule", "random")
