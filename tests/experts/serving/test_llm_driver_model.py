"""The embedded driver behind the protocol: every form of answer, asked by the real openai client."""

import itertools
import json
import math

import numpy as np
import openai
import pytest
import torch

from experts.language.driving_language import Picture
from experts.language_model import make
from experts.llm.completion import read_completion
from experts.llm.endpoint import STREAMED
from experts.llm.ladder import Rung, SamplingConfig, request
from experts.llm.parse import parse, reason_so_far
from experts.llm.prompt import PromptConfig, example_scene
from experts.llm.stream import Draft
from experts.provider import Context, Status
from experts.serving.api import RequestHandler
from sim.actions import LATERAL, LONGITUDINAL
from tests.experts.conftest import Fallback, free_road
from tests.experts.serving.driving import driver_model, question, random_driver, serving

torch.set_num_threads(1)
LEFTMOST = free_road(lane=0, cars=[[0, 40, 12.0], [1, -30, 25.0]])
DRIVER = random_driver()


def thought(context=LEFTMOST, plan=1):
    return DRIVER.think([Picture.of(context.scene)], plan)[0]


@pytest.fixture(scope="module")
def server():
    with serving(driver_model()) as found:
        yield found
    found.handler.model.close()


@pytest.fixture
def client(server):
    with openai.OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=20.0) as made:
        yield made


def ask(client, prompt, **options):
    options = {"model": "lgdrl-driver", "messages": list(prompt.messages)} | options
    return client.chat.completions.create(**options)


def as_json(name="answer", **schema):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": {"type": "object"} | schema}}


def top(answer):
    return {row.token: row.logprob for row in answer.choices[0].logprobs.content[0].top_logprobs}


# Forms


def test_a_choice_has_the_exact_distribution_over_what_is_offered(client):
    prompt, exact = question(context=LEFTMOST), thought().log_probs
    assert prompt.labels == ["B", "C", "D", "E"]
    options = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    whole = ask(client, prompt, extra_body={"structured_outputs": {"choice": sorted(prompt.labels)}}, **options)
    assert top(whole) == pytest.approx({label: exact["ABCDE".index(label)] for label in prompt.labels})
    assert whole.choices[0].message.content == "ABCDE"[int(np.argmax(exact))]
    some = ask(client, prompt, extra_body={"structured_outputs": {"choice": ["C", "E", "A"]}}, **options)
    total = np.logaddexp(exact[2], exact[4])
    assert top(some) == pytest.approx({"C": exact[2] - total, "E": exact[4] - total})  # A is offered, but not available
    named = ask(client, prompt, extra_body={"guided_choice": ["IDLE", "SLOWER"]}, **options)
    assert set(top(named)) == {"IDLE", "SLOWER"}
    plain = ask(client, prompt, **options)
    assert top(plain) == top(whole)
    two = ask(client, prompt, max_tokens=1, logprobs=True, top_logprobs=2)
    assert len(top(two)) == 2


def test_usage_counts_the_words_that_were_read_and_said(client):
    known = thought()
    usage = ask(client, question(context=LEFTMOST), max_tokens=1).usage
    assert usage.prompt_tokens == known.prompt_tokens == len(Picture.of(LEFTMOST.scene).prompt().split())
    assert usage.completion_tokens == known.completion_tokens == len(known.words)
    assert usage.completion_tokens_details.reasoning_tokens == len(known.reasoning.split())


def drafted(events):
    draft = Draft()
    for event in events:
        draft.feed(event)
    assert draft.done
    return draft.body()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reasoning", ["none", "short", "long"])
@pytest.mark.parametrize("rung", [Rung.JSON_SCHEMA, Rung.JSON_OBJECT, Rung.TEXT])
def test_every_rung_is_read_by_our_own_parser(server, rung, reasoning, stream):
    """The ladder's own requests, answered through the door without a socket."""
    config = PromptConfig(reasoning=reasoning, ask_probs=True, ask_plan=True)
    prompt = question(rung.form, LEFTMOST, reasoning=reasoning, ask_probs=True, ask_plan=True)
    args = request(rung, prompt, config, SamplingConfig(), False) | (STREAMED if stream else {})
    reply = RequestHandler(server.handler.model).handle("POST", "/v1/chat/completions", json.dumps(args).encode())
    assert reply.status == 200, reply.body
    answer = read_completion(drafted(reply.events) if stream else json.loads(reply.body))
    found, known = parse(answer, prompt), thought(plan=1 if rung is Rung.TEXT else 3)
    assert found.fault is None
    assert found.action == known.plan[0]
    told = known.reason if reasoning != "none" else None
    assert found.reason == told
    if rung is not Rung.TEXT:
        assert found.probs == pytest.approx(np.exp(known.log_probs), abs=1e-5)
        assert found.plan == known.plan
        assert found.horizon_s == 3.0
        assert next(iter(json.loads(answer.content))) == ("reasoning" if reasoning == "long" else "action")


@pytest.mark.parametrize("manoeuvres", [LONGITUDINAL, LATERAL])
def test_a_environment_with_other_ids_is_answered_with_its_ids(client, manoeuvres):
    data = {"lanes": 3, "lane": 1, "speed": 20.0, "goal": None, "cars": []}
    scene = example_scene(data, manoeuvres)
    context = Context(np.zeros(1), None, scene, scene.legal)
    prompt = question("text", context)
    content = ask(client, prompt).choices[0].message.content
    name = str(manoeuvres.index(thought(context).plan[0]))
    assert content == f"#### {name}"
    assert parse(read_completion({"choices": [{"message": {"content": content}}]}), prompt).action == int(name)


def test_what_a_schema_bounds_is_bounded(client):
    properties = {
        "action": {"type": "string", "enum": ["C", "E"]},
        "probs": {"type": "object", "properties": {"C": {"type": "number"}, "E": {"type": "number"}}},
        "plan": {"type": "array", "items": {"type": "string"}, "minItems": 5},
        "horizon_s": {"type": "number", "maximum": 2},
        "reason": {"type": "string", "maxLength": 9},
        "mood": {"type": "string"},
    }
    answer = ask(
        client, question("json", LEFTMOST), response_format=as_json(properties=properties, required=["action"])
    )
    data = json.loads(answer.choices[0].message.content)
    assert list(data) == ["action", "probs", "plan", "horizon_s", "reason"]
    assert data["action"] in ("C", "E")
    assert sum(data["probs"].values()) == pytest.approx(1)
    assert data["plan"][0] == data["action"]
    assert len(data["plan"]) in (1, 5)
    assert data["horizon_s"] == min(len(data["plan"]), 2)
    assert len(data["reason"]) == 9


def test_streams_come_piece_by_piece_and_to_the_same(client):
    prompt = question("text", LEFTMOST, reasoning="short")
    plain = ask(client, prompt)
    chunks = list(ask(client, prompt, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == plain.choices[0].message.content
    assert len(pieces) > 6
    assert chunks[-1].usage == plain.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    grown = [reason_so_far("".join(p or "" for p in pieces[:n]), "text") for n in range(len(pieces))]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))


def test_limits_and_stops_cut(client):
    prompt = question("text", LEFTMOST, reasoning="short")
    cut = ask(client, prompt, max_tokens=2).choices[0]
    assert (cut.finish_reason, len(cut.message.content.split())) == ("length", 2)
    assert thought().reason.startswith(cut.message.content)
    stopped = ask(client, prompt, stop=["lane", "####"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == f"{thought().reason}\n".split("lane")[0]


def test_a_temperature_draws_by_the_seed(client):
    prompt = question(context=LEFTMOST)
    drawn = [ask(client, prompt, temperature=2, seed=seed).choices[0].message.content for seed in (*range(30), 0)]
    assert len(set(drawn)) > 1
    assert set(drawn) <= set(prompt.labels)
    assert drawn[0] == drawn[-1]


def test_a_repair_prompt_is_about_the_question_before_it(client):
    prompt = question("json", LEFTMOST)
    again = prompt.repair("I would rather not say", "malformed")
    assert parse(read_completion(ask(client, again).model_dump()), prompt).action == thought().plan[0]


# What cannot be answered


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"messages": [{"role": "user", "content": "What is the capital of France?"}]}, "only answers driving prompts"),
        ({"messages": [{"role": "system", "content": "drive"}]}, "no user message"),
        ({"extra_body": {"structured_outputs": {"choice": ["B", "fly"]}}}, "'fly' is no driving action: offer"),
        ({"extra_body": {"structured_outputs": {"choice": ["A"]}}}, "none of the offered actions is available"),
        ({"response_format": as_json(properties={"mood": {"type": "string"}}, required=["mood"])}, "'mood'"),
        ({"response_format": as_json(required=["action"])}, "required property 'action'"),
        ({"response_format": as_json(properties={"action": {"type": "number"}})}, "must be of type string"),
        ({"response_format": as_json(properties={"reason": {"type": "string", "maxLength": -1}})}, "maxLength"),
        ({"response_format": as_json(properties={"action": {"enum": [[1]]}})}, "no driving action"),
        ({"response_format": as_json(properties=[1])}, "'properties' must be"),
        (
            {
                "response_format": as_json(
                    properties={"plan": {"type": "array", "items": {"type": "string"}, "minItems": 20}}
                )
            },
            "a plan of 20 decisions",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "not supported"),
        ({"max_tokens": -1}, "'max_tokens'"),
        ({"temperature": -0.1}, "'temperature'"),
        ({"top_logprobs": -1}, "'top_logprobs'"),
    ],
)
def test_what_it_cannot_answer_is_a_400_that_says_why(client, options, words):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, question("json", LEFTMOST), **options)
    assert words in caught.value.body["message"]
    assert caught.value.body["type"] == "invalid_request_error"
    assert "\n" not in caught.value.body["message"]


def test_other_models_are_not_found_and_no_name_is_the_served_one(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, question(), model="gpt-4o-mini")
    assert caught.value.body["code"] == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o-mini")
    assert client.models.retrieve("lgdrl-driver").id == "lgdrl-driver"
    assert [model.id for model in client.models.list()] == ["lgdrl-driver"]
    answer = ask(client, question(), model="")
    assert answer.model == "lgdrl-driver"
    assert answer.system_fingerprint == DRIVER.fingerprint


@pytest.mark.parametrize("rung", ["logprobs", "json_schema", "json_object", "text"])
def test_the_expert_drives_with_it_over_the_network(server, key, rung):
    options = {
        "model": "lgdrl-driver",
        "fallback": Fallback(),
        "client": {"base_url": server.url},
        "veto_unsafe": False,
    }
    with make({**options, "rung": rung, "smoothing": 0.0}, "lane-change", 0) as expert:
        decision = expert.decide([LEFTMOST])[0]
    known = thought()
    assert (decision.status, decision.action) == (Status.OK, known.plan[0])
    if rung == "logprobs":
        assert decision.probs == pytest.approx(np.exp(known.log_probs))
    assert math.isclose(decision.probs.sum(), 1.0)
