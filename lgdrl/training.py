"""Training: one config in, one run folder out; killed or interrupted runs continue with identical results.

The loop (`lgdrl.loops`) does the work of the run; the trainer decides when rows, points of the learning curve and
checkpoints are written.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from experts.human import Hands
from experts.provider import PolicyProvider
from lgdrl.checkpoints import read_checkpoint, write_checkpoint
from lgdrl.config import RunConfig, load_config
from lgdrl.evaluation import Evaluation
from lgdrl.finite import NotFinite
from lgdrl.footprint import run_memory
from lgdrl.loops.loop import Callback, Loop
from lgdrl.memory import require_memory
from lgdrl.runs import MetricsTable, Run, RunFailed, write_text
from sim.carla.errors import SimError
from sim.config import dump_yaml, to_dict
from sim.errors import UsageError
from sim.files import set_aside, write_atomically


@dataclass(frozen=True)
class Progress:
    """What a caller may show after each log interval."""

    done: int
    """Units of the loop so far (decisions, updates)."""
    total: int
    labels: str
    """As `Trainer.labels`."""
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
        self._notes: list[str] = []
        self.metrics = self._open_metrics()
        self.elapsed_s = 0.0
        self.stop_requested = False
        if os.path.lexists(run.checkpoint):
            self._restore()
        else:
            loop.begin()
        self.metrics.truncate(loop.progress)
        self._interval = loop.progress, self.elapsed_s
        self._saved: int | None = loop.progress if run.checkpoint.exists() else None
        """Progress at the last checkpoint."""
        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=loop.progress)

    def _open_metrics(self) -> MetricsTable:
        """The table so far. A damaged one is set aside: a training does not depend on its rows."""
        path = self.run.metrics
        try:
            return MetricsTable(path, self.loop.unit)
        except UsageError as error:
            aside = set_aside(path)
            self._notes.append(f"{error}: it is kept as {aside.name}, and the rows before this point are lost")
            return MetricsTable(path, self.loop.unit)

    @property
    def notes(self) -> list[str]:
        """What the user should know about a resumed run, one line each."""
        return [*self._notes, *self.loop.notes]

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
        try:
            self.loop.advance(amount, callback)
        except NotFinite as error:
            raise RunFailed(f"{error}; {self._last_checkpoint()}") from None
        except (RunFailed, SimError, UsageError):
            raise
        except Exception as error:
            if self.loop.progress:
                raise
            raise _cannot_begin(error) from error
        self.elapsed_s += time.perf_counter() - started
        if self.loop.trouble:
            self.save()
            raise RunFailed(f"stopped: {self.loop.trouble}; then lgdrl train --resume {self.run.folder}")
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
            observe(Progress(now, config.steps, self.labels, row, evaluation))

    @property
    def labels(self) -> str:
        """How many labels of their budget the expert has given, in words; empty where none is asked."""
        if self.loop.provider is None:
            return ""
        budget = self.config.label_budget
        return f"{self.loop.labels:,} labels" if budget is None else f"{self.loop.labels:,}/{budget:,} labels"

    def finish(self) -> bool:
        """Save; with the last unit done, write the policy too. Returns whether that is so.

        Raises:
            RunFailed: Something cannot be written.
        """
        self.save()
        if self.done:
            self.loop.settle()  # after the checkpoint, which a longer run continues from
            with _written(self.run.policy):
                self.loop.write_exports(self.run)
                write_atomically(self.run.policy, self.loop.write_policy)
        return self.done

    def _curve_point(self, before: int) -> Evaluation | None:
        config = self.config
        due = config.evaluate_every and (_crossed(before, self.loop.progress, config.evaluate_every) or self.done)
        return self.loop.evaluate(config.evaluate_episodes) if due else None

    def save(self) -> None:
        """Write the checkpoint; a run killed after this continues from here, identically."""
        with _written(self.run.checkpoint):
            write_checkpoint(self.run.checkpoint, {"elapsed_s": self.elapsed_s, "loop": self.loop.state_dict()})
        self._saved = self.loop.progress

    def _last_checkpoint(self) -> str:
        """Where a run that broke can begin again."""
        if self._saved is None:
            return f"there is no checkpoint yet (checkpoint_every = {self.config.checkpoint_every:,})"
        return f"the last good checkpoint is {self.run.checkpoint} at {self._saved:,} {self.loop.unit}"

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
        self.run.release()


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
    require_memory(run_memory(config))
    run = Run.create(folder, dump_yaml(to_dict(config)))
    try:
        return _trainer(run, config, provider, hands)
    except BaseException:  # whatever it is, a run that could not begin leaves nothing behind
        run.discard()
        raise


def resume(
    folder: Path | str,
    provider: PolicyProvider | None = None,
    hands: Hands | None = None,
    steps: int | None = None,
) -> Trainer:
    """The trainer of an existing run, at its last checkpoint (or at the start, if it never reached one).

    Args:
        folder: The run folder.
        provider: An expert in place of the one that the config names.
        hands: Controls of a person who may take over the first environment.
        steps: A new end of the run, after its present one; None: as it was configured. The policy so far is kept
            beside the new one, as `policy-STEPS.safetensors`. Schedules stay as they were planned, so that the run
            equals an uninterrupted one with `schedule_steps` set to the first end; metrics.csv keeps the row that was
            written there, with its point of the learning curve.
    Raises:
        UsageError: There is no run, it is in use, a file in it is damaged, or it cannot be made longer.
    """
    run = Run.open(folder)
    run.lock()
    try:
        config = load_config(run.config, {}).resolved()
        if steps is not None and steps != config.steps:
            config = _longer(run, config, steps)
        require_memory(run_memory(config))
        return _trainer(run, config, provider, hands)
    except BaseException:
        run.release()
        raise


def _trainer(run: Run, config: RunConfig, provider: PolicyProvider | None, hands: Hands | None) -> Trainer:
    loop: Loop | None = None
    try:
        loop = config.method.make(config, run, provider, hands)
        return Trainer(run, config, loop)
    except BaseException as error:
        if loop is not None:
            with suppress(Exception):  # what could not begin may not be able to end either
                loop.close()
        if isinstance(error, (RunFailed, SimError, UsageError)) or not isinstance(error, Exception):
            raise
        raise _cannot_begin(error) from error


def _cannot_begin(error: Exception) -> UsageError:
    """What a simulator or a learner of others refuses only when it is made or started."""
    words = str(error).strip().splitlines() or ["no more is known"]
    return UsageError(f"the run cannot begin: {type(error).__name__}: {words[0]:.300}")


def _longer(run: Run, config: RunConfig, steps: int) -> RunConfig:
    """The config of a run with a later end, written into its folder."""
    if steps < config.steps:
        raise UsageError(f"--steps {steps}: the run has {config.steps:,} already; choose more")
    if not run.checkpoint.is_file():
        raise UsageError(f"--steps {steps}: {str(run.folder)!r} has no checkpoint to continue from; resume it first")
    if not config.method.more_steps:
        raise UsageError(f"--steps {steps}: strategy {config.strategy!r} has no more to learn; train a new run")
    try:
        for path in (run.policy, run.policy_zip, run.evaluation):
            if path.is_file():
                path.replace(path.with_name(f"{path.stem}-{config.steps}{path.suffix}"))
        longer = dataclasses.replace(config, steps=steps, schedule_steps=config.schedule_steps or config.steps)
        write_text(run.config, dump_yaml(to_dict(longer)))
    except OSError as error:
        raise UsageError(f"cannot write the run folder {str(run.folder)!r}: {error.strerror}") from None
    return longer


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What the disk refuses, as one line that says what is still there."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"cannot write {str(path)!r}: {error.strerror}; what was saved before is whole, continue from it with "
            "--resume"
        ) from None


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
