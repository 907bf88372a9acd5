"""The embedded driver behind the OpenAI protocol: it answers driving prompts, in whatever form they ask for.

    a choice of labels, or one label    the letter; its `top_logprobs` are the exact distribution over those offered
    json_schema, json_object            the fields of `experts.llm.ladder`, as the schema or the prompt names them
    text                                the reasoning in English, then `#### <id>`

The query is the last user message that is a driving prompt: a request to answer again may follow it. The driver
thinks the same whatever the form; requests that wait for each other are thought about together. Only the decision has
log-probabilities: the English words are a translation of the driver's own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from experts.labels import LETTERS
from experts.language.driving_language import MAX_PLAN, Picture, read_prompt
from experts.serving.api import ApiError, ChatRequest, Generation, Piece
from experts.serving.batches import Batches
from experts.serving.token_model import pick
from sim.actions import MetaAction
from sim.errors import UsageError

if TYPE_CHECKING:
    from experts.language.driver import Driver, DriverOutput

FIELDS = {
    "reasoning": ("string",),
    "action": ("string",),
    "probs": ("object",),
    "plan": ("array",),
    "horizon_s": ("number", "integer"),
    "reason": ("string",),
}
"""What a JSON answer can have, in the order of answers without a schema, and the types that a schema may give it."""
KNOWN = {action.name: action for action in MetaAction} | dict(zip(LETTERS, MetaAction, strict=True))
"""What actions are called whatever the prompt."""
BOUNDS = ("minItems", "maxItems", "minimum", "maximum", "maxLength")
PLAN = 3
"""Decisions of a plan whose length the schema leaves open."""
DECISION_S = 1.0
"""s that a decision of a plan is said to hold: prompts do not tell."""


@dataclass(frozen=True, slots=True)
class DrivingQuery:
    """A request that the driver can answer."""

    request: ChatRequest
    picture: Picture
    labels: Mapping[str, MetaAction]
    """The actions to choose from, by what they are called."""
    fields: Mapping[str, Mapping[str, Any]] | None = None
    """Fields of a JSON answer in their order, with their schemas; None: no JSON."""
    text: bool = False
    """`#### <id>` is asked for, not a bare label."""
    reason: bool = False
    """The text begins with the reasoning."""
    plan: int = 1


class DriverModel:
    """A `Driver` as `experts.serving.api.Served`."""

    def __init__(self, driver: Driver) -> None:
        from experts.language.driver import BATCH

        self.driver, self.name, self.fingerprint = driver, driver.name, driver.fingerprint
        self.batches: Batches[DrivingQuery, DriverOutput] = Batches(self._think, BATCH)

    def answer(self, request: ChatRequest) -> Generation:
        query = self.read(request)
        return self.write(query, self.batches.ask([query])[0].result())

    def close(self) -> None:
        """End the thread that thinks."""
        self.batches.close()

    def read(self, request: ChatRequest) -> DrivingQuery:
        """What a request asks the driver. ApiError for what it cannot answer."""
        picture, named = _driving_prompt(request)
        if request.choices:
            return DrivingQuery(request, picture, _offered(request.choices, picture, named))
        words = "\n".join(message["content"] for message in request.messages if message["role"] != "assistant")
        fields = _fields(request, words)
        if fields is None:
            labels = {mark: action for action, mark in named.items()}
            ids = any(mark.isdigit() for mark in labels)
            return DrivingQuery(request, picture, labels, text=ids, reason=ids and "and nothing else" not in words)
        offered = fields.get("action", {}).get("enum") or list(named.values())
        length = PLAN if "plan" not in fields else _bounded(PLAN, fields["plan"], "minItems", "maxItems")
        if not 1 <= length <= MAX_PLAN:
            raise _schema_error(f"a plan of {length:g} decisions: 1 to {MAX_PLAN} are possible")
        steps = int(length) if "plan" in fields else 1
        return DrivingQuery(request, picture, _offered(offered, picture, named), fields, plan=steps)

    def write(self, query: DrivingQuery, output: DriverOutput) -> Generation:
        """The driver's output as the answer that was asked for."""
        request = query.request
        pieces = list(_pieces(query, output))
        shown = "".join(piece.text for piece in pieces)
        ends = [found for stop in request.stop if (found := shown.find(stop)) >= 0]
        limited = len(pieces) > request.max_tokens
        return Generation(
            prompt_tokens=output.prompt_tokens,
            cached_tokens=0,
            pieces=_until(pieces[: request.max_tokens], min(ends, default=len(shown))),
            completion_tokens=output.completion_tokens,
            finish_reason="length" if limited and not ends else "stop",
            reasoning_tokens=0 if _tells(query) else len(output.reasoning.split()),
        )

    def _think(self, queries: Sequence[DrivingQuery]) -> list[DriverOutput]:
        return self.driver.think([query.picture for query in queries], [q.plan for q in queries])


def _driving_prompt(request: ChatRequest) -> tuple[Picture, dict[MetaAction, str]]:
    """What the last user message that is one shows, and what it calls the actions. ApiError, about the last user
    message, where none is."""
    why = ""
    for message in reversed(request.messages):
        if message["role"] == "user":
            try:
                return read_prompt(message["content"])
            except UsageError as error:
                why = why or str(error)
    raise ApiError(400, why or "this model only answers driving prompts: there is no user message", "messages")


def _offered(texts: Sequence[Any], picture: Picture, named: Mapping[MetaAction, str]) -> dict[str, MetaAction]:
    """What each of the offered texts means: a name of an action, its letter, or what the prompt calls it."""
    known = KNOWN | {mark: action for action, mark in named.items()}
    strange = [text for text in texts if not isinstance(text, str) or text not in known]
    if strange:
        raise ApiError(400, f"{str(strange[0])[:40]!r} is no driving action: offer {', '.join(named.values())}")
    found = {text: known[text] for text in texts}
    if not set(found.values()) & set(picture.legal):
        raise ApiError(400, f"none of the offered actions is available here: offer {', '.join(named.values())}")
    return found


def _fields(request: ChatRequest, words: str) -> dict[str, Mapping[str, Any]] | None:
    """Those of the schema; without one, those of ours that the prompt names in quotes."""
    if request.schema is None:
        named: dict[str, Mapping[str, Any]] = {name: {} for name in FIELDS if f'"{name}"' in words}
        if request.json_object:
            return named or {"action": {}, "reason": {}}
        return named if "action" in named else None
    properties, required = request.schema.get("properties") or {}, request.schema.get("required") or []
    unknown = [str(name) for name in required if name not in FIELDS or name not in properties]
    if unknown:
        raise _schema_error(f"required property {unknown[0][:40]!r}: this model can fill {', '.join(FIELDS)}")
    found = {name: part for name, part in properties.items() if name in FIELDS}
    for name, part in found.items():
        if part.get("type", FIELDS[name][0]) not in FIELDS[name]:
            raise _schema_error(f"property {name!r} must be of type {FIELDS[name][0]}, not {part['type']!r}")
        for bound in BOUNDS:
            if bound in part and not (isinstance(part[bound], int | float) and part[bound] >= 0):
                raise _schema_error(f"{bound} of {name!r} must be a number from 0")
    return found


def _schema_error(message: str) -> ApiError:
    return ApiError(400, f"json_schema: {message}", "response_format")


def _pieces(query: DrivingQuery, output: DriverOutput) -> Iterator[Piece]:
    """The answer, whole; the decision is a piece of its own."""
    texts = [text for text, action in query.labels.items() if action in query.picture.legal]
    scores = output.log_probs[[query.labels[text] for text in texts]]
    scores = scores - np.logaddexp.reduce(scores)
    request = query.request
    best = pick(scores, request.temperature, np.random.default_rng(request.seed & 0xFFFFFFFF))
    order = np.argsort(-scores, kind="stable")[: request.top_logprobs]
    decision = Piece(texts[best], float(scores[best]), tuple((texts[i], float(scores[i])) for i in order))
    if query.fields is not None:
        probs = {query.labels[text]: p for text, p in zip(texts, np.exp(scores).tolist(), strict=True)}
        yield from _json_pieces(query, output, decision, probs)
        return
    if query.reason:
        yield from _words(output.reason)
        yield Piece("\n", 0.0)
    if query.text:
        yield Piece("#### ", 0.0)
    yield decision


def _json_pieces(
    query: DrivingQuery, output: DriverOutput, decision: Piece, probs: Mapping[MetaAction, float]
) -> Iterator[Piece]:
    assert query.fields is not None
    chosen, plan = query.labels[decision.text], output.plan
    plan = plan if plan[0] == chosen else (chosen,)  # drawn, or not offered: the rest of the plan does not follow it
    yield Piece("{", 0.0)
    for i, (name, part) in enumerate(query.fields.items()):
        yield Piece(f"{', ' if i else ''}{json.dumps(name)}: ", 0.0)
        if name == "action":
            yield from (Piece('"', 0.0), decision, Piece('"', 0.0))
        elif name == "probs":
            wanted = {label: KNOWN.get(label) for label in part.get("properties") or ()} or query.labels
            share = {label: 0.0 if action is None else probs.get(action, 0.0) for label, action in wanted.items()}
            yield Piece(json.dumps({label: round(p, 6) for label, p in share.items()}), 0.0)
        elif name == "plan":
            said = (part.get("items") or {}).get("enum") or [*LETTERS, *MetaAction.__members__]
            yield Piece(json.dumps(_sayable(plan, said)), 0.0)
        elif name == "horizon_s":
            yield Piece(f"{_bounded(len(plan) * DECISION_S, part, 'minimum', 'maximum'):g}", 0.0)
        else:
            longest = part.get("maxLength")
            yield Piece('"', 0.0)
            yield from _words(json.dumps(output.reason[: int(longest) if longest is not None else None])[1:-1])
            yield Piece('"', 0.0)
    yield Piece("}", 0.0)


def _sayable(plan: Sequence[int], said: Sequence[str]) -> list[str]:
    """A plan as letters or names, up to the first action that none of the allowed texts means."""
    words: list[str] = []
    for action in plan:
        names = [text for text in (LETTERS[action], MetaAction(action).name) if text in said]
        if not names:
            break
        words.append(names[0])
    return words


def _bounded(value: float, part: Mapping[str, Any], low: str, high: str) -> float:
    """The value that is nearest to one within the bounds of a schema."""
    return min(max(value, part.get(low, value)), part.get(high, math.inf))


def _words(text: str) -> Iterator[Piece]:
    """A piece per word, each with the space before it."""
    return (Piece(word, 0.0) for word in re.findall(r"\s*\S+", text))


def _tells(query: DrivingQuery) -> bool:
    """Whether the answer shows the reasoning."""
    return query.reason or bool({"reason", "reasoning"} & set(query.fields or ()))


def _until(pieces: Sequence[Piece], end: int) -> Generator[Piece]:
    """Pieces up to `end` characters."""
    for piece in pieces:
        if end <= 0:
            return
        yield piece if len(piece.text) <= end else Piece(piece.text[:end], piece.logprob, piece.top)
        end -= len(piece.text)
