"""The parts of a chat completion that matter, free of the client's types: read from JSON, kept in caches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
"""Members of a message in which endpoints report thoughts."""
MAX_THOUGHT = 20_000
"""Characters of a thought that are kept."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer as it came."""

    content: str = ""
    refusal: str = ""
    finish_reason: str = ""
    first_token: Mapping[str, float] | None = None
    """Log-probabilities of the first token's alternatives, where asked for."""
    thought: str = ""
    """What the model thought, where the endpoint keeps it apart from the content; its end, where it is long."""
    reasoning_tokens: int = 0
    """Tokens spent on thinking, where the endpoint counts them."""


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
    parts = read_parts(message.get("content"))
    return Completion(
        content=_tool_arguments(message.get("tool_calls")) or parts.text,
        refusal=_text(message.get("refusal")) or parts.refusal,
        finish_reason=_text(choices[0].get("finish_reason")),
        first_token=_first_token(choices[0].get("logprobs")),
        thought=(read_thought(message) or parts.thought)[-MAX_THOUGHT:],
        reasoning_tokens=_reasoning_tokens(body.get("usage")),
    )


@dataclass(frozen=True, slots=True)
class ContentParts:
    """The content of a message by what it is."""

    text: str = ""
    thought: str = ""
    refusal: str = ""


def read_parts(content: Any) -> ContentParts:
    """Read a message's content, which is a text or a list of parts.

    Args:
        content: Any JSON value.

    Returns:
        Texts, thoughts and refusals; parts of other kinds (pictures, sound) are left out.
    """
    if isinstance(content, str):
        return ContentParts(content)
    found: dict[str, list[str]] = {"text": [], "thought": [], "refusal": []}
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            found["text"].append(part)
        elif isinstance(part, dict):
            kind = _text(part.get("type")).lower()
            if any(word in kind for word in ("think", "reason", "thought")) or part.get("thought") is True:
                found["thought"].append(_gathered(part))
            elif "refusal" in kind:
                found["refusal"].append(_text(part.get("refusal")))
            elif kind in ("", "text", "output_text"):
                found["text"].append(_text(part.get("text")))
    return ContentParts(*("".join(found[name]) for name in ("text", "thought", "refusal")))


def read_thought(message: Mapping[str, Any]) -> str:
    """The thought that an endpoint reports beside the content.

    Args:
        message: A message, or what a stream adds to one.
    """
    return next((text for name in THOUGHTS if (text := _gathered(message.get(name)))), "")


def _gathered(value: Any, depth: int = 0) -> str:
    """All texts inside a thought, however it is packed."""
    if isinstance(value, str):
        return value
    if depth > 4 or not isinstance(value, list | dict):
        return ""
    items = value if isinstance(value, list) else [value.get(name) for name in ("text", *THOUGHTS, "summary")]
    return "".join(_gathered(item, depth + 1) for item in items)


def _reasoning_tokens(usage: Any) -> int:
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return count if isinstance(count, int) and 0 <= count < 2**31 else 0


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
    return json.dumps([getattr(completion, each.name) for each in fields(completion)])


def load_completion(text: str) -> Completion:
    """Inverse of `dump_completion`; what earlier versions stored has no thoughts.

    Args:
        text: What that returned.

    Raises:
        ValueError: It is something else.
    """
    values = json.loads(text)
    if not isinstance(values, list) or not 4 <= len(values) <= len(fields(Completion)):
        raise ValueError("not a completion")
    return Completion(*values)
