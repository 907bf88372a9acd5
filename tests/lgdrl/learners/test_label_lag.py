"""Labels that are on their way while the environments go on: the same run, however fast the responses are."""

from __future__ import annotations

import csv
import sqlite3

import pytest
import torch

from experts.serving.fault_server import FaultServer, read_mix
from lgdrl import training
from lgdrl.cli import main
from lgdrl.config import load_config
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run

RESUMED = "expert/budget/calls"
"""Counts the start-up probe of each process."""
TIMES = (RESUMED, "elapsed_s", "rate", "wait_s", "blocked_s", "latency/p50_s", "latency/p95_s")
ENVS, STEPS, LAG = 8, 160, 5


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def settings(url, **changes):
    client = {"base_url": url, "concurrency": 64, "backoff_s": 0.01, "breaker_failures": 1_000_000}
    return {
        "steps": STEPS,
        "num_envs": ENVS,
        "log_every": 48,
        "evaluate_every": 0,
        "checkpoint_every": 96,
        "expert": "llm",
        "expert_options": {"model": "scripted", "client": client},
        "learner_options": {"learning_starts": 48, "hidden": [16, 16]},
        "strategy_options": {"episodes": {"kind": "always", "until": 1.0}},
        "label_lag": LAG,
        **changes,
    }


def train(folder, mix, stop_after=None, **changes):
    """A run, stopped and resumed after `stop_after` rows of metrics. Returns: the run, its trainer, the server."""
    with FaultServer(mix=read_mix(mix), seed=3) as server:
        trainer = training.start(load_config(None, settings(server.url, **changes)), folder)
        rows = 0

        def look(progress):
            nonlocal rows
            rows += 1
            trainer.stop_requested = rows == stop_after

        if not trainer.train(look):
            trainer.close()
            trainer = training.resume(folder)
            assert trainer.train()
        trainer.close()
        return whole(Run(folder)), trainer, server


def whole(run):
    """Weights, metrics and log of a run, without times."""
    metrics = [
        {key: value for key, value in row.items() if not key.endswith(TIMES)}
        for row in csv.DictReader(run.metrics.open())
    ]
    with sqlite3.connect(run.guidance_log) as log:
        names = "episode, step, action, status, learner, executed, controller, reward, outcome, text"
        queries = log.execute(f"SELECT {names} FROM queries ORDER BY id").fetchall()
        scenes = [row[0] for row in log.execute("SELECT query FROM moments ORDER BY query")]
    weights = {name: value.numpy().tobytes() for name, value in load_policy(run).policy.state_dict().items()}
    return {"weights": weights, "metrics": metrics, "queries": queries, "scenes": scenes}


def test_the_run_does_not_depend_on_how_fast_answers_are_and_no_label_is_lost(tmp_path):
    swift, trainer, server = train(tmp_path / "swift", "delay=0,server_error=0.1,wrong_enum=0.1")
    assert (
        trainer.loop.advisor.counts["queries"]
        == trainer.loop.advisor.counts["labels"]
        == STEPS
        == len(swift["queries"])
    )
    assert trainer.loop.model.replay.num_labelled == trainer.loop.model.replay.size() == STEPS
    slow, *_ = train(tmp_path / "slow", "delay=uniform:0:0.08,server_error=0.1,wrong_enum=0.1")
    assert slow == swift
    assert server.peak > 0


def test_stopped_and_resumed_it_equals_the_uninterrupted_run(tmp_path):
    once, *_ = train(tmp_path / "once", "delay=uniform:0:0.03,wrong_enum=0.1")
    twice, *_ = train(tmp_path / "twice", "delay=uniform:0:0.03,wrong_enum=0.1", stop_after=3)
    assert once == twice


def test_queries_of_several_steps_are_on_their_way_together(tmp_path):
    _, _, server = train(tmp_path / "lag", "delay=0.05", strategy_options=label_only())
    assert server.peak > ENVS
    _, _, server = train(tmp_path / "none", "delay=0.05", strategy_options=label_only(), label_lag=0)
    assert server.peak <= ENVS


def label_only():
    return {"episodes": {"kind": "always", "until": 1.0}, "arbiter": {"kind": "learner"}}


def test_a_label_budget_is_kept_to_the_label(tmp_path):
    found, trainer, _ = train(tmp_path / "run", "delay=0.01", label_budget=101)
    assert trainer.loop.advisor.counts["labels"] == len(found["queries"]) == 101


def test_interventions_are_answered_at_once(tmp_path):
    found, trainer, _ = train(tmp_path / "run", "delay=0")
    drove = [query for query in found["queries"] if query[6] == "expert"]
    assert len(drove) == trainer.loop.model.strategy.metrics()["interventions"] > 0
    assert all(query[2] == query[5] for query in drove)


def test_labels_meet_the_states_that_they_were_asked_for(tmp_path):
    """Every answer recommends what its own prompt recommends: with or without the lag the same, state by state."""
    short = {"steps": 96, "log_every": 96, "checkpoint_every": 96, "learner_options": {"learning_starts": 96}}
    late, trainer, _ = train(tmp_path / "late", "delay=uniform:0:0.02", **short)
    plain, other, _ = train(tmp_path / "plain", "delay=0", **short, label_lag=0)
    assert sorted(late["queries"]) == sorted(plain["queries"])  # all before the first update
    labels = [one.loop.model.replay.column("label_actions")[:96].tolist() for one in (trainer, other)]
    assert labels[0] == labels[1]
    assert torch.equal(*(torch.as_tensor(one.loop.model.replay.observations[:96]) for one in (trainer, other)))


def test_an_expert_that_cannot_be_asked_ahead_is_refused_in_one_line(tmp_path, capsys):
    words = ["--expert", "rule", "--steps", "100", "--out", str(tmp_path / "run"), "label_lag=4"]
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert "label_lag = 4" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
