"""Training under a language model: the real client over loopback, every fault counted, nothing lost."""

from __future__ import annotations

import json
import sqlite3

import pytest

from experts.serving.fault_server import FaultServer, Scripted
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.runs import Run

QUICK = {
    "steps": 160,
    "num_envs": 4,
    "log_every": 40,
    "evaluate_every": 0,
    "expert": "llm",
    "learner_options": {"learning_starts": 40, "hidden": [16, 16]},
    "strategy_options": {"episodes": {"kind": "always", "until": 1.0}},
}
STATUSES = ("ok", "repaired", "vetoed", "fallback", "late", "failed")
MIX = [
    Scripted(label="E"),
    Scripted(content="I would rather not say"),
    Scripted(status=500),
    Scripted(label="E"),
    Scripted(status=429, headers={"Retry-After": "120"}),
    Scripted(drop="before"),
    Scripted(label="C"),
    Scripted(raw=b'{"choices": [{"mess'),
    Scripted(refusal="no"),
    Scripted(label="D"),
] * 40


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-0123456789abcdef")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def config(server, **changes):
    client = {"base_url": server.url, "total_s": 2.0, "breaker_failures": 1000, "retries": 0}
    options = {"model": "scripted", "client": client, "rung": "logprobs"}
    return load_config(None, QUICK | {"expert_options": options} | changes)


def test_a_run_under_faults_finishes_with_every_status_counted(key, tmp_path):
    with FaultServer(MIX) as server:
        trainer = training.start(config(server), tmp_path / "run")
        assert trainer.train()
        counts = trainer.loop.advisor.counts
        assert counts["queries"] == 160 == sum(counts[status] for status in STATUSES)
        assert counts["labels"] == trainer.loop.model.replay.num_labelled == 160
        assert counts["fallback"] > 0
        assert counts["vetoed"] > 0
        trainer.close()
    with sqlite3.connect(Run(tmp_path / "run").guidance_log) as log:
        by_status = dict(log.execute("SELECT status, COUNT(*) FROM queries GROUP BY status").fetchall())
        assert by_status == {status: counts[status] for status in STATUSES if counts[status]}
        assert log.execute("SELECT COUNT(*) FROM texts WHERE prompt LIKE '%TTC%'").fetchone()[0] > 0
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"test-key-0123456789" not in file.read_bytes()


def test_the_label_budget_bounds_what_a_language_model_is_asked(key, tmp_path):
    with FaultServer([Scripted(label="E")]) as server:
        trainer = training.start(config(server, label_budget=25), tmp_path / "run")
        trainer.train()
        assert trainer.loop.advisor.counts["labels"] == 25
        assert len(server.asked) <= 25
        trainer.close()


def test_without_an_endpoint_the_embedded_driver_guides_and_the_command_says_so(tmp_path, monkeypatch, capsys):
    from experts.language import gpt
    from experts.language.vocabulary import DRIVING
    from lgdrl.cli import main

    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    model = tmp_path / "random.safetensors"
    gpt.save(gpt.new(gpt.GPTConfig(len(DRIVING), 96, 1, 2, 16), 0), DRIVING, model)
    out, json_file = tmp_path / "run", tmp_path / "row.json"
    words = ["train", "--expert", "llm", "--steps", "160", "--out", str(out), "--json", str(json_file)]
    words += [
        f"expert_options.model={model}",
        "num_envs=4",
        "log_every=40",
        "evaluate_every=0",
        "learner_options.hidden=[16,16]",
    ]
    assert main([*words, "learner_options.learning_starts=40", "strategy_options.episodes.kind=always"]) == 0
    assert "The embedded driver advises (lgdrl-driver-" in " ".join(capsys.readouterr().out.split())
    row = json.loads(json_file.read_text())
    assert row["expert/ok"] + row["expert/vetoed"] == row["expert/queries"] > 0
    assert row["expert/ok"] > 0
