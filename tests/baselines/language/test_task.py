"""Traces are cut at boundaries that they have, and hints leave the prompt's last word where it is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.language.task import TaskPrompt, Trace, traced, with_hint
from experts.language.vocabulary import DRIVING
from sim.errors import UsageError

ENDS = st.lists(st.integers(1, 6), min_size=1, max_size=20).map(lambda steps: tuple(itertools.accumulate(steps)))


def trace(ends: tuple[int, ...]) -> Trace:
    return Trace(tuple(range(ends[-1])), ends)


@given(ENDS, st.integers(1, 12))
def test_merged_episodes_are_as_many_as_allowed_and_end_where_some_did(ends, most):
    merged = trace(ends).merged(most)
    assert merged.tokens == trace(ends).tokens
    assert merged.episodes == min(most, len(ends))
    assert set(merged.ends) <= set(ends)


@given(st.integers(1, 10), st.integers(1, 5))
def test_merging_equal_episodes_gives_equal_episodes(most, each):
    ends = tuple(2 * (i + 1) for i in range(most * each))
    merged = trace(ends).merged(most)
    assert merged.ends == tuple(2 * each * (i + 1) for i in range(most))


@given(ENDS)
def test_openings_grow_from_nothing_to_the_whole(ends):
    whole = trace(ends)
    openings = [whole.opening(j) for j in range(whole.episodes + 1)]
    assert openings[0] == ()
    assert openings[-1] == whole.tokens
    assert all(b[: len(a)] == a and len(a) < len(b) for a, b in itertools.pairwise(openings))


@pytest.mark.parametrize("ends", [(), (0, 3), (2, 2, 3), (1, 2), (3, 2)])
def test_boundaries_that_do_not_cut_the_trace_into_episodes_are_refused(ends):
    with pytest.raises(ValueError, match="expected ascending offsets"):
        Trace((5, 6, 7), ends)


def test_a_hint_stands_before_the_word_after_which_the_answer_begins():
    prompt = DRIVING.encode("plan 3 <think>")
    hinted = with_hint(prompt, DRIVING.encode("own free ;"), DRIVING)
    assert DRIVING.decode(hinted) == "plan 3 <hint> own free ; </hint> <think>"


def test_imitation_without_any_trace_is_refused():
    with pytest.raises(UsageError, match="no prompt of the task has one"):
        traced([TaskPrompt("a", (1, 2))], "imitation")
