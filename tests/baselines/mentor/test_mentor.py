"""MENTOR-style training adds mixed answers beside GRPO's own, and without them it is GRPO."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.language.arms import get, make_trainer
from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig, group_advantages
from baselines.language.rollout import Source
from baselines.language.sft import SFTConfig, imitate
from baselines.mentor.strategy import MENTORConfig
from tests.baselines.text_task import KeyTask, KeyTeacher

torch.set_num_threads(1)
TASK = KeyTask(keys=3, length=4, symbols=4)
CONFIG = GRPOConfig(num_generations=6, prompts_per_update=3, max_completion_length=10, learning_rate=2e-3)


@pytest.fixture(scope="module")
def formed():
    model = TASK.model()
    imitate(model, TASK, TASK.of_form(256), SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=3e-3), 0)
    return model


def trainer(model, arm="mentor", teacher=None, config=CONFIG, seed=0, **options):
    teacher = teacher or KeyTeacher(TASK)
    return make_trainer(TASK, model.copy(), get(arm), options, config, seed, teacher)


def mixed(run):
    return [rollout for rollout in run.rollouts if rollout.source is Source.MIXED]


def assert_same(a, b):
    for name, weight in a.model.state_dict().items():
        assert torch.equal(weight, b.model.state_dict()[name])


def test_without_mixed_answers_it_is_grpo_to_the_bit(formed):
    none, grpo = trainer(formed, num_mixed=0), trainer(formed, "grpo")
    none.train(4)
    grpo.train(4)
    assert_same(none, grpo)
    for row, plain in zip(none.rows, grpo.rows, strict=True):
        assert {name: row[name] for name in plain} == plain


def test_when_the_teacher_has_faded_out_it_is_grpo_to_the_bit_and_nobody_asks_it(formed):
    """A horizon of one update: the teacher has no part in any."""
    teacher = KeyTeacher(TASK)
    faded, grpo = trainer(formed, teacher=teacher, horizon=1), trainer(formed, "grpo")
    faded.train(4)
    grpo.train(4)
    assert_same(faded, grpo)
    assert teacher.calls == 0
    assert faded.desk.ledger == grpo.desk.ledger


def test_the_first_update_is_the_students_alone(formed):
    teacher = KeyTeacher(TASK)
    run = trainer(formed, teacher=teacher)
    row = run.step()
    assert (teacher.calls, row["weight"], row["taught_share"], row["teacher_tokens"]) == (0, 0.0, 0.0, 0)
    assert row["threshold"] is None
    run.step()
    assert teacher.calls > 0


def test_the_threshold_comes_from_the_on_policy_words_of_the_update_before(formed):
    run = trainer(formed, quantile=0.6, floor=0.1, num_mixed=8, fade=False)
    differs = []
    for _ in range(3):
        run.step()
        own, everyone = (
            np.concatenate([r.entropies for r in run.rollouts if r.source in sources])
            for sources in ([Source.STUDENT], list(Source))
        )
        threshold = float(np.quantile(own, 0.6))
        assert run.step()["threshold"] == pytest.approx(max(threshold, 0.1))
        differs.append(threshold != pytest.approx(float(np.quantile(everyone, 0.6))))
    assert any(differs)
    low = trainer(formed, quantile=0.9, floor=50.0)
    assert [low.step()["threshold"] for _ in range(3)][1:] == [50.0, 50.0]


def test_each_prompt_has_its_own_answers_first_and_then_the_mixed_ones(formed):
    run = trainer(formed, num_mixed=2)
    run.step()
    sources = [rollout.source for rollout in run.rollouts]
    assert sources == ([Source.STUDENT] * 6 + [Source.MIXED] * 2) * 3


def test_advantages_of_own_answers_ignore_the_mixed_ones_and_those_of_mixed_ones_are_gains(formed):
    run = trainer(formed, num_mixed=3, fade=False)
    run.train(3)
    for seed in range(20):  # made-up rewards, so that every case occurs
        stream = np.random.default_rng(seed)
        groups = run.strategy.collect(TASK.prompts("train"), run.desk)
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
    run = trainer(formed, fade=False)
    run.train(3)
    seen = []
    monkeypatch.setattr(run.strategy, "extra_loss", lambda rollouts, batch, _: seen.append((rollouts, batch)))
    run.step()
    rollouts, batch = seen[0]
    helped = [i for i, r in enumerate(rollouts) if r.source is Source.MIXED and r.taught.any()]
    assert helped
    for i in helped:
        assert batch.learned[i].sum() == len(rollouts[i].tokens)
        assert batch.shaping[i] == 0
        assert batch.advantages[i] > 0


def test_the_books_hold_what_was_drafted_and_what_the_teacher_read(formed):
    run = trainer(formed)
    run.step()
    before = dataclasses.replace(run.desk.ledger)
    run.step()
    own = sum(len(r.tokens) for r in run.rollouts if r.source is Source.STUDENT)
    helped = sum(len(r.tokens) for r in mixed(run))
    taught = sum(int(r.taught.sum()) for r in mixed(run))
    drafted = run.desk.ledger.student - before.student - own
    assert drafted >= helped - taught
    assert run.desk.ledger.teacher - before.teacher >= helped - taught
    assert 0 < run.rows[-1]["taught_share"] < 1
    assert 0 < run.rows[-1]["acceptance"] < 1


@pytest.mark.parametrize("weights", ["random", "constant"])
def test_controls_give_the_teacher_as_much_weight_as_the_rule_would_have(formed, weights):
    sure = KeyTeacher(TASK, doubt=1e-4)  # never leaves the form, beyond which it would have no opinion, hence no weight
    run = trainer(formed, f"mentor-{weights}", sure, fade=False, num_mixed=40)
    run.step()
    rule = run.strategy._pool.mean()
    assert run.step()["weight"] == pytest.approx(rule, abs=0.03)


def test_it_learns_where_grpo_learns_nothing(formed):
    runs = {}
    for arm in ("mentor", "grpo"):
        runs[arm] = trainer(formed, arm)
        runs[arm].train(60)
    test = TASK.prompts("test")
    assert evaluate(runs["grpo"].model, TASK, test, CONFIG, 16).pass_at(1).mean() < 0.05
    assert evaluate(runs["mentor"].model, TASK, test, CONFIG, 16).pass_at(1).mean() > 0.5
    assert mixed(runs["mentor"])


@pytest.mark.parametrize("wrong", [{"quantile": 1.0}, {"num_mixed": -1}, {"draft": 0}, {"floor": -0.1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MENTORConfig(**wrong)
