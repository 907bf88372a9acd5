"""`lgdrl play` from the command line: films and windows without a display, and what is said when something is wrong."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pygame
import pytest

from experts.data.episodes import load_episodes
from experts.serving.fault_server import FaultServer, Scripted, read_mix
from lgdrl.cli import main
from lgdrl.runs import Run


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    yield
    pygame.display.quit()


SMALL = ["--size", "320x160"]
"""The smallest of films: pictures take most of the time."""


SHORT = "scenario_config.time_limit=15"


def play(*arguments):
    return main(["play", *map(str, arguments)])


def test_a_film_and_a_recording_without_any_window(tmp_path, capsys):
    film, folder = tmp_path / "out.gif", tmp_path / "episodes"
    assert play("expert:faster", "--record", film, "--save", folder, "--seed", 3, *SMALL) == 0
    assert "crash" in capsys.readouterr().out
    assert film.stat().st_size > 10_000
    (episode,) = load_episodes(folder)
    assert (episode.seed, episode.scenario, episode.turns[0].controller) == (3, "lane-change", "expert")
    again = tmp_path / "again.gif"
    assert play(folder, "--record", again, *SMALL) == 0
    assert again.read_bytes() == film.read_bytes()


def test_a_scripted_person_records_demonstrations(tmp_path):
    options = [
        "--scripted-person",
        "faster",
        "--save",
        tmp_path,
        "--episodes",
        2,
        "--pace",
        8,
        "--fast",
        "--size",
        "640x400",
    ]
    assert play("--drive", *options) == 0
    episodes = load_episodes(tmp_path)
    assert [episode.seed for episode in episodes] == [0, 1]
    assert {turn.controller for episode in episodes for turn in episode.turns} == {"human"}


def test_the_queries_of_a_training_are_replayed_and_filmed(tmp_path, capsys):
    run, film = tmp_path / "run", tmp_path / "asked.gif"
    small = ["num_envs=2", "log_every=50", "evaluate_every=0", "learner_options.learning_starts=20", "log_scenes=1"]
    small.append(SHORT)
    assert main(["train", "--steps", "100", "--out", str(run), *small]) == 0
    assert play("--replay", run, "--record", film, "--seed", 1, *SMALL) == 0
    assert film.stat().st_size > 10_000
    with sqlite3.connect(run / "guidance.sqlite") as db:
        db.execute("DROP TABLE moments")
    capsys.readouterr()
    assert play("--replay", run) == 2
    said = capsys.readouterr().err
    assert "holds no scenes" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--replay", "no-such-run"], "no-such-run"),
        (["--replay", "run", "expert:rule"], "--replay"),
        (["--replay", "run", "--train"], "--replay"),
        (["no-such-run"], "no-such-run"),
        (["a", "b", "c"], "two are compared"),
        (["--scenario", "nowhere"], "nowhere"),
        (["--theme", "pink"], "pink"),
        (["--size", "10x10"], "640x400"),
        (["--size", "10x10", "--record", "x.gif"], "320x160"),
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--pace", "0"], "pace"),
        (["--keys", "no-such.yaml"], "no-such.yaml"),
        (["expert:unheard-of"], "unheard-of"),
        (["--train", "--record", "x.gif"], "--record"),
        (["--record", "x.txt", "expert:faster"], ".txt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert play(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_without_a_display_it_says_what_to_do(monkeypatch, capsys):
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("DISPLAY", "")
    assert play("expert:rule") == 2
    said = capsys.readouterr().err
    assert said.startswith("lgdrl: cannot open a window")
    assert "--record" in said


def test_a_broken_recording_is_refused(tmp_path, capsys):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK not really")
    assert play(path) == 2
    assert "broken.npz" in capsys.readouterr().err


MIX = "full,delay=0.001,token_delay=0,stall_s=3,drip_s=20,retry_after_s=0.01,oversized_bytes=200000"


def under_fire(monkeypatch, server):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-0123456789abcdef")
    return ["expert_options.client.total_s=0.3", "expert_options.client.breaker_failures=1000000"]


def test_a_window_drives_on_under_the_full_mix_of_faults(tmp_path, monkeypatch):
    with FaultServer(mix=read_mix(MIX), seed=1) as server:
        client = under_fire(monkeypatch, server)
        assert play("expert:llm", "--fast", "--episodes", 2, "--save", tmp_path / "drives", *client, SHORT) == 0
        assert len(server.counts) > 5  # of its faults
    episodes = load_episodes(tmp_path / "drives")
    assert len(episodes) == 2
    statuses = [turn.expert_status for episode in episodes for turn in episode.turns]
    assert set(statuses) >= {"ok", "fallback"}
    assert all(turn.action is not None for episode in episodes for turn in episode.turns)


@pytest.mark.slow
def test_a_live_training_goes_on_under_the_full_mix_of_faults(tmp_path, monkeypatch):
    with FaultServer(mix=read_mix(MIX), seed=2) as server:
        client = under_fire(monkeypatch, server)
        words = ["--train", "--expert", "llm", "--steps", 160, "--fast", "--out", tmp_path / "run", *client]
        assert play(*words, "num_envs=8", "evaluate_every=0", "strategy_options.episodes.kind=always") == 0
        assert server.counts
    run = Run.open(tmp_path / "run")
    assert run.finished
    with sqlite3.connect(run.guidance_log) as log:
        statuses = {row[0] for row in log.execute("SELECT status FROM queries")}
    assert statuses >= {"ok", "fallback"}


def test_leaving_does_not_wait_for_a_language_model():
    with FaultServer([Scripted(delay_s=60.0)]) as server:
        settings = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "test-key-0123456789abcdef"}
        command = [sys.executable, "-m", "lgdrl.cli", "play", "expert:llm"]
        command += ["expert_options.client.total_s=120"]
        window = subprocess.Popen(command, env=os.environ | settings)
        while not server.asked and window.poll() is None:
            time.sleep(0.05)
        begin = time.monotonic()
        window.send_signal(signal.SIGINT)
        assert window.wait(30) == 130
        assert time.monotonic() - begin < 15
