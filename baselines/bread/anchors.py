"""Episode anchor search: how many leading episodes of an expert's trace to give away, as few as possible.

A search is a generator. It yields the next anchor to try (1 to episodes - 1: the last episode is never given away), is
sent the share of successes of a fresh group there, and returns the anchor whose group to learn from, or None. Many
searches can go on at once, and their groups be written together. A search expects success to grow with the hint and
survives where it does not: it then returns the best that it met.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Literal, NamedTuple

import numpy as np

Search = Generator[int, float, int | None]


class Range(NamedTuple):
    """Shares of successes that a group should have, both ends included."""

    low: float
    high: float

    def __contains__(self, success: object) -> bool:
        return isinstance(success, float | int) and self.low <= success <= self.high


def binary(episodes: int, wanted: Range, stop: Literal["first", "shortest"] = "first") -> Search:
    """Halve the anchors until a group is in range: ceil(log2 episodes) groups at most.

    Falls back on the shortest hint met that is too easy, then on the group with most successes among those that are
    too hard.

    Args:
        episodes: Of the trace.
        wanted: Range of success.
        stop: "first": at the first group in range; "shortest": at the shortest hint in range.
    """
    low, high = 1, episodes - 1
    found = easy = None
    hard, most = None, 0.0
    while low <= high:
        anchor = (low + high) // 2
        success = yield anchor
        if success < wanted.low:
            if success > most:
                hard, most = anchor, success
            low = anchor + 1
            continue
        if success in wanted:
            found = anchor
            if stop == "first":
                break
        else:
            easy = anchor
        high = anchor - 1
    return next((anchor for anchor in (found, easy, hard) if anchor is not None), None)


def linear(episodes: int, wanted: Range) -> Search:
    """Give away one episode more at a time until a group is no longer too hard. For comparison.

    Args:
        episodes: Of the trace.
        wanted: Range of success.
    """
    hard, most = None, 0.0
    for anchor in range(1, episodes):
        success = yield anchor
        if success >= wanted.low:
            return anchor
        if success > most:
            hard, most = anchor, success
    return hard


def anywhere(episodes: int, stream: np.random.Generator) -> Search:
    """One group at a random anchor. For comparison.

    Args:
        episodes: Of the trace.
        stream: Draws the anchor.
    """
    if episodes < 2:
        return None
    anchor = int(stream.integers(1, episodes))
    success = yield anchor
    return anchor if success > 0 else None


class Found(NamedTuple):
    """How a search ended."""

    anchor: int | None
    probes: int
    """Groups that it had written."""


def run(searches: Sequence[Search], probe: Callable[[list[tuple[int, int]]], Sequence[float]]) -> list[Found]:
    """Advance searches side by side until all are over.

    Args:
        searches: The searches.
        probe: Is given (search, anchor) pairs, at most one per search, and returns each one's success.
    """
    results: list[Found | None] = [None] * len(searches)
    probes = [0] * len(searches)
    answers: dict[int, float | None] = dict.fromkeys(range(len(searches)))
    while answers:
        wanted = []
        for k, success in answers.items():
            try:
                wanted.append((k, next(searches[k]) if success is None else searches[k].send(success)))
                probes[k] += 1
            except StopIteration as over:
                results[k] = Found(over.value, probes[k])
        successes = probe(wanted) if wanted else []
        answers = {k: success for (k, _), success in zip(wanted, successes, strict=True)}
    return [found for found in results if found is not None]
