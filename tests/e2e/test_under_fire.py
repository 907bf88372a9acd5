"""Training while the endpoint fails in every way we know: nothing is lost, everything is counted, and it repeats."""

from __future__ import annotations

import csv
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
import torch

from experts.serving.fault_server import FaultServer, read_mix
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.config import dump_yaml, to_dict

STATUSES = ("ok", "repaired", "vetoed", "fallback", "late", "failed")
MIX = "full,delay=0.001,token_delay=0,stall_s=3,drip_s=20,retry_after_s=0.01,oversized_bytes=200000"
TIMES = ("elapsed_s", "rate", "expert/wait_s", "expert/blocked_s", "expert/latency/p50_s", "expert/latency/p95_s")


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def settings(url, steps, envs=8, **options):
    """Small nets, every decision asked about. The circuit breaker goes by the clock, so it is as good as off here."""
    client = {"base_url": url, "total_s": 1.0, "backoff_s": 0.01, "breaker_failures": 1_000_000, "concurrency": 32}
    return {
        "steps": steps,
        "num_envs": envs,
        "log_every": steps // 4,
        "evaluate_every": 0,
        "checkpoint_every": max(steps // 10, 1),
        "expert": "llm",
        "expert_options": {"model": "scripted", "client": client, **options},
        "learner_options": {"learning_starts": 100, "hidden": [16, 16]},
        "strategy_options": {"episodes": {"kind": "always", "until": 1.0}},
    }


def check(trainer, decisions):
    counts = trainer.loop.advisor.counts
    assert counts["queries"] == decisions == sum(counts[status] for status in STATUSES)
    assert counts["labels"] == trainer.loop.model.replay.num_labelled == decisions  # the fallback always decides
    assert counts["late"] == counts["failed"] == 0
    assert min(counts[status] for status in ("ok", "repaired", "vetoed", "fallback")) > 0


def test_a_training_under_the_full_mix_loses_no_label(tmp_path):
    with FaultServer(mix=read_mix(MIX), seed=5) as server:
        trainer = training.start(load_config(None, settings(server.url, 304)), tmp_path / "run")
        try:
            assert trainer.train()
            check(trainer, 304)
        finally:
            trainer.close()
        assert len(server.counts) > 12  # of its faults
    with sqlite3.connect(Run(tmp_path / "run").guidance_log) as log:
        assert log.execute("SELECT COUNT(*) FROM queries").fetchone() == (304,)


def test_a_spent_budget_ends_the_asking_and_not_the_training(tmp_path):
    with FaultServer(mix=read_mix("mild,delay=0"), seed=5) as server:
        config = settings(server.url, 160, budget={"max_calls": 60})
        trainer = training.start(load_config(None, config), tmp_path / "run")
        try:
            assert trainer.train()
            assert trainer.loop.advisor.counts["queries"] == trainer.loop.advisor.counts["labels"] == 160
            assert trainer.loop.advisor.provider.budget.calls <= 60
            assert len(server.seen) <= 60 + 1  # the check of the config, before there is a run, probes once by itself
            assert trainer.loop.advisor.provider.statistics.counters["fault/budget"] > 0
        finally:
            trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 4])
def test_ten_thousand_decisions_under_fire(tmp_path, lag):
    with FaultServer(mix=read_mix(MIX), seed=6) as server:
        config = load_config(None, {**settings(server.url, 10_016, envs=32), "label_lag": lag})
        trainer = training.start(config, tmp_path / "run")
        memory = []
        try:
            assert trainer.train(lambda progress: memory.append(resident_mib()))
            check(trainer, 10_016)
        finally:
            trainer.close()
        print(dict(trainer.loop.advisor.counts), dict(server.counts), memory[len(memory) // 4], memory[-1])
    assert memory[-1] - memory[len(memory) // 4] < 60  # MiB


@pytest.mark.slow
def test_a_training_killed_five_times_equals_one_that_was_not(tmp_path):
    with FaultServer(mix=read_mix(MIX), seed=7) as server:
        config = load_config(None, settings(server.url, 10_016, envs=32))
        for name in ("whole", "killed"):
            Run.create(tmp_path / name, dump_yaml(to_dict(config.resolved()))).release()
        assert resume(tmp_path / "whole").wait() == 0
        rng, kills = random.Random(0), 0
        while True:
            process = resume(tmp_path / "killed")
            try:
                assert process.wait(rng.uniform(8.0, 16.0) if kills < 5 else None) == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
    assert kills == 5
    runs = [Run(tmp_path / name) for name in ("whole", "killed")]
    rows = [list(csv.DictReader(run.metrics.open())) for run in runs]
    assert len(rows[0]) == len(rows[1])
    for one, other in zip(*rows, strict=True):
        assert {key: one[key] for key in one if key not in TIMES} == {
            key: other[key] for key in other if key not in TIMES
        }
    weights = [load_policy(run).policy.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    queries = []
    for run in runs:
        with sqlite3.connect(run.guidance_log) as log:
            log.row_factory = sqlite3.Row
            queries.append([timeless(dict(row)) for row in log.execute("SELECT * FROM queries ORDER BY rowid")])
    assert queries[0] == queries[1]


def timeless(row):
    """A row of the guidance log without its times, also those in words: "no answer within 0.9 s"."""
    kept = {key: value for key, value in row.items() if "latency" not in key and "time" not in key}
    return kept | {"reason": re.sub(r"within [\d.]+ s", "in time", row["reason"] or "")}


def resume(folder):
    """A training of a folder in a process of its own."""
    command = [sys.executable, "-m", "lgdrl.cli", "train", "--resume", str(folder)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def resident_mib():
    """Peak resident memory of this process, MiB: flat when nothing leaks."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
