"""One loop for all methods: the same seed gives the same bits, a resumed run too, and every token is counted."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig
from baselines.language.method import language_method
from baselines.language.plain import SFT, SFT_GRPO
from baselines.language.rivals import uncertain_words
from baselines.language.rollout import Author, Ledger
from baselines.language.sft import SFTConfig, imitate
from experts.language.gpt import GPTConfig, new
from sim.config import resolve
from sim.errors import UsageError
from tests.baselines.text_task import KeyTask, KeyTeacher, step, through_a_file, token_loop, train

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


VARIANTS = {
    "grpo": {},
    "sft-grpo": {},
    "whole-trace": {},
    "fixed-prefix": {},
    "prefix-rft": {},
    "distillation": {},
    "bread": {},
    "bread, hints in the prompt": {"anchor_mode": "hint"},
    "bread, linear search": {"search": "linear"},
    "bread, random hints": {"search": "random"},
    "mentor": {},
    "mentor, random words": {"weights": "random"},
    "mentor, constant weight": {"weights": "constant"},
    "mentor, never faded": {"fade": False},
}
"""All methods with updates, and their ablations."""


def loop(model, strategy="grpo", seed=0, config=CONFIG, task=TASK, tokens=None, **own):
    return token_loop(task, model, strategy, config, seed, KeyTeacher(task), tokens, **own)


def weights(run) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_repeats_itself_to_the_bit_and_goes_on_where_it_was_saved(formed, name):
    strategy, own = name.split(",")[0], VARIANTS[name]
    first, second, resumed = (loop(formed, strategy, **own) for _ in range(3))
    rows = train(first, 4)
    assert train(second, 2) == rows[:2]
    resumed.load_state_dict(through_a_file(second.state_dict()))
    assert train(resumed, 4) == rows[2:]
    assert same(weights(resumed), weights(first))
    assert not same(weights(first), formed.state_dict())
    assert not same(weights(first), weights(loop(formed, strategy, seed=1, **own)))


@pytest.mark.parametrize("changes", [{"beta": 0.1}, {"num_iterations": 2}, {"steps_per_generation": 3}])
def test_runs_with_a_reference_or_several_steps_resume_to_the_bit_as_well(formed, changes):
    config = dataclasses.replace(CONFIG, **changes)
    first, second, resumed = (loop(formed, config=config) for _ in range(3))
    rows = train(first, 3)
    train(second, 1)
    resumed.load_state_dict(through_a_file(second.state_dict()))
    assert train(resumed, 3) == rows[1:]
    assert same(weights(resumed), weights(first))


def test_a_row_of_several_updates_holds_their_means_and_the_tokens_so_far(formed):
    single, joint = loop(formed), loop(formed)
    rows = train(single, 3)
    joint.advance(2)
    resumed = loop(formed)
    resumed.load_state_dict(through_a_file(joint.state_dict()))
    resumed.advance(1)
    row = resumed.row()
    assert row["rollout/success"] == pytest.approx(np.mean([each["rollout/success"] for each in rows]))
    for name in ("rollout/generated_tokens", "train/updates"):
        assert row[name] == rows[-1][name]
    assert resumed.row().keys().isdisjoint({"rollout/success"})


def test_imitation_alone_is_spread_over_the_updates_and_resumes_to_the_bit():
    options = resolve(SFT.defaults, {"sft": {"num_train_epochs": 4}})
    first, second, resumed = (SFT.loop(TASK, TASK.model(), options, 0, 100) for _ in range(3))
    for each in (first, second, resumed):
        each.begin()
    while first.progress < 100:
        first.advance(1)
    second.advance(30)
    assert (second.imitation.epoch, second.progress) == (2, 50)
    resumed.load_state_dict(through_a_file(second.state_dict()))
    resumed.advance(50)
    assert same(weights(resumed), weights(first))
    assert resumed.row() == first.row()
    plain = TASK.model()
    imitate(plain, TASK, TASK.prompts("train"), options.sft, 0)
    assert same(weights(first), plain.state_dict())


def test_other_methods_begin_where_imitation_ends():
    """Their common start is the run of `sft`, to the bit."""
    imitated = SFT.loop(TASK, TASK.model(), SFT.defaults, 0, 1)
    imitated.advance(1)
    begun = SFT_GRPO.loop(TASK, TASK.model(), SFT_GRPO.defaults, 0, 1)
    begun.begin()
    assert same(weights(begun), weights(imitated))
    assert begun.ledger == imitated.ledger
    assert begun.labels == imitated.labels > 0


class Unsolvable(KeyTask):
    """Every answer is worth nothing."""

    def _reward(self, key, answer):
        return dataclasses.replace(super()._reward(key, answer), total=0.0, success=False)


def test_an_update_without_any_advantage_changes_nothing(formed):
    run = loop(formed, task=Unsolvable(keys=4, length=3, symbols=3))
    row = step(run)
    assert row["rollout/zero_advantage_share"] == 1.0
    assert row["train/steps"] == 0
    assert same(weights(run), formed.state_dict())


def test_completions_without_an_advantage_count_in_the_mean_but_need_not_be_computed(formed, monkeypatch):
    """Leaving rows of advantage 0 out gives the gradient that they would have given."""
    config = dataclasses.replace(CONFIG, beta=0.0)
    lean, full = loop(formed, config=config), loop(formed, config=config)
    monkeypatch.setattr(full.strategy, "learns_from_ties", True, raising=False)
    step(lean)
    step(full)
    for name, weight in weights(lean).items():
        torch.testing.assert_close(weight, weights(full)[name], atol=1e-6, rtol=1e-4)


def test_every_prompt_comes_once_before_any_comes_again(formed):
    run = loop(formed, config=dataclasses.replace(CONFIG, prompts_per_update=2))
    for _ in range(3):
        keys = []
        for _ in range(2):
            step(run)
            keys += [rollout.prompt.key for rollout in run.rollouts[:: CONFIG.num_generations]]
        assert sorted(keys) == ["0", "1", "2", "3"]


def test_the_ledger_agrees_with_what_was_written(formed):
    run = loop(formed)
    written = 0
    for _ in range(3):
        row = step(run)
        written += sum(len(rollout.tokens) for rollout in run.rollouts)
    ledger = run.ledger
    assert (ledger.student, ledger.search, ledger.teacher, ledger.trace) == (written, 0, 0, 0)
    assert row["rollout/generated_tokens"] == written


def test_training_ends_when_its_tokens_are_spent(formed):
    run = loop(formed, "mentor", tokens=1500)
    rows = train(run)
    assert rows[-2]["rollout/generated_tokens"] < 1500 <= rows[-1]["rollout/generated_tokens"]
    assert run.progress == run.total > run.updates == rows[-1]["train/updates"]


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
    run = loop(model, config=config, task=task)
    assert evaluate(model, task, task.prompts("test"), config, 64).pass_at(1) < 0.3
    train(run, 50)
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


def test_model_task_and_teacher_must_have_one_vocabulary(formed):
    with pytest.raises(UsageError, match="make one with vocab_size"):
        loop(new(GPTConfig(5), 0))
    other = KeyTask(keys=3)
    with pytest.raises(UsageError, match="only a teacher of the same vocabulary"):
        token_loop(TASK, formed, "mentor", CONFIG, teacher=KeyTeacher(other))
    with pytest.raises(UsageError, match="needs a teacher"):
        token_loop(TASK, formed, "mentor", CONFIG)
    with pytest.raises(UsageError, match="did you mean 'mentor'"):
        language_method("mentr")
    with pytest.raises(UsageError, match="does not train a language model"):
        language_method("sac")


# --- what rivals do with traces and teachers -------------------------------------------------------------------------


def test_a_whole_trace_takes_the_place_of_one_own_answer_where_there_is_one(formed):
    task = KeyTask(keys=4, length=3, symbols=3, traced=2)
    run = loop(formed, "whole-trace", task=task, config=dataclasses.replace(CONFIG, prompts_per_update=4))
    step(run)
    for prompt in task.prompts("train"):
        group = [rollout for rollout in run.rollouts if rollout.prompt.key == prompt.key]
        traces = [rollout for rollout in group if rollout.author is Author.EXPERT]
        assert len(group) == CONFIG.num_generations
        assert [rollout.tokens for rollout in traces] == ([prompt.trace.tokens] if prompt.trace else [])
        assert all(rollout.shaping == 0.1 for rollout in traces)
    assert run.ledger.trace == 2 * 6


@pytest.mark.parametrize("mode", ["prefix", "hint"])
def test_a_fixed_prefix_gives_the_same_share_away_every_time(formed, mode):
    run = loop(formed, "fixed-prefix", share=0.67, anchor_mode=mode)
    step(run)
    for rollout in run.rollouts:
        shown = rollout.prompt.trace.opening(2)
        assert rollout.opening == (shown if mode == "prefix" else ())
        assert rollout.answer[: len(rollout.opening)] == rollout.opening
        assert mode == "prefix" or rollout.context == TASK.hinted(rollout.prompt, shown)


def test_a_hybrid_group_has_one_answer_with_an_opening_that_shortens(formed):
    run = loop(formed, "prefix-rft", horizon=4, learned=0.5)
    lengths = []
    for _ in range(4):
        step(run)
        hybrids = [rollout for rollout in run.rollouts if rollout.opening]
        assert len(hybrids) in (0, CONFIG.prompts_per_update)
        for rollout in hybrids:
            assert rollout.learned_opening.sum() == round(0.5 * len(rollout.opening))
        lengths.append(np.mean([len(rollout.opening) for rollout in hybrids]) if hybrids else 0)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_the_learned_words_of_an_opening_are_those_that_the_student_is_least_sure_of(formed):
    run = loop(formed, "fixed-prefix", share=0.67)
    step(run)
    rollout, formed_sampler = run.rollouts[0], loop(formed).sampler
    with torch.no_grad():
        policies = torch.log_softmax(formed(torch.tensor([rollout.context]))[0], dim=-1)
    entropies = -(policies.exp() * policies).sum(dim=-1)[len(rollout.prompt.tokens) - 1 :][: len(rollout.opening)]
    for share, count in ((0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)):
        mask = uncertain_words(formed, rollout, share, formed_sampler)
        assert mask.sum() == count
        assert set(np.flatnonzero(mask)) == set(entropies.argsort(descending=True)[:count].tolist())


def test_distillation_follows_the_teacher_without_any_reward(formed):
    run = loop(formed, "distillation", task=TASK)
    train(run, 40)
    assert evaluate(run.model, TASK, TASK.prompts("test"), CONFIG, 1).success().mean() > 0.7
    assert run.ledger.teacher == run.ledger.student > 0
