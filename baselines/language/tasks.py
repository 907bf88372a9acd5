"""Tasks by name, found through the entry point group `lgdrl.language_tasks`: what language-model methods learn.

Methods do not import tasks, nor tasks methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines.language.task import TextTask
from experts.language.teacher import TokenProvider
from lgdrl.config import RunConfig
from lgdrl.plugins import Registry


@dataclass(frozen=True)
class TaskKind:
    """A named kind of text task."""

    name: str
    summary: str
    defaults: Any
    """An instance of its frozen config dataclass."""
    check: Callable[[Any, RunConfig], None]
    """(resolved task options, resolved config): raises UsageError for what can be refused without making the task."""
    make: Callable[[Any, RunConfig], TextTask]
    """(resolved task options, resolved config) -> the task, the same for the same arguments."""
    teacher: Callable[[TextTask, str | None], TokenProvider]
    """(the task, file of a model or None) -> a live teacher. UsageError where the file holds none."""


TASKS: Registry[TaskKind] = Registry("lgdrl.language_tasks", "language task")
