"""A chat endpoint on loopback whose every answer is a function of the request. Real TCP, one thread per connection."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOGPROBS = {"content": [{"token": "B", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -0.1}]}]}
RICH = ("logprobs", "tools", "response_format")
"""Parameters of every rung but free text."""


@dataclass
class Asked:
    """A request as it arrived."""

    path: str
    headers: dict
    body: dict


class Answering(ThreadingHTTPServer):
    """`answer(body)` gives (status, payload) or (status, payload, headers); a payload is JSON, text of a message, or
    bytes. A context manager; `asked` are the requests, `hung_up` counts clients that left before the end."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answer, self.asked, self.hung_up = answer, [], 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client hung up."""
        self.hung_up += 1


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, payload, *more = self.server.answer(body)
        payload = message(payload) if isinstance(payload, str) else payload
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (more[0] if more else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def message(content, finish="stop", usage=None, **members):
    """The JSON of a completion."""
    choice = {"message": {"role": "assistant", "content": content, **members}, "finish_reason": finish}
    return {"choices": [choice]} | ({"usage": usage} if usage else {})


def good(body):
    """A good answer on every rung."""
    if body.get("logprobs"):
        choice = {"message": {"content": "B"}, "finish_reason": "length", "logprobs": LOGPROBS}
        return 200, {"choices": [choice]}
    return 200, '{"action": "B"}' if body.get("response_format") else "#### 1"


def only_text(content):
    """Free text alone is supported, and always answered like this."""

    def answer(body):
        return (400, {"error": {"message": "no"}}) if any(name in body for name in RICH) else (200, content)

    return answer


def only_json(content):
    """JSON schemas are supported, and always answered like this."""
    return lambda body: (200, content) if body.get("response_format") else (400, {"error": {"message": "no"}})
