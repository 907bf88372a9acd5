"""Drafting, reading along and replacing is exactly drawing from the mixture, and no word is counted twice."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from baselines.mentor import mixing
from baselines.mentor.mixing import (
    USES,
    anywhere,
    by_entropy,
    entropy_weights,
    everywhere,
    mixed_advantages,
    mixture,
    threshold_of,
    verify,
    write_directly,
    write_mixed,
)
from experts.language import gpt
from experts.language.gpt import GPTConfig, draw, generate
from experts.language.teacher import GPTTeacher

torch.set_num_threads(1)
WORDS, EOS = 8, 1
PROMPTS = [[3, 4, 5], [6]]


@pytest.fixture(scope="module")
def student():
    return gpt.new(GPTConfig(WORDS, context=24, layers=1, heads=2, width=16), 0)


@pytest.fixture(scope="module")
def teacher():
    model = gpt.new(GPTConfig(WORDS, context=24, layers=1, heads=2, width=24), 1)
    with torch.no_grad():
        model.words.weight *= 3  # a teacher with opinions
    return GPTTeacher(model, "v")


class Counting:
    """A teacher that counts how often it is asked, and may have no opinion at all."""

    name, vocabulary = "counting", "v"

    def __init__(self, teacher, silent=False):
        self.teacher, self.silent, self.calls = teacher, silent, 0

    def follow(self, prompts):
        inner = self.teacher.follow(prompts)

        def log_probs(completions, count):
            self.calls += 1
            heard = inner(completions, count)
            return heard * math.nan if self.silent else heard

        return log_probs


def two_policies(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return tuple(torch.softmax(1.5 * torch.randn(WORDS, generator=stream), 0) for _ in range(2))


# --- one position ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_a_kept_or_replaced_word_is_a_draw_from_the_mixture_and_is_kept_as_often_as_theory_says(weight):
    count = 100_000
    own, other = two_policies(0)
    mix = ((1 - weight) * own + weight * other).expand(count, 1, WORDS)
    uniforms = torch.from_numpy(np.random.default_rng(1).random((count, 3)))
    drafts = draw(own.expand(count, WORDS), uniforms[:, 0])[:, None]
    kept, replacement = verify(own.expand(count, 1, WORDS), mix, drafts, uniforms[:, 1:2], uniforms[:, 2:3])
    words = torch.where(kept == 1, drafts[:, 0], replacement)
    found = np.bincount(words.numpy(), minlength=WORDS)
    assert stats.chisquare(found, mix[0, 0].double().numpy() / mix[0, 0].double().sum().item() * count).pvalue > 1e-3
    distance = 0.5 * (own - mix[0, 0]).abs().sum().item()
    assert kept.double().mean().item() == pytest.approx(1 - distance, abs=4 * 0.5 / math.sqrt(count))
    assert 1 - distance >= 1 - weight * 0.5 * (own - other).abs().sum().item() - 1e-6


def test_what_follows_the_first_rejected_word_is_thrown_away():
    own, mix = torch.full((1, 3, 2), 0.5), torch.tensor([[[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]])
    kept, replacement = verify(own, mix, torch.zeros(1, 3, dtype=torch.long), torch.full((1, 3), 0.3), torch.rand(1, 3))
    assert (kept.item(), replacement.item()) == (1, 1)


def test_without_an_opinion_of_the_teacher_the_mixture_is_the_student():
    own, other = two_policies(3)
    heard = torch.stack([other.log(), other.log() * math.nan])
    mix, weights = mixture(own.expand(2, WORDS), heard, torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(mix[0], 0.75 * own + 0.25 * other)
    assert torch.equal(mix[1], own)
    assert weights.tolist() == [0.25, 0.0]


# --- whole answers ---------------------------------------------------------------------------------------------------


def written(student, teacher, rule, draft=4, seed=0, repeats=50, limits=(6, 4), temperature=1.0, allowed=None):
    uniforms = np.random.default_rng(seed).random((repeats * len(limits), max(limits), USES))
    found = write_mixed(student, teacher, PROMPTS, limits, EOS, uniforms, rule, draft, repeats, temperature, allowed)
    return found, uniforms


def rows(found) -> list[tuple[int, ...]]:
    return [found.completions.row(i) for i in range(len(found.completions))]


@pytest.mark.parametrize("draft", [1, 2, 3, 6, 9])
def test_how_long_the_drafts_are_does_not_change_what_is_written(student, teacher, draft):
    rule = by_entropy(1.5)
    one, _ = written(student, teacher, rule, 4)
    other, _ = written(student, teacher, rule, draft)
    assert rows(one) == rows(other)
    assert torch.equal(one.taught, other.taught)
    inside = torch.arange(6) < one.completions.lengths[:, None]
    for a, b in ((one.weights, other.weights), (one.completions.log_probs, other.completions.log_probs)):
        torch.testing.assert_close(a[inside], b[inside], atol=1e-4, rtol=1e-4)


def exactly(student, teacher, prompt, threshold) -> dict[tuple[int, ...], float]:
    """The probability of every answer of up to two words, by enumeration."""
    follow = teacher.follow([prompt])

    def mixed(said):
        with torch.no_grad():
            own = torch.softmax(student(torch.tensor([[*prompt, *said]]))[0, -1].double(), dim=-1)
        share = min(1.0, float(-(own * own.log()).sum()) / threshold)
        return ((1 - share) * own + share * follow([list(said)], 1)[0, 0].double().exp()).tolist()

    first = mixed(())
    answers = {(EOS,): first[EOS]}
    for word in set(range(WORDS)) - {EOS}:
        answers |= {(word, after): first[word] * p for after, p in enumerate(mixed((word,)))}
    return answers


def fits(found, exact) -> float:
    """p-value of chi-square, answers expected fewer than five times taken together."""
    expected = np.array([p * len(found) for p in exact.values()])
    counts = np.array([found.count(answer) for answer in exact])
    assert counts.sum() == len(found)
    rare = expected < 5
    merged = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    return stats.chisquare(merged[0], merged[1] / merged[1].sum() * len(found)).pvalue


def test_answers_written_by_drafting_and_word_by_word_have_the_distribution_of_the_mixture(student, teacher):
    prompt, exact = PROMPTS[0], exactly(student, teacher, PROMPTS[0], 2.0)
    uniforms = np.random.default_rng(5).random((4000, 2, USES))
    drafted = write_mixed(student, teacher, [prompt], [2], EOS, uniforms, by_entropy(2.0), 2, 4000)
    assert fits(rows(drafted), exact) > 1e-3
    direct = [write_directly(student, teacher, prompt, 2, EOS, u, by_entropy(2.0)) for u in uniforms[:400]]
    assert fits(direct, exact) > 1e-3


def test_without_weight_the_student_writes_alone_and_the_teacher_is_never_asked(student, teacher):
    asked = Counting(teacher)
    for rule in (everywhere(0.0), by_entropy(math.inf), anywhere(np.zeros(5))):
        found, uniforms = written(student, asked, rule)
        alone = generate(student, PROMPTS, [6, 4], EOS, uniforms[:, :, mixing.DRAFT], 50)
        assert rows(found) == [alone.row(i) for i in range(100)]
        assert (found.taught.sum(), found.read, found.decided, found.acceptance) == (0, 0, 0, None)
    assert asked.calls == 0


def test_a_teacher_without_opinions_leaves_the_words_to_the_student(student, teacher):
    asked = Counting(teacher, silent=True)
    found, uniforms = written(student, asked, everywhere(1.0))
    alone = generate(student, PROMPTS, [6, 4], EOS, uniforms[:, :, mixing.DRAFT], 50)
    assert rows(found) == [alone.row(i) for i in range(100)]
    assert asked.calls > 0
    assert found.acceptance == 1.0
    assert not found.weights.any()


def test_with_all_the_weight_the_teacher_writes_alone(student, teacher):
    count = 4000
    uniforms = np.random.default_rng(2).random((count, 1, USES))
    found = write_mixed(student, teacher, [PROMPTS[0]], [1], EOS, uniforms, everywhere(1.0), 3, count)
    counts = np.bincount(found.completions.tokens[:, 0], minlength=WORDS)
    expected = teacher.follow([PROMPTS[0]])([[]], 1)[0, 0].exp().double().numpy()
    assert stats.chisquare(counts, expected / expected.sum() * count).pvalue > 1e-3


def test_a_draft_that_is_kept_whole_is_followed_by_no_word_of_the_teacher(student):
    """Student and teacher agree, so every draft is kept: the answer is the student's, whole drafts and their seams too.
    A bonus word would be drawn with other numbers, and be the teacher's."""
    found, uniforms = written(student, GPTTeacher(student, "v"), everywhere(1.0), draft=2)
    alone = generate(student, PROMPTS, [6, 4], EOS, uniforms[:, :, mixing.DRAFT], 50)
    agree = np.mean([a == alone.row(i) for i, a in enumerate(rows(found))])
    assert agree > 0.97  # rounding differs between a cached and a plain pass
    assert found.acceptance > 0.99


def test_words_are_the_teachers_exactly_where_a_draft_was_rejected(student, teacher):
    found, _ = written(student, teacher, everywhere(0.7), repeats=200)
    lengths = found.completions.lengths
    inside = torch.arange(6) < lengths[:, None]
    assert not found.taught[~inside].any()
    assert found.taught.sum() == found.decided - found.accepted
    assert found.drafted >= found.decided == int(inside.sum())
    assert found.read % 4 == 0


def test_the_students_log_probabilities_are_kept_whether_student_or_teacher_wrote_the_word(student, teacher):
    found, _ = written(student, teacher, everywhere(0.8))
    for i, text in enumerate(rows(found)):
        prompt = PROMPTS[i // 50]
        with torch.no_grad():
            policy = torch.log_softmax(student(torch.tensor([[*prompt, *text]]))[0], dim=-1)
        own = policy[len(prompt) - 1 : -1]
        expected = own[range(len(text)), list(text)]
        torch.testing.assert_close(found.completions.log_probs[i, : len(text)], expected, atol=1e-4, rtol=1e-4)
        entropies = -(own.exp() * own).sum(dim=-1)
        torch.testing.assert_close(found.completions.entropies[i, : len(text)], entropies, atol=1e-4, rtol=1e-4)


def test_neither_writes_a_word_that_is_not_allowed(student, teacher):
    allowed = torch.ones(WORDS, dtype=torch.bool)
    allowed[[2, 5]] = False
    found, _ = written(student, teacher, everywhere(0.8), allowed=allowed)
    assert not set(itertools.chain(*rows(found))) & {2, 5}


def test_answers_end_at_their_limit_or_with_the_end_of_text_of_either_author(student, teacher):
    found, _ = written(teacher.model, GPTTeacher(student, "v"), everywhere(0.8), repeats=300)
    texts = rows(found)
    assert max(len(text) for text in texts[:300]) == 6
    assert max(len(text) for text in texts[300:]) == 4
    for i, text in enumerate(texts):
        assert EOS not in text[:-1]
        assert text[-1] == EOS or len(text) == (6 if i < 300 else 4)
    ended = torch.tensor([text[-1] == EOS for text in texts])
    last = found.taught[torch.arange(600), found.completions.lengths - 1]
    assert (ended & last).any()
    assert (ended & ~last).any()


# --- weights, thresholds, advantages ---------------------------------------------------------------------------------

NATS = st.lists(st.floats(0, 3, width=32), min_size=1, max_size=30).map(lambda x: np.array(x, np.float32))


@given(NATS, st.floats(0.01, 3))
def test_weights_grow_with_entropy_up_to_one(entropies, threshold):
    weights = entropy_weights(torch.from_numpy(entropies), threshold).numpy()
    np.testing.assert_allclose(weights, np.minimum(1, entropies / threshold), rtol=1e-5)
    assert (weights[entropies >= threshold * (1 + 1e-6)] == 1).all()
    assert (weights[entropies == 0] == 0).all()


@given(NATS, st.floats(0.05, 0.95), st.floats(0, 2))
def test_the_threshold_is_the_quantile_or_the_floor(entropies, quantile, floor):
    threshold = threshold_of(entropies, quantile, floor)
    assert threshold == pytest.approx(max(np.quantile(entropies, quantile), floor))


def test_without_words_to_go_by_the_teacher_has_no_weight():
    assert threshold_of(np.zeros(0), 0.95, 0.3) == math.inf
    assert not entropy_weights(torch.tensor([0.0, 5.0]), math.inf).any()


def test_controls_have_the_mean_weight_of_the_rule():
    entropies = np.random.default_rng(0).exponential(0.5, 2000).astype(np.float32)
    weights = entropy_weights(torch.from_numpy(entropies), threshold_of(entropies, 0.9, 0.3)).numpy()
    other = torch.from_numpy(np.random.default_rng(1).exponential(0.1, 50_000))
    uniforms = torch.from_numpy(np.random.default_rng(2).random(50_000))
    scattered = anywhere(weights)(other, uniforms).numpy()
    assert scattered.mean() == pytest.approx(weights.mean(), abs=0.01)
    assert stats.ks_2samp(scattered, weights).pvalue > 1e-3
    assert abs(np.corrcoef(scattered, other)[0, 1]) < 0.02
    constant = everywhere(float(weights.mean()))(other, uniforms)
    assert constant.unique().tolist() == pytest.approx([weights.mean()])


REWARDS = st.lists(st.integers(0, 10).map(lambda x: x / 10), min_size=1, max_size=8).map(np.array)


@given(REWARDS, REWARDS, st.floats(0, 1))
def test_mixed_advantages_are_gains_over_the_on_policy_mean_and_never_negative(mixed, own, share):
    a = mixed_advantages(mixed, own, share)
    assert (a >= 0).all()
    np.testing.assert_allclose(a, [share * max(0.0, r - sum(own) / len(own)) for r in mixed], atol=1e-12)


@given(REWARDS, REWARDS, st.floats(0, 1))
def test_neither_the_spread_of_the_group_nor_other_mixed_answers_change_a_mixed_advantage(mixed, own, share):
    a = mixed_advantages(mixed, own, share)
    spread_out = np.concatenate([own - 0.3, own + 0.3])
    np.testing.assert_allclose(mixed_advantages(mixed, spread_out, share), a, atol=1e-9)
    np.testing.assert_allclose(mixed_advantages(np.append(mixed, 1.0), own, share)[:-1], a)


@given(REWARDS, REWARDS, st.floats(0.01, 2))
def test_a_cap_limits_the_sum_of_a_prompts_mixed_advantages(mixed, own, cap):
    free, capped = mixed_advantages(mixed, own, 1.0), mixed_advantages(mixed, own, 1.0, cap=cap)
    assert capped.sum() <= cap * (1 + 1e-9)
    if free.sum() <= cap:
        assert np.array_equal(free, capped)
    elif free.sum() > 0:
        np.testing.assert_allclose(capped / capped.sum(), free / free.sum())


def test_the_teacher_fades_along_half_a_cosine():
    shares = [mixing.alpha(update, 120) for update in range(1, 130)]
    assert shares[0] == pytest.approx(1.0, abs=1e-3)
    assert shares[59] == pytest.approx(0.5)
    assert shares == sorted(shares, reverse=True)
    assert shares[119:] == [0.0] * 10
