"""Base URLs, keys and proxies as people paste them; and the key, which appears nowhere in any form."""

import base64
import html
import json
import logging
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.language_model import make
from experts.llm.address import is_loopback, plain_url, proxy_for, read_address, read_key
from experts.llm.client import ClientConfig
from experts.llm.connect import is_configured
from experts.llm.redact import redactor
from experts.provider import Status
from sim.errors import UsageError
from tests.experts.conftest import KEY, Fallback, free_road
from tests.experts.llm.answering import Answering, good, only_text

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# Base URLs


@pytest.mark.parametrize(
    "form",
    [
        "{url}/",
        "{url}//",
        "  {url}\n",
        '"{url}"',
        "“{url}”",
        "\ufeff{url}",
        "{url}/chat/completions",
        "{url}/chat/completions/",
        "{url}/models",
        "{url}/completions",
        "{url}#fragment",
    ],
)
@pytest.mark.parametrize("place", ["config", "environment"])
def test_a_base_url_is_understood_as_it_was_pasted(expert, monkeypatch, form, place):
    with Answering(good) as server:
        text = form.format(url=server.url)
        if place == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", text)
            text = None
        llm = expert(server, client={"base_url": text})
        assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
        assert llm.endpoint == server.url


def test_the_query_of_a_base_url_goes_with_every_request(expert):
    with Answering(good) as server:
        expert(server, client={"base_url": f"{server.url}?api-version=2024-10-21&x=a%20b"})
        assert server.asked[0].path == "/v1/chat/completions?api-version=2024-10-21&x=a+b"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000/v1", "did you mean 'http://localhost:8000/v1'"),
        ("127.0.0.1:8000", "did you mean 'http://127.0.0.1:8000'"),
        ("api.example.com/v1", "did you mean 'http://api.example.com/v1'"),
        ("ftp://host/v1", "expected http"),
        ("http://", "expected http"),
        ("http:///v1", "expected http"),
        ("http://host:99999/v1", "expected http"),
        ("http://host:eighty/v1", "expected http"),
        ("http://[::1/v1", "expected http"),
        ("http://ho st/v1", "white space"),
        ("http://host/v1\nhttp://other/v1", "white space"),
        ("gpt-4o-mini", "expected http"),
        ("http://[redacted]/v1", "expected http"),
    ],
)
def test_what_is_no_base_url_is_one_line(expert, key, url, words):
    with pytest.raises(UsageError, match="base URL") as caught:
        make({"fallback": Fallback(), "client": {"base_url": url}}, "lane-change", 0)
    assert words in line(caught)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter22@host/v1",
        "http://host/v1?api_key=hunter22",
        "http://host/v1?sig=hunter22",
        "http://:hunter22@h",
    ],
)
def test_a_secret_in_a_configured_url_is_refused_without_showing_it(url):
    with pytest.raises(UsageError, match="set OPENAI_BASE_URL in place of it") as caught:
        ClientConfig(base_url=url)
    assert "hunter22" not in line(caught)
    address = read_address(url)
    assert "hunter22" in address.secrets
    assert "hunter22" not in plain_url(url)


def test_blank_variables_name_no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, " \n")
    assert not is_configured(ClientConfig(base_url="  "))


# Proxies


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_this_machine_is_never_asked_through_a_proxy(expert, monkeypatch, name):
    with Answering(good) as server, Answering(lambda body: (502, b"proxy")) as proxy:
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert expert(server).ability.rung == "logprobs"
        assert not proxy.asked


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_all_names_of_this_machine_are_known(monkeypatch, host):
    assert is_loopback(host)
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    shown = f"[{host}]" if ":" in host else host
    assert proxy_for(read_address(f"http://{shown}:8000/v1")) is None
    for other in ("localhost.example.com", "128.0.0.1", "mylocalhost", "10.0.0.1", "fe80::1"):
        assert not is_loopback(other)


def test_other_hosts_are_asked_through_the_proxy_that_the_environment_names(expert, monkeypatch):
    with Answering(good) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        llm = expert(proxy, client={"base_url": "http://model.example/v1"})
        assert {asked.path for asked in proxy.asked} == {"http://model.example/v1/chat/completions"}
        proxy.answer = lambda body: (502, {"error": {"message": "no route"}})
        assert "HTTP_PROXY" in llm.decide([free_road()])[0].reason


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "socks://127.0.0.1:7892",
        "socks4://127.0.0.1:7892",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://",
        "http://pro xy:3128",
        "http://[::1:3128",
        "http://me:hunter22@pröxy:3128",
        "ftp://proxy:21",
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line_that_names_the_variable(monkeypatch, key, name, value):
    monkeypatch.setenv(name, value)
    options = {"fallback": Fallback(), "client": {"base_url": "https://model.example/v1"}}
    with pytest.raises(UsageError, match=f"^{name} = ") as caught:
        make(options, "lane-change", 0)
    assert "add model.example to NO_PROXY" in line(caught)
    assert "hunter22" not in line(caught)


def test_an_unusable_proxy_that_is_not_needed_is_a_line_not_an_error(expert, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7892")
    with Answering(good) as server:
        llm = expert(server)
    assert llm.ability.rung == "logprobs"
    assert "ALL_PROXY = 'socks://127.0.0.1:7892'" in llm.note


@pytest.mark.parametrize(
    ("value", "bypassed"),
    [("model.example", True), ("*", True), (".example", True), ("10.0.0.0/8,::1,[::1", False), ("http://x", False)],
)
def test_no_proxy_is_heeded_and_never_breaks(monkeypatch, value, bypassed):
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", value)
    found = proxy_for(read_address("https://model.example/v1"))
    assert (found is None) == bypassed
    assert bypassed or (found.url, found.variable) == ("http://proxy:3128", "HTTPS_PROXY")


def test_a_closed_proxy_is_named(monkeypatch, key):
    with Answering(good) as proxy:
        pass
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
    options = {"fallback": Fallback(), "client": {"base_url": "http://model.example/v1"}}
    with pytest.raises(UsageError, match="through the proxy named by HTTP_PROXY"):
        make(options, "lane-change", 0)


# Keys


@pytest.mark.parametrize(
    "form",
    ["{}\n", "\t{} \r\n", '"{}"', "'{}'", ' "{}" ', "“{}”", "\ufeff{}\u200b", "Bearer {}", "OPENAI_API_KEY={}\n",
     "export OPENAI_API_KEY='{}'", "\u00a0{}"],
)  # fmt: skip
def test_harmless_things_around_a_key_are_taken_off(expert, monkeypatch, form):
    monkeypatch.setenv("OPENAI_API_KEY", form.format(KEY))
    with Answering(good) as server:
        expert(server)
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ключ-0123456789", "not ASCII at position 1"),
        ("abcdefghé", "not ASCII at position 9"),
        ("abcd…efgh", "not ASCII at position 5"),
        ("abcd\u200befgh", "not ASCII at position 5"),
        ("abcdef gh", "white space or a control character at position 7"),
        ("abcdef\nghijkl", "at position 7"),
        ("abcdef\x00gh", "at position 7"),
        ("abcdef\x1b[0m", "at position 7"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_key(text)
    assert not any(part in line(caught) for part in (text[:4], text[-4:]))


@pytest.mark.parametrize("text", ["", " ", '""', "\n", "' '", "Bearer "])
def test_a_key_of_nothing_is_none(text):
    assert read_key(text) == ""


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_other_variables_that_go_into_headers_are_checked_alike(expert, monkeypatch, name):
    with Answering(good) as server:
        monkeypatch.setenv(name, ' "org-1"\n')
        expert(server)
        assert "org-1" in server.asked[0].headers.values()
        for value in ("örg", "a\nb"):
            monkeypatch.setenv(name, value)
            with pytest.raises(UsageError, match=f"^{name} holds") as caught:
                expert(server)
            assert value not in line(caught)


def test_headers_of_the_users_own_are_checked_and_secret(expert, monkeypatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "api-key: hunter22hunter22")
    with Answering(good) as server:
        llm = expert(server)
        assert server.asked[0].headers["api-key"] == "hunter22hunter22"
        server.answer = lambda body: (401, {"error": {"message": "who is hunter22hunter22?"}})
        assert "hunter22" not in llm.decide([free_road()])[0].reason
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "api-key: é")
        with pytest.raises(UsageError, match=r"^OPENAI_CUSTOM_HEADERS holds"):
            expert(server)


def test_certificates_that_cannot_be_read_are_one_line(expert, monkeypatch, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    with Answering(good) as server:
        for file in (tmp_path / "none.pem", tmp_path / "empty.pem", tmp_path):
            monkeypatch.setenv("SSL_CERT_FILE", str(file))
            with pytest.raises(UsageError, match=r"^SSL_CERT_FILE = ") as caught:
                expert(server)
            assert "correct or unset it" in line(caught)


# The key appears nowhere

NASTY = ["abcdefgh", "pa\"ss'w\\ord+/=1", "a%41b&<key>~", "sk-proj-0123456789abcdef", KEY]


def forms(key):
    yield from (key, repr(key), f"{f'Bearer {key}'.encode()!r}", json.dumps(key), json.dumps(json.dumps(key)))
    quoted = urllib.parse.quote(key, safe="")
    yield from (urllib.parse.quote(key), quoted, urllib.parse.quote_plus(key), urllib.parse.quote(quoted))
    yield from (html.escape(key), key.encode("unicode_escape").decode(), key.upper(), key.encode().hex())
    yield "".join(f"%{byte:02X}" for byte in key.encode())


@pytest.mark.parametrize("key", NASTY)
def test_no_form_of_a_key_survives(key):
    redact = redactor(key)
    for form in forms(key):
        bare = form.strip("\"'").removeprefix("b'")
        assert bare not in redact(f"who is {form}?")
        assert "[redacted]" in redact(f"who is {form}?")
    for before in ("", "x", "xy", "Bearer ", "me:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            token = encode((before + key + ":end").encode()).decode()
            left = redact(token)
            assert "[redacted]" in left
            assert len(left.replace("[redacted]", "")) <= len(token) - 4 * len(key) / 3 + 4


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.text())
def test_the_redactor_is_total_and_thorough(key, around):
    found = redactor(key)(around + key + around)
    assert key not in found.replace("[redacted]", "") or key in "[redacted]"


def test_a_part_of_a_key_from_its_beginning_is_cut_out_and_placeholders_are_not():
    assert redactor(KEY)(f"no such key: {KEY[:14]}***") == "no such key: [redacted]"
    assert redactor("none")("left front: none") == "left front: none"
    assert redactor("abc")("abc") == "abc"


def test_no_form_of_the_key_reaches_decisions_logs_cache_or_repr(expert, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    found = [*forms(KEY), base64.b64encode(f"me:{KEY}".encode()).decode()]
    replies = [(401, {"error": {"message": f"no such key: {form}"}}) for form in found]
    replies += [(200, f"your header was {form}") for form in found]
    replies += [(200, f"{form}\n#### 1") for form in found]
    replies += [(400, {"error": {"message": "x"}}, {"X-Echo": f"{KEY}", "Location": f"/?key={KEY}"})]
    with Answering(only_text("#### 1")) as server:
        llm = expert(server, repair=False, cache={"mode": "read-write", "path": str(tmp_path / "a.sqlite")})
        shown = []
        for number, reply in enumerate(replies):
            server.answer = lambda body, reply=reply: reply
            decision = llm.decide([free_road(speed=10.0 + number / 10)])[0]
            shown += [repr(decision), str(decision.reason), str(decision.answer)]
        client = llm._inquirer.client
        shown += [repr(part) for part in (llm, client, vars(client), vars(client.endpoint), vars(llm), llm.metrics())]
        shown += [str(llm.state_dict()), llm.note, caplog.text]
        llm.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    for form in {form.strip("\"'") for form in found}:
        assert form not in stored
        assert not [text for text in shown if form in text]


def test_a_listener_of_a_stream_never_hears_the_key(expert):
    from dataclasses import replace

    def answer(body):
        if not body.get("stream"):
            return only_text("#### 1")(body)
        deltas = [f"the key {KEY[:9]}", KEY[9:], " is yours", "\n#### 1"]
        events = [{"choices": [{"index": 0, "delta": {"content": delta}}]} for delta in deltas]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        return 200, "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode(), {}

    heard = []
    with Answering(answer) as server:
        decision = expert(server).decide([replace(free_road(), say=heard.append)])[0]
    assert decision.status is Status.OK
    assert heard
    assert not any(KEY[:9] in text for text in heard)


def test_a_key_in_the_query_reaches_no_log(expert, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    with Answering(good) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}?api_key=hunter22hunter22")
        llm = expert(server, client={"base_url": None})
        llm.decide([free_road()])
        assert "hunter22hunter22" in server.asked[0].path
    shown = [caplog.text, llm.endpoint, repr(llm._inquirer.client)]
    assert "chat/completions" in caplog.text
    assert not any("hunter22" in text for text in shown)
