"""The task in TRL's terms: rewards of texts are those of the task, and TRL itself trains on it."""

import numpy as np
import pytest
import torch

from baselines.bread.strategy import BREADConfig
from baselines.driving.scenes import SituationSource, situations
from baselines.driving.task import DrivingTask
from baselines.driving.trl_export import HintedRollouts, grpo_rows, reward_func, sft_rows
from experts.language.gpt import padded
from experts.language.vocabulary import DRIVING
from sim.errors import UsageError
from tests.baselines.language import hf_models

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task():
    met = situations((SituationSource("lane-change"),), 24, 3)
    return DrivingTask(met[:18], met[18:], 2, trace_share=0.7)


def test_rows_are_the_tasks_prompts_and_verified_traces(task):
    rows = grpo_rows(task)
    by_key = {prompt.key: prompt for prompt in task.prompts("train")}
    assert all(DRIVING.encode(row["prompt"]) == by_key[row["key"]].tokens for row in rows)
    assert {row["prompt"] for row in rows} == {DRIVING.decode(prompt.tokens) for prompt in by_key.values()}
    assert len({row["prompt"] for row in rows}) == len(rows)
    traced = sft_rows(task)
    assert 0 < len(traced) < len(rows)
    key_of = {row["prompt"]: row["key"] for row in rows}
    completions = [row["completion"] for row in traced]
    keys = [key_of[row["prompt"]] for row in traced]
    assert reward_func(task)(prompts=None, completions=completions, key=keys) == pytest.approx([1.0] * len(traced))


def test_rewards_of_text_are_those_of_the_task(task):
    """Answers drawn at random, right ones, cut ones and nonsense, judged as text and as tokens."""
    rng, reward = np.random.default_rng(0), reward_func(task)
    prompts = [prompt for prompt in task.prompts("train") if prompt.trace is not None]
    for prompt in prompts:
        trace = prompt.trace.tokens
        other = [*trace[:-2], int(rng.integers(len(DRIVING))), trace[-1]]
        for tokens in (trace, tuple(other), (*trace[5:],)):
            exact = task.rewards([prompt], [tuple(tokens)])[0].total
            text = DRIVING.decode(tokens).removesuffix(" <eos>")
            assert reward(prompts=[""], completions=[text], key=[prompt.key], trainer_state=None) == [exact]
    assert reward(prompts=[""] * 2, completions=["", "Turn left!"], key=[prompts[0].key] * 2) == [0.0, 0.0]


def test_what_was_given_away_is_part_of_the_answer(task):
    prompt = next(prompt for prompt in task.prompts("train") if prompt.trace is not None)
    text = DRIVING.decode(prompt.trace.tokens).removesuffix(" <eos>")
    opening, rest = text.split(" ; ", 1)
    reward = reward_func(task)
    assert reward([""], [rest], [prompt.key]) == [0.0]
    assert reward([""], [rest], [prompt.key], [f"{opening} ;"]) == pytest.approx([1.0])
    with pytest.raises(UsageError, match="key of a prompt"):
        reward([""], [rest], ["no-such-key"])


# --- with TRL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(task, tmp_path):
    """Model and tokenizer that go on with the traces' openings of three episodes, and know nothing else."""
    transformers = pytest.importorskip("transformers")
    text = " ".join(DRIVING.decode((*p.tokens, *p.trace.tokens)) for p in task.prompts("train") if p.trace)
    folder = hf_models.llama(tmp_path / "model", text, size=700)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows, starts = [], []
    for prompt in task.prompts("train"):
        if prompt.trace is not None:
            given = DRIVING.decode((*prompt.tokens, *prompt.trace.opening(3)))
            whole = DRIVING.decode((*prompt.tokens, *prompt.trace.tokens)).removesuffix(" <eos>")
            rows.append([*tokenizer(whole).input_ids, tokenizer.eos_token_id])
            starts.append(len(tokenizer(given).input_ids))
    tokens, lengths = padded(rows)
    at = torch.arange(tokens.shape[1])
    labels = tokens.masked_fill((at < torch.tensor(starts)[:, None]) | (at >= lengths[:, None]), -100)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(150):
        model(input_ids=tokens, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model, tokenizer


def one_step(task, pretrained, folder, rewards, rollouts=None):
    """A GRPOTrainer that took one step on two prompts; whether its weights moved."""
    trl = pytest.importorskip("trl", reason="needs the extra trl")
    datasets = pytest.importorskip("datasets", reason="needs the extra trl")
    model, tokenizer = pretrained
    settings = trl.GRPOConfig(
        str(folder), per_device_train_batch_size=16, num_generations=4, max_completion_length=40, max_steps=1,
        learning_rate=1e-3, report_to=[], use_cpu=True, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    traced = {row["prompt"] for row in sft_rows(task)}
    rows = datasets.Dataset.from_list([row for row in grpo_rows(task) if row["prompt"] in traced])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = trl.GRPOTrainer(model, rewards, settings, rows, processing_class=tokenizer, rollout_func=rollouts)
    run.train()
    return any(not torch.equal(before[name], p) for name, p in run.model.named_parameters())


@pytest.mark.slow
def test_trl_takes_rows_and_rewards(task, pretrained, tmp_path):
    calls = []

    def watched(**given):
        calls.append((given, reward_func(task)(**given)))
        return calls[-1][1]

    one_step(task, pretrained, tmp_path / "out", watched)
    (given, rewards), *_ = calls
    assert len(given["completions"]) == len(rewards) == 16
    assert all(len(set(given["key"][i : i + 4])) == 1 for i in range(0, 16, 4))
    assert sum(rewards) < 4  # it was not taught how an answer begins


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["prefix", "hint"])
def test_trl_learns_from_groups_whose_openings_were_searched(task, pretrained, tmp_path, mode):
    """The model finds the ends of answers and never their beginnings: openings are what it can learn from."""
    calls = []

    def watched(**given):
        calls.append((given, reward_func(task)(**given)))
        return [reward + 0.01 * i for i, reward in enumerate(calls[-1][1])]  # a spread, so that there is a gradient

    rollouts = HintedRollouts(task, BREADConfig(low=0.25, high=1.0, anchor_mode=mode))
    assert one_step(task, pretrained, tmp_path / "out", watched, rollouts)
    (given, rewards), *_ = calls
    traces = {prompt.key: prompt.trace for prompt in task.prompts("train")}
    openings = [DRIVING.encode(text) for text in given["opening"]]
    for key, opening in zip(given["key"], openings, strict=True):
        assert traces[key].tokens[: len(opening)] == opening
    best = [max(rewards[i : i + 4]) for i in range(0, 16, 4)]
    if mode == "prefix":
        assert any(openings[::4])
        assert all((reward > 0.5) == bool(opening) for reward, opening in zip(best, openings[::4], strict=True))
    else:  # a hint in the prompt means nothing to it
        assert not any(openings)
