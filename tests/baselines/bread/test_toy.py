"""The chain: exact where it can be, and BREAD's claims on it at the sizes that a few seconds allow."""

import numpy as np
import pytest

from baselines.bread import toy
from baselines.bread.toy import Chain, ToyConfig, train
from sim.errors import UsageError

SEEDS = range(3)


def chain(level: int = 5, seed: int = 0) -> Chain:
    made = Chain(level, 3, np.random.default_rng(seed))
    made.logits = np.random.default_rng(seed + 1).normal(size=made.logits.shape)
    return made


def test_an_untrained_student_succeeds_once_in_moves_to_the_length():
    assert Chain(6, 3, np.random.default_rng(0)).success() == pytest.approx(3.0**-6)


def test_tries_succeed_as_often_as_the_exact_probability_says():
    env = chain()
    made = env.tries(2, 200_000, np.random.default_rng(3))
    assert env.rewards(made).mean() == pytest.approx(env.success(2), abs=5 * 0.5 / np.sqrt(200_000))
    assert (made[:2] == -1).all()


def test_the_gradient_is_the_one_of_the_log_likelihood():
    """Against finite differences of sum over visited states of weight x log-probability."""
    env, step = chain(), 1e-6
    made = env.tries(0, 6, np.random.default_rng(1))
    weights = np.random.default_rng(2).normal(size=6)

    def value() -> float:
        log_policy = np.log(env.policy())
        return sum(weights[g] * log_policy[s, made[s, g]] for s in range(5) for g in range(6) if made[s, g] >= 0) / len(
            weights
        )

    gradient = env.gradient(made, weights)
    for s, a in np.ndindex(env.logits.shape):
        before = value()
        env.logits[s, a] += step
        assert gradient[s, a] == pytest.approx((value() - before) / step, abs=1e-4)
        env.logits[s, a] -= step


def test_steps_that_the_student_cannot_express_teach_it_nothing_to_the_bit():
    env = chain()
    before = env.logits.copy()
    env.imitate(stride=2, steps=50, learning_rate=2.0)
    expressible = np.arange(5) == 4  # the last step of an odd chain is a single one
    assert np.array_equal(env.logits[~expressible], before[~expressible])
    even = chain(6)
    before = even.logits.copy()
    even.imitate(stride=2, steps=50, learning_rate=2.0)
    assert np.array_equal(even.logits, before)


def test_steps_that_it_can_express_are_learned_at_once():
    assert train("sft-grpo", 16, 0, ToyConfig(stride=1)).updates == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_imitation_first_does_not_help_grpo(seed):
    plain, warm = (train(arm, 6, seed) for arm in ("grpo", "sft-grpo"))
    assert (plain.updates, plain.samples, plain.success) == (warm.updates, warm.samples, warm.success)


def test_on_a_chain_of_eight_bread_needs_a_tenth_of_the_updates():
    """In the median: how long GRPO waits for its first success, hence a single seed's ratio, is a matter of luck."""
    bread, grpo = ([train(arm, 8, seed) for seed in range(9)] for arm in ("bread", "grpo"))
    assert all(one.solved and one.updates <= 40 and one.samples <= 600 for one in bread)
    assert np.median([one.updates for one in grpo]) >= 10 * np.median([one.updates for one in bread])


@pytest.mark.parametrize("seed", SEEDS)
def test_on_a_chain_of_sixteen_grpo_learns_nothing_and_bread_everything(seed):
    assert train("grpo", 16, seed, ToyConfig(cap=1000)).success < 1e-3
    bread = train("bread", 16, seed, ToyConfig(cap=120))
    assert bread.success > 0.9
    quarters = [np.mean(part) for part in np.array_split(bread.starts, 4)]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[0] > 8
    assert quarters[-1] == 0


def test_a_group_that_starts_at_an_anchor_moves_nothing_before_it():
    env = chain(8)
    made = env.tries(4, 8, np.random.default_rng(0))
    assert not env.gradient(made, np.random.default_rng(1).normal(size=8))[:4].any()


def test_samples_grow_like_a_low_power_of_the_length():
    means = [np.mean([train("bread", level, seed).samples for seed in SEEDS]) for level in (8, 16, 32)]
    assert np.polyfit(np.log([8, 16, 32]), np.log(means), 1)[0] < 2.5


def test_the_table_has_a_row_for_every_arm_and_length_and_says_what_was_cut_off():
    config = ToyConfig(cap=60)
    result = toy.run([4, 12], seeds=6, arms=["grpo", "bread"], config=config)
    assert [(cell.arm, cell.level, cell.solved) for cell in result.cells][1:] == [
        ("grpo", 12, 0),
        ("bread", 4, 6),
        ("bread", 12, result.cells[3].solved),
    ]
    lines = toy.table(result, config).splitlines()
    assert "≥ 60 [60, 60] | ≥ 480 [480, 480]" in lines[3]
    assert result.to_dict()["cells"][3]["samples"]["median"] > 0


@pytest.mark.parametrize("wrong", [{"seeds": 3}, {"levels": [1]}, {"arms": ["bred"]}])
def test_what_cannot_be_run_is_refused(wrong):
    with pytest.raises(UsageError, match=r"choose at least|choose lengths of at least|did you mean 'bread'"):
        toy.run(**wrong)


@pytest.mark.slow
def test_over_twenty_seeds_bread_solves_every_length_and_grpo_none_from_twelve_on():
    result = toy.run()
    solved = {(cell.arm, cell.level): cell.solved for cell in result.cells}
    assert all(solved["bread", level] == 20 for level in toy.LEVELS)
    assert all(solved["grpo", level] <= 2 for level in toy.LEVELS if level >= 12)
    assert all(
        (a.updates, a.samples) == (b.updates, b.samples)
        for a, b in zip(
            [o for o in result.outcomes if o.arm == "grpo"],
            [o for o in result.outcomes if o.arm == "sft-grpo"],
            strict=True,
        )
    )
    assert result.slopes["bread ln samples / ln L"][2] < 2.0
    assert result.slopes["grpo ln samples / L"][1] > 0.5
