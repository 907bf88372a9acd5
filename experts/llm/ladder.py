"""Structured-output ladder: five ways to get an action out of a chat endpoint, the most constrained one first.

    logprobs     one token, its alternatives' log-probabilities over the label letters: a full distribution
    json_schema  strict schema whose `action` is an enum of the actions available now
    tools        the same schema as the arguments of a forced function call
    json_object  JSON mode, schema in words
    text         free text that ends with `#### <id>`

Which rungs an endpoint has is found out once, at start-up, by asking (`experts.llm.probe`): servers answer an
unsupported one with 400, 404 or 500, or silently ignore it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Annotated, Any

from experts.llm.completion import Completion
from experts.llm.faults import Fault
from experts.llm.parse import Parsed
from experts.llm.prompt import MAX_REASON, Form, Prompt, PromptConfig
from sim.bounds import Bounds, Whole, config_dataclass
from sim.errors import UsageError

TOOL = "choose_action"


class Rung(StrEnum):
    """The rungs, from the most to the least constrained."""

    LOGPROBS = "logprobs"
    JSON_SCHEMA = "json_schema"
    TOOLS = "tools"
    JSON_OBJECT = "json_object"
    TEXT = "text"

    @property
    def form(self) -> Form:
        """The form of answer that the prompt must ask for."""
        if self is Rung.LOGPROBS:
            return "label"
        return "text" if self is Rung.TEXT else "json"


FIELDS = {
    Rung.LOGPROBS: frozenset({"logprobs", "top_logprobs"}),
    Rung.JSON_SCHEMA: frozenset({"response_format"}),
    Rung.TOOLS: frozenset({"tools"}),
    Rung.JSON_OBJECT: frozenset({"response_format"}),
    Rung.TEXT: frozenset[str](),
}
"""Request parameters without which a rung is none."""
OWN = frozenset({"messages", "model", "stream", "n"})
"""Members of a request that the client alone decides."""


@config_dataclass
class SamplingConfig:
    """How answers are sampled; all of it is part of the cache key."""

    temperature: Annotated[float, Bounds(0, 100)] = 0.0  # greedy: the nearest to reproducible that an endpoint offers
    seed: Whole = 0  # sent along; endpoints may ignore it
    max_tokens: Annotated[int, Bounds(1, 10_000_000)] = 256  # of an answer, in the JSON and text rungs
    # alternatives asked for in the logprobs rung; 20 is the protocol's limit
    top_logprobs: Annotated[int, Bounds(0, 1000)] = 20
    choice: bool = True  # name the labels as `structured_outputs.choice` where the probe found that the server reads it
    token_field: str = "max_tokens"  # or "max_completion_tokens"; where one is refused, the other is tried
    extra: dict[str, Any] = field(default_factory=dict)  # further members of the request: {"reasoning_effort": "low"}

    def __post_init__(self) -> None:
        for name in sorted(OWN & self.extra.keys()):
            raise UsageError(f"extra.{name}: this member of a request cannot be set")


def rungs_for(prompt: PromptConfig) -> tuple[Rung, ...]:
    """The rungs that can carry what the prompt asks for: reasoning, probs and plans need more than one token."""
    wants_text = prompt.reasoning != "none" or prompt.ask_probs or prompt.ask_plan
    return tuple(rung for rung in Rung if not (wants_text and rung is Rung.LOGPROBS))


def request(rung: Rung, prompt: Prompt, config: PromptConfig, sampling: SamplingConfig, choice: bool) -> dict[str, Any]:
    """Arguments of `chat.completions.create`, model and time-out apart.

    `choice` restricts the logprobs rung to the available labels by vLLM's extension `structured_outputs.choice`.
    """
    one_token = rung is Rung.LOGPROBS
    extra = copy.deepcopy(sampling.extra)
    args: dict[str, Any] = {
        "messages": list(prompt.messages),
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        sampling.token_field: 1 if one_token else sampling.max_tokens,
    }
    if one_token:
        args |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        if choice:
            extra["structured_outputs"] = {"choice": sorted(prompt.labels)}
    elif rung is Rung.JSON_SCHEMA:
        schema = {"name": TOOL, "strict": True, "schema": answer_schema(prompt, config)}
        args["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif rung is Rung.TOOLS:
        function = {"name": TOOL, "strict": True, "parameters": answer_schema(prompt, config)}
        args["tools"] = [{"type": "function", "function": function}]
        args["tool_choice"] = {"type": "function", "function": {"name": TOOL}}
    elif rung is Rung.JSON_OBJECT:
        args["response_format"] = {"type": "json_object"}
    return args | ({"extra_body": extra} if extra else {})


def answer_schema(prompt: Prompt, config: PromptConfig) -> dict[str, Any]:
    """The JSON schema of an answer, `action` first so that a streaming reader can act before the rest arrives.

    Only with long reasoning does the text come first. Every property is required, as strict mode demands.
    """
    labels = sorted(prompt.labels)
    action = {"action": {"type": "string", "enum": labels}}
    extra: dict[str, Any] = {}
    if config.ask_probs:
        number = {"type": "number", "minimum": 0, "maximum": 1}
        extra["probs"] = _object(dict.fromkeys(labels, number))
    if config.ask_plan:
        every = sorted(prompt.actions.labels(range(len(prompt.actions))))
        extra["plan"] = {"type": "array", "items": {"type": "string", "enum": every}}
        extra["horizon_s"] = {"type": "number", "minimum": 0.5, "maximum": 5}
    if config.reasoning == "short":
        extra["reason"] = {"type": "string", "description": f"at most {MAX_REASON} characters"}
    first = {"reasoning": {"type": "string"}} if config.reasoning == "long" else {}
    return _object({**first, **action, **extra})


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def supported(rung: Rung, completion: Completion, parsed: Parsed) -> bool:
    """Whether a probe's answer shows that the server honours the rung, and that decisions could be read from it.

    An action that is not available now is readable, too.
    """
    readable = parsed.action is not None or parsed.fault is Fault.UNAVAILABLE
    if rung is Rung.LOGPROBS:
        return readable and bool(completion.first_token) and not completion.thought
    return readable
