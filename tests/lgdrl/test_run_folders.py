"""Run folders: one process each, damage named in one line, later ends, nothing left behind by what cannot begin."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from run_folders import DAMAGES, QUICK, copied, flipped, made_a_folder, quick_config, trained

from lgdrl import training
from lgdrl.cli import main
from lgdrl.comparison import CompareConfig, compare
from lgdrl.config import load_config
from lgdrl.guidance.log import GuidanceLog
from lgdrl.locks import FolderLock
from lgdrl.loops.online import load_policy
from lgdrl.runs import MetricsTable, Run, free_folder, read_json
from sim.config import dump_yaml, load_yaml, resolve
from sim.errors import UsageError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished, tmp_path):
    return Run(copied(finished, tmp_path / "run"))


def weights(run):
    return load_policy(run).policy.state_dict()


def rows(run):
    timing = {"elapsed_s", "rate", "expert/wait_s", "expert/blocked_s"}
    return [{name: x for name, x in row.items() if name not in timing} for row in MetricsTable(run.metrics).rows]


def words_of(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------------------- one folder, one process


def test_a_second_training_into_the_same_folder_is_refused(run, tmp_path, capsys):
    first = training.resume(run.folder)
    assert main(["train", "--resume", str(run.folder)]) == 2
    error = capsys.readouterr().err
    assert f"in use by another run (process {os.getpid()})" in error
    assert error.count("\n") == 1
    with pytest.raises(UsageError, match="in use"):
        training.start(quick_config(), run.folder)
    first.close()
    training.resume(run.folder).close()


def test_a_second_new_training_into_the_same_folder_is_refused_and_leaves_the_first_alone(tmp_path):
    first = training.start(quick_config(), tmp_path / "run")
    with pytest.raises(UsageError, match="in use"):
        training.start(quick_config(), tmp_path / "run")
    assert first.train()
    first.close()
    with pytest.raises(UsageError, match="already holds a run"):
        training.start(quick_config(), tmp_path / "run")
    assert Run(tmp_path / "run").finished


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path):
    code = f"from pathlib import Path; from lgdrl.locks import FolderLock; lock = FolderLock(Path({str(tmp_path)!r})); "
    code += "print('locked', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UsageError, match=f"process {process.pid}"):
        FolderLock(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    FolderLock(tmp_path).release()


def test_reading_a_run_needs_no_lock(run):
    trainer = training.resume(run.folder)
    assert main(["evaluate", str(run.folder), "--episodes", "1"]) == 0
    trainer.close()


def test_two_comparisons_into_one_folder_are_refused(tmp_path):
    lock = FolderLock(tmp_path)
    config = CompareConfig(base=QUICK, arms={"sac": {"strategy": "sac"}}, seeds=(0,), references=(), episodes=2)
    with pytest.raises(UsageError, match="in use"):
        compare(config, tmp_path, 1)
    lock.release()


def test_a_folder_that_cannot_hold_a_lock_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UsageError, match="cannot write into"):
        FolderLock(tmp_path)


# --------------------------------------------------------------------------------------------------------------- damage

DRIVING = ("evaluate", "policy")
"""Commands that need policy and config; `resume` needs config and checkpoint."""
NEEDED = {"config.yaml": (*DRIVING, "resume"), "policy.safetensors": DRIVING, "checkpoint.pt": ("resume",)}


def command(kind, folder):
    scenario = ["--scenario", "gym:CartPole-v1", "--episodes", "1"]
    return {
        "evaluate": ["evaluate", str(folder), "--episodes", "1"],
        "policy": ["evaluate", "--expert", f"policy:{folder}", *scenario],
        "resume": ["train", "--resume", str(folder)],
    }[kind]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NEEDED)
def test_a_damaged_file_that_a_command_needs_is_one_line_that_names_it(run, capsys, name, damage):
    DAMAGES[damage](run.folder / name)
    for kind in NEEDED[name]:
        code = main(command(kind, run.folder))
        error = capsys.readouterr().err
        assert code == 2
        assert error.count("\n") == 1
        assert name in error
    assert not (run.folder / "marker").exists()


@pytest.mark.parametrize("name", ["policy.safetensors", "checkpoint.pt"])
def test_a_single_wrong_byte_is_noticed(run, name):
    flipped(run.folder / name)
    with pytest.raises(UsageError, match=r"damaged|cannot read"):
        load_policy(run) if name.startswith("policy") else training.resume(run.folder)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["guidance.sqlite", "metrics.csv"])
def test_a_resume_goes_on_without_a_damaged_log_and_says_what_is_lost(run, finished, damage, name):
    DAMAGES[damage](run.folder / name)
    trainer = training.resume(run.folder)
    assert trainer.notes
    assert "lost" in " ".join(trainer.notes) or "not in the guidance log" in " ".join(trainer.notes)
    assert trainer.train()
    trainer.close()
    assert all(torch.equal(value, weights(run)[key]) for key, value in weights(Run(finished)).items())
    if damage != "empty" or name == "metrics.csv":
        assert (run.folder / f"{name}.damaged").exists() or (run.folder / f"{name}.damaged").is_symlink()
    training.resume(run.folder).close()


def test_an_undamaged_run_is_resumed_without_notes(run):
    trainer = training.resume(run.folder)
    assert trainer.notes == []
    trainer.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_replaying_a_damaged_guidance_log_is_one_line(run, damage):
    from lgdrl.guidance.log import LoggedEpisodes

    DAMAGES[damage](run.guidance_log)
    with pytest.raises(UsageError) as error:
        LoggedEpisodes(run.guidance_log, "run", "lane-change", "engine", {})
    words_of(error)


def test_a_guidance_log_with_other_columns_is_set_aside(tmp_path):
    import sqlite3

    path = tmp_path / "guidance.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE queries (id INTEGER PRIMARY KEY, song TEXT)")
    db.close()
    log = GuidanceLog(path)
    assert "other columns" in log.lost
    log.close()
    assert path.with_name("guidance.sqlite.damaged").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_evaluation_of_a_comparison_is_named(tmp_path, damage):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"return_mean": 1.0, "success": {"value": 1.0}}))
    DAMAGES[damage](path)
    with pytest.raises(UsageError) as error:
        read_json(path, "delete it")
    assert "evaluation.json" in words_of(error)


@pytest.mark.parametrize(
    "text", ["", "\n", "a,a\n1,2\n", "song\nla\n", "decisions\n1,2\n", "decisions,x\n-1,2\n", "decisions,x\n1\n", "\0"]
)
def test_a_table_of_metrics_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UsageError, match="is damaged") as error:
        MetricsTable(tmp_path / "metrics.csv", "decisions")
    words_of(error)


def test_columns_have_one_order_whatever_came_first(tmp_path):
    one, other = MetricsTable(tmp_path / "one.csv", "decisions"), MetricsTable(tmp_path / "other.csv", "decisions")
    early = {"decisions": 1, "elapsed_s": 2.0, "rate": 3, "train/b": 1, "train/a": 2, "zoo/x": 1, "rollout/r": 0}
    late = {"decisions": 2, "rate": 3, "elapsed_s": 2.0, "expert/labels": 4, "guidance/mu": 5, "eval/success": 6}
    one.add(early)
    one.add(late)
    other.add({"decisions": 1} | late | {"decisions": 1})
    other.add(early | {"decisions": 2})
    heads = [next(csv.reader(path.open())) for path in (one.path, other.path)]
    assert (
        heads[0]
        == heads[1]
        == [
            "decisions",
            "elapsed_s",
            "rate",
            "eval/success",
            "rollout/r",
            "train/a",
            "train/b",
            "guidance/mu",
            "expert/labels",
            "zoo/x",
        ]
    )


# ---------------------------------------------------------------------------------------------------------- a later end


@pytest.mark.parametrize("strategy", ["sac", "sac-bc", "dagger"])
def test_a_finished_run_that_goes_on_equals_an_uninterrupted_one(tmp_path, strategy):
    options = {"labels": 64, "rounds": 4} if strategy == "dagger" else {}
    same = {"strategy": strategy, "strategy_options": options}
    whole = Run(trained(tmp_path / "whole", steps=208, schedule_steps=104, **same))
    run = Run(trained(tmp_path / "run", steps=104, **same))
    before = weights(run)
    longer = training.resume(run.folder, steps=208)
    assert longer.train()
    longer.close()
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())
    assert [row for row in rows(run) if row["decisions"] != "104"] == rows(whole)
    changed = {"steps": 208, "schedule_steps": 104}
    assert load_yaml(run.config) == load_yaml(whole.config) == load_yaml(whole.config) | changed
    kept = Run(run.folder)
    kept.policy.unlink()
    run.folder.joinpath("policy-104.safetensors").rename(kept.policy)
    assert all(torch.equal(value, weights(kept)[name]) for name, value in before.items())


def test_a_run_without_schedules_equals_one_that_knew_its_end_from_the_start(tmp_path):
    whole = Run(trained(tmp_path / "whole", steps=192, strategy="sac"))
    run = Run(trained(tmp_path / "run", steps=96, strategy="sac"))
    assert main(["train", "--resume", str(run.folder), "--steps", "192"]) == 0
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())
    assert rows(run) == rows(whole)


def test_a_run_cannot_be_made_shorter_or_otherwise_changed(run, capsys):
    for words, expected in [
        (["--steps", "48"], "has 96 already"),
        (["--steps", "192", "--seed", "3"], "drop --seed"),
        (["--expert", "rule", "--backend", "x", "num_envs=2"], "drop --backend, --expert, num_envs=2"),
        (["--out", "elsewhere"], "drop --out"),
    ]:
        assert main(["train", "--resume", str(run.folder), *words]) == 2
        assert expected in capsys.readouterr().err
    assert run.finished


def test_a_run_without_a_checkpoint_cannot_be_made_longer(run):
    run.checkpoint.unlink()
    with pytest.raises(UsageError, match="has no checkpoint to continue from"):
        training.resume(run.folder, steps=1000)
    assert load_yaml(run.config)["steps"] == 96


# ------------------------------------------------------------------------------------------------------------- starting


@pytest.mark.parametrize(
    "changes",
    [
        {"scenario_config": {"options": {"no_such_option": 1}}},
        {"expert": "policy:nowhere"},
        {"num_envs": 10**9},
        {"learner_options": QUICK["learner_options"] | {"buffer_size": 10**12}},
        {"learner_options": QUICK["learner_options"] | {"hidden": [10**6, 10**6]}},
        {"evaluate_every": 5, "evaluate_episodes": 10**12},
    ],
)
def test_what_cannot_be_started_is_one_line_and_leaves_no_folder(tmp_path, changes):
    with pytest.raises(UsageError) as error:
        training.start(quick_config(**changes), tmp_path / "deep" / "run")
    words_of(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["reset", "step"])
def test_an_environment_that_fails_at_its_start_leaves_no_folder(tmp_path, monkeypatch, capsys, failing):
    def broken(self, *arguments, **options):
        raise RuntimeError("the physics\nis gone")

    monkeypatch.setattr(f"sim.gym_envs.GymScenarioEnv.{failing}", broken)
    monkeypatch.setattr("lgdrl.training.run_memory", lambda config: {})
    (tmp_path / "config.yaml").write_text(dump_yaml(QUICK))
    assert main(["train", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error == "lgdrl: the run cannot begin: RuntimeError: the physics\n"
    assert not (tmp_path / "run").exists()


def test_what_needs_too_much_memory_says_how_much(tmp_path):
    with pytest.raises(UsageError, match=r"learner_options.buffer_size: [\d,.]+ GB of memory .* are free"):
        training.start(quick_config(learner_options={"buffer_size": 10**12}), tmp_path / "run")


def test_too_many_episodes_are_refused_before_they_are_counted_out(run, capsys):
    started = time.perf_counter()
    assert main(["evaluate", str(run.folder), "--episodes", "1" + "0" * 11]) == 2
    assert "episodes:" in capsys.readouterr().err
    assert time.perf_counter() - started < 5


def test_a_folder_that_was_there_before_stays(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError):
        training.start(quick_config(expert="policy:nowhere"), tmp_path / "run")
    assert (tmp_path / "run").is_dir()


def test_a_second_run_without_a_name_takes_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(dump_yaml(QUICK))
    for _ in range(3):
        assert main(["train", "--config", "config.yaml", "--steps", "48"]) == 0
    name = "sac-bc-gym:CartPole-v1-0"
    assert sorted(os.listdir("runs")) == [name, f"{name}-2", f"{name}-3"]
    assert free_folder("runs/other") == "runs/other"


# ---------------------------------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize(
    "names",
    [
        ["../x"],
        ["/abs"],
        ["a/b"],
        [""],
        ["."],
        [".."],
        ["a\\b"],
        ["a\nb"],
        ["a\0b"],
        ["Sac", "sac"],
        ["references"],
        ["Comparison.json"],
        [".lock"],
        ["x" * 300],
        ["straße", "STRASSE"],
    ],
)
def test_arms_cannot_leave_or_share_the_folders_of_a_comparison(tmp_path, names):
    config = CompareConfig(base=QUICK, arms={name: {"strategy": "sac"} for name in names}, references=())
    with pytest.raises(UsageError, match="arm") as error:
        compare(config, tmp_path / "out", 1)
    words_of(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {"a": {"strategy": "sca"}}}, "unknown strategy 'sca'"),
        ({"arms": {"a": {"strategy": "sac-bc", "expert": "rulle"}}}, "arms.a: unknown expert 'rulle'"),
        ({"arms": {"a": {"learner": "sca"}}}, "unknown learner 'sca'"),
        ({"arms": {"a": {"num_envs": 10**9}}}, "arms.a.num_envs"),
        ({"references": ("rulle",)}, "unknown expert 'rulle'"),
        ({"references": ("policy:nowhere",)}, "no run in 'nowhere'"),
        ({"references": ("rule",)}, "rule"),
        ({"references": ("random", "random")}, "reference 'random' is there twice"),
        ({"seeds": (0, 0)}, "seeds = [0, 0]"),
        ({"episodes": 10**13}, "episodes"),
    ],
)
def test_a_comparison_of_what_does_not_exist_is_refused_before_anything_starts(tmp_path, changes, words):
    whole = {"base": QUICK, "arms": {"sac": {"strategy": "sac"}}, "seeds": (0,), "references": (), "episodes": 2}
    with pytest.raises(UsageError) as error:
        compare(resolve(CompareConfig(), whole | changes), tmp_path / "out", 1)
    assert words in words_of(error)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_config_of_a_comparison_is_one_line(tmp_path):
    (tmp_path / "compare.yaml").write_bytes(b"\xff")
    config = CompareConfig(base=QUICK, arms={"sac": {"strategy": "sac"}}, seeds=(0,), references=(), episodes=2)
    with pytest.raises(UsageError, match=r"compare\.yaml"):
        compare(config, tmp_path, 1)
    made_a_folder(tmp_path / "compare.yaml")
    with pytest.raises(UsageError, match=r"compare\.yaml"):
        compare(config, tmp_path, 1)


def test_the_schedule_of_a_run_is_checked(tmp_path):
    with pytest.raises(UsageError, match="schedule_steps = 0"):
        load_config(None, {"schedule_steps": 0})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_found_before_an_evaluation_that_reports_it(run, tmp_path, capsys, damage):
    DAMAGES[damage](run.metrics)
    assert main(["evaluate", str(run.folder), "--episodes", "1", "--json", str(tmp_path / "found.json")]) == 2
    error = capsys.readouterr()
    assert "metrics.csv" in error.err
    assert error.out == ""
    assert not (tmp_path / "found.json").exists()


@pytest.mark.parametrize("name", ["config.yaml", "policy.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_film_of_a_damaged_run_is_one_line(run, tmp_path, capsys, name, damage):
    DAMAGES[damage](run.folder / name)
    assert main(["play", str(run.folder), "--record", str(tmp_path / "film.gif")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not (tmp_path / "film.gif").exists()
