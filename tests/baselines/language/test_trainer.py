"""One loop for all arms: the same seed gives the same bits, a resumed run too, and every token is on the books."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.language.arms import ARMS, get, make_trainer
from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig
from baselines.language.rivals import uncertain_words
from baselines.language.rollout import Ledger, Source
from baselines.language.sft import SFTConfig, imitate
from experts.language.gpt import GPTConfig, new
from sim.errors import UsageError
from tests.baselines.text_task import KeyTask, KeyTeacher

torch.set_num_threads(1)
TASK = KeyTask(keys=4, length=3, symbols=3)
CONFIG = GRPOConfig(num_generations=4, prompts_per_update=3, max_completion_length=8, learning_rate=2e-3)

FORM = SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def formed():
    """A student that knows the form of answers and no key."""
    model = TASK.model()
    imitate(model, TASK, TASK.of_form(256), dataclasses.replace(FORM, hint_share=0.5), 0)
    return model


def trainer(model, arm="grpo", seed=0, config=CONFIG, task=TASK, **options):
    return make_trainer(task, model.copy(), get(arm), options, config, seed, KeyTeacher(task), Ledger())


def weights(run) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.rl])
def test_every_arm_repeats_itself_to_the_bit_and_goes_on_where_it_was_saved(formed, arm, tmp_path):
    first, second, resumed = (trainer(formed, arm) for _ in range(3))
    first.train(4)
    second.train(2)
    second.save(tmp_path / "checkpoint")
    resumed.restore(tmp_path / "checkpoint")
    resumed.train(4)
    assert resumed.rows == first.rows
    assert same(weights(resumed), weights(first))
    assert not same(weights(first), formed.state_dict())
    assert not same(weights(first), weights(trainer(formed, arm, seed=1)))


@pytest.mark.parametrize("changes", [{"beta": 0.1}, {"num_iterations": 2}, {"steps_per_generation": 3}])
def test_runs_with_a_reference_or_several_steps_resume_to_the_bit_as_well(formed, changes, tmp_path):
    config = dataclasses.replace(CONFIG, **changes)
    first, second, resumed = (trainer(formed, config=config) for _ in range(3))
    first.train(3)
    second.train(1)
    second.save(tmp_path / "checkpoint")
    resumed.restore(tmp_path / "checkpoint")
    resumed.train(3)
    assert resumed.rows == first.rows
    assert same(weights(resumed), weights(first))


def test_a_checkpoint_of_another_run_is_refused(formed, tmp_path):
    trainer(formed, "bread").save(tmp_path / "checkpoint")
    for other in (trainer(formed), trainer(formed, "bread", seed=1), trainer(formed, "bread", low=0.5)):
        with pytest.raises(UsageError, match=r"is of another run: its (arm|seed|options\.low) is"):
            other.restore(tmp_path / "checkpoint")
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(UsageError, match="is not a checkpoint"):
        trainer(formed).restore(tmp_path / "nonsense")


class Unsolvable(KeyTask):
    """Every answer is worth nothing."""

    def _reward(self, key, answer):
        return dataclasses.replace(super()._reward(key, answer), total=0.0, success=False)


def test_an_update_without_any_advantage_changes_nothing(formed):
    run = trainer(formed, task=Unsolvable(keys=4, length=3, symbols=3))
    row = run.step()
    assert row["zero_advantage_share"] == 1.0
    assert row["steps"] == 0
    assert same(weights(run), formed.state_dict())


def test_completions_without_an_advantage_count_in_the_mean_but_need_not_be_computed(formed, monkeypatch):
    """Leaving rows of advantage 0 out gives the gradient that they would have given."""
    config = dataclasses.replace(CONFIG, beta=0.0)
    lean, full = trainer(formed, config=config), trainer(formed, config=config)
    monkeypatch.setattr(full.strategy, "learns_from_ties", True, raising=False)
    lean.step()
    full.step()
    for name, weight in weights(lean).items():
        torch.testing.assert_close(weight, weights(full)[name], atol=1e-6, rtol=1e-4)


def test_every_prompt_comes_once_before_any_comes_again(formed):
    run = trainer(formed, config=dataclasses.replace(CONFIG, prompts_per_update=2))
    for _ in range(3):
        keys = []
        for _ in range(2):
            run.step()
            keys += [rollout.prompt.key for rollout in run.rollouts[:: CONFIG.num_generations]]
        assert sorted(keys) == ["0", "1", "2", "3"]


def test_the_books_agree_with_what_was_written(formed):
    run = trainer(formed)
    written = 0
    for _ in range(3):
        run.step()
        written += sum(len(rollout.tokens) for rollout in run.rollouts)
    ledger = run.desk.ledger
    assert (ledger.student, ledger.search, ledger.teacher, ledger.trace) == (written, 0, 0, 0)
    assert run.rows[-1]["generated_tokens"] == written


def test_training_ends_when_its_tokens_are_spent(formed):
    run = trainer(formed, "mentor")
    run.train(1000, max_tokens=1500)
    assert run.rows[-2]["generated_tokens"] < 1500 <= run.rows[-1]["generated_tokens"]


def test_imitation_fits_the_traces_and_nothing_but_the_answers():
    model, ledger = TASK.model(), Ledger()
    config = SFTConfig(num_train_epochs=40, learning_rate=3e-3)
    rows = imitate(model, TASK, TASK.prompts("train") * 8, config, 0, ledger)
    assert rows[-1]["loss"] < 0.1 < rows[0]["loss"]
    assert ledger.trace == 40 * 8 * sum(len(prompt.trace.tokens) for prompt in TASK.prompts("train"))
    found = evaluate(model, TASK, TASK.prompts("test"), CONFIG, samples=4)
    assert found.success().all()
    assert found.to_dict((1, 4))["pass_at_4"] > 0.9


def test_imitation_repeats_itself_to_the_bit():
    models = [TASK.model() for _ in range(2)]
    for model in models:
        imitate(model, TASK, TASK.of_form(32), SFTConfig(num_train_epochs=2, hint_share=0.3), 7)
    assert same(models[0].state_dict(), models[1].state_dict())


def test_reinforcement_learning_finds_what_chance_finds_often_enough():
    task = KeyTask(keys=1, length=2, symbols=3, seed=1)
    model = task.model()
    imitate(model, task, task.of_form(128), FORM, 0)
    config = dataclasses.replace(CONFIG, num_generations=8, prompts_per_update=1, max_completion_length=6)
    run = trainer(model, config=config, task=task)
    assert evaluate(model, task, task.prompts("test"), config, 64).pass_at(1) < 0.3
    run.train(50)
    assert evaluate(run.model, task, task.prompts("test"), config, 64).pass_at(1) > 0.9


def test_pass_at_k_is_the_share_of_draws_of_k_that_hold_a_success(formed):
    found = evaluate(formed, TASK, TASK.prompts("test"), CONFIG, samples=12, seed=3)
    stream = np.random.default_rng(0)
    for k in (1, 3, 12):
        for exact, rewards in zip(found.pass_at(k), found.sampled, strict=True):
            hits = np.array([reward.success for reward in rewards])
            drawn = np.mean([stream.permutation(hits)[:k].any() for _ in range(2000)])
            assert exact == pytest.approx(drawn, abs=0.05)
    with pytest.raises(ValueError, match="at least 13"):
        found.pass_at(13)


def test_model_task_and_teacher_must_speak_one_vocabulary(formed):
    with pytest.raises(UsageError, match="make one with vocab_size"):
        trainer(new(GPTConfig(5), 0))
    other = KeyTask(keys=3)
    with pytest.raises(UsageError, match="only a teacher of the same vocabulary"):
        make_trainer(TASK, formed, get("mentor"), {}, CONFIG, 0, KeyTeacher(other))
    with pytest.raises(UsageError, match="needs a teacher"):
        make_trainer(TASK, formed, get("mentor-random"), {}, CONFIG, 0)
    with pytest.raises(UsageError, match="did you mean 'mentor'"):
        get("mentr")


# --- what rivals do with traces and teachers -------------------------------------------------------------------------


def test_a_whole_trace_takes_the_place_of_one_own_answer_where_there_is_one(formed):
    task = KeyTask(keys=4, length=3, symbols=3, traced=2)
    run = trainer(formed, "whole-trace", task=task, config=dataclasses.replace(CONFIG, prompts_per_update=4))
    run.step()
    for prompt in task.prompts("train"):
        group = [rollout for rollout in run.rollouts if rollout.prompt.key == prompt.key]
        traces = [rollout for rollout in group if rollout.source is Source.EXPERT]
        assert len(group) == CONFIG.num_generations
        assert [rollout.tokens for rollout in traces] == ([prompt.trace.tokens] if prompt.trace else [])
        assert all(rollout.shaping == 0.1 for rollout in traces)
    assert run.desk.ledger.trace == 2 * 6


@pytest.mark.parametrize("mode", ["prefix", "hint"])
def test_a_fixed_prefix_gives_the_same_share_away_every_time(formed, mode):
    run = trainer(formed, "fixed-prefix", share=0.67, anchor_mode=mode)
    run.step()
    for rollout in run.rollouts:
        shown = rollout.prompt.trace.opening(2)
        assert rollout.opening == (shown if mode == "prefix" else ())
        assert rollout.answer[: len(rollout.opening)] == rollout.opening
        assert mode == "prefix" or rollout.context == TASK.hinted(rollout.prompt, shown)


def test_a_hybrid_group_has_one_answer_with_an_opening_that_shortens(formed):
    run = trainer(formed, "prefix-rft", horizon=4, learned=0.5)
    lengths = []
    for _ in range(4):
        run.step()
        hybrids = [rollout for rollout in run.rollouts if rollout.opening]
        assert len(hybrids) in (0, CONFIG.prompts_per_update)
        for rollout in hybrids:
            assert rollout.learned_opening.sum() == round(0.5 * len(rollout.opening))
        lengths.append(np.mean([len(rollout.opening) for rollout in hybrids]) if hybrids else 0)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_the_learned_words_of_an_opening_are_those_that_the_student_is_least_sure_of(formed):
    run = trainer(formed, "fixed-prefix", share=0.67)
    run.step()
    rollout, formed_desk = run.rollouts[0], trainer(formed).desk
    with torch.no_grad():
        policies = torch.log_softmax(formed(torch.tensor([rollout.context]))[0], dim=-1)
    entropies = -(policies.exp() * policies).sum(dim=-1)[len(rollout.prompt.tokens) - 1 :][: len(rollout.opening)]
    for share, count in ((0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)):
        mask = uncertain_words(formed, rollout, share, formed_desk)
        assert mask.sum() == count
        assert set(np.flatnonzero(mask)) == set(entropies.argsort(descending=True)[:count].tolist())


def test_distillation_follows_the_teacher_without_any_reward(formed):
    run = trainer(formed, "distillation", task=TASK)
    run.train(40)
    assert evaluate(run.model, TASK, TASK.prompts("test"), CONFIG, 1).success().mean() > 0.7
    assert run.desk.ledger.teacher == run.desk.ledger.student > 0
