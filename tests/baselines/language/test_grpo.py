"""The loss is what its formula says, worked out here with loops, and only learned words have a gradient."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.language.grpo import GRPOConfig, TokenBatch, group_advantages, grpo_loss, k3, token_log_probs
from baselines.language.learner import pack
from baselines.language.rollout import Rollout
from baselines.language.task import Reward, TaskPrompt
from experts.language.gpt import log_policy

torch.set_num_threads(1)
WORDS = 7
ARRAYS = st.lists(st.integers(0, 10).map(lambda x: x / 10), min_size=2, max_size=9).map(np.array)


def rollout(context: int, completion: int, opening: int = 0, **changes) -> Rollout:
    stream = np.random.default_rng(context * 10 + completion)
    start = tuple(stream.integers(0, WORDS, context).tolist())
    said = tuple(stream.integers(0, WORDS, completion).tolist())
    nothing = np.zeros(completion, np.float32)
    made = Rollout(
        TaskPrompt("p", start), start, start[context - opening :], said, nothing, nothing, Reward(0.0, False, False)
    )
    return dataclasses.replace(made, **changes)


def example() -> tuple[TokenBatch, torch.Tensor, torch.Tensor]:
    """Three completions of different length; the policy's logits and old log-probabilities."""
    pairs = [(rollout(4, 3), 1.5), (rollout(2, 6, opening=1), -0.5), (rollout(5, 1), -2.0)]
    batch = pack(pairs, 3, 10)
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(3, batch.tokens.shape[1] - 1, WORDS, generator=stream, dtype=torch.float64)
    old = torch.randn(3, batch.tokens.shape[1] - 1, WORDS, generator=stream, dtype=torch.float64) * 0.3 + logits
    return batch, logits.requires_grad_(True), token_log_probs(log_policy(old), batch)


def by_hand(batch, log_probs, old, config) -> float:
    """The clipped surrogate, one word at a time."""
    rows = []
    for r in range(len(batch.tokens)):
        values = []
        for t in range(batch.learned.shape[1]):
            if not batch.learned[r, t]:
                continue
            a = float(batch.advantages[r])
            ratio = math.exp(float(log_probs[r, t] - old[r, t]))
            clipped = min(max(ratio, 1 - config.epsilon), 1 + config.clip_high)
            value = min(ratio * a, clipped * a)
            if config.delta is not None and a < 0:
                value = max(value, config.delta * a)
            values.append(value)
        rows.append(values)
    if config.loss_type == "grpo":
        return -sum(sum(values) / len(values) for values in rows) / len(rows)
    over = sum(map(len, rows)) if config.loss_type in ("dapo", "bnpo") else len(rows) * config.max_completion_length
    return -sum(map(sum, rows)) / over


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo"])
@pytest.mark.parametrize("clip", [{}, {"epsilon_high": 0.28}, {"epsilon": 0.05, "delta": 1.2}])
def test_the_loss_is_the_clipped_surrogate(loss_type, clip):
    batch, logits, old = example()
    config = GRPOConfig(loss_type=loss_type, **clip)
    log_probs = token_log_probs(log_policy(logits), batch)
    loss, _ = grpo_loss(log_probs, batch, config, old)
    assert loss.item() == pytest.approx(by_hand(batch, log_probs, old, config), rel=1e-6)


def test_dual_clip_limits_what_one_unlikely_word_can_cost():
    batch, logits, old = example()
    far = torch.where(batch.advantages[:, None] < 0, old - 5.0, old)
    log_probs = token_log_probs(log_policy(logits), batch)
    limited, _ = grpo_loss(log_probs, batch, GRPOConfig(delta=3.0), far)
    unlimited, _ = grpo_loss(log_probs, batch, GRPOConfig(), far)
    assert limited < 10 < unlimited


def test_only_the_words_of_the_completion_have_a_gradient():
    """d loss / d logits is 0 on prompts, hints, openings and padding, and not 0 on every completion word."""
    batch, logits, old = example()
    loss, _ = grpo_loss(token_log_probs(log_policy(logits), batch), batch, GRPOConfig(beta=0.1), old, old + 0.1)
    loss.backward()
    moved = logits.grad.abs().sum(dim=-1) > 0
    assert not moved[~batch.learned].any()
    starts, lengths = (4, 2, 5), (3, 6, 1)
    for r, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        assert torch.nonzero(batch.learned[r])[:, 0].tolist() == list(range(start - 1, start + length - 1))


def test_an_opening_is_learned_from_only_where_asked():
    asked = np.array([False, True])
    batch = pack([(rollout(5, 2, opening=2, learned_opening=asked), 1.0)], 1, 3)
    assert batch.learned[0].tolist() == [False, False, False, True, True, True]


def test_on_policy_the_gradient_is_the_policy_gradient():
    """ratio = 1: d loss / d logits = -A (1[word] - p) / tokens."""
    batch, logits, _ = example()
    log_policies = log_policy(logits)
    grpo_loss(token_log_probs(log_policies, batch), batch, GRPOConfig())[0].backward()
    onehot = torch.nn.functional.one_hot(batch.tokens[:, 1:], WORDS)
    expected = -batch.advantages[:, None, None] * (onehot - log_policies.detach().exp()) / batch.total_tokens
    torch.testing.assert_close(logits.grad, expected * batch.learned[:, :, None])


def test_a_shaped_row_has_p_over_p_plus_gamma_in_place_of_the_ratio():
    batch, logits, old = example()
    batch.shaping[:] = torch.tensor([0.1, 0.0, 0.1])
    log_probs = token_log_probs(log_policy(logits), batch)
    loss, _ = grpo_loss(log_probs, batch, GRPOConfig(), old)
    p = log_probs.exp()
    shaped = (p / (p + 0.1) * batch.advantages[:, None] * batch.learned)[[0, 2]].sum()
    plain = dataclasses.replace(batch, advantages=batch.advantages * torch.tensor([0.0, 1.0, 0.0]))
    rest, _ = grpo_loss(log_probs, dataclasses.replace(plain, shaping=torch.zeros(3)), GRPOConfig(), old)
    assert loss.item() == pytest.approx(rest.item() - shaped.item() / batch.total_tokens, rel=1e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_the_parts_of_a_step_add_up_to_the_whole(loss_type):
    pairs = [(rollout(4, 3), 1.5), (rollout(2, 6), -0.5), (rollout(5, 1), -2.0), (rollout(3, 4), 0.0)]
    config, table = GRPOConfig(loss_type=loss_type), torch.randn(4, 8, WORDS)

    def loss(rows: list[int]) -> torch.Tensor:
        batch = pack([pairs[r] for r in rows], 4, 14)
        logits = table[rows][:, : batch.tokens.shape[1] - 1]
        return grpo_loss(token_log_probs(log_policy(logits), batch), batch, config)[0]

    assert loss([0, 1, 2, 3]).item() == pytest.approx((loss([0, 2]) + loss([1])).item(), rel=1e-5)


def test_k3_estimates_the_divergence_without_bias_and_is_never_negative():
    """Summed over what the policy may say, weighted with how likely it says it, k3 is the KL divergence."""
    stream = torch.Generator().manual_seed(1)
    log_p, log_q = (torch.log_softmax(torch.randn(50, 9, generator=stream, dtype=torch.float64), -1) for _ in range(2))
    assert (k3(log_p, log_q) >= 0).all()
    exact = (log_p.exp() * (log_p - log_q)).sum(-1)
    torch.testing.assert_close((log_p.exp() * k3(log_p, log_q)).sum(-1), exact)
    assert (k3(log_p, log_p) == 0).all()


# --- advantages ------------------------------------------------------------------------------------------------------


@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_advantages_have_mean_zero_and_the_spread_that_was_asked_for(groups):
    alone = group_advantages(groups, "group")
    for rewards, a in zip(groups, alone, strict=True):
        assert a.sum() == pytest.approx(0, abs=1e-9)
        if rewards.std() > 0:
            assert a.std(ddof=1) == pytest.approx(1, rel=1e-3)
            assert np.argsort(a, kind="stable").tolist() == np.argsort(rewards, kind="stable").tolist()
    together = np.concatenate(groups).std(ddof=1) + 1e-6
    for rewards, plain, scaled in zip(
        groups, group_advantages(groups, "none"), group_advantages(groups, "batch"), strict=True
    ):
        np.testing.assert_allclose(plain, rewards - rewards.mean(), atol=1e-12)
        np.testing.assert_allclose(scaled * together, plain, atol=1e-12)


@given(st.floats(0, 1), st.integers(2, 9))
def test_a_group_of_equal_rewards_has_no_advantage_at_all(reward, count):
    (a,) = group_advantages([np.full(count, reward)])
    assert not a.any()


@pytest.mark.parametrize(
    "wrong",
    [{"num_generations": 1}, {"epsilon": 1.0}, {"delta": 1.1}, {"temperature": 0}, {"beta": -1}, {"num_iterations": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GRPOConfig(**wrong)
