"""Start-up at endpoints that are not ready, wrong or closed: what is waited for, and what each status means."""

import email.utils
import time

import pytest

from experts.llm.failures import ErrorText, Place, meaning, retry_after
from experts.llm.faults import Fault
from experts.provider import Status
from experts.serving.fault_server import FaultServer, Scripted
from sim.errors import UsageError
from tests.experts.conftest import KEY, free_road
from tests.experts.llm.answering import Answering, good

PLACE = Place("/v1", True, "")


def first(count, status, payload=None, headers=None):
    """A good endpoint whose first requests are refused."""
    left = [count]

    def answer(body):
        left[0] -= 1
        return (status, payload or {"error": {"message": "x"}}, headers or {}) if left[0] >= 0 else good(body)

    return answer


@pytest.mark.parametrize(
    ("status", "payload"),
    [
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
        (503, {"error": "Model is currently loading", "estimated_time": 20.0}),
        (503, b"<html><title>503 Service Unavailable</title></html>"),
        (500, {"error": {"message": "the model is still loading"}}),
        (502, b"Bad Gateway"),
        (504, {"message": "upstream timed out"}),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        (429, {"error": {"message": "slow down"}}),
        (200, {"error": {"message": "Provider is overloaded", "code": 503}}),
    ],
)
def test_a_server_that_is_not_ready_is_waited_for_and_costs_no_rung(expert, status, payload):
    with Answering(first(3, status, payload)) as server:
        llm = expert(server)
        assert (llm.ability.rung, llm.ability.lost) == ("logprobs", ())
        assert len(server.asked) == 4


@pytest.mark.parametrize("status", [502, 503, 504, 529])
def test_the_wait_ends_with_startup_s(expert, status):
    with Answering(lambda body: (status, {"error": {"message": "not yet"}})) as server:
        begin = time.monotonic()
        with pytest.raises(UsageError, match=f"HTTP {status}: not yet: ") as caught:
            expert(server, client={"startup_s": 0.5})
        assert 0.2 < time.monotonic() - begin < 5
    assert "\n" not in str(caught.value)


def test_a_rung_that_fails_inside_the_server_is_left_at_once(expert):
    def answer(body):
        return (500, {"error": {"message": "grammar error"}}) if "response_format" in body else good(body)

    with Answering(answer) as server:
        assert expert(server, sampling={"choice": False}, client={"leave_out": ["logprobs"]}).ability.rung == "text"
        assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "1"}, 1.0),
        ({"retry-after-ms": "400"}, 0.4),
        ({"retry-after-ms": "400", "Retry-After": "100"}, 0.4),
        ({"Retry-After": "0.4"}, 0.4),
    ],
)
def test_a_server_is_asked_again_when_it_says(expert, headers, seconds):
    with Answering(first(1, 503, headers=headers)) as server:
        begin = time.monotonic()
        expert(server)
        assert seconds <= time.monotonic() - begin < seconds + 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Wed, 99 Oct 2015"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_milliseconds_and_date(headers, seconds):
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_a_date_without_the_servers_clock_is_read_by_our_own():
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 15 < retry_after({"retry-after": date}) <= 20


def test_a_date_is_obeyed_in_mid_run(expert):
    late = {"Retry-After": email.utils.formatdate(time.time() + 120, usegmt=True)}
    with FaultServer([Scripted(status=429, headers=late)], rungs=("json_schema",)) as server:
        decision = expert(server, client={"retries": 3}).decide([free_road()])[0]
        assert (decision.status, len(server.asked)) == (Status.FALLBACK, 1)
    assert "it asks to wait 1" in decision.reason


@pytest.mark.parametrize(
    ("status", "payload", "words"),
    [
        (401, {"error": {"message": f"bad key {KEY}"}}, "the key is refused: check OPENAI_API_KEY"),
        (403, {"error": {"message": "forbidden"}}, "check OPENAI_API_KEY"),
        (403, b"<html><title>Access denied | Cloudflare</title></html>", "a firewall or proxy on the way"),
        (402, {"error": {"message": "Insufficient Balance"}}, "quota or credit"),
        (404, {"detail": "Not Found"}, "before /chat/completions"),
        (404, {"error": {"message": "The model `m` does not exist."}}, "check the model name, which"),
        (404, b"404 page not found", "client.base_url"),
        (405, {"detail": "Method Not Allowed"}, "client.base_url"),
        (407, b"<html><title>Proxy Authentication Required</title></html>", "the proxy asks"),
        (413, {"error": {"message": "too long"}}, "too long for the endpoint"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "bad"}]}, "client.leave_out"),
        (429, {"error": {"message": "You exceeded your current quota, check billing"}}, "quota or credit"),
        (500, {"error": {"message": "boom"}}, "see its log"),
        (501, {"error": {"message": "no"}}, "does not know this kind of request"),
    ],
)
def test_each_status_says_what_it_means_here(expert, status, payload, words):
    with Answering(lambda body: (status, payload)) as server, pytest.raises(UsageError) as caught:
        expert(server)
    text = str(caught.value)
    assert words in text
    assert f"HTTP {status}" in text
    assert "127.0.0.1" in text
    assert "\n" not in text
    assert KEY not in text
    assert "<html" not in text
    assert "Error code" not in text


def test_a_missing_version_in_the_path_is_noticed(expert):
    with Answering(lambda body: (404, b"404 page not found")) as server:
        root = server.url.removesuffix("/v1")
        with pytest.raises(UsageError, match="lacks the usual /v1"):
            expert(server, client={"base_url": root})


def test_a_missing_key_is_told_apart_from_a_refused_one(expert, monkeypatch):
    with Answering(lambda body: (401, {"error": {"message": "no key"}})) as server:
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UsageError, match="OPENAI_API_KEY, which is not set"):
            expert(server)


def test_a_gateway_behind_a_proxy_names_the_variable_of_the_proxy():
    behind = Place("/v1", True, "HTTPS_PROXY")
    for status in (502, 504):
        assert "HTTPS_PROXY" in meaning(status, ErrorText("x"), behind)
        assert "gateway" in meaning(status, ErrorText("x"), PLACE)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (401, Fault.AUTH),
        (403, Fault.AUTH),
        (404, Fault.REQUEST),
        (408, Fault.TIMEOUT),
        (422, Fault.REQUEST),
        (429, Fault.RATE_LIMITED),
        (502, Fault.SERVER),
        (503, Fault.SERVER),
        (529, Fault.SERVER),
        (418, Fault.REQUEST),
        (599, Fault.SERVER),
    ],
)
def test_in_mid_run_a_status_is_counted_and_its_meaning_is_the_reason(expert, status, fault):
    with Answering(good) as server:
        llm = expert(server)
        server.answer = lambda body: (status, {"error": {"message": "scripted"}})
        decision = llm.decide([free_road()])[0]
    assert (decision.status, decision.faults) == (Status.FALLBACK, (fault,))
    assert decision.reason.startswith(f"{fault}: HTTP {status}: scripted: ")


def test_of_an_error_without_end_only_the_beginning_is_read(expert):
    with Answering(good) as server:
        llm = expert(server)
        server.answer = lambda body: (400, b'{"error": {"message": "no"}}' + b" " * 50_000_000)
        decision = llm.decide([free_road()])[0]
        assert decision.faults == (Fault.REQUEST,)
        until = time.monotonic() + 10
        while not server.hung_up and time.monotonic() < until:
            time.sleep(0.01)
        assert server.hung_up == 1


def test_a_web_page_in_place_of_an_api_is_recognised(expert):
    page = b"<!doctype html><html><title>Log in</title></html>"
    with Answering(lambda body: (200, page)) as server, pytest.raises(UsageError, match="an HTML page and no JSON"):
        expert(server)


def test_a_quota_that_is_used_up_is_not_asked_again_in_mid_run(expert):
    with Answering(good) as server:
        llm = expert(server, client={"retries": 3})
        server.answer = lambda body: (429, {"error": {"message": "You exceeded your current quota"}})
        before = len(server.asked)
        decision = llm.decide([free_road()])[0]
        assert len(server.asked) == before + 1
    assert "quota or credit" in decision.reason
