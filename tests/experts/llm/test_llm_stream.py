"""Streamed answers: pieced together, broken off, interrupted. The real openai client over loopback TCP."""

import contextlib
import itertools
import json
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.llm.completion import Completion, read_completion
from experts.llm.faults import Fault
from experts.llm.parse import reason_so_far
from experts.llm.stream import Draft
from experts.provider import Status
from experts.serving.fault_server import ALL_RUNGS, FaultServer, Scripted
from tests.experts.conftest import Fallback, free_road

from .test_llm_faults import ENDPOINT, UNUSABLE

JSON = ("json_schema",)
REASON = "The lane ahead is free, so I keep my speed and stay where I am."
SPOKEN = Scripted(extra={"reason": REASON})
STREAMED = {"stream": "always"}


def ask(expert, context=None):
    return expert.decide([context or free_road()])[0]


def heard_by(words):
    return replace(free_road(), say=words.append)


# What arrives


@pytest.mark.parametrize("rung", ALL_RUNGS)
def test_a_streamed_answer_is_the_plain_one(expert, rung):
    with FaultServer(rungs=(rung,)) as server:
        plain, streamed = ask(expert(server, stream="never")), ask(expert(server, **STREAMED))
        assert [bool(seen.body.get("stream")) for seen in server.asked] == [False, True]
        assert server.asked[1].body["stream_options"] == {"include_usage": True}
    assert (streamed.status, streamed.action, streamed.answer) == (Status.OK, plain.action, plain.answer)
    assert streamed.probs == pytest.approx(plain.probs)
    assert streamed.tokens == plain.tokens == 105


def test_the_reason_is_heard_while_it_arrives_and_only_by_listeners(expert):
    words = []
    with FaultServer([replace(SPOKEN, drip_s=0.005)], rungs=JSON) as server:
        llm = expert(server, prompt={"reasoning": "short"})
        decision = ask(llm, heard_by(words))
        ask(llm)
        assert [bool(seen.body.get("stream")) for seen in server.asked] == [True, False]
    grown = [text for text in dict.fromkeys(words) if text]
    assert len(grown) > 5
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))
    assert grown[-1] == decision.reason == REASON


def test_the_reason_of_a_text_answer_ends_where_the_decision_begins(expert):
    words = []
    answer = Scripted(content=f"{REASON}\n#### 1")
    with FaultServer([answer], rungs=("text",)) as server:
        decision = ask(expert(server), heard_by(words))
    assert words[-1] == decision.reason == REASON


def test_one_letter_is_not_streamed_for_a_listener(expert):
    words = []
    with FaultServer() as server:
        ask(expert(server), heard_by(words))
        assert "stream" not in server.asked[0].body
    assert not words


def test_never_means_never(expert):
    words = []
    with FaultServer([SPOKEN], rungs=JSON) as server:
        ask(expert(server, stream="never"), heard_by(words))
        assert "stream" not in server.asked[0].body
    assert not words


# What goes wrong


@pytest.mark.parametrize(("reply", "fault"), ENDPOINT)
def test_streams_fail_as_bodies_do(expert, reply, fault):
    with FaultServer([reply], rungs=JSON) as server:
        total = 0.4 if fault is Fault.TIMEOUT else 20.0
        llm = expert(server, client={"total_s": total, "max_bytes": 200_000}, **STREAMED)
        decision = ask(llm)
    assert (decision.status, decision.action, decision.faults) == (Status.FALLBACK, 4, (fault,))
    assert decision.latency_s < 10.0


@pytest.mark.parametrize(("reply", "fault"), UNUSABLE)
def test_unusable_streams_are_repaired_once(expert, reply, fault):
    with FaultServer([reply, Scripted(label="D")], rungs=JSON) as server:
        decision = ask(expert(server, **STREAMED))
        assert (decision.status, decision.action, decision.faults) == (Status.REPAIRED, 3, (fault,))


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        ("cut", Fault.PROTOCOL),
        ("broken", Fault.PROTOCOL),
        ("error", Fault.PROTOCOL),
        ("silent", Fault.PROTOCOL),
    ],
)
def test_a_stream_that_breaks_off_is_a_broken_body(expert, stream, fault):
    with FaultServer([Scripted(stream=stream, error="out of memory")], rungs=JSON) as server:
        decision = ask(expert(server, **STREAMED))
    assert (decision.status, decision.action, decision.faults) == (Status.FALLBACK, 4, (fault,))
    assert ("out of memory" in decision.reason) == (stream == "error")


@pytest.mark.parametrize("stream", ["plain", "held", "bare"])
def test_odd_streams_are_read(expert, stream):
    with FaultServer([Scripted(stream=stream, label="D")], rungs=JSON) as server:
        begin = time.monotonic()
        decision = ask(expert(server, **STREAMED))
        assert time.monotonic() - begin < 10.0
    assert (decision.status, decision.action, decision.tokens) == (Status.OK, 3, 105)


def test_a_stream_without_usage_counts_as_the_whole_reservation(expert):
    with FaultServer([Scripted(usage=False)], rungs=JSON) as server:
        decision = ask(expert(server, **STREAMED))
    assert decision.status is Status.OK
    assert decision.tokens > 256


def test_an_endpoint_that_does_not_stream_is_asked_plainly_from_then_on(expert):
    with FaultServer([Scripted(stream="refused")], rungs=JSON) as server:
        llm = expert(server, **STREAMED)
        assert [ask(llm).status for _ in range(3)] == [Status.OK] * 3
        assert [bool(seen.body.get("stream")) for seen in server.asked] == [True, False, False, False]


def test_a_bad_request_does_not_end_streaming(expert):
    with FaultServer([Scripted(status=422), Scripted(status=422), Scripted()], rungs=JSON) as server:
        llm = expert(server, **STREAMED)
        assert [ask(llm).status for _ in range(2)] == [Status.FALLBACK, Status.OK]
        assert [bool(seen.body.get("stream")) for seen in server.asked] == [True, False, True]


def test_a_late_stream_is_a_label_for_its_own_state(expert):
    with FaultServer([replace(SPOKEN, drip_s=0.02)], rungs=JSON) as server:
        decision = ask(expert(server, deadline_s=0.1, **STREAMED))
    assert (decision.status, decision.action) == (Status.LATE, 1)


# Leaving


@pytest.mark.parametrize("reply", [Scripted(delay_s=20.0), replace(SPOKEN, drip_s=1.0), Scripted(status=500)])
def test_an_interrupted_question_ends_at_once_and_the_fallback_decides(expert, reply):
    slow = {"total_s": 60.0, "retries": 9, "backoff_s": 40.0, "backoff_cap_s": 40.0, "concurrency": 1}
    with FaultServer([reply], rungs=JSON) as server:
        llm = expert(server, client=slow, **STREAMED)
        found = []
        thread = threading.Thread(target=lambda: found.extend(llm.decide([free_road()] * 3)))
        thread.start()
        while not server.asked:
            time.sleep(0.01)
        time.sleep(0.1)
        begin = time.monotonic()
        llm.interrupt()
        thread.join(10)
        assert time.monotonic() - begin < 2.0
        assert [(decision.status, decision.action) for decision in found] == [(Status.FALLBACK, 4)] * 3
        assert {decision.faults for decision in found} == {(Fault.INTERRUPTED,)}
        asked = len(server.asked)
        assert ask(llm).faults == (Fault.INTERRUPTED,)
        assert len(server.asked) == asked == 1


def test_interrupting_hangs_up(expert):
    with FaultServer([replace(SPOKEN, drip_s=0.05)], rungs=JSON) as server:
        llm = expert(server, **STREAMED)
        thread = threading.Thread(target=ask, args=(llm,))
        thread.start()
        while not server.asked:
            time.sleep(0.01)
        llm.interrupt()
        thread.join(10)
        for _ in range(100):
            if server.hung_up:
                break
            time.sleep(0.05)
        assert server.hung_up == 1


def test_closing_answers_waiting_requests(expert):
    with FaultServer([Scripted(delay_s=20.0)], rungs=JSON) as server:
        llm = expert(server, client={"total_s": 60.0})
        found = []
        thread = threading.Thread(target=lambda: found.append(ask(llm)))
        thread.start()
        while not server.asked:
            time.sleep(0.01)
        llm.close()
        thread.join(5)
        assert found[0].faults == (Fault.INTERRUPTED,)


# Pieces

TEXTS = st.text(max_size=60)


def events_of(answer, calls, finish, usage):
    """Server-sent events of an answer, one letter each."""
    chunks = [{"index": 0, "delta": {"role": "assistant", "content": ""}}]
    chunks += [{"index": 0, "delta": {"content": letter}} for letter in answer]
    for number, call in enumerate(calls):
        parts = [{"index": number, "function": {"arguments": letter}} for letter in call]
        chunks += [{"index": 0, "delta": {"tool_calls": [part]}} for part in parts]
    events = [{"choices": [chunk]} for chunk in chunks] + [{"choices": [{"delta": {}, "finish_reason": finish}]}]
    events.append({"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\r\n\r\n"


@given(TEXTS, st.lists(TEXTS.filter(bool), max_size=2), st.lists(st.integers(0, 4000), max_size=5))
def test_it_does_not_matter_where_a_stream_is_cut_into_parts(answer, calls, cuts):
    content, draft = events_of(answer, calls, "stop", {"prompt_tokens": 3}).encode(), Draft()
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in itertools.pairwise(places):
        draft.feed(content[start:end])
    found = read_completion(draft.body())
    assert draft.done
    assert found.content == ("\n".join(calls) or answer) == draft.text
    assert found.finish_reason == "stop"
    assert draft.body()["usage"] == {"prompt_tokens": 3}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "tool_calls", "index", "function", "arguments", "usage"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JUNK, max_size=4), st.binary(max_size=20))
def test_no_stream_raises_anything_but_a_value_error(events, noise):
    draft = Draft()
    with contextlib.suppress(ValueError):
        for event in events:
            draft.feed(f"data: {json.dumps(event)}\n\n".encode())
        draft.feed(noise + b"\n\n" + b"data:" + noise + b"\n\n")
    assert isinstance(read_completion(draft.body()), Completion | None)


@given(st.text(max_size=80), st.sampled_from(["reason", "reasoning"]))
def test_every_beginning_of_an_answer_gives_a_beginning_of_its_reason(reason, key):
    whole = json.dumps({"action": "B", key: reason})
    line = " ".join(reason.encode("utf-8", "replace").decode().split())
    assert reason_so_far(whole, "json") == line
    for end in range(len(whole)):
        part = reason_so_far(whole[:end], "json")
        assert line.startswith(part.rstrip("?")) or "?" in part


def test_long_reasons_show_their_newest_words():
    words = " ".join(f"word{k}" for k in range(100))
    shown = reason_so_far(words, "text")
    assert len(shown) == 200
    assert shown.startswith("...")
    assert shown.endswith("word99")


def test_a_fallback_without_interrupt_is_left_alone(expert):
    with FaultServer(rungs=JSON) as server:
        llm = expert(server, fallback=Fallback())
        llm.interrupt()
        assert ask(llm).status is Status.FALLBACK
