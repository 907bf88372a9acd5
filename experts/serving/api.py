"""The OpenAI protocol without sockets: requests are read and checked here, and responses written.

POST /v1/chat/completions (plain and streamed), GET /v1/models and /v1/models/ID, GET /health; OPTIONS for each.
`RequestHandler` serves one `Served` model and maps bytes to bytes; `experts.serving.server` puts it on the network,
`experts.serving.in_process` into this process. What cannot be served is an error as OpenAI reports it. Function calls
get a 400.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

CHAT, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"
METHODS = {CHAT: ("POST",), MODELS: ("GET", "HEAD"), HEALTH: ("GET", "HEAD")}


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
    pieces: Generator[Piece]
    completion_tokens: int = 0
    finish_reason: str = "stop"
    reasoning_tokens: int = 0
    """Completion tokens that the text of the answer does not show."""


class Served(Protocol):
    """A model that answers requests of several threads."""

    name: str
    """What requests call it."""
    fingerprint: str
    """Changes with the model's weights."""

    def answer(self, request: ChatRequest) -> Generation:
        """Answer a request. The caller closes the iterator of pieces if it stops before the last one.

        Args:
            request: A checked one.

        Raises:
            ApiError: The model cannot answer it; also raised while pieces are iterated.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What goes back: a JSON body, or the events of a stream."""

    status: int
    body: bytes = b""
    events: Iterator[bytes] | None = None
    """Server-sent events; the caller closes them if it stops before the last one."""
    allow: str = ""
    """Methods that the path knows, where another one or OPTIONS was used."""

    @property
    def content_type(self) -> str:
        return "application/json" if self.events is None else "text/event-stream"


class RequestHandler:
    """Requests in, replies out, for one model. Safe to share between threads."""

    def __init__(self, model: Served) -> None:
        self.model = model

    def handle(self, method: str, path: str, body: bytes) -> ApiResponse:
        """The response to a request. Never raises for what a client can send."""
        found = self.receive(method, path, body)
        if isinstance(found, ApiResponse):
            return found
        try:
            made = self.model.answer(found)
        except Exception as error:
            return error_response(error)
        return self.respond(found, made)

    def receive(self, method: str, path: str, body: bytes) -> ApiResponse | ChatRequest:
        """The response where no model is needed for it; else what the model is asked."""
        try:
            return self._receive(method, _normal(path), body)
        except ApiError as error:
            return error_response(error)

    def respond(self, request: ChatRequest, made: Generation) -> ApiResponse:
        """The model's answer as a response. A stream begins only after its first piece has come."""
        try:
            if not request.stream:
                return _json(200, self._completion(request, made, list(made.pieces)))
            first = next(made.pieces, None)
        except Exception as error:
            return error_response(error)
        return ApiResponse(200, events=self._events(request, made, first))

    def _receive(self, method: str, path: str, body: bytes) -> ApiResponse | ChatRequest:
        place = MODELS if path.startswith(f"{MODELS}/") else path
        if place not in METHODS:
            hint = f": did you mean /v1{path[:100]}?" if f"/v1{path}" in METHODS else ""
            raise ApiError(404, f"no such path: {path[:100]}{hint}")
        if method == "OPTIONS":
            return ApiResponse(204, allow=", ".join((*METHODS[place], "OPTIONS")))
        if method not in METHODS[place]:
            allowed = ", ".join(METHODS[place])
            error = ApiError(405, f"{path[:100]} takes {allowed}, not {method}", code="method_not_allowed")
            return _json(405, error.body(), allowed)
        if path == HEALTH:
            return _json(200, {"status": "ok", "model": self.model.name})
        if place == MODELS:
            entry = {"id": self.model.name, "object": "model", "created": 0, "owned_by": "local"}
            if path == MODELS:
                return _json(200, {"object": "list", "data": [entry]})
            self._check_model(path.removeprefix(f"{MODELS}/"))
            return _json(200, entry)
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise ApiError(400, "the body is not JSON") from None
        request = read_request(data)
        self._check_model(data.get("model") or "")
        return request

    def _check_model(self, name: Any) -> None:
        """ApiError unless it is the served model's name, or none."""
        if not isinstance(name, str):
            raise ApiError(400, "'model' must be a string", "model")
        if name and name != self.model.name:
            raise ApiError(
                404, f"no model {name[:100]!r} here: this server has {self.model.name!r}", "model", "model_not_found"
            )

    def _completion(self, request: ChatRequest, made: Generation, pieces: Sequence[Piece]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": made.finish_reason}
        choice["logprobs"] = {"content": [_logprob(piece) for piece in pieces]} if request.logprobs else None
        return self._envelope("chat.completion") | {"choices": [choice], "usage": _usage(made)}

    def _events(self, request: ChatRequest, made: Generation, piece: Piece | None) -> Iterator[bytes]:
        """The answer piece by piece. An error in the middle is an event of its own, and the last one."""
        envelope = self._envelope("chat.completion.chunk")
        opening = {"role": "assistant"}
        try:
            while piece is not None:
                choice: dict[str, Any] = {"index": 0, "delta": opening | {"content": piece.text}, "finish_reason": None}
                if request.logprobs:
                    choice["logprobs"] = {"content": [_logprob(piece)]}
                yield _event(envelope | {"choices": [choice]})
                opening = {}
                piece = next(made.pieces, None)
        except Exception as error:
            yield b"data: " + error_response(error).body + b"\n\n"
            return
        finally:
            made.pieces.close()
        last = {"index": 0, "delta": opening, "finish_reason": made.finish_reason}
        yield _event(envelope | {"choices": [last]})
        if request.stream_usage:
            yield _event(envelope | {"choices": [], "usage": _usage(made)})
        yield b"data: [DONE]\n\n"

    def _envelope(self, kind: str) -> dict[str, Any]:
        identity, model = f"chatcmpl-{uuid.uuid4().hex}", self.model
        named = {"model": model.name, "system_fingerprint": model.fingerprint}
        return {"id": identity, "object": kind, "created": int(time.time())} | named


def error_response(error: Exception) -> ApiResponse:
    """An error as a response. An unexpected one is a 500, and its traceback goes to stderr."""
    if not isinstance(error, ApiError):
        traceback.print_exception(error, file=sys.stderr)
        error = ApiError(500, f"the model failed: {type(error).__name__}")
    return _json(error.status, error.body())


def _json(status: int, data: Mapping[str, Any], allow: str = "") -> ApiResponse:
    return ApiResponse(status, json.dumps(data).encode(), allow=allow)


def _normal(path: str) -> str:
    """The path of a request target: no origin, no query, no doubled or trailing slashes, nothing encoded."""
    bare = re.split(r"[?#]", re.sub(r"^https?://[^/]*", "", path, flags=re.IGNORECASE))[0]
    return re.sub(r"/{2,}", "/", unquote(bare)).rstrip("/") or "/"


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def read_request(data: Any) -> ChatRequest:
    """The request inside a JSON body. Raises ApiError 400 naming the parameter."""
    if not isinstance(data, dict):
        raise ApiError(400, "the body must be a JSON object")
    for name in ("tools", "functions"):
        if data.get(name):
            raise ApiError(400, f"{name!r} is not supported by this server", name, "unsupported_parameter")
    if data.get("n") not in (None, 1):
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
    """ApiError 400 for what is no schema of JSON values that can be written."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if depth > 8 or not isinstance(schema, dict):
        raise ApiError(400, "json_schema: nested too deeply, or not a schema", "response_format")
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return
    if kind == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise ApiError(400, "json_schema: 'properties' must be an object, 'required' a list", "response_format")
        for child in properties.values():
            _check_schema(child, depth + 1)
    elif kind == "array":
        _check_schema(schema.get("items"), depth + 1)
    elif kind not in ("string", "number", "integer", "boolean", "null"):
        raise ApiError(400, f"json_schema: type {kind!r} is not supported", "response_format")


def _logprob(piece: Piece) -> dict[str, Any]:
    top = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in piece.top]
    return {"token": piece.text, "logprob": piece.logprob, "bytes": list(piece.text.encode()), "top_logprobs": top}


def _usage(made: Generation) -> dict[str, Any]:
    return {
        "prompt_tokens": made.prompt_tokens,
        "completion_tokens": made.completion_tokens,
        "total_tokens": made.prompt_tokens + made.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": made.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": made.reasoning_tokens},
    }
