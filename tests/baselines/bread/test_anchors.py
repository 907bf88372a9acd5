"""The search finds the shortest useful hint within its bound of groups, and copes with success that does not grow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.bread import anchors
from baselines.bread.anchors import Range

WANTED = Range(0.125, 0.9)


def search(method, success):
    """Where a search ends on a curve `success[anchor]`, and the anchors that it tried."""
    tried = []

    def probe(pairs):
        ((_, anchor),) = pairs
        tried.append(anchor)
        return [success[anchor]]

    (found,) = anchors.run([method], probe)
    assert found.probes == len(tried)
    return found.anchor, tried


@pytest.mark.parametrize("episodes", [2, 3, 5, 8, 10, 16])
@pytest.mark.parametrize("too_easy_behind", [True, False])
def test_on_a_step_the_shortest_useful_hint_is_found_wherever_it_is(episodes, too_easy_behind):
    for shortest in range(1, episodes):
        behind = 1.0 if too_easy_behind else 0.95
        success = [0.0] * shortest + [0.5] + [behind] * (episodes - shortest)
        for method in (anchors.binary(episodes, WANTED), anchors.binary(episodes, WANTED, "shortest")):
            found, tried = search(method, success)
            assert found == shortest
            assert len(tried) <= math.ceil(math.log2(episodes))


def test_at_ten_episodes_a_failing_prompt_takes_at_most_five_groups_the_bare_one_counted():
    most = max(len(search(anchors.binary(10, WANTED), [0.0] * j + [1.0] * (11 - j))[1]) for j in range(1, 11))
    assert 1 + most == 5


@given(st.lists(st.floats(0, 1), min_size=2, max_size=14).map(sorted))
def test_on_any_growing_curve_the_shortest_hint_in_range_is_found_by_the_search_that_is_asked_for_it(success):
    episodes = len(success)
    inside = [j for j in range(1, episodes) if success[j] in WANTED]
    if inside:
        assert search(anchors.binary(episodes, WANTED, "shortest"), success)[0] == inside[0]
        assert search(anchors.binary(episodes, WANTED), success)[0] in inside


CURVES = st.lists(st.floats(0, 1), min_size=1, max_size=14)


@given(CURVES, st.sampled_from(["first", "shortest"]))
def test_on_any_curve_a_search_ends_in_time_and_returns_the_best_that_it_met(success, stop):
    episodes = len(success)
    found, tried = search(anchors.binary(episodes, WANTED, stop), success)
    assert len(tried) <= math.ceil(math.log2(max(episodes, 1)))
    assert all(1 <= anchor < episodes for anchor in tried)
    assert len(set(tried)) == len(tried)
    if any(success[anchor] in WANTED for anchor in tried):
        assert success[found] in WANTED
    elif any(success[anchor] > WANTED.high for anchor in tried):
        assert found == min(anchor for anchor in tried if success[anchor] > WANTED.high)
    elif any(success[anchor] > 0 for anchor in tried):
        assert success[found] == max(success[anchor] for anchor in tried)
    else:
        assert found is None


@given(CURVES)
def test_one_by_one_the_shortest_hint_that_is_not_too_hard_is_found(success):
    episodes = len(success)
    found, tried = search(anchors.linear(episodes, WANTED), success)
    enough = [j for j in range(1, episodes) if success[j] >= WANTED.low]
    assert tried == list(range(1, (enough[0] if enough else episodes - 1) + 1))
    if enough:
        assert found == enough[0]
    else:
        assert found is None or success[found] == max(success[1:])


def test_a_random_anchor_is_anywhere_but_at_the_end_and_dropped_without_any_success():
    stream = np.random.default_rng(0)
    found = [search(anchors.anywhere(5, stream), [0.0, 0.0, 0.5, 0.5, 0.5]) for _ in range(200)]
    assert {tried[0] for _, tried in found} == {1, 2, 3, 4}
    assert {anchor for anchor, _ in found} == {None, 2, 3, 4}


@given(st.lists(CURVES, max_size=6))
def test_searches_side_by_side_end_where_they_would_alone(curves):
    def probe(pairs):
        assert len({k for k, _ in pairs}) == len(pairs)
        return [curves[k][anchor] for k, anchor in pairs]

    together = anchors.run([anchors.binary(len(curve), WANTED) for curve in curves], probe)
    alone = [search(anchors.binary(len(curve), WANTED), curve) for curve in curves]
    assert [(found.anchor, found.probes) for found in together] == [(end, len(tried)) for end, tried in alone]
