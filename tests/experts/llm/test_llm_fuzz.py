"""Mutated answers at the expert and mutated requests at the chat server: no traceback, no hang, known outcomes."""

import contextlib
import json
import random
import re
import socket
import time
from collections import Counter

import pytest
import torch

from experts.llm.faults import Fault
from experts.provider import Status
from experts.serving.token_model import TokenModel
from tests.experts.conftest import KEY, free_road
from tests.experts.llm.answering import LOGPROBS, RICH, Answering, good, message
from tests.experts.serving.driving import driver_model, question, serving
from tests.experts.serving.test_llm_server import ToyModel

RUNGS = ("logprobs", "json_schema", "tools", "json_object", "text")
ANSWERS, REQUESTS = 300, 200
TOTAL_S = 2.0
"""s for one decision."""
PATIENCE_S = 0.5
"""s that the chat server waits for a client."""
SLACK_S = 5.0
"""s beyond a time-out that a busy machine may take."""
STATUSES = {200, 204, 400, 403, 404, 405, 408, 411, 413, 414, 431, 501, 505}
"""What `lgdrl serve-lm` answers."""

TEXTS = [
    "#### 1",
    "B",
    '{"action": "B"}',
    '{"action": "B", "probs": {"B": 0.7, "D": 0.3}, "reason": "free"}',
    "I choose IDLE.",
    "<think>#### 3</think>#### 1",
    "<thinking>\nhm #### 2",
    '<think>x</think>{"action": "D"}',
    "[THINK]a[/THINK]#### 4",
    "<|channel|>analysis<|message|>#### 3<|end|><|channel|>final<|message|>#### 1",
    "analysisWe go.assistantfinal#### 1",
    "I'm sorry, I can't help with that",
    '```json\n{"action": "E"}\n```',
    "#### 99",
    "\U0001f697 #### 1",
    "",
]
PIECES = [
    "<think>", "</think>", "#### ", "null", "NaN", "1e999", "-1", '"', "}", "[", "\\u0000", "\\ud800", "action", "\n\n",
    "data: ", "[DONE]", "[[[[[[[[", "9" * 400, "\x00", KEY, "é", "choices", "true",
]  # fmt: skip
JUNK = [
    None,
    True,
    -1,
    0.5,
    1e308,
    "",
    "x",
    "B",
    [],
    {},
    [[]],
    {"type": "text"},
    10**30,
    "\ud800",
    "#### 2",
    [None] * 3,
]


def bodies():
    """Responses as endpoints send them, good and bad."""
    found = [message(text, finish) for text in TEXTS for finish in ("stop", "length")]
    found += [message(None, reasoning="#### 3"), message([{"type": "text", "text": "#### 1"}])]
    found.append({"choices": [{"message": {"content": "B"}, "finish_reason": "length", "logprobs": LOGPROBS}]})
    call = {"type": "function", "function": {"name": "choose_action", "arguments": '{"action": "B"}'}}
    found.append(message(None, "tool_calls", tool_calls=[call, call]))
    found += [{"error": {"message": "seed is not supported", "param": "seed"}}, {"detail": [{"loc": ["body", "n"]}]}]
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}
    return [*found, message("#### 1", usage=usage)]


def stream_of(body):
    """A completion as events."""
    choice = body["choices"][0]
    delta = {"index": 0, "delta": choice.get("message"), "logprobs": choice.get("logprobs")}
    last = {"index": 0, "delta": {}, "finish_reason": choice.get("finish_reason")}
    lines = [json.dumps({"choices": [delta]}), json.dumps({"choices": [last]}), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def whole(reply):
    """The JSON of a good reply."""
    return message(reply[1]) if isinstance(reply[1], str) else reply[1]


def with_junk(rng, value, depth=0):
    """JSON with one of its nodes replaced."""
    if depth > 6 or not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return rng.choice(JUNK)
    found = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    name = rng.choice(list(found))
    found[name] = with_junk(rng, found[name], depth + 1)
    return found if isinstance(value, dict) else list(found.values())


def mutated(rng, data, pieces):
    """Bytes with some of them cut, doubled, flipped or put in."""
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        begin = rng.randrange(len(data) + 1)
        end = min(begin + rng.choice([0, 1, 3, 20]), len(data))
        piece = rng.choice(pieces).encode("utf-8", "surrogatepass")
        kind = rng.choice(["insert", "cut", "flip", "double", "replace"])
        if kind == "insert":
            data = data[:begin] + piece + data[begin:]
        elif kind == "cut" and rng.random() < 0.3:
            data = data[:begin]
        elif kind == "flip" and begin < len(data):
            data = data[:begin] + bytes([data[begin] ^ (1 << rng.randrange(8))]) + data[begin + 1 :]
        elif kind == "double":
            data = data[:end] + data[begin:]
        else:
            data = data[:begin] + piece + data[end:]
    return data


def mutated_answer(rng, stream, fitting):
    """Status, body and headers of a response; half of them come from a `fitting` one."""
    body = rng.choice(bodies()) if rng.random() < 0.5 else fitting
    text = body.get("choices", [{}])[0].get("message", {}).get("content")
    kind = rng.choice(["text", "text", "junk", "bytes"])
    if kind == "junk":
        body = with_junk(rng, body)
    elif kind == "text" and isinstance(text, str):
        changed = mutated(rng, text.encode(), PIECES).decode("utf-8", "replace")
        body = {"choices": [{**body["choices"][0], "message": {"content": changed}}]}
    data = stream_of(body) if stream and _is_completion(body) else json.dumps(body).encode()
    status = rng.choice([200] * 24 + [204, 301, 400, 401, 404, 422, 429, 500, 503, 529])
    data = mutated(rng, data, PIECES) if kind == "bytes" else data
    headers = {"Content-Type": rng.choice(["application/json", "text/event-stream" if stream else "text/html", ""])}
    if rng.random() < 0.1:
        name = rng.choice(["Retry-After", "retry-after-ms", "Location", "Content-Encoding"])
        headers[name] = rng.choice(["1e9", "nan", "Wed, 21 Oct 2099 07:28:00 GMT", "-1", "gzip", "http://127.0.0.1:1/"])
    return status, data, headers


def _is_completion(body):
    choices = body.get("choices") if isinstance(body, dict) else None
    return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)


def only(rung):
    """A good endpoint for one rung."""
    wanted = {"logprobs": "logprobs", "tools": "tools", "text": None}.get(rung, "response_format")

    def answer(body):
        if rung == "tools":
            return 200, message('{"action": "B"}')
        fits = wanted in body if wanted else not any(name in body for name in RICH)
        return good(body) if fits else (400, {"error": {"message": "no"}})

    return answer


@pytest.mark.slow
def test_mutated_answers_are_counted_and_never_raise(expert, capfd):
    rng = random.Random(18)
    statuses, faults, slowest = Counter(), Counter(), 0.0
    variants = [(rung, stream) for rung in RUNGS for stream in (False, True)]
    for rung, stream in variants:
        with Answering(only(rung)) as server:
            options = {"client": {"total_s": TOTAL_S, "retries": 1, "max_bytes": 100_000}, "veto_unsafe": False}
            llm = expert(server, rung=rung, stream="always" if stream else "never", **options)
            usual = only(rung)
            server.answer = lambda body, usual=usual, stream=stream: mutated_answer(rng, stream, whole(usual(body)))
            for number in range(ANSWERS // len(variants)):
                context = free_road(speed=10.0 + number / 10, lane=number % 3)
                begin = time.monotonic()
                decision = llm.decide([context])[0]
                slowest = max(slowest, time.monotonic() - begin)
                assert decision.action is not None
                assert context.legal[decision.action]
                assert abs(decision.probs.sum() - 1) < 1e-9
                assert not decision.probs[~context.legal].any()
                assert KEY not in repr(decision) + str(decision.reason) + str(decision.answer)
                statuses[decision.status] += 1
                faults.update(decision.faults)
    assert sum(statuses.values()) == ANSWERS
    assert set(statuses) <= set(Status)
    assert set(faults) <= set(Fault)
    assert statuses[Status.OK] > 20
    assert statuses[Status.FALLBACK] > 20
    assert slowest < TOTAL_S + SLACK_S
    assert "Traceback" not in capfd.readouterr().err
    with capfd.disabled():
        print(f"\n{ANSWERS} mutated answers, slowest {slowest:.1f} s: {counts(statuses)}; faults: {counts(faults)}")


def requests():
    """Requests as clients send them, good and bad."""
    chat = json.dumps({"messages": list(question("text").messages), "max_tokens": 4}).encode()
    hi = b'{"messages": [{"role": "user", "content": "hi"}], "stream": true, "logprobs": true, "top_logprobs": 3}'
    found = []
    for body in (chat, hi, b"{}", b""):
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        found.append(f"{head}Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b""
        found.append(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n")
        found.append(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    for line in ("GET /v1/models", "GET /v1/models/toy", "HEAD /health", "OPTIONS /v1/models", "DELETE /v1/models"):
        found.append(f"{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n".encode())
        found.append(f"{line} HTTP/1.0\r\n\r\n".encode())
    return found


HTTP_PIECES = [
    *("\r\n", "\r\n\r\n", "\n", ": ", "HTTP/9.9", "Host: evil.example\r\n", "Host: localhost\r\n", "Origin: null\r\n"),
    *("Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n", "Content-Length: -1\r\n", "ffffffff\r\n", "0\r\n\r\n"),
    *("%00", "/../", "?", "\x00", "é", "x" * 70_000, "a: b\r\n" * 120, "GET", "BREW ", "true", "1e999", "[" * 2000),
]


def exchange(address, data):
    """All that comes back for some bytes; None where the connection was closed without a word."""
    with socket.create_connection(address, timeout=PATIENCE_S + SLACK_S) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(65536):
                parts.append(part)
    return b"".join(parts) or None


@pytest.mark.slow
def test_mutated_requests_get_documented_statuses_or_none(capfd):
    torch.set_num_threads(1)
    rng = random.Random(18)
    statuses, slowest = Counter(), 0.0
    for model in (TokenModel(ToyModel()), driver_model()):
        with serving(model, patience_s=PATIENCE_S) as server:
            for number in range(REQUESTS // 2):
                begin = time.monotonic()
                answer = exchange(server.server_address, mutated(rng, rng.choice(requests()), HTTP_PIECES))
                slowest = max(slowest, time.monotonic() - begin)
                found = [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", answer or b"")]
                assert set(found) <= STATUSES | {100}
                statuses["closed" if answer is None else next((c for c in found if c != 100), "HTTP/0.9")] += 1
                if number % 20 == 0:
                    assert b" 200 " in exchange(
                        server.server_address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    )
    assert sum(statuses.values()) == REQUESTS
    assert statuses[200] > 10
    assert statuses[400] > 10
    assert slowest < PATIENCE_S + SLACK_S
    assert "Traceback" not in capfd.readouterr().err
    with capfd.disabled():
        print(f"\n{REQUESTS} mutated requests, slowest {slowest:.1f} s: {counts(statuses)}")


def counts(found):
    return ", ".join(f"{number} {name}" for name, number in found.most_common())
