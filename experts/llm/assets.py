"""Where the prompt templates live: `assets/prompts/` at the root of the repository."""

from __future__ import annotations

from pathlib import Path

from sim.errors import UsageError

PROMPTS = Path(__file__).resolve().parents[2] / "assets" / "prompts"


def read_prompt(name: str) -> str:
    """Text of the prompt file `name`; UsageError when the installation lacks it."""
    path = PROMPTS / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"prompt file {name!r} is not in {str(PROMPTS)!r} ({error.strerror}): install from a checkout"
        ) from None
