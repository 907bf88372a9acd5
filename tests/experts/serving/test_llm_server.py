"""The local server through the real openai client, a toy model behind it; and SmolLM2 itself where it was fetched."""

import json
import threading

import numpy as np
import openai
import pytest

from experts.language_model import make
from experts.provider import Status
from experts.serving.fetch import cached_model
from experts.serving.server import ChatServer
from experts.serving.token_model import TokenModel
from sim.errors import UsageError
from tests.experts.conftest import Fallback, free_road

ALPHABET = [*map(chr, range(32, 127)), "\n", "<end>"]
END = len(ALPHABET) - 1


class ToyChat:
    """Says `script` letter by letter, then ends; likes the choice that comes last in the alphabet."""

    def __init__(self, script, prompt_tokens, cached):
        self.script, self.position = script, 0
        self.prompt_tokens, self.cached_tokens = prompt_tokens, cached

    def distribution(self):
        logprobs = np.full(len(ALPHABET), -8.0)
        logprobs[ALPHABET.index(self.script[self.position]) if self.position < len(self.script) else END] = -0.05
        return logprobs

    def push(self, tokens):
        self.position += len(tokens)

    def score(self, choices):
        return np.array([-10.0 + 0.1 * ord(choice[0]) for choice in choices])


class ToyModel:
    name = "toy"

    def __init__(self, script="hello"):
        self.script, self.last = script, ""

    def start(self, messages):
        text = json.dumps(messages)
        shared = next(
            (i for i, (a, b) in enumerate(zip(text, self.last, strict=False)) if a != b), min(len(text), len(self.last))
        )
        self.last = text
        return ToyChat(self.script, len(text), shared)

    def encode(self, text):
        return [ALPHABET.index(letter) for letter in text]

    def decode(self, tokens):
        return "".join(ALPHABET[token] for token in tokens if token != END)

    def is_end(self, token):
        return token == END


@pytest.fixture
def toy():
    with ChatServer(TokenModel(ToyModel())) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def client(toy):
    with openai.OpenAI(api_key="none", base_url=toy.url, max_retries=0, timeout=5.0) as made:
        yield made


def ask(client, **options):
    return client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "hi"}], **options)


def test_text_with_stop_limit_and_usage(client):
    done = ask(client)
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("hello", "stop")
    cut = ask(client, max_tokens=3)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("hel", "length")
    assert ask(client, stop="ll").choices[0].message.content.startswith("he")
    assert cut.usage.completion_tokens == 3
    assert cut.usage.prompt_tokens_details.cached_tokens == cut.usage.prompt_tokens


def test_stream_gives_the_same_text_piece_by_piece(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "hello"
    assert chunks[-1].usage.completion_tokens == 6
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_logprobs_name_the_alternatives(client):
    top = ask(client, max_tokens=1, logprobs=True, top_logprobs=5).choices[0].logprobs.content[0].top_logprobs
    assert len(top) == 5
    assert (top[0].token, top[0].logprob) == ("h", -0.05)


def test_choices_are_scored_and_normalised(client):
    extra = {"structured_outputs": {"choice": ["B", "E"]}}
    choice = ask(client, logprobs=True, top_logprobs=5, extra_body=extra).choices[0]
    assert choice.message.content == "E"
    assert sum(np.exp(row.logprob) for row in choice.logprobs.content[0].top_logprobs) == pytest.approx(1)


def test_a_schema_gives_valid_json_whatever_the_model_says(client):
    schema = {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": ["B", "D"]},
            "probs": {"type": "object", "properties": {"B": {"type": "number", "minimum": 0, "maximum": 1}}},
            "plan": {"type": "array", "items": {"type": "string", "enum": ["B", "D"]}, "minItems": 2},
            "reason": {"type": "string", "maxLength": 3},
            "sure": {"type": "boolean"},
        },
        "required": ["action", "probs", "plan", "reason", "sure"],
    }
    answer = ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    data = json.loads(answer.choices[0].message.content)
    assert list(data) == schema["required"]
    assert data["action"] == "D"
    assert data["plan"] == ["D", "D"]
    assert 0 <= data["probs"]["B"] <= 1
    assert len(data["reason"]) <= 3


def test_json_mode_stops_at_the_end_of_the_object(toy, client):
    toy.handler.model.model.script = '{"a": {"b": 1}} and more'
    answer = ask(client, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"n": 2},
        {"max_tokens": -1},
        {"temperature": 9},
        {"top_logprobs": 50},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}},
        {"stop": [1]},
    ],
)
def test_what_cannot_be_served_is_a_clean_400(client, options):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert caught.value.body["type"] == "invalid_request_error"


def test_other_paths_and_broken_bodies(toy):
    import urllib.error
    import urllib.request

    root = toy.url.removesuffix("/v1")
    assert json.load(urllib.request.urlopen(f"{root}/health"))["status"] == "ok"
    assert json.load(urllib.request.urlopen(f"{root}/v1/models"))["data"][0]["id"] == "toy"
    for path, body, code in (
        ("/nowhere", b"{}", 404),
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b"[]", 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{root}{path}", data=body)
        assert caught.value.code == code
        assert "message" in json.load(caught.value)["error"]


def test_a_taken_port_is_a_usage_error(toy):
    with pytest.raises(UsageError, match="choose another port"):
        ChatServer(TokenModel(ToyModel()), port=toy.server_address[1])


def test_the_expert_drives_with_a_choice_from_the_server(toy, key):
    options = {"model": "toy", "fallback": Fallback(), "client": {"base_url": toy.url}}
    with make(options, "lane-change", 0) as expert:
        assert expert.ability.choice  # "h" says nothing about labels, so the set is named
        decision = expert.decide([free_road()])[0]
        assert (decision.status, decision.action, decision.rung) == (Status.OK, 4, "logprobs")
        assert decision.probs.argmax() == 4


@pytest.mark.slow
def test_smollm2_answers_validly_cheaply_and_repeatably(key):
    if cached_model() is None:
        pytest.skip("SmolLM2 is not in the cache: run `lgdrl llm fetch`")
    from experts.serving.local_model import load

    # in bfloat16, which `auto` takes where it is faster, a prompt read from the cache rounds otherwise than a fresh one
    with ChatServer(TokenModel(load(dtype="float32"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        options = {"model": server.handler.model.name, "fallback": Fallback(), "veto_unsafe": False}
        options["client"] = {"base_url": server.url, "startup_s": 120.0, "total_s": 120.0}
        contexts = [free_road(speed=speed, cars=[[1, 40, 15.0]]) for speed in (16.0, 20.0, 24.0)]
        for rung in ("logprobs", "json_schema"):
            with make({**options, "rung": rung}, "lane-change", 0) as expert:
                first, again = expert.decide(contexts), expert.decide(contexts)
                assert [d.status for d in first] == [Status.OK] * 3
                assert [d.action for d in first] == [d.action for d in again]
                assert all(np.allclose(a.probs, b.probs) for a, b in zip(first, again, strict=True))
                assert expert.metrics()["tokens/cached_input"] > 0.3 * expert.metrics()["tokens/input"]
        server.shutdown()
