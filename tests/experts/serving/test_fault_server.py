"""The fault server with a mix: every fault reaches the expert `llm`, times are kept, counts agree on both sides."""

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experts.delay import Delay
from experts.llm.faults import VETOES, Fault
from experts.llm.ladder import SamplingConfig, request
from experts.llm.prompt import PromptConfig, PromptGenerator
from experts.provider import Status
from experts.serving.fault_server import ALL_RUNGS, MIXES, SHARES, FaultMix, FaultServer, read_mix
from experts.serving.fault_server.responses import ORDERS, read_driving_request, read_request
from tests.experts.conftest import free_road

ENDPOINT = {
    "stall": Fault.TIMEOUT,
    "rate_limit": Fault.RATE_LIMITED,
    "server_error": Fault.SERVER,
    "hang_up": Fault.CONNECTION,
    "hang_up_body": Fault.CONNECTION,
    "hang_up_stream": Fault.CONNECTION,
    "slow_drip": Fault.TIMEOUT,
    "truncated_json": Fault.PROTOCOL,
    "wrong_type": Fault.PROTOCOL,
    "oversized": Fault.OVERSIZED,
}
ANSWERS = {
    "wrong_enum": Fault.OUT_OF_RANGE,
    "illegal_action": Fault.UNAVAILABLE,
    "two_actions": Fault.TWO_ACTIONS,
    "refusal": Fault.REFUSAL,
    "empty": Fault.EMPTY,
    "cut_off": Fault.TRUNCATED,
    "nan_confidence": Fault.NAN_CONFIDENCE,
    "instructions": Fault.MALFORMED,
    "prompt_echo": Fault.PROMPT_ECHO,
}
HARMLESS = ("no_usage", "no_logprobs", "injected_reason")
SLOW = ("stall", "slow_drip")
QUICK = "full,delay=0,retry_after_s=0.01"


def scene(k):
    """The k-th of many scenes that differ; in the left one of three lanes, so that LANE_LEFT is not available."""
    return free_road(lane=0, speed=10.0 + k % 13, cars=[[0, 60.0 + 0.1 * k, 20.0], [1, 15.0 + 0.1 * k, 18.0]])


def test_every_fault_has_its_place():
    assert sorted([*ENDPOINT, *ANSWERS, *HARMLESS]) == sorted(SHARES)


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("kind", SHARES)
def test_every_fault_reaches_the_expert_and_ends_as_it_should(expert, kind, stream):
    mix = FaultMix(**{kind: 1.0})
    fault = (ENDPOINT | ANSWERS).get(kind)
    for rung in ALL_RUNGS[1:2] if kind in SLOW else ALL_RUNGS:
        with FaultServer(mix=mix) as server:
            llm = expert(server, rung=rung, stream=stream, client={"total_s": 0.3 if kind in SLOW else 20.0})
            (decision,) = llm.decide([scene(0)])
            harmless = fault is None or (kind == "nan_confidence" and rung == "text")
            # what can be read is asked about once more
            times = 2 if kind in ANSWERS and fault not in VETOES and not harmless else 1
            assert server.counts == {kind: times}
        if harmless:
            assert (decision.status, decision.faults) == (Status.OK, ())
            assert scene(0).legal[decision.action]
            assert (decision.tokens > 105) == (kind == "no_usage")
        else:
            status = Status.VETOED if fault in VETOES else Status.FALLBACK
            assert (decision.status, decision.action) == (status, 4), (rung, decision)
            assert decision.faults == (fault,) * times, rung


def test_text_that_gives_orders_changes_nothing(expert):
    with FaultServer(seed=1) as server:
        plain, ordered, bare = (
            FaultServer(mix=FaultMix(**{kind: 1.0} if kind else {}), seed=1)
            for kind in ("", "injected_reason", "instructions")
        )
        del server
    with plain, ordered, bare:
        for rung in ALL_RUNGS:
            contexts = [scene(k) for k in range(5)]
            good = expert(plain, rung=rung).decide(contexts)
            told = expert(ordered, rung=rung).decide(contexts)
            only = expert(bare, rung=rung, repair=False).decide(contexts)
            assert [d.action for d in told] == [d.action for d in good]
            assert all(ORDERS[:40] in d.answer for d in [*told, *only])
            assert all(np.array_equal(a.probs, b.probs) for a, b in zip(told, good, strict=True))
            assert {(d.status, d.action, d.model_action) for d in only} == {(Status.FALLBACK, 4, None)}


def test_healthy_answers_are_legal_safe_and_various():
    for rung in ALL_RUNGS:
        generator = PromptGenerator(PromptConfig())
        chosen = Counter()
        for k in range(60):
            context = scene(k) if k % 2 else free_road(lane=1 + k % 2, speed=24.0, cars=[[1, 12.0 + k, 15.0]])
            prompt = generator.build(context.scene, rung_form(rung))
            args = request(rung_of(rung), prompt, PromptConfig(), SamplingConfig(), False)
            seen = read_request(json.loads(json.dumps(args)), [])
            question = read_driving_request(seen)
            assert [option.id for option in question.legal] == list(prompt.legal)
            assert {option.id for option in question.legal + question.illegal} == set(range(5))
            assert question.recommended.id == prompt.utility.recommended
            action = question.pick(FaultMix().fate(0, seen.body["messages"])).id
            assert prompt.utility.is_safe(action) or not any(verdict.safe for verdict in prompt.utility.verdicts)
            chosen[action] += 1
        assert len(chosen) >= 3


def rung_of(name):
    from experts.llm.ladder import Rung

    return Rung(name)


def rung_form(name):
    return rung_of(name).form


# The same everywhere


def answer_of(server, k, retry=0):
    """Status and body of one question without any client of ours; the error where the server hung up."""
    body = {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": f"question {k}"}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        connection.request("POST", "/v1/x", json.dumps(body), {"X-Stainless-Retry-Count": str(retry)})
        response = connection.getresponse()
        return response.status, response.read()
    except (http.client.HTTPException, ConnectionError) as error:
        return type(error).__name__, getattr(error, "partial", b"")
    finally:
        connection.close()


def test_a_question_meets_the_same_fate_in_any_order_at_any_server():
    mix = read_mix(f"{QUICK},stall_s=0,drip_s=0,oversized_bytes=1000")
    order = np.random.default_rng(0).permutation(150)
    with FaultServer(mix=mix, seed=4) as first, FaultServer(mix=mix, seed=4) as second, FaultServer(mix=mix) as other:
        straight = {k: answer_of(first, k) for k in range(150)}
        assert {k: answer_of(second, k) for k in order.tolist()} == straight
        assert first.counts == second.counts
        assert sum(first.counts.values()) == 150
        assert len(first.counts) > 12
        assert {k: answer_of(other, k) for k in range(150)} != straight
        assert {k: answer_of(first, k, retry=1) for k in range(150)} != straight


def test_the_servers_counts_are_those_of_the_client(expert):
    mix = replace(read_mix(QUICK), stall_s=Delay("constant", (8.0,)))
    client = {"total_s": 5.0, "concurrency": 16, "retries": 1, "breaker_failures": 10**6}
    with FaultServer(mix=mix, seed=2) as server:
        llm = expert(server, rung="json_schema", client=client)
        decisions = llm.decide([scene(k) for k in range(300)])
        found, counts = llm.metrics(), server.counts
    assert sum(counts.values()) == found["budget/calls"] - 1  # the probe
    seen = Counter()
    for kind, fault in (ENDPOINT | ANSWERS).items():
        seen[f"{'attempt_' if kind in ENDPOINT else ''}fault/{fault}"] += counts[kind]
    assert all(counts[kind] for kind in SHARES)
    assert {name: found[name] for name in seen} == seen
    assert sum(found[f"status/{status}"] for status in Status) == 300
    assert Counter(d.status for d in decisions) == {s: n for s in Status if (n := found[f"status/{s}"])}
    assert found["status/ok"] > 200
    assert min(found["status/repaired"], found["status/vetoed"], found["status/fallback"]) > 0
    assert all(scene(k).legal[decision.action] for k, decision in enumerate(decisions))


def test_what_is_no_chat_request_is_refused():
    with FaultServer(mix=MIXES["none"]) as server:
        for body in (b"nonsense", b"[]", b"{}", b'{"messages": []}', b'{"messages": [3], "tools": [{}]}'):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
            connection.request("POST", "/v1/chat/completions", body)
            assert connection.getresponse().status == 400
            connection.close()


# Time


def test_delays_are_exact():
    mix = FaultMix(delay=Delay("uniform", (0.02, 0.1)))
    with FaultServer(mix=mix) as server:
        for k in range(20):
            answer_of(server, k)
        alone = np.median(server.lateness)
        crowd = [
            threading.Thread(target=lambda n=n: [answer_of(server, n * 100 + k) for k in range(4)]) for n in range(64)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert len(server.lateness) == 20 + 256
        assert server.peak > 16
        assert min(server.lateness) >= 0
        assert alone < 0.01  # 0.0002 on a machine with nothing else to do
        assert np.median(server.lateness) < 0.1


def test_a_stream_has_its_own_pace(expert):
    mix = FaultMix(delay=Delay("constant", (0.15,)), token_delay=Delay("constant", (0.05,)))
    with FaultServer(mix=mix) as server:
        llm = expert(server, rung="json_schema", stream="always")
        (decision,) = llm.decide([scene(0)])
    timeline = decision.timeline
    assert decision.status is Status.OK
    assert 0.15 <= timeline.first_token - timeline.sent < 0.25
    assert len(timeline.gaps) >= 2
    assert np.median(timeline.gaps) == pytest.approx(0.05, abs=0.02)


def test_nothing_leaves_during_a_freeze():
    with FaultServer(mix=FaultMix(delay=Delay("constant", (0.2,)))) as server:
        took = []

        def ask(k):
            begin = time.perf_counter()
            answer_of(server, k)
            took.append(time.perf_counter() - begin)

        waiting = threading.Thread(target=ask, args=(0,))
        waiting.start()
        while not server.in_flight:
            time.sleep(0.005)
        server.freeze(0.6)
        waiting.join()
        assert 0.5 < took[0] < 1.0
        ask(1)
        assert 0.2 <= took[1] < 0.4
    with FaultServer(mix=FaultMix(freezes=((0.1, 0.4),))) as server:
        begin = time.perf_counter()
        answer_of(server, 0)
        assert time.perf_counter() - begin < 0.1
        time.sleep(0.2)
        answer_of(server, 1)
        assert 0.49 < time.perf_counter() - begin < 0.9
