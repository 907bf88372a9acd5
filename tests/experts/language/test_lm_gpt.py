"""Cached, batched and ragged, the model says what it says plainly: one row, no cache, each step afresh."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.language import gpt
from experts.language.gpt import GPTConfig, draw, entropy, generate, log_policy
from experts.language.teacher import GPTTeacher, TokenProvider
from experts.language.vocabulary import DRIVING, SPECIALS, Vocabulary
from sim.errors import UsageError

torch.set_num_threads(1)
CONFIG = GPTConfig(vocab_size=13, context=24, layers=2, heads=2, width=16)
EOS = 1
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 3, 10]]


@pytest.fixture(scope="module")
def model():
    return gpt.new(CONFIG, seed=3)


def plainly(model, prompt, uniforms=None, limit=8, temperature=1.0, allowed=None):
    """The reference: the whole text goes through the model for every word."""
    said, log_probs, entropies = [], [], []
    for t in range(limit):
        with torch.no_grad():
            policy = log_policy(model(torch.tensor([[*prompt, *said]]))[0, -1], temperature, allowed)
        word = int(policy.argmax()) if uniforms is None else int(np.searchsorted(policy.exp().cumsum(0), uniforms[t]))
        said.append(word)
        log_probs.append(float(policy[word]))
        entropies.append(-float(torch.special.xlogy(policy.exp(), policy.exp()).sum()))
        if word == EOS:
            break
    return said, log_probs, entropies


def test_greedy_cached_generation_is_the_full_forward_pass(model):
    written = generate(model, PROMPTS, [8, 8, 8], EOS)
    for i, prompt in enumerate(PROMPTS):
        assert list(written.row(i)) == plainly(model, prompt)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_words_their_log_probabilities_and_entropies_are_those_of_the_full_forward_pass(model, temperature):
    uniforms = np.random.default_rng(0).random((6, 8))
    allowed = torch.arange(13) != 4
    written = generate(model, PROMPTS, [8, 8, 8], EOS, uniforms, 2, temperature, allowed)
    for i in range(6):
        said, log_probs, entropies = plainly(model, PROMPTS[i // 2], uniforms[i], 8, temperature, allowed)
        n = len(said)
        assert list(written.row(i)) == said
        np.testing.assert_allclose(written.log_probs[i, :n], log_probs, atol=1e-5)
        np.testing.assert_allclose(written.entropies[i, :n], entropies, atol=1e-5)


def test_words_that_are_not_allowed_are_never_written(model):
    allowed = torch.zeros(13, dtype=torch.bool)
    allowed[[5, 6, 7]] = True
    written = generate(model, PROMPTS, [12] * 3, EOS, np.random.default_rng(1).random((30, 12)), 10, 1.0, allowed)
    assert set(written.tokens.unique().tolist()) == {5, 6, 7}


def test_every_prompt_has_a_limit_of_its_own_and_the_end_of_text_counts(model):
    uniforms = np.random.default_rng(2).random((300, 12))
    written = generate(model, PROMPTS, [12, 2, 1], EOS, uniforms, 100)
    lengths = written.lengths.reshape(3, 100)
    assert lengths.max(dim=1).values.tolist() == [12, 2, 1]
    for i in range(300):
        row, limit = written.row(i), (12, 2, 1)[i // 100]
        assert EOS not in row[:-1]
        assert row[-1] == EOS or len(row) == limit


def test_rounding_apart_a_row_of_the_batched_forward_pass_ignores_its_padding(model):
    text = [3, 4, 5, 6]
    with torch.no_grad():
        alone = model(torch.tensor([text]))[0]
        padded = model(torch.tensor([[*text, 0, 0, 0], [7] * 7]))[0, :4]
    torch.testing.assert_close(alone, padded)


def test_what_does_not_fit_the_context_is_refused(model):
    with pytest.raises(UsageError, match="25 tokens exceed the model's context of 24"):
        generate(model, [[3] * 20], [5], EOS)
    with pytest.raises(UsageError, match="empty"):
        generate(model, [[]], [5], EOS)


# --- draws -----------------------------------------------------------------------------------------------------------

PROBS = st.lists(st.floats(0, 1, width=32).map(lambda p: p if p > 1e-6 else 0.0), min_size=2, max_size=9).filter(any)


@given(PROBS, st.floats(0, 1, exclude_max=True))
def test_a_draw_inverts_the_cumulated_probabilities_and_never_picks_an_impossible_word(probs, uniform):
    picked = int(draw(torch.tensor([probs]), torch.tensor([uniform], dtype=torch.float64)))
    assert probs[picked] > 0
    before, total = sum(probs[:picked]), sum(probs)
    assert before <= uniform * total + 1e-9
    assert uniform * total <= before + probs[picked] + 1e-9


def test_entropy_is_zero_where_one_word_is_left_and_highest_where_all_are_alike():
    certain = log_policy(torch.zeros(4), allowed=torch.tensor([False, True, False, False]))
    assert entropy(certain) == 0
    assert entropy(log_policy(torch.zeros(4))) == pytest.approx(np.log(4))


# --- making, saving, loading -----------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_model_and_leaves_torch_alone():
    state = torch.random.get_rng_state()
    first, second, other = gpt.new(CONFIG, 5), gpt.new(CONFIG, 5), gpt.new(CONFIG, 6)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.words.weight, other.words.weight)


def test_an_untrained_model_finds_all_words_about_equally_likely():
    config = GPTConfig(len(DRIVING))
    logits = gpt.new(config, 0)(torch.randint(0, len(DRIVING), (4, 50), generator=torch.Generator().manual_seed(0)))
    assert entropy(log_policy(logits)).mean() > np.log(len(DRIVING)) - 1.0


WORDS = Vocabulary("words", [*SPECIALS, *"abcdefg"])


def test_a_saved_model_comes_back_to_the_bit_and_can_be_trained(model, tmp_path):
    path = tmp_path / "model.safetensors"
    gpt.save(model, WORDS, path)
    again = gpt.load(path, WORDS)
    assert again.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    again(torch.tensor([[3, 4]])).sum().backward()
    assert again.words.weight.grad is not None


def test_a_model_of_another_vocabulary_or_no_model_at_all_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    gpt.save(model, WORDS, path)
    with pytest.raises(UsageError, match=r"speaks 'words-.*, not 'driving-1-"):
        gpt.load(path, DRIVING)
    path.write_bytes(b"not a model at all")
    with pytest.raises(UsageError, match="is not a driving language model"):
        gpt.load(path, WORDS)
    with pytest.raises(UsageError, match="cannot read model"):
        gpt.load(tmp_path / "nowhere", WORDS)


# --- a model as a teacher --------------------------------------------------------------------------------------------


def test_a_follower_that_remembers_says_what_the_full_forward_pass_says_however_answers_change(model):
    """Answers grow, shrink and change anywhere between two calls, as they do when drafts are rejected."""
    teacher = GPTTeacher(model, WORDS.version)
    assert isinstance(teacher, TokenProvider)
    follow = teacher.follow(PROMPTS)
    stream = np.random.default_rng(0)
    said = [[3, 4, 5] for _ in PROMPTS]
    for count in (1, 4, 2, 3, 1, 4, 4):
        said = [text[: stream.integers(0, len(text) + 1)] + stream.integers(2, 13, 4).tolist() for text in said]
        heard = follow(said, count)
        assert heard.shape == (3, count, 13)
        for prompt, text, row in zip(PROMPTS, said, heard, strict=True):
            with torch.no_grad():
                expected = torch.log_softmax(model(torch.tensor([[*prompt, *text]]))[0, -count:], dim=-1)
            torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


def test_a_teacher_has_no_opinion_beyond_its_context(model):
    heard = GPTTeacher(model, WORDS.version).follow([[3] * 20])([[4] * 6], 4)
    assert heard.isnan().all(dim=-1).tolist() == [[False, False, True, True]]
