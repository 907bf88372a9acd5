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

from experts.serving.fault_server.answers import ALL_RUNGS, Reply, Seen, completion, events, read_request, reply_to
from experts.serving.fault_server.mix import FaultMix

REMEMBERED = 1000
"""Requests that a server with a mix keeps for those who want to look."""
KEPT_LATENESS = 100_000


class FaultServer(ThreadingHTTPServer):
    """Use as a context manager; `url` is the base URL, `seen` the requests in order of arrival.

    Args: behaviours, one per request, the last one for ever after; rungs that are known, and the status with which
        others are refused; what the start-up probe gets; a mix, in place of the script; seed of the mix and of delays
        that are drawn; port of 127.0.0.1 (0: a free one).
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        script: Sequence[Reply] = (Reply(),),
        rungs: Sequence[str] = ALL_RUNGS,
        unsupported: int = 400,
        probe: Reply | None = None,
        seed: int = 0,
        mix: FaultMix | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
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
        """From now on nothing leaves for so long; what is due meanwhile leaves at the end. From any thread."""
        now = time.perf_counter()
        self.freezes.append((now, now + seconds))

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
            if self.mix is not None and not self._served:
                now = time.perf_counter()
                self.freezes += [(now + begin, now + begin + length) for begin, length in self.mix.freezes]
            reply = self.script[min(self._served, len(self.script) - 1)]
            self._served += 1
        if self.mix is not None:
            return self._drawn(seen, self.mix)
        return reply.function(seen) if reply.function else reply

    def _drawn(self, seen: Seen, mix: FaultMix) -> Reply:
        """What the mix has for a request."""
        said = seen.headers.get("X-Stainless-Retry-Count", "")
        retry = int(said) if said.isascii() and said.isdigit() else 0
        kind, reply = reply_to(seen, mix.fate(self.seed, seen.body["messages"], retry), mix)
        with self._lock:
            self.counts[kind] += 1
        return reply

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


class _Handler(BaseHTTPRequestHandler):
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
            reply = self.server.next_reply(seen)
        except (ValueError, KeyError, TypeError, IndexError):
            seen, reply = Seen("text", [], {}, {}, False), Reply(status=400, error="this is not a chat request")
        stream = bool(seen.body.get("stream")) and reply.stream != "plain"
        if stream and reply.stream == "refused":
            stream, reply = False, Reply(status=400, error="stream is not supported")
        self.server.enter(+1)
        try:
            self._answer(reply, seen, self.arrival + self.server.pause(reply.delay_s), stream)
        finally:
            self.server.enter(-1)

    def _answer(self, reply: Reply, seen: Seen, due: float, stream: bool) -> None:
        if reply.drop == "before":
            self.server.wait_until(due)
            self.close_connection = True
        elif stream and reply.status == 200 and reply.raw is None:
            usage = bool((seen.body.get("stream_options") or {}).get("include_usage"))
            self._stream(reply, events(reply, completion(reply, seen.rung), usage), due)
        elif reply.status != 200:
            error = {"error": {"message": reply.error, "type": "scripted", "code": None}}
            self._send(reply, json.dumps(error).encode(), due)
        else:
            whole = json.dumps(completion(reply, seen.rung)).encode() if reply.raw is None else reply.raw
            self._send(reply, whole, due)

    def _head(self, reply: Reply, *more: str) -> bytes:
        phrase = self.responses[reply.status][0] if reply.status in self.responses else ""
        lines = [f"HTTP/1.1 {reply.status} {phrase}", *more]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _leave(self, data: bytes, due: float) -> float:
        """Write `data` when it is due. Returns when that was."""
        due = self.server.wait_until(due)
        self.server.lateness.append(time.perf_counter() - due)
        self.wfile.write(data)
        return due

    def _send(self, reply: Reply, data: bytes, due: float) -> None:
        kind = f"Content-Type: {reply.content_type}"
        if reply.drop == "chunk":
            begun = f"{len(data):x}\r\n".encode() + data[: len(data) // 2]
            self._leave(self._head(reply, kind, "Transfer-Encoding: chunked") + begun, due)
            self.close_connection = True
            return
        head = self._head(reply, kind, f"Content-Length: {len(data)}")
        pace = reply.drip_s or reply.spread_s / max(len(data), 1)
        if reply.drop == "body":
            self._leave(head + data[: len(data) // 2], due)
            self.close_connection = True
        elif pace:
            due = self._leave(head, due)
            for byte in data:
                self.wfile.write(bytes([byte]))
                due = self.server.wait_until(due + pace)
        else:
            self._leave(head + data, due)

    def _stream(self, reply: Reply, lines: list[tuple[str, bool]], due: float) -> None:
        head = self._head(reply, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        if reply.drop or reply.stream == "cut":
            lines = lines[: len(lines) // 2]
        pace = reply.drip_s or reply.spread_s / max(len(lines), 1)
        (first, _), *rest = _parts(lines, pace, reply.token_delay_s)
        try:
            due = self._leave(head + first, due)
            for data, gap in rest:
                due = self.server.wait_until(due + gap)
                self.wfile.write(data)
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
