"""Every word has one id and every number one bin; nothing else can be said."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.language.vocabulary import BINS, DRIVING, GAP, SPECIALS, TTC, Vocabulary
from sim.actions import MetaAction
from sim.errors import UsageError


@given(st.lists(st.integers(0, len(DRIVING) - 1)))
def test_text_and_ids_are_two_spellings_of_the_same(ids):
    assert DRIVING.encode(DRIVING.decode(ids)) == tuple(ids)


@given(st.lists(st.sampled_from(DRIVING.words)).map(" ".join))
def test_ids_give_the_text_back(text):
    assert DRIVING.decode(DRIVING.encode(text)) == text


def test_the_driving_vocabulary_is_small_and_has_a_word_for_every_action_and_bin():
    assert 150 <= len(DRIVING) <= 256
    assert all(action.name in DRIVING for action in MetaAction)
    assert all(word in DRIVING for bins in BINS for word in bins.words)


@pytest.mark.parametrize("bins", BINS, ids=lambda bins: bins.prefix)
@given(value=st.floats(-1e6, 1e6))
def test_a_bin_holds_values_at_most_half_its_width_from_its_middle(bins, value):
    middle = bins.value(bins.word(value))
    lowest, highest = bins.value(bins.words[0]), bins.value(bins.words[-1])
    inside = lowest - bins.width / 2 <= value <= highest + bins.width / 2
    assert abs(middle - value) <= bins.width / 2 * (1 + 1e-9) or not inside
    assert inside or middle == (lowest if value < lowest else highest)


@pytest.mark.parametrize("bins", BINS, ids=lambda bins: bins.prefix)
@given(values=st.lists(st.floats(allow_nan=False), min_size=2))
def test_larger_values_never_have_lower_bins(bins, values):
    middles = [bins.value(bins.word(value)) for value in sorted(values)]
    assert middles == sorted(middles)


@pytest.mark.parametrize("bins", BINS, ids=lambda bins: bins.prefix)
def test_the_middle_of_a_bin_lies_in_it(bins):
    assert [bins.word(bins.value(word)) for word in bins.words] == list(bins.words)


def test_a_time_that_never_comes_has_the_last_bin_and_nothing_has_a_bin_for_nan():
    assert TTC.word(math.inf) == "t7"
    assert GAP.word(17.0) == "g6"
    with pytest.raises(ValueError, match="NaN"):
        GAP.word(math.nan)


def test_an_unknown_word_is_named_with_a_suggestion():
    with pytest.raises(UsageError, match=r"'LANE_LEFTT'.*did you mean 'LANE_LEFT'"):
        DRIVING.encode("legal LANE_LEFTT")
    with pytest.raises(UsageError, match="token 9999"):
        DRIVING.decode([9999])


def test_a_changed_word_list_is_another_version():
    words = [*SPECIALS, "a", "b"]
    assert Vocabulary("v", words).version == Vocabulary("v", words).version
    assert Vocabulary("v", words).version != Vocabulary("v", [*SPECIALS, "b", "a"]).version


@pytest.mark.parametrize("words", [[*SPECIALS, "a", "a"], [*SPECIALS, "a b"], [*SPECIALS, ""], ["a"]])
def test_words_that_text_cannot_hold_are_refused(words):
    with pytest.raises(UsageError, match="vocabulary 'v'"):
        Vocabulary("v", words)
