"""Training: one config in, one run folder out; killed or interrupted runs continue with identical results.

The loop (`lgdrl.loops`) does the work of the run; the trainer decides when rows, points of the learning curve and
checkpoints are written.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from experts.human import Hands
from experts.provider import PolicyProvider
from lgdrl.checkpoints import read_checkpoint, write_checkpoint
from lgdrl.config import RunConfig, load_config
from lgdrl.evaluation import Evaluation
from lgdrl.loops.loop import Callback, Loop
from lgdrl.runs import MetricsTable, Run
from sim.config import dump_yaml, to_dict
from sim.errors import UsageError
from sim.files import write_atomically


@dataclass(frozen=True)
class Progress:
    """What a caller may show after each log interval."""

    done: int
    """Units of the loop so far (decisions, updates)."""
    total: int
    row: Mapping[str, Any]
    """The row just written to metrics.csv."""
    evaluation: Evaluation | None


Observer = Callable[[Progress], None]


class Trainer:
    """A run and its loop.

    Args:
        run: The run folder. If it holds a checkpoint, the loop continues from there.
        config: The resolved config.
        loop: The loop of the config's method.
    """

    def __init__(self, run: Run, config: RunConfig, loop: Loop) -> None:
        self.run = run
        self.config = config
        self.loop = loop
        self.metrics = MetricsTable(run.metrics, loop.unit)
        self.elapsed_s = 0.0
        self.stop_requested = False
        if run.checkpoint.exists():
            self._restore()
        else:
            loop.begin()
        self.metrics.truncate(loop.progress)
        self._interval = loop.progress, self.elapsed_s
        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=loop.progress)

    @property
    def done(self) -> bool:
        """Whether the run has reached its end."""
        return self.loop.progress >= self.config.steps

    def train(self, observe: Observer | None = None) -> bool:
        """Train to the end, or until `stop_requested`; either way the run is saved.

        Args:
            observe: Called after each log interval.
        Returns:
            Whether the end was reached.
        """
        config = self.config
        while not self.done and not self.stop_requested:
            until = min((self.loop.progress // config.log_every + 1) * config.log_every, config.steps)
            self.advance(until - self.loop.progress, observe=observe)
        return self.finish()

    def advance(self, amount: int, callback: Callback | None = None, observe: Observer | None = None) -> None:
        """Go on, at most to the end of the log interval; there the row, and what else is due, are written.

        Args:
            amount: Units of the loop.
            callback: Passed to the loop.
            observe: Called at the end of a log interval.
        """
        config, started = self.config, time.perf_counter()
        self.loop.advance(amount, callback)
        self.elapsed_s += time.perf_counter() - started
        before, elapsed = self._interval
        now = self.loop.progress
        if not _crossed(before, now, config.log_every) and not self.done:
            return
        evaluation = self._curve_point(before)
        rate = (now - before) / (self.elapsed_s - elapsed)
        row: dict[str, Any] = {self.loop.unit: now, "elapsed_s": round(self.elapsed_s, 2), "rate": _three_digits(rate)}
        if evaluation is not None:
            row |= evaluation.curve_row()
        row |= self.loop.row()
        self._interval = now, self.elapsed_s
        self.metrics.add(row)
        for name, value in row.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, now)
        if _crossed(before, now, config.checkpoint_every):
            self.save()
        if observe is not None:
            observe(Progress(now, config.steps, row, evaluation))

    def finish(self) -> bool:
        """Save; with the last unit done, write the policy too. Returns whether that is so."""
        if self.done:
            self.loop.settle()
        self.save()
        if self.done:
            self.loop.write_exports(self.run)
            write_atomically(self.run.policy, self.loop.write_policy)
        return self.done

    def _curve_point(self, before: int) -> Evaluation | None:
        config = self.config
        due = config.evaluate_every and (_crossed(before, self.loop.progress, config.evaluate_every) or self.done)
        return self.loop.evaluate(config.evaluate_episodes) if due else None

    def save(self) -> None:
        """Write the checkpoint; a run killed after this continues from here, identically."""
        write_checkpoint(self.run.checkpoint, {"elapsed_s": self.elapsed_s, "loop": self.loop.state_dict()})

    def _restore(self) -> None:
        path = self.run.checkpoint
        state = read_checkpoint(path)
        try:
            self.loop.load_state_dict(state["loop"])
            self.elapsed_s = float(state["elapsed_s"])
        except UsageError as error:
            raise UsageError(f"checkpoint {str(path)!r}: {error}") from None
        except Exception as error:  # content that does not fit raises almost anything
            words = (str(error).splitlines() or [""])[0]
            raise UsageError(
                f"checkpoint {str(path)!r} does not fit the config beside it ({type(error).__name__}: {words:.120}): "
                "restore that config, or delete the checkpoint to start over"
            ) from None

    def close(self) -> None:
        """Release everything; nothing is saved."""
        self._board.close()
        self.loop.close()


def start(
    config: RunConfig, folder: Path | str, provider: PolicyProvider | None = None, hands: Hands | None = None
) -> Trainer:
    """Check the config, create the run folder, build the trainer.

    Args:
        config: The config of the run.
        folder: The run folder; it must not hold anything.
        provider: An expert in place of the one that the config names.
        hands: Controls of a person who may take over the first environment.
    Raises:
        UsageError: Something in the config is wrong, or the folder cannot be used. Nothing was written then.
    """
    config = config.resolved()
    config.method.check(config, provider)
    run = Run.create(folder, dump_yaml(to_dict(config)))
    try:
        return Trainer(run, config, config.method.make(config, run, provider, hands))
    except BaseException:  # whatever it is, a run that could not begin leaves nothing behind
        shutil.rmtree(run.folder)
        raise


def resume(folder: Path | str, provider: PolicyProvider | None = None, hands: Hands | None = None) -> Trainer:
    """The trainer of an existing run, at its last checkpoint (or at the start, if it never reached one).

    Args: As for `start`.
    """
    run = Run.open(folder)
    config = load_config(run.config, {}).resolved()
    return Trainer(run, config, config.method.make(config, run, provider, hands))


def evaluate_run(run: Run, episodes: int, first_seed: int, overrides: Mapping[str, Any] | None = None) -> Evaluation:
    """The learner of a finished run alone, expert off.

    Args:
        run: The run.
        episodes: Number of episodes.
        first_seed: Seed of the first one; the others follow.
        overrides: Changes of its config.
    """
    config = load_config(run.config, overrides or {}).resolved()
    return config.method.evaluate(config, run, episodes, first_seed)


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C lets the present interval finish and saves; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _three_digits(rate: float) -> float:
    """Units per second; slow loops need the digits behind the point."""
    return round(rate) if rate >= 100 else float(f"{rate:.3g}")


def _crossed(before: int, now: int, every: int) -> bool:
    return before // every != now // every
