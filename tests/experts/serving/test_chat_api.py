"""Clients that are slow, rude, wrong or many: raw sockets and the real openai client against one server."""

import contextlib
import json
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
import torch

from experts.language.driving_language import Picture
from experts.serving.api import Generation, Piece, RequestHandler
from experts.serving.batches import Batches
from experts.serving.token_model import TokenModel
from tests.experts.conftest import free_road
from tests.experts.serving.driving import driver_model, question, random_driver, serving
from tests.experts.serving.test_llm_server import ToyModel

torch.set_num_threads(1)
PATIENCE_S = 0.4
PATH = "/v1/chat/completions"


@pytest.fixture
def server():
    with serving(driver_model(), patience_s=PATIENCE_S) as found:
        yield found
    found.handler.model.close()


def body(stream=False, **options):
    prompt = question("text", reasoning="short")
    return json.dumps({"messages": list(prompt.messages), "stream": stream} | options).encode()


HI = [{"role": "user", "content": "hi"}]


def connect(server):
    return socket.create_connection(server.server_address, timeout=5.0)


def send(sock, content, path=PATH, method="POST", length=None, version="1.1"):
    length = len(content) if length is None else length
    head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    sock.sendall(head.encode() + content)


def everything(sock):
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def asks_well(server, times=5):
    """Another client's questions, all of them answered quickly."""
    with openai.OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=5.0) as client:
        messages = list(question().messages)
        for _ in range(times):
            done = client.chat.completions.create(model="lgdrl-driver", messages=messages, max_tokens=1)
            assert done.choices[0].message.content in "ABCDE"


# Wrong


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("POST", PATH, b"{", 400, "not JSON"),
        ("POST", PATH, b"\xff\xfe", 400, "not JSON"),
        ("POST", PATH, b"", 400, "not JSON"),
        ("POST", PATH, b"[" * 100_000, 400, "not JSON"),
        ("POST", PATH, b"[]", 400, "must be a JSON object"),
        ("POST", PATH, b"{}", 400, "'messages' must be"),
        (
            "POST",
            PATH,
            b'{"model": 5, "messages": [{"role": "user", "content": "x"}]}',
            400,
            "'model' must be a string",
        ),
        ("POST", PATH, b'{"model": "x", "messages": [{"role": "user", "content": "x"}]}', 404, "no model 'x' here"),
        ("POST", "/v1/completions", b"{}", 404, "no such path"),
        ("GET", "/", b"", 404, "no such path"),
        ("GET", "/v1/models/other", b"", 404, "no model 'other' here"),
        ("GET", PATH, b"", 405, "takes POST, not GET"),
        ("PUT", PATH, b"{}", 405, "takes POST, not PUT"),
        ("DELETE", "/v1/models", b"", 405, "takes GET, HEAD, not DELETE"),
        ("POST", "/health", b"", 405, "takes GET, HEAD, not POST"),
        ("BREW", PATH, b"", 501, "BREW"),
    ],
)
def test_mistakes_are_named_in_the_protocols_words(server, method, path, content, status, words):
    answer = httpx2.request(method, server.url.removesuffix("/v1") + path, content=content)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert ("allow" in answer.headers) == (status == 405)
    asks_well(server, 1)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"POST {PATH} HTTP/1.1\r\n\r\n", 411),
        (f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 408),
        (f"POST {PATH} HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (f"POST {PATH} HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (f"POST {PATH} HTTP/1.1\r\nContent-Length: {10**30}\r\n\r\n", 413),
        ("nonsense\r\n\r\n", 400),
        (f"GET {'x' * 70_000} HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_requests_that_cannot_be_read_end_the_connection(server, head, status):
    with connect(server) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(head.encode("latin-1"))
        answer = everything(sock)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b'"error"' in answer
    asks_well(server, 1)


def test_a_large_body_is_refused_to_the_sender_in_words(server):
    with (
        openai.OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=20.0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="", messages=[{"role": "user", "content": "x" * 3_000_000}])
    assert caught.value.status_code == 413


def test_head_has_no_body_and_an_old_client_gets_a_plain_stream(server):
    with connect(server) as sock:
        send(sock, b"", "/health", "HEAD")
        time.sleep(0.1)
        assert sock.recv(65536).endswith(b"\r\n\r\n")
        send(sock, body(stream=True), version="1.0")
        head, _, events = everything(sock).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert events.endswith(b"data: [DONE]\n\n")


# Slow and rude


def test_a_client_that_does_not_finish_its_request_is_told_and_dropped_while_others_go_on(server):
    content = body()
    with connect(server) as sock, connect(server) as silent:
        send(sock, content[:-5], length=len(content))
        begin = time.monotonic()
        asks_well(server)
        assert time.monotonic() - begin < 5.0
        assert everything(sock).startswith(b"HTTP/1.1 408")
        assert everything(silent) == b""


def test_a_drip_does_not_outlive_the_patience(server):
    content = body()
    with connect(server) as sock:
        send(sock, content[:1], length=len(content))
        begin = time.monotonic()
        for byte in content[1:]:
            with contextlib.suppress(ConnectionError):
                sock.sendall(bytes([byte]))
            if select.select([sock], [], [], 0.05)[0]:
                break
        assert time.monotonic() - begin < 10 * PATIENCE_S < 0.05 * len(content)
        assert b"408" in everything(sock)[:20]


def test_a_reader_that_stalls_does_not_hold_up_others(capfd):
    """It asks for more than the sockets' buffers hold, and reads none of it."""
    with serving(TokenModel(ToyModel("x" * 4000)), patience_s=PATIENCE_S) as server:
        request = {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 8000,
            "logprobs": True,
        }
        with connect(server) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            send(sock, json.dumps(request | {"top_logprobs": 20}).encode())
            with openai.OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=20.0) as client:
                for _ in range(3):
                    done = client.chat.completions.create(model="toy", messages=HI, max_tokens=2)
                    assert done.choices[0].message.content == "xx"
            time.sleep(2 * PATIENCE_S)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("read", [0, 1, 400])
def test_one_that_hangs_up_in_the_middle_is_forgotten(server, capfd, read):
    for _ in range(5):
        with connect(server) as sock:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )  # reset, not close
            send(sock, body(stream=True))
            if read:
                sock.recv(read)
    asks_well(server)
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_leaves_ends_its_request():
    said = []

    class Endless(ToyModel):
        def start(self, messages):
            chat = super().start(messages)
            chat.push = lambda tokens: said.append(tokens) or time.sleep(0.005)
            return chat

    door = RequestHandler(TokenModel(Endless("x")))
    request = {"messages": HI, "stream": True, "max_tokens": 5000}
    events = door.handle("POST", PATH, json.dumps(request).encode()).events
    assert b"assistant" in next(events)
    events.close()
    time.sleep(0.05)
    before = len(said)
    time.sleep(0.1)
    assert len(said) == before < 100


def test_a_model_that_fails_is_a_500_and_in_a_stream_its_last_event(capfd):
    class Failing:
        name = fingerprint = "failing"

        def __init__(self, after):
            self.after = after

        def answer(self, request):
            def pieces():
                yield from [Piece("x", 0.0)] * self.after
                raise ZeroDivisionError

            return Generation(1, 0, pieces())

    assert RequestHandler(Failing(0)).handle("POST", PATH, body()).status == 500
    assert RequestHandler(Failing(0)).handle("POST", PATH, body(stream=True)).status == 500
    reply = RequestHandler(Failing(2)).handle("POST", PATH, body(stream=True))
    *_, last = reply.events
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert capfd.readouterr().err.count("Traceback") == 3


# Many


def test_waiting_requests_are_computed_together():
    """The first is computed alone; those that came meanwhile make the next batch, at most 64 in one."""
    begun, go = threading.Event(), threading.Event()
    driver = random_driver()
    think = driver.think

    def slowly(pictures, plan=1):
        begun.set()
        go.wait(10)
        return think(pictures, plan)

    driver.think = slowly
    model = driver_model()
    model.driver = driver
    contexts = [free_road(speed=10.0 + k / 5, cars=[[1, 30.0 + k, 9.0]]) for k in range(80)]
    bodies = [json.dumps({"messages": list(question(context=context).messages)}).encode() for context in contexts]
    limits = httpx2.Limits(max_connections=None)
    with serving(model) as server, ThreadPoolExecutor(80) as pool, httpx2.Client(timeout=30, limits=limits) as client:
        url = f"{server.url}/chat/completions"
        first = pool.submit(client.post, url, content=bodies[0])
        assert begun.wait(10)
        others = [pool.submit(client.post, url, content=content) for content in bodies[1:]]
        until = time.monotonic() + 20
        while len(model.batches._waiting) < 79 and time.monotonic() < until:
            time.sleep(0.01)
        go.set()
        answers = [future.result().json()["choices"][0]["message"]["content"] for future in (first, *others)]
    alone = ["ABCDE"[think([Picture.of(context.scene)])[0].plan[0]] for context in contexts]
    assert answers == alone
    assert model.batches.sizes == {1: 1, 64: 1, 15: 1}
    model.close()


def test_batches_keep_order_pass_errors_on_and_leave_out_clients_that_left():
    def compute(numbers):
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]

    batches = Batches(compute, 4)
    assert [future.result(5) for future in batches.ask(range(10))] == list(range(0, 20, 2))
    with pytest.raises(ValueError, match="thirteen"):
        batches.ask([13])[0].result(5)
    assert batches.ask([1])[0].result(5) == 2
    batches.close()
    batches.close()
    with pytest.raises(RuntimeError):
        batches.ask([1])


def test_a_cancelled_question_is_not_computed():
    go, seen = threading.Event(), []

    def compute(numbers):
        seen.extend(numbers)
        go.wait(10)
        return numbers

    batches = Batches(compute, 1)
    first, second, third = batches.ask([1, 2, 3])
    while not seen:
        time.sleep(0.005)
    assert second.cancel()
    go.set()
    assert (first.result(5), third.result(5)) == (1, 3)
    assert seen == [1, 3]
    batches.close()
