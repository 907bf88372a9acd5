"""Bodies in chunks, browsers, host names and models by id at the chat server: raw sockets and real clients."""

import contextlib
import json
import socket

import httpx2
import openai
import pytest

from experts.serving.body import MAX_BODY, MAX_REFUSED
from experts.serving.token_model import TokenModel
from tests.experts.serving.driving import serving
from tests.experts.serving.test_llm_server import ToyModel

PATH = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def server():
    with serving(TokenModel(ToyModel()), patience_s=0.5) as found:
        yield found


def ask(server, *heads, body=b"", line=f"POST {PATH} HTTP/1.1", host="Host: localhost"):
    """Status and headers, and body, of the response to raw bytes."""
    lines = "\r\n".join([line, *([host] if host else []), *heads, "", ""])
    with socket.create_connection(server.server_address, timeout=10.0) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(lines.encode("latin-1") + body)
            sock.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(65536):
                parts.append(part)
    head, _, rest = b"".join(parts).partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def status(answer):
    return int(answer[0].split()[1])


def chunks(*parts, extension="", end="\r\n", trailers=""):
    lines = b"".join(f"{len(part):x}{extension}{end}".encode() + part + end.encode() for part in parts)
    return lines + f"0{end}{trailers}{end}".encode()


# Chunked bodies


@pytest.mark.parametrize(
    "body",
    [
        chunks(BODY),
        chunks(BODY[:1], BODY[1:20], BODY[20:]),
        chunks(*(bytes([byte]) for byte in BODY)),
        chunks(BODY, extension=';name="value"'),
        chunks(BODY, trailers="X-Checksum: 1\r\n"),
        chunks(BODY, end="\n"),
        chunks(BODY).replace(f"{len(BODY):x}".encode(), f"000{len(BODY):X}".encode(), 1),
    ],
)
def test_a_body_in_chunks_is_read_as_one_with_a_length(server, body):
    answer = ask(server, CHUNKED, body=body)
    assert status(answer) == 200
    assert json.loads(answer[1])["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    ("heads", "body", "code"),
    [
        ([CHUNKED], b"zz\r\n", 400),
        ([CHUNKED], b"-5\r\n", 400),
        ([CHUNKED], b"0x5\r\n", 400),
        ([CHUNKED], b"\r\n", 400),
        ([CHUNKED], b"5\r\nhelloXX\r\n0\r\n\r\n", 400),
        ([CHUNKED], b"f" * 40 + b"\r\n", 400),
        ([CHUNKED], b"1;" + b"x" * 1000 + b"\r\n", 400),
        ([CHUNKED], chunks(BODY, trailers="X: y\r\n" * 100), 400),
        ([CHUNKED], f"{MAX_REFUSED + 1:x}\r\n".encode(), 413),
        ([CHUNKED], chunks(b" " * (MAX_BODY + 1)), 413),
        ([CHUNKED, "Content-Length: 5"], b"hello", 400),
        (["Content-Length: 5", "Content-Length: 6"], b"hello!", 400),
        (["Content-Length: 5, 5"], b"hello", 400),
        (["Transfer-Encoding: gzip, chunked"], b"", 501),
        (["Transfer-Encoding: "], b"", 501),
        ([CHUNKED], chunks(b"{"), 400),
    ],
)
def test_bodies_that_cannot_be_read_are_refused_in_words(server, heads, body, code):
    answer = ask(server, *heads, body=body)
    assert status(answer) == code
    assert json.loads(answer[1])["error"]["message"]


def test_chunks_that_stop_coming_are_given_up_and_old_clients_send_none(server):
    with socket.create_connection(server.server_address, timeout=10.0) as sock:
        sock.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{CHUNKED}\r\n\r\n5\r\nhe".encode())
        assert b" 408 " in sock.recv(65536)
    assert status(ask(server, CHUNKED, body=chunks(BODY), line=f"POST {PATH} HTTP/1.0")) == 400


def test_a_connection_goes_on_after_a_body_in_chunks(server):
    with httpx2.Client(trust_env=False) as client:
        for _ in range(3):
            done = client.post(f"{server.url}/chat/completions", content=iter([BODY[:9], BODY[9:]]))
            assert done.json()["choices"][0]["message"]["content"] == "hello"


# Host


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LocalHost", "localhost.", "127.0.0.1:1", "127.1.2.3", "[::1]:8000", "a.localhost"],
)
def test_names_of_this_machine_are_answered(server, host):
    assert status(ask(server, line="GET /health HTTP/1.1", host=f"Host: {host}")) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "128.0.0.1", "[2001::1]"],
)
@pytest.mark.parametrize("line", ["GET /health HTTP/1.1", "GET /v1/models HTTP/1.1", f"POST {PATH} HTTP/1.1"])
def test_a_foreign_name_is_refused_so_that_dns_rebinding_fails(server, host, line):
    answer = ask(server, f"Content-Length: {len(BODY)}", body=BODY, line=line, host=f"Host: {host}")
    assert status(answer) == 403
    assert "--host" in json.loads(answer[1])["error"]["message"]


@pytest.mark.parametrize("host", ["", "Host:", "Host: a b", "Host: me@localhost", "Host: localhost/x", "Host: [::1"])
def test_a_request_names_one_host(server, host):
    assert status(ask(server, line="GET /health HTTP/1.1", host=host)) == 400
    assert status(ask(server, "Host: localhost", line="GET /health HTTP/1.1")) == 400
    assert status(ask(server, line="GET /health HTTP/1.0", host="")) == 200


def test_a_server_for_other_machines_answers_to_any_name():
    with serving(TokenModel(ToyModel()), host="0.0.0.0") as server:
        assert status(ask(server, line="GET /health HTTP/1.1", host="Host: lgdrl.example:8000")) == 200
        foreign = ask(server, "Origin: https://evil.example", line="GET /health HTTP/1.1", host="Host: lgdrl.example")
        assert status(foreign) == 403


# Browsers

LOCAL = [
    "http://localhost:3000",
    "http://localhost",
    "https://127.0.0.1:8443",
    "http://[::1]:5173",
    "http://x.localhost",
]
FOREIGN = [
    "https://evil.example", "http://localhost.evil.example", "null", "", "file://", "http://localhost:3000/path",
    "http://me@localhost", "chrome-extension://localhost", "http://0.0.0.0:8000", "http://[::1", "http://10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("origin", LOCAL)
def test_a_page_of_this_machine_may_ask_and_read(server, origin):
    heads = [f"Origin: {origin}", "Access-Control-Request-Method: POST"]
    heads.append("Access-Control-Request-Headers: authorization, content-type, x-stainless-os")
    head, rest = ask(server, *heads, line=f"OPTIONS {PATH} HTTP/1.1")
    assert head.startswith("HTTP/1.1 204")
    assert f"Access-Control-Allow-Origin: {origin}" in head
    assert "Access-Control-Allow-Methods: POST, OPTIONS" in head
    assert "Access-Control-Allow-Headers: authorization, content-type, x-stainless-os" in head
    assert "Vary: Origin" in head
    assert rest == b""
    head, rest = ask(server, f"Origin: {origin}", f"Content-Length: {len(BODY)}", body=BODY)
    assert f"Access-Control-Allow-Origin: {origin}" in head
    assert json.loads(rest)["choices"]
    head, _ = ask(server, f"Origin: {origin}", "Content-Length: 1", body=b"{")
    assert head.startswith("HTTP/1.1 400")
    assert f"Access-Control-Allow-Origin: {origin}" in head


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_a_page_of_another_origin_may_neither_ask_nor_read(server, origin, method):
    heads = [f"Origin: {origin}", "Access-Control-Request-Method: POST", f"Content-Length: {len(BODY)}"]
    head, rest = ask(server, *heads, body=BODY, line=f"{method} {PATH} HTTP/1.1")
    assert head.startswith("HTTP/1.1 403")
    assert "Access-Control" not in head
    assert "choices" not in rest.decode()


def test_a_stream_is_readable_by_a_page_too_and_odd_preflights_get_the_usual_headers(server):
    stream = BODY.replace(b"{", b'{"stream": true, ', 1)
    head, _ = ask(server, f"Origin: {LOCAL[0]}", f"Content-Length: {len(stream)}", body=stream)
    assert "text/event-stream" in head
    assert f"Access-Control-Allow-Origin: {LOCAL[0]}" in head
    odd = ask(server, f"Origin: {LOCAL[0]}", "Access-Control-Request-Headers: a:b", line=f"OPTIONS {PATH} HTTP/1.1")
    assert "Access-Control-Allow-Headers: authorization, content-type\r\n" in odd[0]
    private = [f"Origin: {LOCAL[0]}", "Access-Control-Request-Private-Network: true"]
    assert "Allow-Private-Network: true" in ask(server, *private, line=f"OPTIONS {PATH} HTTP/1.1")[0]


def test_options_without_a_browser_lists_the_methods(server):
    head, rest = ask(server, line="OPTIONS /v1/models HTTP/1.1")
    assert head.startswith("HTTP/1.1 204")
    assert "Allow: GET, HEAD, OPTIONS" in head
    assert "Access-Control" not in head
    assert "Content-Length" not in head
    assert rest == b""
    assert status(ask(server, line="OPTIONS /nowhere HTTP/1.1")) == 404


def test_one_connection_serves_pages_and_others_apart(server):
    with httpx2.Client(trust_env=False) as client:
        first = client.get(f"{server.url}/models", headers={"Origin": LOCAL[0]})
        second = client.get(f"{server.url}/models")
    assert first.headers["access-control-allow-origin"] == LOCAL[0]
    assert "access-control-allow-origin" not in second.headers


# Paths


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/v1/models?limit=5", "//v1//models/", "/v1/model%73"])
def test_the_list_of_models_has_many_spellings(server, path):
    answer = ask(server, line=f"GET {path} HTTP/1.1")
    assert [model["id"] for model in json.loads(answer[1])["data"]] == ["toy"]


@pytest.mark.parametrize(
    "path", ["/v1/models/toy", "/v1/models/toy/", "/v1/models/t%6Fy", "http://localhost/v1/models/toy"]
)
def test_a_model_is_found_by_its_id(server, path):
    answer = ask(server, line=f"GET {path} HTTP/1.1")
    assert json.loads(answer[1])["id"] == "toy"


@pytest.mark.parametrize("path", ["/v1/models/other", "/v1/models/toy/x", "/v1/models/%2e%2e"])
def test_a_model_that_is_not_there_is_a_404_that_names_the_one_that_is(server, path):
    answer = ask(server, line=f"GET {path} HTTP/1.1")
    assert status(answer) == 404
    assert json.loads(answer[1])["error"]["code"] == "model_not_found"
    assert "'toy'" in json.loads(answer[1])["error"]["message"]


def test_a_missing_version_is_pointed_out(server):
    answer = ask(server, f"Content-Length: {len(BODY)}", body=BODY, line="POST /chat/completions HTTP/1.1")
    assert status(answer) == 404
    assert "did you mean /v1/chat/completions" in json.loads(answer[1])["error"]["message"]


def test_the_openai_client_lists_and_retrieves_models(server):
    with openai.OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=5.0) as client:
        assert [model.id for model in client.models.list()] == ["toy"]
        assert client.models.retrieve("toy").id == "toy"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4o")
