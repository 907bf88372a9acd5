"""MENTOR-style training adds mixed answers beside GRPO's own, and without them it is GRPO."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig, group_advantages
from baselines.language.rollout import Author
from baselines.language.sft import SFTConfig, imitate
from baselines.mentor.strategy import MENTORConfig
from tests.baselines.text_task import KeyTask, KeyTeacher, step, token_loop, train

torch.set_num_threads(1)
TASK = KeyTask(keys=3, length=4, symbols=4)
CONFIG = GRPOConfig(num_generations=6, prompts_per_update=3, max_completion_length=10, learning_rate=2e-3)


@pytest.fixture(scope="module")
def formed():
    model = TASK.model()
    imitate(model, TASK, TASK.of_form(256), SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=3e-3), 0)
    return model


def loop(model, strategy="mentor", teacher=None, config=CONFIG, seed=0, **own):
    return token_loop(TASK, model, strategy, config, seed, teacher or KeyTeacher(TASK), **own)


def mixed(run):
    return [rollout for rollout in run.rollouts if rollout.author is Author.MIXED]


def assert_same(a, b):
    for name, weight in a.model.state_dict().items():
        assert torch.equal(weight, b.model.state_dict()[name])


def test_without_mixed_answers_it_is_grpo_to_the_bit(formed):
    none, grpo = loop(formed, num_mixed=0), loop(formed, "grpo")
    rows = zip(train(none, 4), train(grpo, 4), strict=True)
    assert_same(none, grpo)
    for row, plain in rows:
        assert {name: row[name] for name in plain} == plain


def test_when_the_teacher_has_faded_out_it_is_grpo_to_the_bit_and_is_not_asked(formed):
    """A horizon of one update: the teacher has no part in any."""
    teacher = KeyTeacher(TASK)
    faded, grpo = loop(formed, teacher=teacher, horizon=1), loop(formed, "grpo")
    train(faded, 4)
    train(grpo, 4)
    assert_same(faded, grpo)
    assert teacher.calls == 0
    assert faded.ledger == grpo.ledger


def test_the_first_update_is_the_students_alone(formed):
    teacher = KeyTeacher(TASK)
    run = loop(formed, teacher=teacher)
    row = step(run)
    assert (teacher.calls, row["guidance/weight"], row["guidance/taught_share"], row["expert/teacher_tokens"]) == (
        0,
        0.0,
        0.0,
        0,
    )
    assert row["guidance/threshold"] is None
    step(run)
    assert teacher.calls > 0


def test_the_threshold_comes_from_the_on_policy_words_of_the_update_before(formed):
    run = loop(formed, quantile=0.6, floor=0.1, num_mixed=8, fade=False)
    differs = []
    for _ in range(3):
        step(run)
        own, all_words = (
            np.concatenate([r.entropies for r in run.rollouts if r.author in authors])
            for authors in ([Author.STUDENT], list(Author))
        )
        threshold = float(np.quantile(own, 0.6))
        assert step(run)["guidance/threshold"] == pytest.approx(max(threshold, 0.1))
        differs.append(threshold != pytest.approx(float(np.quantile(all_words, 0.6))))
    assert any(differs)
    low = loop(formed, quantile=0.9, floor=50.0)
    assert [step(low)["guidance/threshold"] for _ in range(3)][1:] == [50.0, 50.0]


def test_each_prompt_has_its_own_answers_first_and_then_the_mixed_ones(formed):
    run = loop(formed, num_mixed=2)
    step(run)
    authors = [rollout.author for rollout in run.rollouts]
    assert authors == ([Author.STUDENT] * 6 + [Author.MIXED] * 2) * 3


def test_advantages_of_own_answers_ignore_the_mixed_ones_and_those_of_mixed_ones_are_gains(formed):
    run = loop(formed, num_mixed=3, fade=False)
    train(run, 3)
    for seed in range(20):  # made-up rewards, so that every case occurs
        stream = np.random.default_rng(seed)
        groups = run.strategy.collect(TASK.prompts("train"), run.sampler)
        for group in groups:
            group.rollouts = [
                dataclasses.replace(r, reward=dataclasses.replace(r.reward, total=float(stream.integers(0, 3)) / 2))
                for r in group.rollouts
            ]
        for group, a in zip(groups, run.strategy.advantages(groups, CONFIG), strict=True):
            own = np.array([r.reward.total for r in group.rollouts[:6]])
            gains = np.array([r.reward.total for r in group.rollouts[6:]]) - own.mean()
            np.testing.assert_array_equal(a[:6], group_advantages([own])[0])
            np.testing.assert_allclose(a[6:], np.maximum(gains, 0.0), atol=1e-12)


def test_a_word_of_the_teacher_is_credited_as_if_the_student_had_drawn_it(formed, monkeypatch):
    """At the first step the ratio is 1 on mixed answers too: their gradient is the policy gradient of all their words,
    with no correction towards the mixture they were drawn from."""
    run = loop(formed, fade=False)
    train(run, 3)
    seen = []
    monkeypatch.setattr(run.strategy, "extra_loss", lambda rollouts, batch, _: seen.append((rollouts, batch)))
    step(run)
    rollouts, batch = seen[0]
    helped = [i for i, r in enumerate(rollouts) if r.author is Author.MIXED and r.taught.any()]
    assert helped
    for i in helped:
        assert batch.learned[i].sum() == len(rollouts[i].tokens)
        assert batch.shaping[i] == 0
        assert batch.advantages[i] > 0


def test_the_ledger_holds_what_was_drafted_and_what_the_teacher_read(formed):
    run = loop(formed)
    step(run)
    before = dataclasses.replace(run.ledger)
    row = step(run)
    own = sum(len(r.tokens) for r in run.rollouts if r.author is Author.STUDENT)
    helped = sum(len(r.tokens) for r in mixed(run))
    taught = sum(int(r.taught.sum()) for r in mixed(run))
    drafted = run.ledger.student - before.student - own
    assert drafted >= helped - taught
    assert run.ledger.teacher - before.teacher >= helped - taught
    assert 0 < row["guidance/taught_share"] < 1
    assert 0 < row["guidance/acceptance"] < 1


@pytest.mark.parametrize("weights", ["random", "constant"])
def test_controls_give_the_teacher_as_much_weight_as_the_rule_would_have(formed, weights):
    sure = KeyTeacher(TASK, doubt=1e-4)  # never leaves the form, beyond which it would have no opinion, hence no weight
    run = loop(formed, "mentor", sure, weights=weights, fade=False, num_mixed=40)
    step(run)
    rule = run.strategy._pool.mean()
    assert step(run)["guidance/weight"] == pytest.approx(rule, abs=0.03)


def test_it_learns_where_grpo_learns_nothing(formed):
    runs = {}
    for strategy in ("mentor", "grpo"):
        runs[strategy] = loop(formed, strategy)
        train(runs[strategy], 60)
    test = TASK.prompts("test")
    assert evaluate(runs["grpo"].model, TASK, test, CONFIG, 16).pass_at(1).mean() < 0.05
    assert evaluate(runs["mentor"].model, TASK, test, CONFIG, 16).pass_at(1).mean() > 0.5
    assert mixed(runs["mentor"])


@pytest.mark.parametrize("wrong", [{"quantile": 1.0}, {"num_mixed": -1}, {"draft": 0}, {"floor": -0.1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MENTORConfig(**wrong)
