"""A local OpenAI-compatible chat server on the standard library, for one small model in this process.

POST /v1/chat/completions (plain and streamed), GET /v1/models, GET /health. What a closed set of actions needs is
exact: `structured_outputs.choice` (also `guided_choice`) and JSON-schema enums are *scored*, so that an answer outside
the set is impossible, and the choice's `top_logprobs` are the distribution over it. Function calls get a 400.

The model is any `ChatModel`; one request computes at a time, others wait their turn.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sim.errors import UsageError

MAX_BODY = 2_000_000
"""Bytes of a request."""
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
    """What the server needs of a language model."""

    name: str

    def start(self, messages: Sequence[Mapping[str, str]]) -> Chat: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def is_end(self, token: int) -> bool: ...


class ApiError(Exception):
    """A request that cannot be served, as OpenAI reports it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated request."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    json_object: bool = False
    stream: bool = False
    stream_usage: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer with its log-probability and the alternatives."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class Generation:
    """An answer being made: iterate `pieces`, then read the rest."""

    prompt_tokens: int
    cached_tokens: int
    pieces: Iterator[Piece]
    completion_tokens: int = 0
    finish_reason: str = "stop"
    texts: list[str] = field(default_factory=list)


def read_request(data: Any) -> ChatRequest:
    """The request inside a JSON body. Raises ApiError 400 naming the parameter."""
    if not isinstance(data, dict):
        raise ApiError(400, "the body must be a JSON object")
    for name in ("tools", "functions"):
        if data.get(name):
            raise ApiError(400, f"{name!r} is not supported by this server", name, "unsupported_parameter")
    if data.get("n", 1) != 1:
        raise ApiError(400, "only n = 1 is supported", "n")
    stop = data.get("stop") or []
    options = data.get("stream_options") or {}
    schema, json_object = _response_format(data.get("response_format"))
    limit = data.get("max_completion_tokens", data.get("max_tokens"))
    return ChatRequest(
        messages=_messages(data.get("messages")),
        max_tokens=int(_number("max_tokens", 256 if limit is None else limit, 1, 8192)),
        temperature=_number("temperature", 0.0 if data.get("temperature") is None else data["temperature"], 0, 2),
        seed=int(_number("seed", data.get("seed") or 0, -(2**63), 2**63)),
        stop=_texts("stop", [stop] if isinstance(stop, str) else stop),
        logprobs=bool(data.get("logprobs")),
        top_logprobs=int(_number("top_logprobs", data.get("top_logprobs") or 0, 0, 20)),
        choices=_choices(data),
        schema=schema,
        json_object=json_object,
        stream=bool(data.get("stream")),
        stream_usage=bool(isinstance(options, dict) and options.get("include_usage")),
    )


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ApiError(400, "'messages' must be a non-empty list", "messages")
    found = []
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise ApiError(400, "a message needs a role: system, user or assistant", "messages")
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            content = None if any(not isinstance(part, str) for part in parts) else "".join(map(str, parts))
        if not isinstance(content, str):
            raise ApiError(400, "a message's content must be text", "messages")
        role = "system" if message["role"] == "developer" else message["role"]
        found.append({"role": role, "content": content})
    return tuple(found)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ApiError(400, f"{name!r} must be a number from {low:g} to {high:g}", name)
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ApiError(400, f"{name!r} must be a list of non-empty strings", name)
    return tuple(value)


def _choices(data: Mapping[str, Any]) -> tuple[str, ...]:
    outputs = data.get("structured_outputs")
    value = outputs.get("choice") if isinstance(outputs, dict) else None
    value = data.get("guided_choice") if value is None else value
    return () if value is None else _texts("structured_outputs.choice", value)


def _response_format(value: Any) -> tuple[Mapping[str, Any] | None, bool]:
    kind = value.get("type") if isinstance(value, dict) else None if value is None else "?"
    if kind in (None, "text"):
        return None, False
    if kind == "json_object":
        return None, True
    if kind != "json_schema":
        raise ApiError(400, "response_format.type must be text, json_object or json_schema", "response_format")
    wrapper = value.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ApiError(400, "response_format.json_schema.schema must be an object schema", "response_format")
    _check_schema(schema)
    return schema, False


def _check_schema(schema: Any, depth: int = 0) -> None:
    """ApiError 400 for what `_json_pieces` could not write."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if depth > 8 or not isinstance(schema, dict):
        raise ApiError(400, "json_schema: nested too deeply, or not a schema", "response_format")
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return
    if kind == "object":
        properties = schema.get("properties")
        for child in properties.values() if isinstance(properties, dict) else ():
            _check_schema(child, depth + 1)
    elif kind == "array":
        _check_schema(schema.get("items"), depth + 1)
    elif kind not in ("string", "number", "integer", "boolean", "null"):
        raise ApiError(400, f"json_schema: type {kind!r} is not supported", "response_format")


def generate(model: ChatModel, request: ChatRequest) -> Generation:
    """Begin an answer; iterating its pieces computes it."""
    chat = model.start(request.messages)
    made = Generation(chat.prompt_tokens, chat.cached_tokens, iter(()))
    if request.choices:
        made.pieces = _choice_pieces(model, chat, request, made)
    elif request.schema is not None:
        made.pieces = _json_pieces(model, chat, request.schema, made)
    else:
        made.pieces = _text_pieces(model, chat, request, made)
    return made


def _choice_pieces(model: ChatModel, chat: Chat, request: ChatRequest, made: Generation) -> Iterator[Piece]:
    """One of the given texts; its alternatives are the renormalised distribution over them."""
    logprobs = chat.score(request.choices)
    logprobs = logprobs - np.logaddexp.reduce(logprobs)
    index = _pick(logprobs, request.temperature, np.random.default_rng(request.seed & 0xFFFFFFFF))
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
        token = _pick(logprobs, request.temperature, rng)
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


def _pick(logprobs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """The likeliest index, or a sample at a temperature above 0 (Gumbel trick)."""
    if temperature <= 0:
        return int(np.argmax(logprobs))
    return int(np.argmax(logprobs / temperature + rng.gumbel(size=logprobs.shape)))


class ChatServer(ThreadingHTTPServer):
    """The HTTP server. `serve_forever` in a thread of its own for tests; `url` is what a client needs."""

    daemon_threads = True

    def __init__(self, model: ChatModel, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 takes a free one. UsageError when the address is taken."""
        self.model = model
        self.turn = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}: choose another port") from None

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not worth a traceback; anything else is."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the client side counts requests."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok", "model": self.server.model.name})
        elif self.path == "/v1/models":
            entry = {"id": self.server.model.name, "object": "model", "created": 0, "owned_by": "local"}
            self._send(200, {"object": "list", "data": [entry]})
        else:
            self._send(404, ApiError(404, f"no such path: {self.path[:100]}").body())

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            if self.path != "/v1/chat/completions":
                raise ApiError(404, f"no such path: {self.path[:100]}")
            try:
                data = json.loads(body)
            except (ValueError, RecursionError):
                raise ApiError(400, "the body is not JSON") from None
            request = read_request(data)
            with self.server.turn:
                made = generate(self.server.model, request)
                if request.stream:
                    self._stream(request, made)
                    return
                pieces = list(made.pieces)
        except ApiError as error:
            self._send(error.status, error.body())
            return
        self._send(200, self._completion(request, made, pieces))

    def _body(self) -> bytes | None:
        """The request's body; None after an error was answered."""
        length = self.headers.get("Content-Length") or ""
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            error = ApiError(
                413 if length.isdigit() else 411, f"a body of at most {MAX_BODY} bytes with a length is needed"
            )
            self._send(error.status, error.body())
            return None
        return self.rfile.read(int(length))

    def _completion(self, request: ChatRequest, made: Generation, pieces: Sequence[Piece]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": made.finish_reason}
        choice["logprobs"] = {"content": [_logprob(piece) for piece in pieces]} if request.logprobs else None
        return self._envelope("chat.completion") | {"choices": [choice], "usage": _usage(made)}

    def _stream(self, request: ChatRequest, made: Generation) -> None:
        """Server-sent events in chunked encoding."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        envelope = self._envelope("chat.completion.chunk")
        for i, piece in enumerate(made.pieces):
            delta = {"content": piece.text} | ({} if i else {"role": "assistant"})
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
            if request.logprobs:
                choice["logprobs"] = {"content": [_logprob(piece)]}
            self._event(json.dumps(envelope | {"choices": [choice]}))
        last = {"index": 0, "delta": {}, "finish_reason": made.finish_reason}
        self._event(json.dumps(envelope | {"choices": [last]}))
        if request.stream_usage:
            self._event(json.dumps(envelope | {"choices": [], "usage": _usage(made)}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        block = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        self.wfile.flush()

    def _envelope(self, kind: str) -> dict[str, Any]:
        name = self.server.model.name
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": name, "system_fingerprint": name}

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _logprob(piece: Piece) -> dict[str, Any]:
    top = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in piece.top]
    return {"token": piece.text, "logprob": piece.logprob, "bytes": list(piece.text.encode()), "top_logprobs": top}


def _usage(made: Generation) -> dict[str, Any]:
    return {
        "prompt_tokens": made.prompt_tokens,
        "completion_tokens": made.completion_tokens,
        "total_tokens": made.prompt_tokens + made.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": made.cached_tokens},
    }


def serve(
    model_path: Path | str | None = None, host: str = "127.0.0.1", port: int = 8000, model: ChatModel | None = None
) -> None:
    """Serve a GGUF file (default: the fetched SmolLM2), or a ready `model`, until interrupted.

    Raises UsageError when the model, the extra `embedded` or the port is missing.
    """
    if model is None:
        from experts.llm.local_model import load

        model = load(model_path)
    with ChatServer(model, host, port) as server:
        print(f"serving {model.name} at {server.url} (set client.base_url to it; Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
