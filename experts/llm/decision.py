"""A language model's decision with its history, for logs and measurements."""

from __future__ import annotations

from dataclasses import dataclass, field

from experts.llm.faults import Fault
from experts.llm.timeline import RequestTimeline
from experts.provider import Decision


@dataclass(frozen=True, slots=True)
class LLMDecision(Decision):
    """A decision and how it came about."""

    rung: str | None = None
    """Rung of the ladder that was used; None when nothing was asked."""
    faults: tuple[Fault, ...] = ()
    """What went wrong on the way, in order."""
    cached: bool = False
    """Every completion came from the cache."""
    model_action: int | None = None
    """What the model chose, also where it was vetoed for being unsafe."""
    plan: tuple[int, ...] = ()
    horizon_s: float | None = None
    prompt: str | None = field(default=None, repr=False)
    """Full text of the prompt (JSON of its messages)."""
    answer: str | None = field(default=None, repr=False)
    """Text of the last completion."""
    prompt_version: str | None = None
    timeline: RequestTimeline | None = field(default=None, repr=False)
    """What the latency is made of; None where nothing was asked for at all."""
