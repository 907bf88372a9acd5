"""The fault server itself: real TCP, one thread per connection, delays that are exact.

Requests of the start-up probe (recognised by the fixed probe scene) are answered by `rungs` alone, at once, unless
`probe` names a behaviour. A request with `stream` is answered by server-sent events, a few letters in each.

An answer leaves `delay` after the first line of its request has arrived: it is put together beforehand, and the thread
sleeps until then. How late answers really left is in `lateness`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from experts.serving.fault_server.mix import FaultMix
from experts.serving.fault_server.responses import (
    ALL_RUNGS,
    Scripted,
    Seen,
    completion,
    events,
    read_request,
    respond_to,
)

REMEMBERED = 1000
"""Requests that a server with a mix keeps in `seen`."""
KEPT_LATENESS = 100_000


class FaultServer(ThreadingHTTPServer):
    """Use as a context manager; `url` is the base URL, `seen` the requests in order of arrival.

    Args:
        script: Responses, one per request; the last one is repeated.
        rungs: Those that are supported.
        unsupported: Status with which others are refused.
        probe: Response to the start-up probe; None: a good one.
        seed: Of the mix and of delays that are drawn.
        mix: Used in place of the script.
        port: Of 127.0.0.1; 0: a free one.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        script: Sequence[Scripted] = (Scripted(),),
        rungs: Sequence[str] = ALL_RUNGS,
        unsupported: int = 400,
        probe: Scripted | None = None,
        seed: int = 0,
        mix: FaultMix | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _FaultConnection)
        self.script, self.rungs, self.unsupported, self.probe = list(script), tuple(rungs), unsupported, probe
        self.mix, self.seed = mix, seed
        self.seen: deque[Seen] = deque(maxlen=None if mix is None else REMEMBERED)
        """With a mix, the last `REMEMBERED` ones."""
        self.counts: Counter[str] = Counter()
        """How often each fault of the mix was served, and "healthy"; probes are not counted."""
        self.lateness: deque[float] = deque(maxlen=KEPT_LATENESS)
        """Seconds by which answers (of a stream: its first content) left after they were due."""
        self.freezes: list[tuple[float, float]] = []
        """Begin and end of what `freeze` and the mix asked for, as `time.perf_counter()` values."""
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
        return [seen for seen in list(self.seen) if not seen.probe]

    def freeze(self, seconds: float) -> None:
        """Hold all responses back; what is due meanwhile leaves at the end. From any thread.

        Args:
            seconds: From now.
        """
        now = time.perf_counter()
        self.freezes.append((now, now + seconds))

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def next_response(self, seen: Seen) -> Scripted:
        with self._lock:
            self.seen.append(seen)
            if seen.rung not in self.rungs:
                return Scripted(status=self.unsupported, error=f"{seen.rung} is not supported")
            if seen.probe:
                return self.probe or Scripted()
            if self.mix is not None and not self._served:
                now = time.perf_counter()
                self.freezes += [(now + begin, now + begin + length) for begin, length in self.mix.freezes]
            response = self.script[min(self._served, len(self.script) - 1)]
            self._served += 1
        if self.mix is not None:
            return self._drawn(seen, self.mix)
        return response.function(seen) if response.function else response

    def _drawn(self, seen: Seen, mix: FaultMix) -> Scripted:
        """What the mix has for a request."""
        said = seen.headers.get("X-Stainless-Retry-Count", "")
        retry = int(said) if said.isascii() and said.isdigit() else 0
        kind, response = respond_to(seen, mix.fate(self.seed, seen.body["messages"], retry), mix)
        with self._lock:
            self.counts[kind] += 1
        return response

    def enter(self, change: int) -> None:
        with self._lock:
            self.in_flight += change
            self.peak = max(self.peak, self.in_flight)

    def pause(self, delay: float | tuple[float, float]) -> float:
        with self._lock:
            return self.rng.uniform(*delay) if isinstance(delay, tuple) else delay

    def wait_until(self, due: float) -> float:
        """Sleep until `due` (`time.perf_counter()`), and over a freeze into which that falls. Returns when it was due
        after all."""
        while True:
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            end = max((end for begin, end in list(self.freezes) if begin <= due < end), default=due)
            if end == due:
                return due
            due = end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _FaultConnection(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    arrival = 0.0
    """When the first line of the request came, as a `time.perf_counter()` value."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def parse_request(self) -> bool:
        self.arrival = time.perf_counter()
        return super().parse_request()

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            seen = read_request(json.loads(data), self.headers.items())
            response = self.server.next_response(seen)
        except (ValueError, KeyError, TypeError, IndexError):
            seen, response = (
                Seen("text", [], {}, {}, False),
                Scripted(status=400, error="this is not a chat request"),
            )
        stream = bool(seen.body.get("stream")) and response.stream != "plain"
        if stream and response.stream == "refused":
            stream, response = False, Scripted(status=400, error="stream is not supported")
        self.server.enter(+1)
        try:
            self._answer(response, seen, self.arrival + self.server.pause(response.delay_s), stream)
        finally:
            self.server.enter(-1)

    def _answer(self, response: Scripted, seen: Seen, due: float, stream: bool) -> None:
        if response.drop == "before":
            self.server.wait_until(due)
            self.close_connection = True
        elif stream and response.status == 200 and response.raw is None:
            usage = bool((seen.body.get("stream_options") or {}).get("include_usage"))
            self._stream(response, events(response, completion(response, seen.rung), usage), due)
        elif response.status != 200:
            error = {"error": {"message": response.error, "type": "scripted", "code": None}}
            self._send(response, json.dumps(error).encode(), due)
        else:
            whole = json.dumps(completion(response, seen.rung)).encode() if response.raw is None else response.raw
            self._send(response, whole, due)

    def _head(self, response: Scripted, *more: str) -> bytes:
        phrase = self.responses[response.status][0] if response.status in self.responses else ""
        lines = [f"HTTP/1.1 {response.status} {phrase}", *more]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _leave(self, data: bytes, due: float) -> float:
        """Write `data` when it is due. Returns when that was."""
        due = self.server.wait_until(due)
        self.server.lateness.append(time.perf_counter() - due)
        self.wfile.write(data)
        return due

    def _send(self, response: Scripted, data: bytes, due: float) -> None:
        kind = f"Content-Type: {response.content_type}"
        if response.drop == "chunk":
            begun = f"{len(data):x}\r\n".encode() + data[: len(data) // 2]
            self._leave(self._head(response, kind, "Transfer-Encoding: chunked") + begun, due)
            self.close_connection = True
            return
        head = self._head(response, kind, f"Content-Length: {len(data)}")
        pace = response.drip_s or response.spread_s / max(len(data), 1)
        if response.drop == "body":
            self._leave(head + data[: len(data) // 2], due)
            self.close_connection = True
        elif pace:
            due = self._leave(head, due)
            for byte in data:
                self.wfile.write(bytes([byte]))
                due = self.server.wait_until(due + pace)
        else:
            self._leave(head + data, due)

    def _stream(self, response: Scripted, lines: list[tuple[str, bool]], due: float) -> None:
        head = self._head(response, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        if response.drop or response.stream == "cut":
            lines = lines[: len(lines) // 2]
        pace = response.drip_s or response.spread_s / max(len(lines), 1)
        (first, _), *rest = _parts(lines, pace, response.token_delay_s)
        try:
            due = self._leave(head + first, due)
            for data, gap in rest:
                due = self.server.wait_until(due + gap)
                self.wfile.write(data)
            if response.drop:
                self.close_connection = True
                return
            while response.stream == "held":
                self.connection.settimeout(30.0)
                if not self.rfile.read(1):
                    raise ConnectionError
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.server.hung_up += 1
            self.close_connection = True


def _parts(lines: Sequence[tuple[str, bool]], pace: float, token_delay: float) -> list[tuple[bytes, float]]:
    """The events of a stream as they leave, each with the seconds since the one before. At a `pace` all are alike;
    without one, all up to the first content leave together, and others that hold none with the content before them."""
    found: list[tuple[bytes, float]] = []
    data = b""
    for line, content in lines:
        data += f"{len(line.encode()):x}\r\n{line}\r\n".encode()
        if pace or content or found:
            found.append((data, pace or (token_delay if content else 0.0)))
            data = b""
    return [*found, (data, 0.0)] if data or not found else found
