"""Batched computation for several threads: items that wait while one batch is computed form the next."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Computes in a thread of its own, in the order of arrival. No item waits for a batch to fill up."""

    def __init__(self, compute: Callable[[list[Q]], Sequence[A]], most: int) -> None:
        """Start no thread yet.

        Args:
            compute: Results of a batch, in order.
            most: Most items of one batch.
        """
        self.sizes: Counter[int] = Counter()
        """Batches so far, by their number of items."""
        self._compute, self._most = compute, most
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, items: Sequence[Q]) -> list[Future[A]]:
        """Submit items together; up to `most` of them are computed together. Cancelled ones are left out.

        Args:
            items: R items.

        Returns:
            R futures.
        """
        asked = [(item, Future[A]()) for item in items]
        with self._changed:
            if self._closed:
                raise RuntimeError("the batches are closed")
            self._waiting += asked
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
                self._thread.start()
            self._changed.notify()
        return [future for _, future in asked]

    def close(self) -> None:
        """Compute what waits, then end the thread. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def _work(self) -> None:
        while batch := self._next():
            taken = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if not taken:
                continue
            self.sizes[len(taken)] += 1
            try:
                answers = self._compute([item for item, _ in taken])
            except Exception as error:
                for _, future in taken:
                    future.set_exception(error)
            else:
                for (_, future), answer in zip(taken, answers, strict=True):
                    future.set_result(answer)

    def _next(self) -> list[tuple[Q, Future[A]]]:
        """The next batch; empty when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
