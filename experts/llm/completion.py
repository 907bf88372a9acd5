"""The parts of a chat completion that matter, free of the client's types: read from JSON, kept in caches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer as it came."""

    content: str = ""
    refusal: str = ""
    finish_reason: str = ""
    first_token: Mapping[str, float] | None = None
    """Log-probabilities of the first token's alternatives, where asked for."""


def read_completion(body: Mapping[str, Any]) -> Completion | None:
    """Read the JSON of a chat completion.

    Args:
        body: The JSON object.

    Returns:
        The completion; None when it is not one.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    arguments = _tool_arguments(message.get("tool_calls"))
    return Completion(
        content=arguments or (content if isinstance(content, str) else ""),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choices[0].get("finish_reason")),
        first_token=_first_token(choices[0].get("logprobs")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _tool_arguments(calls: Any) -> str:
    """Arguments of the function calls; more than one call comes out as several JSON objects in a row."""
    if not isinstance(calls, list):
        return ""
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    return "\n".join(_text(function.get("arguments")) for function in functions if isinstance(function, dict))


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """Alternatives of the first token that is not white space, {token: log-probability}."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    for entry in content if isinstance(content, list) else []:
        if not isinstance(entry, dict) or not _text(entry.get("token")).strip():
            continue
        top = entry.get("top_logprobs")
        found: dict[str, float] = {}
        for row in top if isinstance(top, list) else []:
            value = row.get("logprob") if isinstance(row, dict) else None
            if isinstance(value, float) or (isinstance(value, int) and -1_000_000 < value < 1_000_000):
                found[_text(row.get("token"))] = float(value)
        return found or None
    return None


def dump_completion(completion: Completion) -> str:
    """A completion as JSON text, for the cache.

    Args:
        completion: Any.
    """
    return json.dumps([completion.content, completion.refusal, completion.finish_reason, completion.first_token])


def load_completion(text: str) -> Completion:
    """Inverse of `dump_completion`.

    Args:
        text: What that returned.
    """
    content, refusal, finish_reason, first_token = json.loads(text)
    return Completion(content, refusal, finish_reason, first_token)
