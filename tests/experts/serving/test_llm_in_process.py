"""Without an endpoint: the embedded driver in this process, through the same client, parser, cache, budget and veto."""

import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch

from experts.language import gpt
from experts.language.driver import WEIGHTS, Driver
from experts.language.driving_language import Picture
from experts.language.vocabulary import DRIVING
from experts.language_model import make
from experts.llm.faults import Fault
from experts.provider import Status
from experts.safety import refused, unsafe_actions
from sim import assets
from sim.errors import UsageError
from sim.view import views_of
from tests.experts.conftest import KEY, Fallback, free_road
from tests.experts.serving.driving import CONFIG

torch.set_num_threads(1)
WORLD = [free_road(speed=10.0 + k / 5, cars=[[1, 30.0 + k, 9.0], [k % 3, -40.0, 20.0]]) for k in range(80)]


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


CONNECT = socket.socket.connect


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may open a connection, but for the test that gives it back."""

    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "random.safetensors"
    gpt.save(gpt.new(CONFIG, 0), DRIVING, path)
    return path


@pytest.fixture
def shipped(weights, monkeypatch):
    shipped_path = assets.path
    monkeypatch.setattr(assets, "path", lambda name: weights if name == WEIGHTS else shipped_path(name))
    return Driver.load()


@pytest.fixture
def embedded(shipped):
    made = []

    def build(**options):
        made.append(make({"fallback": Fallback(), "veto_unsafe": False, "smoothing": 0.0} | options, "lane-change", 0))
        return made[-1]

    yield build
    for expert in made:
        expert.close()


def batches(expert):
    """Sizes of what was thought about together since the start-up probe."""
    found = expert._inquirer.client.endpoint._openai._client._transport.model.batches.sizes.copy()
    found[1] -= 1
    return +found


def test_it_advises_with_a_reason_and_a_distribution(embedded, shipped):
    expert = embedded()
    assert repr(expert) == "LLMExpert(model='lgdrl-driver', rung='json_schema')"
    assert expert.note.startswith("The embedded driver advises (lgdrl-driver, ")
    assert "\n" not in expert.note
    decision = expert.decide(WORLD[:1])[0]
    (thought,) = shipped.think([Picture.of(WORLD[0].scene)])
    assert (decision.status, decision.action, decision.reason) == (Status.OK, thought.plan[0], thought.reason)
    assert decision.probs == pytest.approx(np.exp(thought.log_probs), abs=1e-5)
    assert decision.tokens == thought.prompt_tokens + thought.completion_tokens
    assert expert.metrics()["tokens/total"] == decision.tokens


@pytest.mark.parametrize("count", [1, 2, 33, 64, 80])
def test_a_batch_of_contexts_is_thought_about_as_one(embedded, shipped, count):
    expert = embedded()
    decisions = expert.decide(WORLD[:count])
    thoughts = shipped.think([Picture.of(context.scene) for context in WORLD[:count]])
    assert [decision.action for decision in decisions] == [thought.plan[0] for thought in thoughts]
    assert batches(expert) == ({count: 1} if count <= 64 else {64: 1, count - 64: 1})


def test_every_round_is_a_batch_whatever_the_number_of_connections(embedded):
    expert = embedded(prompt={"reasoning": "none", "ask_probs": False}, rung="json_object", client={"concurrency": 1})
    for _ in range(3):
        expert.decide(WORLD[:7])
    assert batches(expert) == {7: 3}


@pytest.mark.parametrize(
    ("options", "rung", "reason", "exact"),
    [
        ({"prompt": {"reasoning": "none", "ask_probs": False}}, "logprobs", False, True),
        ({"prompt": {"reasoning": "long"}}, "json_schema", True, True),
        ({"prompt": {"ask_probs": False}}, "json_schema", True, False),
        ({"rung": "logprobs"}, "logprobs", False, True),
        ({"rung": "json_object"}, "json_object", True, True),
        ({"rung": "text"}, "text", False, False),
    ],
)
def test_what_the_user_sets_counts(embedded, options, rung, reason, exact):
    expert = embedded(**options)
    assert str(expert.ability.rung) == rung
    decision = expert.decide(WORLD[:1])[0]
    assert decision.status is Status.OK
    assert bool(decision.reason) == reason
    values = np.sort(decision.probs)
    assert (values[0] != values[1]) == exact  # a bare label is spread evenly


def test_the_reason_is_streamed_to_the_listener(embedded):
    words = []
    decision = embedded().decide([replace(WORLD[0], say=words.append)])[0]
    assert words[-1] == decision.reason
    assert len(set(words)) > 5


def test_cache_and_budget_are_those_of_every_model(embedded, tmp_path):
    cache = {"mode": "read-write", "path": str(tmp_path / "answers.sqlite")}
    expert = embedded(cache=cache, budget={"max_calls": 3})
    found = expert.decide(WORLD[:4])
    assert sorted(decision.status for decision in found) == [Status.FALLBACK, Status.FALLBACK, Status.OK, Status.OK]
    assert {fault for decision in found for fault in decision.faults} == {Fault.BUDGET}
    expert.close()
    replayed = embedded(cache=cache | {"mode": "replay-only"})
    again = replayed.decide(WORLD[:4])
    assert [decision.cached for decision in again] == [decision.status is Status.OK for decision in found]
    assert [a.action for a, b in zip(again, found, strict=True) if a.cached] == [
        b.action for a, b in zip(again, found, strict=True) if a.cached
    ]
    assert replayed.config.model == "lgdrl-driver"


def test_unsafe_advice_is_vetoed(embedded):
    dangers = [free_road(speed=15.0 + k, lane=k % 3, cars=[[k % 3, 14.0, 5.0 + k / 3]]) for k in range(30)]
    advice = embedded(smoothing=0.01).decide(dangers)
    gates = unsafe_actions(views_of([context.scene for context in dangers]))
    unsafe = [refused(gate, c.legal, d.action) for gate, c, d in zip(gates, dangers, advice, strict=True)]
    assert {True, False} == set(unsafe)
    checked = embedded(veto_unsafe=True, smoothing=0.01).decide(dangers)
    assert [decision.status for decision in checked] == [Status.VETOED if bad else Status.OK for bad in unsafe]


def test_leaving_ends_what_is_asked(embedded):
    expert = embedded()
    model = expert._inquirer.client.endpoint._openai._client._transport.model
    think = model.driver.think
    model.driver.think = lambda pictures, plan: time.sleep(0.3) or think(pictures, plan)
    found = []
    thread = threading.Thread(target=lambda: found.extend(expert.decide(WORLD[:3])))
    thread.start()
    time.sleep(0.15)
    begin = time.monotonic()
    expert.interrupt()
    thread.join(5)
    assert time.monotonic() - begin < 0.3
    assert {decision.faults for decision in found} == {(Fault.INTERRUPTED,)}


def test_a_driver_that_fails_is_a_fault_like_any_other(embedded, capfd):
    expert = embedded(client={"retries": 0})

    def fail(pictures, plan):
        raise ZeroDivisionError

    expert._inquirer.client.endpoint._openai._client._transport.model.driver.think = fail
    decision = expert.decide(WORLD[:1])[0]
    assert (decision.status, decision.action, decision.faults) == (Status.FALLBACK, 4, (Fault.SERVER,))
    assert "ZeroDivisionError" in capfd.readouterr().err


# Who is asked


def test_a_model_of_ones_own_is_named_after_its_weights(weights):
    with make({"model": str(weights), "fallback": Fallback()}, "lane-change", 0) as expert:
        assert expert.config.model.startswith("lgdrl-driver-")
        assert expert.config.model in expert.note


def test_a_missing_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "folder", lambda: tmp_path)
    with pytest.raises(UsageError, match=r"assets/driver/model\.safetensors") as caught:
        make({"fallback": Fallback()}, "lane-change", 0)
    assert "\n" not in str(caught.value)


class Refusing(BaseHTTPRequestHandler):
    """Remembers what it was asked for, and has none of it."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):
        self.asked.append(self.path)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing is printed."""


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("by_environment", [True, False])
def test_an_endpoint_that_is_named_is_asked(monkeypatch, shipped, by_environment, key):
    monkeypatch.setattr("socket.socket.connect", CONNECT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Refusing.asked.clear()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    options = {} if by_environment else {"client": {"base_url": url}, "model": "lgdrl-driver"}
    if by_environment:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    try:
        with pytest.raises(UsageError, match="404"):
            make({"fallback": Fallback(), **options}, "lane-change", 0)
    finally:
        server.shutdown()
        server.server_close()
    assert Refusing.asked[0] == "/v1/chat/completions"


def test_a_hosted_model_needs_its_key(shipped):
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        make({"model": "gpt-4o-mini", "fallback": Fallback()}, "lane-change", 0)


def test_remote_defaults_stay_as_they_were(monkeypatch, tmp_path, embedded):
    cache = {"mode": "read-write", "path": str(tmp_path / "answers.sqlite")}
    embedded(cache=cache).close()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    remote = embedded(cache=cache | {"mode": "replay-only"})
    assert remote.config.model == "gpt-4o-mini"
    assert remote.config.prompt.reasoning == "none"
    assert not remote.note


def test_what_the_environment_says_about_networks_does_not_matter_here(weights, monkeypatch):
    for name, value in (("OPENAI_ORG_ID", "é"), ("ALL_PROXY", "socks://x"), ("SSL_CERT_FILE", "/nowhere")):
        monkeypatch.setenv(name, value)
    with make({"model": str(weights), "fallback": Fallback()}, "lane-change", 0) as expert:
        assert expert.decide([free_road()])[0].action is not None
