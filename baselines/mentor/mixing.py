"""Words drawn from a mixture of student and teacher, in proportion to how uncertain the student is.

    w_t = min(1, H_t / g),   mix = (1 - w_t) student + w_t teacher

H_t is the student's entropy in nats, g a threshold. As in MENTOR (arXiv 2510.04140, paper and code read). Sampling is
speculative: the student drafts a few words, the teacher reads them at once, each is kept with probability
min(1, mix / student), and at the first that is not, a word is drawn from (mix - student)+. That is exactly a draw from
mix; the word that speculative decoding usually adds after a fully kept draft would be pure teacher, and is not drawn.
Every position has uniform numbers of its own, so what is written does not depend on how long the drafts are.

Shapes: B rows, K drafted words, V words, N new tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experts.language.gpt import Completions, Reader, check_room, draw, entropy, log_policy
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider

WeightRule = Callable[[Tensor, Tensor], Tensor]
"""(entropies, uniform numbers), both (...) -> weights (...) in [0, 1] of the teacher."""
DRAFT, KEEP, REPLACE, WEIGH = range(4)
"""What the four uniform numbers of a position are for."""
USES = 4


# --- how much teacher ------------------------------------------------------------------------------------------------


def entropy_weights(entropies: Tensor, threshold: float) -> Tensor:
    """min(1, H / g). No weight at all for an infinite threshold, full weight for one of 0 (or below)."""
    if threshold <= 0:
        return torch.ones_like(entropies)
    return (entropies / threshold).clamp(max=1.0)


def threshold_of(entropies: np.ndarray, quantile: float, floor: float) -> float:
    """g for the next update: the quantile of this update's *on-policy* entropies, or the floor where that is higher."""
    return max(float(np.quantile(entropies, quantile)), floor) if len(entropies) else math.inf


def by_entropy(threshold: float) -> WeightRule:
    """MENTOR's rule."""
    return lambda entropies, _: entropy_weights(entropies, threshold)


def anywhere(pool: np.ndarray) -> WeightRule:
    """Control: weights drawn from `pool`, wherever the student is certain or not. With the weights that the rule would
    have given some positions, it has their distribution, hence their mean, at random places."""
    ordered = torch.from_numpy(np.sort(pool).astype(np.float32))
    return lambda entropies, uniforms: ordered[(uniforms * len(ordered)).long().clamp(max=len(ordered) - 1)]


def everywhere(weight: float) -> WeightRule:
    """Control: the same weight at every position."""
    return lambda entropies, _: torch.full_like(entropies, weight)


def alpha(update: int, horizon: int) -> float:
    """Share of the teacher's influence in update 1, 2, ...: half a cosine from about 1 to 0 at `horizon`, then 0."""
    return 0.5 * (1 + math.cos(math.pi * update / horizon)) if update < horizon else 0.0


# --- what mixed completions are worth --------------------------------------------------------------------------------


def mixed_advantages(
    mixed: np.ndarray, on_policy: np.ndarray, share: float, reward_range: float = 1.0, cap: float | None = None
) -> np.ndarray:
    """share x max(0, R - mean of the on-policy rewards) / range: never negative, no division by any spread.

    Args:
        mixed: Rewards of the mixed answers to one prompt, float64 (n,).
        on_policy: Rewards of the student's own, float64 (m,).
        share: alpha(t).
        reward_range: Largest difference of rewards.
        cap: Most that they may add up to, scaling all of them down; None: no limit.
    """
    gains = share * np.maximum(mixed - on_policy.mean(), 0.0) / reward_range
    total = gains.sum()
    return gains * (cap / total) if cap is not None and total > cap else gains


# --- sampling --------------------------------------------------------------------------------------------------------


class DraftOutcome(NamedTuple):
    """What became of a draft."""

    kept: Tensor
    """int64 (B,): words at its beginning that were kept, 0 to K."""
    replacement: Tensor
    """int64 (B,): the word after the kept ones, where not all were kept."""


def verify(student: Tensor, mix: Tensor, drafts: Tensor, keep: Tensor, replace: Tensor) -> DraftOutcome:
    """Speculative acceptance of words that were drawn from `student`, so that the outcome is a draw from `mix`.

    Args:
        student: Probabilities (B, K, V).
        mix: Probabilities (B, K, V).
        drafts: int64 (B, K).
        keep: Uniform numbers (B, K).
        replace: Uniform numbers (B, K).
    """
    at = drafts[:, :, None]
    p, q = student.gather(2, at)[:, :, 0], mix.gather(2, at)[:, :, 0]
    kept = (keep * p < q).long().cumprod(dim=1).sum(dim=1)
    first = kept.clamp(max=drafts.shape[1] - 1)
    rows = torch.arange(len(drafts))
    residual = (mix[rows, first] - student[rows, first]).clamp(min=0.0)
    # Rounding can leave nothing where both are equal; then nothing was rejected either, and the draw is not used.
    residual[residual.sum(dim=1) == 0] = 1.0
    return DraftOutcome(kept, draw(residual, replace[rows, first]))


def mixture(student: Tensor, teacher: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (..., V) of the mixture, and the weights (...) that it has: 0 where the teacher has no opinion.

    Args:
        student: Probabilities (..., V).
        teacher: Log-probabilities (..., V), NaN without opinion.
        weights: (...).
    """
    silent = teacher.isnan().any(dim=-1)
    weights = weights.masked_fill(silent, 0.0)
    other = teacher.exp().masked_fill(silent[..., None], 0.0)
    return (1 - weights[..., None]) * student + weights[..., None] * other, weights


@dataclass(slots=True)
class Mixed:
    """What B rows wrote together with their teacher. `completions` holds the *student's* log-probabilities and
    entropies at every word, whichever of the two wrote it."""

    completions: Completions
    taught: Tensor
    """bool (B, N): words drawn in place of a rejected draft."""
    weights: Tensor
    """float32 (B, N): the teacher's weight at each word."""
    drafted: int
    """Words that the student wrote, thrown away ones included."""
    decided: int
    """Drafted words up to each row's first rejection: those whose acceptance was decided."""
    accepted: int
    """Of these, kept."""
    read: int
    """Words that the teacher read."""

    @property
    def acceptance(self) -> float | None:
        return self.accepted / self.decided if self.decided else None


@torch.inference_mode()
def write_mixed(
    student: LanguageModel,
    teacher: TokenProvider,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    eos: int,
    uniforms: np.ndarray,
    rule: WeightRule,
    draft: int = 4,
    repeats: int = 1,
    temperature: float = 1.0,
    allowed: Tensor | None = None,
) -> Mixed:
    """Continue every prompt `repeats` times in succession with words drawn from the mixture.

    A draft without any weight is not shown to the teacher.

    Args:
        student: The student.
        teacher: The teacher.
        prompts: The prompts.
        limits: Most new tokens per prompt.
        eos: Ends an answer.
        uniforms: (B, N, USES) in [0, 1).
        rule: The teacher's weight.
        draft: Words per draft, K.
        repeats: Answers per prompt.
        temperature: Of the student.
        allowed: bool (V,); other words are not drawn from the teacher either.
    """
    check_room(student, prompts, limits)
    most, rows = max(limits), len(prompts) * repeats
    reader = Reader(student, prompts, repeats, most + draft)
    follow = teacher.follow([prompt for prompt in prompts for _ in range(repeats)])
    table, every = torch.from_numpy(uniforms), torch.arange(rows)
    said, ends = torch.zeros(rows, dtype=torch.long), torch.tensor(limits).repeat_interleave(repeats)
    tokens = torch.zeros(rows, most + draft, dtype=torch.long)
    log_probs, entropies, weights = (torch.zeros(rows, most + draft) for _ in range(3))
    taught = torch.zeros(rows, most + draft, dtype=torch.bool)
    drafted = decided = accepted = read = 0
    while bool((running := said < ends).any()):
        at = said[:, None] + torch.arange(draft)
        own = table[every[:, None], at.clamp(max=most - 1)]
        # The student drafts.
        steps = []
        for k in range(draft):
            steps.append(log_policy(reader.read(said + k), temperature, allowed))
            reader.last = draw(steps[k].exp(), own[:, k, DRAFT])
            tokens[every, said + k] = reader.last
        policy = torch.stack(steps, dim=1)
        uncertainty = entropy(policy)
        drafted += draft * int(running.sum())
        # The teacher reads along where it has a say, and some of the draft is kept.
        share = rule(uncertainty, own[:, :, WEIGH]).masked_fill(~running[:, None] | (at >= ends[:, None]), 0.0)
        kept, consulted = torch.full((rows,), draft), bool(share.any())
        if consulted:
            heard = follow([tokens[b, : int(said[b]) + draft - 1].tolist() for b in range(rows)], draft)
            heard = heard if allowed is None else log_policy(heard, allowed=allowed)
            mix, share = mixture(policy.exp(), heard, share)
            kept, replacement = verify(policy.exp(), mix, tokens.gather(1, at), own[:, :, KEEP], own[:, :, REPLACE])
            read += draft * int(running.sum())
            replaced = running & (kept < draft)
            tokens[every[replaced], (said + kept)[replaced]] = replacement[replaced]
        # Rows go on after the kept words and the replacement, or end where either ends the text.
        words = tokens.gather(1, at)
        written = torch.minimum(kept + 1, torch.tensor(draft))
        over = (words == eos) & (torch.arange(draft) < written[:, None])
        finished = over.any(dim=1) & running
        ends = torch.where(finished, torch.minimum(ends, said + over.long().argmax(dim=1) + 1), ends)
        inside = running[:, None] & (torch.arange(draft) < written[:, None]) & (at < ends[:, None])
        own_words = torch.arange(draft) < kept[:, None]
        if consulted:
            decided += int(inside.sum())
            accepted += int((inside & own_words).sum())
        spots = (every[:, None].expand(-1, draft)[inside], at[inside])
        taught[spots] = ~own_words[inside]
        log_probs[spots] = policy.gather(2, words[:, :, None])[:, :, 0][inside]
        entropies[spots], weights[spots] = uncertainty[inside], share[inside]
        said = torch.where(running, torch.minimum(said + written, ends), said)
        reader.last = tokens.gather(1, (said - 1).clamp(min=0)[:, None])[:, 0]
    completions = Completions(tokens[:, :most], ends, log_probs[:, :most], entropies[:, :most])
    return Mixed(completions, taught[:, :most], weights[:, :most], drafted, decided, accepted, read)


@torch.inference_mode()
def write_directly(
    student: LanguageModel,
    teacher: TokenProvider,
    prompt: Sequence[int],
    limit: int,
    eos: int,
    uniforms: np.ndarray,
    rule: WeightRule,
    temperature: float = 1.0,
) -> tuple[int, ...]:
    """One answer drawn from the mixture word by word, without drafts or caches: the reference for the distribution of
    `write_mixed`.

    Args:
        student: The student.
        teacher: The teacher.
        prompt: One prompt.
        limit: Most new tokens.
        eos: Ends the answer.
        uniforms: (N, USES) in [0, 1).
        rule: The teacher's weight.
        temperature: Of the student.
    """
    follow = teacher.follow([prompt])
    said: list[int] = []
    for numbers in torch.from_numpy(uniforms[:limit]):
        logits = student(torch.tensor([[*prompt, *said]]))[:, -1]
        policy = log_policy(logits, temperature)
        mix, _ = mixture(policy.exp(), follow([said], 1)[:, 0], rule(entropy(policy), numbers[None, WEIGH]))
        said.append(int(draw(mix, numbers[None, DRAFT])))
        if said[-1] == eos:
            break
    return tuple(said)
