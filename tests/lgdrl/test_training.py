"""Runs: deterministic, resumable with identical results, honest about what was trained."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from lgdrl import training
from lgdrl.config import load_config
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.config import load_yaml
from sim.errors import UsageError

SMALL = {
    "steps": 480,
    "num_envs": 8,
    "log_every": 80,
    "evaluate_every": 160,
    "evaluate_episodes": 2,
    "checkpoint_every": 160,
    "learner_options": {"learning_starts": 80, "hidden": [16, 16], "batch_size": 32},
}
TIMING = {"elapsed_s", "rate", "expert/wait_s", "expert/blocked_s"}


def config(**changes):
    return load_config(None, SMALL | changes)


def train(folder, **changes):
    trainer = training.start(config(**changes), folder)
    assert trainer.train()
    trainer.close()
    return folder


def weights(folder):
    return load_policy(Run(folder)).policy.state_dict()


def metrics(folder):
    with Run(folder).metrics.open() as file:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(file)]


def assert_same(one, other):
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize("strategy", ["lgdrl", "dagger", "sac-demo", "sac-rp", "sac-bc", "sac"])
def test_a_run_that_is_stopped_and_resumed_equals_an_uninterrupted_one(tmp_path, strategy):
    options = {"dagger": {"labels": 64, "rounds": 4}, "sac-demo": {"decisions": 120}}.get(strategy, {})
    straight = train(tmp_path / "straight", strategy=strategy, strategy_options=options)
    broken = training.start(config(strategy=strategy, strategy_options=options), tmp_path / "broken")

    def stop_midway(progress):
        broken.stop_requested = progress.done >= 240

    assert not broken.train(stop_midway)
    broken.close()
    resumed = training.resume(tmp_path / "broken")
    assert resumed.loop.progress == 240
    assert resumed.train()
    resumed.close()
    assert_same(straight, tmp_path / "broken")


def test_a_run_whose_last_interval_was_lost_repeats_it_identically(tmp_path):
    straight = train(tmp_path / "straight")
    lost = training.start(config(), tmp_path / "lost")

    class Killed(Exception):
        pass

    def die(progress):
        if progress.done == 400:
            raise Killed  # metrics of 400 are written, the last checkpoint is that of 320

    with pytest.raises(Killed):
        lost.train(die)
    lost.loop.log.commit()  # even if the guidance log got further than the checkpoint
    lost.close()
    resumed = training.resume(tmp_path / "lost")
    assert resumed.loop.progress == 320
    assert resumed.train()
    assert resumed.loop.log.last_row == resumed.loop.advisor.counts["queries"]
    resumed.close()
    assert_same(straight, tmp_path / "lost")


def test_resuming_is_exact_on_highway_env_too(tmp_path):
    small = {"scenario": "highway-fast-v0", "num_envs": 2, "steps": 48, "log_every": 12, "checkpoint_every": 12}
    small |= {"scenario_config": {"vehicles_count": 8}, "evaluate_every": 0}
    small |= {"learner_options": SMALL["learner_options"] | {"learning_starts": 12}}
    straight = train(tmp_path / "straight", **small)
    broken = training.start(config(**small), tmp_path / "broken")
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 24))
    broken.close()
    resumed = training.resume(tmp_path / "broken")
    assert resumed.loop.progress == 24
    assert resumed.train()
    resumed.close()
    assert_same(straight, tmp_path / "broken")


def test_the_saved_config_starts_the_same_run_again(tmp_path):
    first = train(tmp_path / "first", seed=5)
    again = training.start(load_config(Run(first).config, {}), tmp_path / "again")
    again.train()
    again.close()
    assert load_yaml(Run(first).config) == load_yaml(Run(tmp_path / "again").config)
    assert_same(first, tmp_path / "again")


def test_different_seeds_give_different_runs(tmp_path):
    one, two = train(tmp_path / "one", seed=1, steps=160), train(tmp_path / "two", seed=2, steps=160)
    assert not torch.equal(weights(one)["actor.network.0.weight"], weights(two)["actor.network.0.weight"])


def test_the_label_budget_is_never_exceeded_and_every_query_is_logged(tmp_path):
    trainer = training.start(config(label_budget=57), tmp_path / "run")
    trainer.train()
    counts = trainer.loop.advisor.counts
    assert counts["labels"] == 57 == trainer.loop.model.replay.num_labelled
    assert counts["queries"] == sum(counts[s] for s in ("ok", "repaired", "vetoed", "fallback", "late", "failed"))
    assert trainer.loop.log.last_row == counts["queries"]
    trainer.close()


def test_executed_and_learner_return_are_separate_series(tmp_path):
    rows = metrics(train(tmp_path / "run", steps=320))
    assert {"eval/learner_return", "rollout/executed_return"} <= set(rows[0])


def test_evaluation_asks_no_expert(tmp_path):
    folder = train(tmp_path / "run", steps=160)
    found = training.evaluate_run(Run(folder), 10, 10_000)
    assert [episode["seed"] for episode in found.episodes] == list(range(10_000, 10_010))
    again = training.evaluate_run(Run(folder), 10, 10_000)
    assert found.episodes == again.episodes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "lane-chnage"}, "did you mean 'lane-change'"),
        ({"strategy": "lgdlr"}, "did you mean 'lgdrl'"),
        ({"expert": "rulle"}, "did you mean 'rule'"),
        ({"backend": "carlo"}, "unknown backend"),
        ({"strategy_options": {"arbiter": {"kind": "sometimes"}}}, "unknown arbiter 'sometimes'"),
        ({"strategy_options": {"episodes": {"kind": "bernouli"}}}, "did you mean 'bernoulli'"),
        ({"strategy_options": {"arbiter": {"kind": "js", "options": {"up": 1}}}}, "unknown key in options of arbiter"),
        ({"learner": "discreet-sac"}, "did you mean 'discrete-sac'"),
        ({"learner_options": {"gama": 0.9}}, "did you mean 'gamma'"),
        ({"learner_options": {"tau": 0}}, "tau = 0"),
        ({"scenario_config": {"lane": 3}}, "unknown key in scenario_config 'lane'"),
        ({"scenario_config": {"density": [0.0, 5.0]}}, "density"),
        ({"expert_options": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_bad_config_is_one_clear_line_and_leaves_no_folder(tmp_path, changes, words):
    with pytest.raises(UsageError) as error:
        training.start(config(**changes), tmp_path / "run")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_made_leaves_no_folder(tmp_path, monkeypatch):
    def broken(self, *arguments, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr("lgdrl.learners.discrete_sac.DiscreteSAC.__init__", broken)
    with pytest.raises(UsageError, match="the run cannot begin: RuntimeError: no memory"):
        training.start(config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    folder = train(tmp_path / "run", steps=80)
    with pytest.raises(UsageError, match="already holds a run"):
        training.start(config(), folder)


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = train(tmp_path / "run", steps=80)
    Run(folder).checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match="is damaged"):
        training.resume(folder)


def test_training_environments_do_not_share_seeds_with_the_tests(tmp_path):
    trainer = training.start(config(), tmp_path / "run")
    seeds = np.random.SeedSequence(0).spawn(4)[0].generate_state(1)
    assert seeds[0] >> 1 > 20_000_000
    trainer.close()


def test_a_config_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    folder = train(tmp_path / "run", steps=80)
    text = Run(folder).config.read_text().replace("learner_options:", "sac:")
    Run(folder).config.write_text(text)
    with pytest.raises(UsageError, match="earlier version") as error:
        training.resume(folder)
    assert "\n" not in str(error.value)
