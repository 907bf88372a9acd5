"""Independent pieces of work in parallel processes: progress of each, and one that fails does not stop the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from lgdrl.runs import RunFailed

Report = Callable[[str, int, int, str], None]
"""(name, done, in total, what else is worth saying of it, may be empty)"""
Job = tuple[Callable[..., "str | None"], tuple[Any, ...]]
"""A function of a module, and its arguments. It returns what failed in one line, if anything (see `contained`)."""


def run_all(jobs: Sequence[Job], processes: int, report: Report | None = None) -> None:
    """Run all jobs in parallel.

    Args:
        jobs: The jobs.
        processes: Number of worker processes.
        report: Receives their progress.
    Raises:
        RunFailed: At the end, if any failed.
    """
    if not jobs:
        return
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        messages = manager.Queue()
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare, initargs=(messages,)) as pool:
            waiting: set[Future] = {pool.submit(work, *arguments) for work, arguments in jobs}
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    while not messages.empty():
                        message = messages.get()
                        if report is not None:
                            report(*message)
                    failures += [future.result() for future in done if future.result()]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    if failures:
        raise RunFailed(f"{len(failures)} of {len(jobs)} runs failed, the others are saved; first: {failures[0]}")


def contained(name: str, work: Callable[[], None]) -> str | None:
    """Do the work of a job; what goes wrong becomes one line, so that other jobs go on."""
    try:
        work()
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}".splitlines()[0]
    return None


_messages: Any = None


def _prepare(messages: Any) -> None:
    global _messages  # the pool's only way to hand its workers a queue
    _messages = messages


def say(name: str, done: int, total: int, note: str = "") -> None:
    """Report progress from within a job; outside of one this does nothing."""
    if _messages is not None:
        _messages.put((name, done, total, note))
