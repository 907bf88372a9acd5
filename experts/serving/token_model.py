"""Answers of a language model that speaks token by token (`ChatModel`; `experts.serving.local_model` is one).

What a closed set of actions needs is exact: `structured_outputs.choice` (also `guided_choice`) and JSON-schema enums
are *scored*, so that an answer outside the set is impossible, and the choice's `top_logprobs` are the distribution over
it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from experts.serving.api import ChatRequest, Generation, Piece

STRING_TOKENS = 48
"""Tokens that a free JSON string may take."""
NUMBER_STEPS = 5
"""Grid points that stand for a bounded JSON number."""


class Chat(Protocol):
    """A prompt in progress. V tokens in the vocabulary, C choices."""

    prompt_tokens: int
    cached_tokens: int

    def distribution(self) -> np.ndarray:
        """Log-probabilities (V,) of the next token."""
        ...

    def push(self, tokens: Sequence[int]) -> None:
        """Continue the answer with tokens."""
        ...

    def score(self, choices: Sequence[str]) -> np.ndarray:
        """Log-probabilities (C,) of continuing with each text."""
        ...


class ChatModel(Protocol):
    """A language model, token by token; one chat at a time."""

    name: str

    def start(self, messages: Sequence[Mapping[str, str]]) -> Chat: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def is_end(self, token: int) -> bool: ...


class TokenModel:
    """A `ChatModel` as `experts.serving.api.Served`: one request computes at a time, others wait.

    Each has a thread of its own, so that a slow reader delays no other; closing the iterator ends the computation.
    """

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self.name = self.fingerprint = model.name
        self._turn = threading.Lock()

    def answer(self, request: ChatRequest) -> Generation:
        made = Generation(0, 0, _no_pieces())
        made.pieces = self._spoken(request, made)
        return made

    def _spoken(self, request: ChatRequest, made: Generation) -> Generator[Piece]:
        said: queue.SimpleQueue[Piece | Exception | None] = queue.SimpleQueue()
        left = threading.Event()

        def speak() -> None:
            try:
                with self._turn:
                    for piece in () if left.is_set() else speech(self.model, request, made):
                        said.put(piece)
                        if left.is_set():
                            return
                said.put(None)
            except Exception as error:
                said.put(error)

        threading.Thread(target=speak, name="token-model", daemon=True).start()
        try:
            while (piece := said.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            left.set()


def _no_pieces() -> Generator[Piece]:
    yield from ()


def speech(model: ChatModel, request: ChatRequest, made: Generation) -> Iterator[Piece]:
    """The pieces of an answer, computed while they are iterated; counts go to `made`."""
    chat = model.start(request.messages)
    made.prompt_tokens, made.cached_tokens = chat.prompt_tokens, chat.cached_tokens
    if request.choices:
        return _choice_pieces(model, chat, request, made)
    if request.schema is not None:
        return _json_pieces(model, chat, request.schema, made)
    return _text_pieces(model, chat, request, made)


def _choice_pieces(model: ChatModel, chat: Chat, request: ChatRequest, made: Generation) -> Iterator[Piece]:
    """One of the given texts; its alternatives are the renormalised distribution over them."""
    logprobs = chat.score(request.choices)
    logprobs = logprobs - np.logaddexp.reduce(logprobs)
    index = pick(logprobs, request.temperature, np.random.default_rng(request.seed & 0xFFFFFFFF))
    order = np.argsort(-logprobs, kind="stable")[: max(request.top_logprobs, 1)]
    made.completion_tokens += len(model.encode(request.choices[index]))
    top = tuple((request.choices[i], float(logprobs[i])) for i in order) if request.top_logprobs else ()
    yield Piece(request.choices[index], float(logprobs[index]), top)


def _text_pieces(model: ChatModel, chat: Chat, request: ChatRequest, made: Generation) -> Iterator[Piece]:
    """Free text up to an end token, a stop string, `max_tokens`, or (JSON mode) the end of the JSON object."""
    rng = np.random.default_rng(request.seed & 0xFFFFFFFF)
    text = ""
    if request.json_object:
        chat.push(model.encode("{"))
        text = "{"
        yield Piece("{", 0.0)
    tokens: list[int] = []
    done = ""
    made.finish_reason = "length"
    while made.completion_tokens < request.max_tokens:
        logprobs = chat.distribution()
        token = pick(logprobs, request.temperature, rng)
        made.completion_tokens += 1
        if model.is_end(token):
            made.finish_reason = "stop"
            return
        tokens.append(token)
        whole = model.decode(tokens)
        piece, done = whole[len(done) :], whole
        cut = _stop_at(text + piece, len(text), request)
        top = _alternatives(model, logprobs, request.top_logprobs)
        yield Piece(piece if cut is None else piece[: max(cut - len(text), 0)], float(logprobs[token]), top)
        if cut is not None:
            made.finish_reason = "stop"
            return
        text += piece
        if made.completion_tokens < request.max_tokens:
            chat.push([token])


def _stop_at(text: str, begin: int, request: ChatRequest) -> int | None:
    """Where the answer ends inside `text`, None when it goes on."""
    cuts = [found for stop in request.stop if (found := text.find(stop, max(begin - len(stop), 0))) >= 0]
    if request.json_object and "}" in text[begin:]:
        with contextlib.suppress(ValueError):  # the object is not closed yet
            cuts.append(json.JSONDecoder().raw_decode(text)[1])
    return min(cuts, default=None)


def _alternatives(model: ChatModel, logprobs: np.ndarray, count: int) -> tuple[tuple[str, float], ...]:
    if count == 0:
        return ()
    best = np.argpartition(-logprobs, count)[:count]
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return tuple((model.decode([int(i)]), float(logprobs[i])) for i in best)


def _json_pieces(model: ChatModel, chat: Chat, schema: Mapping[str, Any], made: Generation) -> Iterator[Piece]:
    """A value that fits the schema: fixed parts are written, enums and numbers scored, strings generated."""

    def write(text: str) -> Piece:
        tokens = model.encode(text)
        chat.push(tokens)
        made.completion_tokens += len(tokens)
        return Piece(text, 0.0)

    def choose(texts: Sequence[str]) -> Piece:
        logprobs = chat.score(texts)
        logprobs = logprobs - np.logaddexp.reduce(logprobs)
        order = np.argsort(-logprobs, kind="stable")
        best = int(order[0])
        write(texts[best])
        return Piece(texts[best], float(logprobs[best]), tuple((texts[i], float(logprobs[i])) for i in order))

    def value(part: Mapping[str, Any]) -> Iterator[Piece]:
        kind = part.get("type")
        if part.get("enum"):
            if all(isinstance(item, str) for item in part["enum"]):
                yield write('"')
                inner = choose([json.dumps(item)[1:-1] for item in part["enum"]])
                yield inner
                yield write('"')
            else:
                yield choose([json.dumps(item) for item in part["enum"]])
        elif kind == "object":
            properties = part.get("properties") or {}
            names = [name for name in properties if name in part.get("required", list(properties))]
            yield write("{")
            for i, name in enumerate(names):
                yield write(f"{', ' if i else ''}{json.dumps(name)}: ")
                yield from value(properties[name])
            yield write("}")
        elif kind == "array":
            yield write("[")
            for i in range(max(int(part.get("minItems", 1)), 0)):
                yield write(", " if i else "")
                yield from value(part["items"])
            yield write("]")
        elif kind in ("number", "integer"):
            yield choose(_grid(part))
        elif kind == "boolean":
            yield choose(["true", "false"])
        elif kind == "null":
            yield write("null")
        else:
            yield write(json.dumps(_free_string(model, chat, int(part.get("maxLength", 200)))))

    yield from value(schema)


def _grid(part: Mapping[str, Any]) -> list[str]:
    """Texts of the numbers that a bounded number may take (0 to 1, or 0 to 10 for integers, without bounds)."""
    integer = part.get("type") == "integer"
    low = float(part.get("minimum", 0))
    high = float(part.get("maximum", low + (10 if integer else 1)))
    if integer:
        return [str(i) for i in range(int(np.ceil(low)), min(int(np.floor(high)), int(low) + 100) + 1)]
    return sorted({f"{number:g}" for number in np.linspace(low, high, NUMBER_STEPS)}, key=float)


def _free_string(model: ChatModel, chat: Chat, max_length: int) -> str:
    """Greedy text up to a quote or line end, at most `max_length` characters; the chat itself is not continued."""
    tokens: list[int] = []
    text = ""
    for _ in range(STRING_TOKENS):
        token = int(np.argmax(chat.distribution()))
        if model.is_end(token):
            break
        tokens.append(token)
        text = model.decode(tokens)
        if any(mark in text for mark in '"\n'):
            break
        chat.push([token])
    return text.split('"')[0].split("\n")[0].strip()[:max_length]


def pick(logprobs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """The likeliest index, or a sample at a temperature above 0 (Gumbel trick)."""
    if temperature <= 0:
        return int(np.argmax(logprobs))
    return int(np.argmax(logprobs / temperature + rng.gumbel(size=logprobs.shape)))
