"""BREAD-style training shows no more than needed, learns only from the student's words, and without hints is GRPO."""

import dataclasses

import numpy as np
import pytest
import torch

from baselines.bread.strategy import BREADConfig
from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig
from baselines.language.sft import SFTConfig, imitate
from tests.baselines.text_task import KeyTask, step, token_loop, train

torch.set_num_threads(1)
TASK = KeyTask(keys=4, length=4, symbols=4)
CONFIG = GRPOConfig(num_generations=8, prompts_per_update=4, max_completion_length=10, learning_rate=1e-3)


@pytest.fixture(scope="module")
def formed():
    """A student that knows the form of answers, hints included, and no key: it is right once in 256 tries."""
    model = TASK.model()
    config = SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=3e-3, hint_share=0.5)
    imitate(model, TASK, TASK.of_form(384), config, 0)
    return model


def loop(model, strategy="bread", task=TASK, config=CONFIG, seed=0, tokens=None, **own):
    return token_loop(task, model, strategy, config, seed, None, tokens, **own)


def test_with_nothing_to_search_for_it_is_grpo_to_the_bit(formed):
    bread, grpo = loop(formed, low=0.0), loop(formed, "grpo")
    for _ in range(4):
        found = step(bread)
        row = step(grpo)
        assert {name: found[name] for name in row} == row
    for name, weight in grpo.model.state_dict().items():
        assert torch.equal(weight, bread.model.state_dict()[name])


@pytest.mark.parametrize("mode", ["prefix", "hint"])
def test_a_hinted_group_shares_one_opening_and_the_last_episode_is_never_part_of_it(formed, mode):
    run = loop(formed, anchor_mode=mode)
    anchors = set()
    for _ in range(3):
        step(run)
        for rollout in run.rollouts:
            trace = rollout.prompt.trace
            shown = len(rollout.context) - len(rollout.prompt.tokens) - (2 if mode == "hint" else 0)
            if rollout.context == rollout.prompt.tokens:
                continue
            anchors.add(trace.ends.index(shown) + 1)
            assert shown < len(trace.tokens)
            if mode == "prefix":
                assert rollout.opening == trace.tokens[:shown] == rollout.context[-shown:]
            else:
                assert rollout.opening == ()
                assert rollout.context == TASK.hinted(rollout.prompt, trace.tokens[:shown])
    assert anchors
    assert max(anchors) < TASK.length


def test_no_gradient_reaches_a_word_through_the_likelihood_of_the_opening(formed, monkeypatch):
    """Learned predictions are those of the student's own words, all of them, and no others."""
    run = loop(formed)
    seen = []
    extra_loss = run.strategy.extra_loss
    monkeypatch.setattr(
        run.strategy,
        "extra_loss",
        lambda rollouts, batch, policies: seen.append((rollouts, batch)) or extra_loss(rollouts, batch, policies),
    )
    train(run, 2)
    assert any(rollout.opening for rollouts, _ in seen for rollout in rollouts)
    for rollouts, batch in seen:
        for rollout, learned in zip(rollouts, batch.learned, strict=True):
            at = torch.nonzero(learned)[:, 0] + 1
            begin = len(rollout.context)
            assert at.tolist() == list(range(begin, begin + len(rollout.tokens)))


def test_groups_that_are_thrown_away_are_counted_as_search(formed):
    run = loop(formed)
    failing = []
    for _ in range(3):
        before = dataclasses.replace(run.ledger)
        row = step(run)
        after = run.ledger
        kept = sum(len(rollout.tokens) for rollout in run.rollouts)
        assert after.student - before.student == kept
        failing.append(row["guidance/failing"])
        groups = row["guidance/failing"] - row["guidance/without_trace"]
        assert row["guidance/probes"] is None or 1 <= row["guidance/probes"] <= 2  # four episodes: two groups at most
        assert (after.search > before.search) == (groups > 0)
        assert after.trace > before.trace
        bare = run.sampler.bare
        assert len(bare) == 4 * 8
        assert all(rollout.context == rollout.prompt.tokens for rollout in bare)
        assert row["rollout/success"] == np.mean([rollout.reward.success for rollout in bare])
    assert failing[0] >= 3


def test_a_prompt_without_a_trace_is_learned_from_as_it_is(formed):
    run = loop(formed, task=KeyTask(keys=4, length=4, symbols=4, traced=1))
    row = step(run)
    assert row["guidance/without_trace"] == row["guidance/failing"] - 1 >= 2
    bare = {rollout.prompt.key for rollout in run.rollouts if not rollout.opening}
    assert {"1", "2", "3"} <= bare


class Hopeless(KeyTask):
    """No answer succeeds, whatever the hint."""

    def _reward(self, key, answer):
        return dataclasses.replace(super()._reward(key, answer), success=False)


def test_a_prompt_that_no_hint_helps_is_left_out_and_counted(formed):
    run = loop(formed, task=Hopeless(keys=4, length=4, symbols=4))
    row = step(run)
    assert row["guidance/skipped"] == 4
    assert row["rollout/groups"] == row["train/steps"] == 0
    assert run.ledger.student == 0
    for name, weight in formed.state_dict().items():
        assert torch.equal(weight, run.model.state_dict()[name])


def test_long_traces_are_cut_into_no_more_episodes_than_asked_for(formed):
    run = loop(formed, episodes=2)
    train(run, 2)
    assert {len(rollout.opening) for rollout in run.rollouts} <= {0, 4}


@pytest.mark.slow
def test_it_learns_where_grpo_with_as_many_tokens_learns_nothing():
    """Five symbols of four: chance finds an answer once in 1024 tries."""
    task = KeyTask(keys=3, length=5, symbols=4)
    model = task.model()
    imitate(model, task, task.of_form(384), SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=3e-3), 0)
    config = dataclasses.replace(CONFIG, prompts_per_update=3, beta=0.03)
    bread = loop(model, "bread", task, config)
    rows = train(bread, 80)
    grpo = loop(model, "grpo", task, config, tokens=bread.ledger.generated)
    train(grpo)
    test = task.prompts("test")
    assert evaluate(grpo.model, task, test, config, 16).pass_at(1).mean() < 0.02
    assert evaluate(bread.model, task, test, config, 16).pass_at(1).mean() > 0.15
    anchors = [row["guidance/anchor"] for row in rows if row["guidance/anchor"] is not None]
    assert np.mean(anchors[-20:]) < np.mean(anchors[:20]) - 1


@pytest.mark.parametrize("wrong", [{"low": 0.5, "high": 0.4}, {"episodes": 1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BREADConfig(**wrong)
