"""A local OpenAI-compatible chat server on the standard library, for one small model in this process.

One thread per connection reads and writes; what is read and written is the business of `experts.serving.api`, what is
answered that of the model, which is never held while a socket is waited for. A client that neither sends nor reads for
a while is dropped, one that hangs up is forgotten; others do not notice. `experts.serving.access` says whom it answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from experts.serving.access import cors_headers, judge
from experts.serving.api import ApiError, ApiResponse, RequestHandler, Served, error_response
from experts.serving.body import BodyReader
from sim.errors import UsageError, unknown

PATIENCE_S = 60.0
"""s for the body of a request to arrive, and for a client to take the next part of an answer."""
DRIVER, SMOLLM2 = "driver", "smollm2"


class ChatServer(ThreadingHTTPServer):
    """The HTTP server. `serve_forever` in a thread of its own for tests; `url` is what a client needs."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, model: Served, host: str = "127.0.0.1", port: int = 0, patience_s: float = PATIENCE_S) -> None:
        """Port 0 takes a free one. UsageError when the address is taken or none."""
        self.handler, self.patience_s = RequestHandler(model), patience_s
        try:
            super().__init__((host, port), _ChatConnection)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "a port is a number from 0 to 65535"
            raise UsageError(f"cannot listen on {host}:{port}: {why}: choose another port") from None
        self.on_loopback = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not worth a traceback; anything else is."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _ChatConnection(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    origin: str | None = None
    """Of the browser's page that asks, where it may."""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience_s)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the client side counts requests."""

    def do_POST(self) -> None:
        version = self.request_version
        refusal, self.origin = judge(self.headers, version, self.server.on_loopback)
        try:
            body = BodyReader(self.rfile, self.server.patience_s).read(self.command, version, self.headers)
            if refusal is not None:
                raise refusal
        except ApiError as error:
            self.close_connection = True
            self._send(error_response(error))
            return
        self._send(self.server.handler.handle(self.command, self.path, body))

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself (no HTTP, endless headers), in the API's form."""
        self.close_connection = True
        if self.request_version == "HTTP/0.9":  # also what could not be read counts as that, and would get no status
            self.request_version = "HTTP/1.0"
        self._send(error_response(ApiError(int(code), message or "the request cannot be read")))

    def _send(self, response: ApiResponse) -> None:
        streamed = response.events is not None
        chunked = streamed and self.request_version == "HTTP/1.1"
        self.send_response(response.status)
        if response.status != 204:
            self.send_header("Content-Type", response.content_type)
        if response.allow:
            self.send_header("Allow", response.allow)
        if self.origin is not None:
            methods = response.allow.split(", ") if self.command == "OPTIONS" and response.allow else []
            for name, value in cors_headers(self.origin, self.headers, methods):
                self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif streamed:
            self.close_connection = True
        elif response.status != 204:
            self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if response.events is not None:
            self._stream(response, chunked)
        elif self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def _stream(self, response: ApiResponse, chunked: bool) -> None:
        """Server-sent events, each as soon as it is there."""
        assert response.events is not None
        with contextlib.closing(response.events) as events:  # type: ignore[type-var]
            for event in events:
                self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n" if chunked else event)
                self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


def open_model(name: str) -> Served:
    """The model that a word of the command line means: `driver`, `smollm2`, or a file. UsageError for anything else."""
    suffix = Path(name).suffix
    if name == DRIVER or suffix == ".safetensors":
        import torch

        from experts.language.driver import Driver
        from experts.serving.driver_model import DriverModel

        torch.set_num_threads(1)
        return DriverModel(Driver.load(None if name == DRIVER else name))
    if name == SMOLLM2 or suffix == ".gguf":
        from experts.serving.local_model import load
        from experts.serving.token_model import TokenModel

        return TokenModel(load(None if name == SMOLLM2 else name))
    raise unknown("model", name, (DRIVER, SMOLLM2, "FILE.gguf", "FILE.safetensors"))


def serve(model: Served, host: str = "127.0.0.1", port: int = 8000) -> int:
    """Serve until Ctrl-C (130) or SIGTERM (0); returns the exit code. UsageError when the port is taken."""
    with ChatServer(model, host, port) as server:

        def end(*_: object) -> None:
            threading.Thread(target=server.shutdown).start()

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)
        print(f"serving {model.name} at {server.url} (set client.base_url to it; Ctrl-C stops)", flush=True)
        code = 0
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            code = 130
        print("stopped", flush=True)
        return code
