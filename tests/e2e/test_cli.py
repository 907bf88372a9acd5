"""The command line as a user meets it: real folders, one clear line for every mistake; real processes where it counts.

A process of its own takes seconds to import what it needs. Where nothing but its words and its files are looked at,
`here` runs the command in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from lgdrl.cli import main

LGDRL = [sys.executable, "-m", "lgdrl.cli"]
QUICK = ["evaluate_every=0", "num_envs=8", "learner_options.hidden=[16,16]", "log_every=200", "checkpoint_every=400"]


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("lgdrl: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """A command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)

    def command(*arguments) -> subprocess.CompletedProcess:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return command


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "--steps", "1200", "--seed", "3", "--out", str(folder), *QUICK]) == 0
    return folder


def test_help_needs_nothing_heavy():
    heavy = ["torch", "stable_baselines3", "highway_env", "pandas", "numba", "openai", "pydantic"]
    code = f"import sys; from lgdrl.cli import _parser; _parser().format_help(); print({heavy} & sys.modules.keys())"
    code = code.replace(f"{heavy} &", f"set({heavy}) &")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "collect", "label", "list", "llm"])
def test_every_command_in_the_help_has_help(capsys, command):
    for arguments, words in ([], command), ([command], f"usage: lgdrl {command}"):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--help"])
        assert ended.value.code == 0
        assert words in capsys.readouterr().out


def test_train_then_evaluate_with_json(run, tmp_path, here):
    done = here("evaluate", run, "--episodes", "20", "--seed", "5", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    assert "success" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["episodes"], figures["first_seed"], figures["last_seed"]) == (20, 5, 24)
    assert set(figures["success"]) == {"count", "total", "value", "low", "high"}
    assert figures["guidance"]["labels"] > 0


def test_the_label_budget_is_an_option_and_the_last_line_counts_the_labels(tmp_path, here):
    done = here("train", "--steps", "800", "--label-budget", "7", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "7/7 labels; decided by rule 7 (100 %)" in done.stdout
    assert done.stdout.count("7/7 labels") == 2, "in the progress bar too"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["label_budget"] == 7


def test_published_seed_and_film(run, tmp_path, here):
    film = tmp_path / "film.gif"
    done = here("evaluate", run, "--seed", "published", "--video", film, "scenario_config.time_limit=2")
    assert done.returncode == 0, done.stderr
    assert film.read_bytes()[:3] == b"GIF"


def test_an_expert_can_be_evaluated_without_a_run(here):
    done = here("evaluate", "--expert", "slower", "--episodes", "5")
    assert done.returncode == 0, done.stderr
    assert "missed" in done.stdout


def test_list_names_everything(tmp_path, here):
    done = here("list", "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    lists = json.loads((tmp_path / "all.json").read_text())
    assert {"lane-change", "highway-v0", "dense-2.5"} <= {row["name"] for row in lists["scenarios"]}
    assert {"rule", "search", "llm"} <= {row["name"] for row in lists["experts"]}
    assert {"lgdrl", "sac", "dagger"} <= {row["name"] for row in lists["strategies"]}


def test_compare_is_one_table_and_continues(tmp_path, here):
    command = ["compare", "--strategies", "lgdrl,sac", "--seeds", "1", "--steps", "160", "--episodes", "5"]
    command += ["--out", tmp_path / "out", "references=[idle]", "base.evaluate_every=80", "base.evaluate_episodes=5"]
    command += ["--jobs", "1"]
    done = here(*command)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["lgdrl", "sac", "idle"]
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000
    before = (tmp_path / "out" / "lgdrl" / "seed0" / "policy.zip").stat().st_mtime_ns
    assert here(*command).returncode == 0
    assert (tmp_path / "out" / "lgdrl" / "seed0" / "policy.zip").stat().st_mtime_ns == before
    assert_one_line(here(*[a if a != "160" else "170" for a in command]), "another comparison")
    broken = tmp_path / "out" / "sac-bc" / "seed0"
    shutil.copytree(tmp_path / "out" / "sac" / "seed0", broken)
    (broken / "evaluation.json").unlink()
    (broken / "checkpoint.pt").write_bytes(b"broken")
    more = ["seeds=[0,1]", "references=[idle,slower]", "episodes=6"]
    failed = here(*[a if a != "lgdrl,sac" else "lgdrl,sac,sac-bc" for a in command], *more)
    assert failed.returncode == 1
    assert "1 of 8 runs failed" in failed.stderr
    assert failed.stderr.count("\n") == 1
    shutil.rmtree(broken.parent)
    extended = here(*command, *more)  # from what was saved of the others
    assert extended.returncode == 0, extended.stderr
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [(row["name"], len(row["runs"])) for row in rows] == [("lgdrl", 2), ("sac", 2), ("idle", 1), ("slower", 1)]
    assert {run["episodes"] for row in rows for run in row["runs"]} == {6}
    assert_one_line(here("evaluate", tmp_path / "out"), "a comparison of 4 runs", "sac/seed1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--scenario", "lane-chnage"], ["did you mean 'lane-change'"]),
        (["train", "--expert", "oracle"], ["unknown expert 'oracle'"]),
        (["train", "--strategy", "lgdlr"], ["did you mean 'lgdrl'"]),
        (["train", "--backend", "carlo"], ["unknown backend"]),
        (["train", "learner_options.gama=0.9"], ["did you mean 'gamma'"]),
        (["train", "learner_options.gamma=high"], ["learner_options.gamma", "high"]),
        (["train", "learner_options.gamma=2"], ["gamma = 2"]),
        (["train", "gamma"], ["key.subkey=value"]),
        (["train", "--config", "missing.yaml"], ["missing.yaml"]),
        (["train", "--resume", "nowhere"], ["no run in 'nowhere'"]),
        (["train", "--resume", "nowhere", "--seed", "5"], ["drop --seed"]),
        (["train", "--resume", "nowhere", "--label-budget", "5"], ["drop --label-budget"]),
        (["compare", "--strategies", "lgdrl", "--label-budgets", "20,20"], ["label_budgets = [20, 20]", "each once"]),
        (["train", "--scenario", "racetrack-v0"], ["learns discrete actions", "racetrack-v0", "sac"]),
        (["evaluate", "nowhere"], ["no run in 'nowhere'"]),
        (["evaluate"], ["Name a RUN, or an --expert"]),
        (["evaluate", "a", "--expert", "rule"], ["one of them at a time"]),
        (["evaluate", "--expert", "rule", "x.y=1"], ["unknown key in config 'x'"]),
        (["compare"], ["nothing to compare"]),
        (["compare", "references=[]"], ["nothing to compare"]),
        (["train", "--steps", "5", "learner_options.gama=0.9", "--seed", "1"], ["did you mean 'gamma'"]),
        (["llm", "eval", "--experts", "llm", "modell=x", "--scenes", "1"], ["did you mean 'model'"]),
        (["play", "expert:rule", "--record", "x.gif", "scenario_config.lanez=3"], ["did you mean 'lanes'"]),
        (["profile", "safety.episode=1", "--quick"], ["did you mean 'episodes'"]),
        (["evaluate", "--expert", "slwer"], ["did you mean 'slower'"]),
        (["compare", "--strategies", "lgdrl,best"], ["unknown strategy 'best'"]),
        (["train", "--expert", "llm", "expert_options.model=gpt-4o-mini"], ["endpoint"]),
        (["serve-lm", "--model", "smolm2"], ["did you mean 'smollm2'"]),
        (["serve-lm", "--model", "missing.gguf"], ["missing.gguf"]),
        (["serve-lm", "--model", "missing.safetensors"], ["missing.safetensors"]),
    ],
)
def test_mistakes_get_one_clear_line_and_exit_code_2(tmp_path, here, arguments, words):
    assert_one_line(here(*arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean 'train'"),
        (["llm", "evl"], "did you mean 'eval'"),
        (["bench", "simm"], "did you mean 'sim'"),
        (["train", "--stepz", "5"], "--stepz"),
        (["train", "--steps", "-5"], "--steps"),
        (["train", "--label-budget", "few"], "'few' is not a whole number from 0"),
        (["compare", "--label-budgets", "20;50"], "--label-budgets: '20;50' is not a whole number from 0"),
        (["compare", "--label-budgets", "20," + "9" * 5000], "is not a whole number from 0"),
        (["evaluate", "run", "other"], "unexpected 'other'"),
        (["profile", "compare", "a.json"], "B.json"),
        (["demos", "info"], "RECORDING"),
    ],
)
def test_what_cannot_be_parsed_is_one_line_too(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words in said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_names_with_brackets_are_printed_as_they_are(tmp_path, here):
    name = "r[bold]x[-b]"
    small = ["--steps", "32", "num_envs=2", "evaluate_every=0", "learner_options.hidden=[8]"]
    done = here("train", *small, "--out", name)
    assert done.returncode == 0, done.stderr
    assert f"lgdrl evaluate {name}" in done.stdout
    for words in ([name], ["--expert", f"policy:{name}"]):
        assert f"{words[-1]} on lane-change" in here("evaluate", *words, "--episodes", 2).stdout
    assert_one_line(here("demos", "info", "takes[/b]"), "takes[/b]")


def test_overrides_stand_anywhere_on_the_line(tmp_path, here):
    small = ["num_envs=2", "--steps", "32", "evaluate_every=0", "--out", "a", "learner_options.hidden=[8]"]
    assert here("train", *small).returncode == 0
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert (saved["num_envs"], saved["evaluate_every"], saved["learner_options"]["hidden"]) == (2, 0, [8])
    for words in (["a", "scenario_config.time_limit=9"], ["scenario_config.time_limit=9", "a"]):
        done = here("evaluate", *words, "--episodes", 2, "--json", "found.json")
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "found.json").read_text())["steps_mean"] <= 9


@pytest.mark.parametrize("text", ["[1, 2]", "steps: [", "steps: ten", "\x00\xff"])
def test_broken_config_files_are_named(tmp_path, here, text):
    (tmp_path / "bad.yaml").write_bytes(text.encode("latin-1"))
    assert_one_line(here("train", "--config", "bad.yaml"))
    assert not (tmp_path / "runs").exists()


def test_an_unreachable_endpoint_is_one_line(tmp_path, here, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    done = here("train", "--expert", "llm", "expert_options.model=any", "expert_options.client.startup_s=2")
    assert_one_line(done, "127.0.0.1:9")
    assert "secret-key" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_kill_9_loses_at_most_one_interval_and_changes_nothing(run, tmp_path, here):
    folder = tmp_path / "killed"
    command = [*LGDRL, "train", "--steps", "1200", "--seed", "3", "--out", str(folder), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (folder / "checkpoint.pt").exists() and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "checkpoint.pt").exists()
    done = here("train", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert same_policy(run, folder)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "stopped"
    command = [*LGDRL, "train", "--steps", "100000", "--out", str(folder), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not (folder / "metrics.csv").exists() and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in out
    assert (folder / "checkpoint.pt").exists()


def same_policy(one: Path, other: Path) -> bool:
    import torch

    from lgdrl.loops.online import load_policy
    from lgdrl.runs import Run

    first, second = (load_policy(Run(folder)).policy.state_dict() for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_bench_compares_simulators(tmp_path, here):
    figures, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    options = ("--rounds", 1, "--seconds", 0.05, "--json", figures, "--plot", picture)
    done = here("bench", "sim", "--scenario", "merge-v1", *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text())["rows"]
    assert rows[0]["simulator"] == "highway-env"
    assert rows[0]["ratio"] == 1
    assert max(row["ratio"] for row in rows if row["simulator"] == "engine") > 20
    assert picture.stat().st_size > 5000
    assert_one_line(here("bench", "sim", "--scenario", "carla-merge"), "carla-merge", "not on the engine")
    assert_one_line(here("bench", "sim", "--policy", "brave"), "brave", "random or slower")
    done = here("bench", "sim", "--scenario", "merge-v1,merge-v9")
    assert_one_line(done, "merge-v9")
    assert not done.stdout  # said before anything is measured
    assert_one_line(here("bench", "sim", "--threads", 99), "threads = 99")


def test_bench_compares_learners(tmp_path, here):
    figures, picture = tmp_path / "updates.json", tmp_path / "updates.png"
    options = ("--rounds", 1, "--seconds", 0.02, "--seed", 3, "--json", figures, "--plot", picture)
    done = here("bench", "learner", "--size", "8/16", *options)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "width 8, batch 16" in done.stdout
    found = json.loads(figures.read_text())
    settings = found["settings"]
    assert settings["learners"] == ["discrete-sac", "sac", "td3", "dqn"]
    assert (settings["sizes"], settings["rounds"], settings["seconds"], settings["seed"]) == (["8/16"], 1, 0.02, 3)
    assert "sbx-rl" in found["environment"]["packages"]
    rows = [row for row in found["rows"] if row["implementation"] != "SBX"]  # it need not be installed
    assert [(row["learner"], row["implementation"], row["reference"]) for row in rows] == [
        ("discrete-sac", "torch", "torch"),
        ("discrete-sac", "fused", "torch"),
        ("discrete-sac + JS constraint", "torch", "torch"),
        ("discrete-sac + JS constraint", "fused", "torch"),
        *((learner, name, "SB3") for learner in ("sac", "td3", "dqn") for name in ("SB3", "torch", "fused")),
    ]
    assert all((row["width"], row["batch"]) == (8, 16) and row["updates_per_cpu_s"] > 0 for row in rows)
    assert all(row["ratio"] == 1 for row in rows if row["implementation"] == row["reference"])
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "64"], ["'64'", "WIDTH/BATCH"]),
        (["--size", "64x64"], ["'64x64'", "WIDTH/BATCH"]),
        (["--size", "64/-64"], ["'64/-64'", "WIDTH/BATCH"]),
        (["--size", ""], ["--size ''"]),
        (["--size", "1" * 5000 + "/1"], ["characters"]),
        (["--size", "0/64"], ["width = 0", "1 to 65,536"]),
        (["--size", "64/20001"], ["batch = 20001", "1 to 20,000"]),
        (["--size", "64/64,64/64"], ["64/64 stands there twice"]),
        (["--size", "8/8,65536/64"], ["--size 65536/64", "memory"]),
        (["--seconds", "0"], ["--seconds 0.0", "more than 0"]),
        (["--seconds", "nan"], ["--seconds nan"]),
        (["--seed", "published"], ["--seed published"]),
        (["--learner", "sac,ppo"], ["--learner 'ppo'", "discrete-sac, sac, td3, dqn"]),
    ],
)
def test_bench_learner_refuses_what_it_cannot_measure(tmp_path, here, words, said):
    done = here("bench", "learner", *words)
    assert_one_line(done, *said)
    assert not done.stdout
    assert not any(tmp_path.iterdir())


def test_serve_lm_answers_until_ctrl_c_and_refuses_a_taken_port(tmp_path, here):
    from experts.language import gpt
    from experts.language.vocabulary import DRIVING

    model = tmp_path / "random.safetensors"
    gpt.save(gpt.new(gpt.GPTConfig(len(DRIVING), 96, 1, 2, 16), 0), DRIVING, model)
    command = [*LGDRL, "serve-lm", "--model", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        words = process.stdout.readline().split()
        url = words[words.index("at") + 1]
        with urllib.request.urlopen(f"{url}/models", timeout=10) as answer:
            assert json.load(answer)["data"][0]["id"].startswith("lgdrl-driver-")
        port = url.removesuffix("/v1").rpartition(":")[2]
        assert_one_line(here("serve-lm", "--model", model, "--port", port), "choose another port")
        assert_one_line(here("serve-lm", "--model", model, "--port", "99999"), "choose another port")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "stopped\n", "")
