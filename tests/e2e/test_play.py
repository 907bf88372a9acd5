"""`lgdrl play` from the command line: films and windows without a display, and what is said when something is wrong."""

import os
import subprocess
import sys

import pytest

from experts.episodes import load_episodes

HEADLESS = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}


def lgdrl(*arguments, environment=HEADLESS):
    command = [sys.executable, "-m", "lgdrl.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def test_a_film_and_a_recording_without_any_window(tmp_path):
    film, folder = tmp_path / "out.gif", tmp_path / "episodes"
    done = lgdrl("play", "expert:rule", "--record", film, "--save", folder, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert film.stat().st_size > 10_000
    (episode,) = load_episodes(folder)
    assert (episode.seed, episode.scenario, episode.turns[0].controller) == (3, "lane-change", "expert")
    assert "success" in done.stdout or "crash" in done.stdout or "missed" in done.stdout
    again = tmp_path / "again.gif"
    assert lgdrl("play", folder, "--record", again).returncode == 0
    assert again.read_bytes() == film.read_bytes()


def test_a_scripted_person_records_demonstrations(tmp_path):
    options = ["--puppet", "rule", "--save", tmp_path, "--episodes", 2, "--pace", 16, "--fast", "--size", "640x400"]
    done = lgdrl("play", "--drive", *options)
    assert done.returncode == 0, done.stderr
    episodes = load_episodes(tmp_path)
    assert [episode.seed for episode in episodes] == [0, 1]
    assert {turn.controller for episode in episodes for turn in episode.turns} == {"human"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-run"], "no-such-run"),
        (["a", "b", "c"], "two are compared"),
        (["--scenario", "nowhere"], "nowhere"),
        (["--theme", "pink"], "pink"),
        (["--size", "10x10"], "640x400"),
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--pace", "0"], "pace"),
        (["--keys", "no-such.yaml"], "no-such.yaml"),
        (["expert:nobody"], "nobody"),
        (["--train", "--record", "x.gif"], "--record"),
        (["--record", "x.txt", "expert:rule"], "x.txt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, words):
    done = lgdrl("play", *arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_without_a_display_it_says_what_to_do(tmp_path):
    environment = {"SDL_VIDEODRIVER": "x11", "DISPLAY": ""}
    done = lgdrl("play", "expert:rule", environment=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("lgdrl: cannot open a window")
    assert "--record" in done.stderr


def test_a_broken_recording_is_refused(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK not really")
    done = lgdrl("play", path)
    assert done.returncode == 2
    assert "broken.npz" in done.stderr
