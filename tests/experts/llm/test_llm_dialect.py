"""Request parameters that an endpoint refuses: found from its own words, left out, remembered, and said once."""

import json

import pytest

from experts.llm.config import LLMConfig
from experts.llm.dialect import Dialect
from experts.llm.failures import ErrorText, read_error
from experts.provider import Status
from sim.config import resolve
from sim.errors import UsageError
from tests.experts.conftest import free_road
from tests.experts.llm.answering import Answering, good


def openai_error(name):
    return 400, {
        "error": {"message": f"Unsupported parameter: '{name}'", "param": name, "code": "unsupported_parameter"}
    }


def pydantic_error(name):
    found = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 0}
    return 422, {"detail": [found]}


def vllm_error(name):
    text = f"[{{'type': 'extra_forbidden', 'loc': ('body', '{name}'), 'msg': 'Extra inputs', 'input': 'temperature'}}]"
    return 400, {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400}


def llama_error(name):
    return 400, {"error": {"code": 400, "message": f"Unsupported param: {name}", "type": "invalid_request_error"}}


def anthropic_error(name):
    inner = {"type": "invalid_request_error", "message": f"{name}: Extra inputs are not permitted"}
    return 400, {"type": "error", "error": inner}


def google_error(name):
    text = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    return 400, [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}]


def mistral_error(name):
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
    return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}


def plain_error(name):
    return 400, {"error": f"`{name}` is deprecated for this model."}


def text_error(name):
    return 400, f"property '{name}' is unsupported".encode(), {"Content-Type": "text/plain"}


def router_error(name):
    return 200, {"error": {"message": f"Provider error: {name} is not allowed", "code": 400}}


WORDINGS = [
    openai_error, pydantic_error, vllm_error, llama_error, anthropic_error, google_error, mistral_error, plain_error,
    text_error, router_error,
]  # fmt: skip


def refusing(wording, *names):
    """A good endpoint that refuses the first of these names which it sees."""

    def answer(body):
        found = [name for name in names if name in body]
        return wording(found[0]) if found else good(body)

    return answer


def decide(expert, server, **options):
    llm = expert(server, veto_unsafe=False, **options)
    decision = llm.decide([free_road()])[0]
    assert (llm.ability.rung, decision.status, decision.action) == ("logprobs", Status.OK, 1)
    return llm


@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens"])
@pytest.mark.parametrize("wording", WORDINGS)
def test_a_refused_parameter_costs_one_request_and_no_rung(expert, wording, name):
    with Answering(refusing(wording, name)) as server:
        llm = decide(expert, server)
        llm.decide([free_road(speed=14.0)])
        assert [name in asked.body for asked in server.asked] == [True] + [False] * (len(server.asked) - 1)
        assert len(server.asked) == 4
    said = "takes max_completion_tokens" if name == "max_tokens" else f"refuses {name}: left out"
    assert llm.note.count(said) == 1
    assert "\n" not in llm.note


@pytest.mark.parametrize("wording", WORDINGS)
def test_several_refused_parameters_are_found_one_after_the_other(expert, wording):
    names = ("seed", "temperature", "max_tokens", "max_completion_tokens")
    with Answering(refusing(wording, *names)) as server:
        llm = decide(expert, server)
        assert set(server.asked[-1].body) == {"model", "messages", "logprobs", "top_logprobs"}
    assert "refuses seed and temperature and max_completion_tokens" in llm.note


def test_several_refused_parameters_in_one_error_cost_one_request(expert):
    def answer(body):
        found = [{"loc": ["body", n], "msg": "Extra inputs"} for n in ("seed", "temperature") if n in body]
        return (422, {"detail": found}) if found else good(body)

    with Answering(answer) as server:
        decide(expert, server)
        assert len(server.asked) == 3


def test_an_error_that_repeats_the_whole_request_blames_only_what_it_names(expert):
    def answer(body):
        if "seed" not in body:
            return good(body)
        return 422, {"detail": [{"type": "x", "loc": ["body", "seed"], "msg": "not permitted", "input": body}]}

    with Answering(answer) as server:
        decide(expert, server)
        assert "temperature" in server.asked[-1].body


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Invalid 'top_logprobs': integer above maximum value. Expected <= 5, but got 20."}},
        {"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 5", "input": 20}]},
        {"message": "Requested sample logprobs of 20, which is greater than max allowed: 5"},
        {"error": {"message": "top_logprobs must be between 0 and 5"}},
        {"error": "top_logprobs is too large"},
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_limit_of_alternatives_keeps_the_distribution_and_is_said(expert, error, status):
    with Answering(lambda body: (status, error) if body.get("top_logprobs", 0) > 5 else good(body)) as server:
        llm = decide(expert, server)
        assert server.asked[-1].body["top_logprobs"] == 5
    assert "limits top_logprobs: 5 is sent" in llm.note


def test_log_probabilities_that_are_refused_altogether_lose_their_rung_in_words(expert):
    def answer(body):
        return (400, {"error": {"message": "logprobs is not supported"}}) if "logprobs" in body else good(body)

    with Answering(answer) as server:
        llm = expert(server)
    assert llm.ability.rung == "json_schema"
    assert "rung json_schema (logprobs: HTTP 400)" in llm.note


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("Invalid 'max_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.", 16),
        ("max_tokens must be at least 2", 2),
        ("max_tokens is too small: 1 < 4", 4),
    ],
)
def test_a_least_number_of_tokens_is_respected(expert, message, sent):
    def answer(body):
        return (400, {"error": {"message": message}}) if body["max_tokens"] < sent else good(body)

    with Answering(answer) as server:
        decide(expert, server)
        assert server.asked[-1].body["max_tokens"] == sent


def test_a_greatest_number_of_tokens_is_respected(expert):
    words = "max_tokens is too large: 9000. This model supports at most 4096 completion tokens"

    def answer(body):
        return (400, {"error": {"message": words}}) if body["max_tokens"] > 4096 else good(body)

    with Answering(answer) as server:
        expert(server, rung="text", sampling={"max_tokens": 9000})
        assert server.asked[-1].body["max_tokens"] == 4096


def test_other_dispensable_parameters_are_left_out_too(expert):
    def answer(body):
        if "tool_choice" in body:
            return 400, {"error": {"message": "tool_choice: only 'auto' is supported"}}
        if "tools" in body and "strict" in body["tools"][0]["function"]:
            return 400, {"error": {"message": "bad", "param": "tools[0].function.strict"}}
        call = {"function": {"name": "choose_action", "arguments": '{"action": "B"}'}}
        return 200, {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "stop"}]}

    with Answering(answer) as server:
        llm = expert(server, rung="tools")
        assert llm.decide([free_road()])[0].status is Status.OK
    assert "refuses tool_choice and strict" in llm.note


def test_stream_options_are_left_out_and_the_stream_stays(expert):
    def answer(body):
        if "stream_options" in body:
            return 400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}
        if not body.get("stream"):
            return good(body)
        event = {"choices": [{"index": 0, "delta": {"content": "#### 1"}, "finish_reason": "stop"}]}
        return 200, f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode(), {"Content-Type": "text/event-stream"}

    with Answering(answer) as server:
        llm = expert(server, rung="text", stream="always")
        assert llm.decide([free_road()])[0].status is Status.OK
        assert server.asked[-1].body["stream"]
        assert "stream_options" not in server.asked[-1].body


def test_a_parameter_that_is_refused_in_mid_run_costs_no_decision(expert):
    with Answering(good) as server:
        llm = expert(server, client={"concurrency": 8})
        server.answer = refusing(openai_error, "seed", "temperature")
        decisions = llm.decide([free_road(speed=10.0 + k) for k in range(12)])
        assert {decision.status for decision in decisions} == {Status.OK}
        assert llm.metrics().get("attempt_fault/request_rejected", 0) == 0
        assert llm._inquirer.client.breaker.state == "closed"


@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens"])
def test_a_parameter_can_be_left_out_by_config(expert, name):
    with Answering(good) as server:
        llm = decide(expert, server, client={"leave_out": [name]})
        assert all(name not in asked.body for asked in server.asked)
    assert llm.note == ""


def test_what_a_rung_needs_can_be_left_out_too_and_the_next_one_is_used(expert):
    with Answering(good) as server:
        assert expert(server, client={"leave_out": ["logprobs"]}).ability.rung == "json_schema"
        assert expert(server, client={"leave_out": ["top_logprobs", "response_format", "tools"]}).ability.rung == "text"
        with pytest.raises(UsageError, match="cannot do without"):
            expert(server, rung="logprobs", client={"leave_out": ["top_logprobs"]})
    with pytest.raises(UsageError, match="did you mean 'seed'"):
        resolve(LLMConfig(), {"client": {"leave_out": ["sed"]}}, "expert.llm")


def test_an_endpoint_that_refuses_everything_ends_in_a_line_not_in_a_loop(expert):
    for wording in WORDINGS:
        with Answering(lambda body, w=wording: w(sorted(body)[0])) as server, pytest.raises(UsageError) as caught:
            expert(server)
        assert len(server.asked) < 30
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ""),
        ("null", ""),
        ("[" * 5000, "[["),
        ("<html><head><title>502 Bad&nbsp;Gateway</title></head>", "502 Bad Gateway"),
        ("<!DOCTYPE html><body><p>Go  away</p>", "Go away"),
        ('{"error": {"message": "a\\nb"}}', "a b"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"errors": ["x", {"msg": "y"}]}', "x; y"),
    ],
)
def test_error_bodies_are_read_as_one_line(body, words):
    assert words in read_error(body).message
    assert "\n" not in read_error(body).message


def test_what_was_not_sent_is_not_learnt():
    dialect, sent = Dialect(), {"messages": [], "temperature": 0.0, "max_tokens": 5}
    assert not dialect.learn(ErrorText("unknown field seed"), sent)
    assert not dialect.learn(ErrorText("the messages are too long"), sent)
    assert dialect.learn(ErrorText("max_tokens is unknown, use max_completion_tokens"), sent)
    assert dialect.apply(sent) == {"messages": [], "temperature": 0.0, "max_completion_tokens": 5}
    assert not dialect.learn(ErrorText("no temperature_scale"), sent)


@pytest.mark.parametrize("names", [("seed",), ("temperature",), ("seed", "temperature")])
def test_a_refusal_that_names_nothing_is_found_by_trying(expert, names):
    def answer(body):
        return (400, {"error": "Bad Request"}) if any(name in body for name in names) else good(body)

    with Answering(answer) as server:
        llm = decide(expert, server)
        assert all(name not in server.asked[-1].body for name in names)
    assert f"refuses {' and '.join(names)}: left out" in llm.note
