"""A scripted chat endpoint over real TCP that fails in every way we know, repeatably.

`FaultServer(script=[...])` serves one behaviour per request, the last one for ever after; requests of the start-up
probe (recognised by the fixed probe scene) are answered by `rungs` alone unless `probe` names a behaviour. A request
with `stream` is answered by server-sent events, a few letters in each.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from experts.llm.prompt import number, probe_scene

ALL_RUNGS = ("logprobs", "json_schema", "tools", "json_object", "text")
PROBE_MARK = f"speed {number(probe_scene().ego.speed)}, acceleration 0.0\nGoal: lane 3, 345 m remaining"
IDS = {"A": 0, "B": 1, "C": 2, "D": 3, "E": 4}


@dataclass
class Seen:
    """One request as it arrived."""

    rung: str
    labels: list[str]
    body: dict[str, Any]
    headers: dict[str, str]
    probe: bool
    time: float = field(default_factory=time.monotonic)


@dataclass
class Reply:
    """What the server does with a request. Every field has a harmless default."""

    label: str = "B"
    content: str | None = None
    """Message text instead of the rung's well-formed answer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further members of a JSON answer."""
    status: int = 200
    error: str = "scripted failure"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float | tuple[float, float] = 0.0
    """Seconds before anything is sent; a pair is drawn uniformly from the seeded stream."""
    finish_reason: str = "stop"
    refusal: str | None = None
    usage: bool | dict[str, Any] = True
    raw: bytes | None = None
    """Body instead of a completion."""
    content_type: str = "application/json"
    drop: str = ""
    """"before": hang up without a byte; "body": after half of the body; "chunk": inside a chunked body."""
    drip_s: float = 0.0
    """Seconds between single bytes of the body, or between the events of a stream."""
    stream: str = ""
    """What is odd about a stream. "refused": 400 in its place; "plain": the whole body in its place; "cut": it ends in
    the middle, cleanly; "broken": an event is half a JSON text; "error": an event reports an error; "silent": no event
    holds anything; "held": the connection stays open after the last event; "bare": usage and finish reason come in one
    event, and no [DONE]."""
    logprobs: dict[str, float] | None = None
    """Alternatives of the first token instead of a peaked distribution."""
    function: Callable[[Seen], Reply] | None = None
    """Decides from the request."""


class FaultServer(ThreadingHTTPServer):
    """Use as a context manager; `url` is the base URL, `seen` the requests in order of arrival."""

    daemon_threads = True

    def __init__(
        self,
        script: Sequence[Reply] = (Reply(),),
        rungs: Sequence[str] = ALL_RUNGS,
        unsupported: int = 400,
        probe: Reply | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.rungs, self.unsupported, self.probe = list(script), tuple(rungs), unsupported, probe
        self.seen: list[Seen] = []
        self.connections = 0
        self.in_flight = 0
        self.hung_up = 0
        """Streams whose reader left before their end."""
        self.peak = 0
        """Most requests that were being answered at one time."""
        self.rng = random.Random(seed)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._served = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def asked(self) -> list[Seen]:
        """Requests that were not probes."""
        return [seen for seen in self.seen if not seen.probe]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def next_reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            if seen.rung not in self.rungs:
                return Reply(status=self.unsupported, error=f"{seen.rung} is not supported")
            if seen.probe:
                return self.probe or Reply()
            reply = self.script[min(self._served, len(self.script) - 1)]
            self._served += 1
        return reply.function(seen) if reply.function else reply

    def enter(self, change: int) -> None:
        with self._lock:
            self.in_flight += change
            self.peak = max(self.peak, self.in_flight)

    def pause(self, delay: float | tuple[float, float]) -> float:
        with self._lock:
            return self.rng.uniform(*delay) if isinstance(delay, tuple) else delay

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rung, labels = _rung(body)
        probe = len(body["messages"]) == 2 and PROBE_MARK in body["messages"][1]["content"]
        reply = self.server.next_reply(Seen(rung, labels, body, {k.title(): v for k, v in self.headers.items()}, probe))
        self.server.enter(+1)
        time.sleep(self.server.pause(reply.delay_s))
        self.server.enter(-1)
        if reply.drop == "before":
            self.close_connection = True
            return
        if reply.status == 200 and reply.raw is None and body.get("stream") and reply.stream != "plain":
            if reply.stream != "refused":
                self._stream(
                    reply, _completion(reply, rung), bool((body.get("stream_options") or {}).get("include_usage"))
                )
                return
            reply = Reply(status=400, error="stream is not supported")
        if reply.status != 200:
            data = json.dumps({"error": {"message": reply.error, "type": "scripted", "code": None}}).encode()
        else:
            data = reply.raw if reply.raw is not None else json.dumps(_completion(reply, rung)).encode()
        self._send(reply, data)

    def _send(self, reply: Reply, data: bytes) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.drop == "chunk":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data[: len(data) // 2])
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if reply.drop == "body":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif reply.drip_s:
            for byte in data:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(reply.drip_s)
        else:
            self.wfile.write(data)

    def _stream(self, reply: Reply, completion: dict[str, Any], usage: bool) -> None:
        events = _events(reply, completion, usage)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = events[: len(events) // 2]
        try:
            for event in half if reply.drop or reply.stream == "cut" else events:
                data = event.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
                time.sleep(reply.drip_s)
            if reply.drop:
                self.close_connection = True
                return
            while reply.stream == "held":
                self.connection.settimeout(30.0)
                if not self.rfile.read(1):
                    raise ConnectionError
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.server.hung_up += 1
            self.close_connection = True


def _events(reply: Reply, completion: dict[str, Any], usage: bool) -> list[str]:
    """A completion as server-sent events, with what `reply.stream` says about them."""
    choice = completion["choices"][0]
    message, logprobs = choice["message"], choice["logprobs"]
    envelope = {**completion, "object": "chat.completion.chunk"}
    counts = envelope.pop("usage", None)

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        return _line({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]})

    if reply.stream == "silent":
        return [": ping\n\n", _line({**envelope, "choices": []}), "data:\n\n", "data: [DONE]\n\n"] * 3
    events = [": ping\n\n", event({"role": "assistant", "content": ""}), _line({**envelope, "choices": []})]
    for piece in _pieces(message.get("refusal")):
        events.append(event({"refusal": piece}))
    for k, call in enumerate(message.get("tool_calls") or []):
        events.append(event({"tool_calls": [{**call, "index": k, "function": {"name": "choose_action"}}]}))
        for piece in _pieces(call["function"]["arguments"]):
            events.append(event({"tool_calls": [{"index": k, "function": {"arguments": piece}}]}))
    for k, piece in enumerate(_pieces(message.get("content"))):
        events.append(event({"content": piece}, logprobs=None if k else logprobs))
    if reply.stream in ("broken", "error"):
        bad = 'data: {"choices": [{"del\n\n' if reply.stream == "broken" else _line({"error": {"message": reply.error}})
        events.insert(len(events) // 2, bad)
    if reply.stream == "bare":
        return [
            *events,
            event({}, choice["finish_reason"]).replace('"choices"', f'"usage": {json.dumps(counts)}, "choices"'),
        ]
    events.append(event({}, choice["finish_reason"]))
    if usage and counts is not None:
        events.append(_line({**envelope, "choices": [], "usage": counts}))
    return [*events, "data: [DONE]\n\n"]


def _line(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _pieces(text: str | None) -> list[str]:
    size = max(5, len(text or "") // 200)
    return [text[i : i + size] for i in range(0, len(text), size)] if text else []


def _rung(body: dict[str, Any]) -> tuple[str, list[str]]:
    """Which rung a request uses, and the labels that it allows."""
    if body.get("logprobs"):
        return "logprobs", []
    if body.get("tools"):
        schema = body["tools"][0]["function"]["parameters"]
        return "tools", schema["properties"]["action"]["enum"]
    kind = (body.get("response_format") or {}).get("type")
    if kind == "json_schema":
        return kind, body["response_format"]["json_schema"]["schema"]["properties"]["action"]["enum"]
    return kind or "text", []


def _completion(reply: Reply, rung: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
    logprobs = None
    if rung == "logprobs":
        top = reply.logprobs or {reply.label: -0.1, "E": -3.0, "hello": -4.0, "A": -6.0}
        rows = [{"token": token, "logprob": value} for token, value in top.items()]
        logprobs = {"content": [{**rows[0], "top_logprobs": rows}]}
        message["content"] = reply.label if reply.content is None else reply.content
        if reply.content is not None and reply.logprobs is None:
            logprobs = None
    elif reply.content is None and reply.refusal is None:
        answer = json.dumps({"action": reply.label, **reply.extra})
        if rung == "tools":
            call = {"id": "call_1", "type": "function", "function": {"name": "choose_action", "arguments": answer}}
            message["tool_calls"] = [call]
        else:
            message["content"] = f"Because.\n#### {IDS[reply.label]}" if rung == "text" else answer
    completion: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted", "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": logprobs}],
    }  # fmt: skip
    if reply.usage:
        counts = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}
        completion["usage"] = reply.usage if isinstance(reply.usage, dict) else counts
    return completion
