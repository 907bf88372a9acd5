"""Without a display the window says so; it does not run where SDL shows nothing, unless that was asked for."""

import os
import subprocess
import sys

import pygame
import pytest

from lgdrl.cli import main
from lgdrl.visualizer.app import open_window
from sim.errors import UsageError

NAMES = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER")


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    pygame.display.quit()
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield
    pygame.display.quit()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"DISPLAY": ":77"},
        {"WAYLAND_DISPLAY": "no-such-socket"},
        {"SDL_VIDEODRIVER": "x11"},
        {"SDL_VIDEODRIVER": "no-such-driver"},
    ],
)
def test_without_a_display_there_is_one_line_that_names_record(settings, monkeypatch, capfd):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--record") as error:
        open_window((640, 400))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("words", [["expert:rule"], ["--drive"], ["expert:rule", "--fast"]])
def test_play_ends_with_two(words, capsys):
    assert main(["play", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_display_no_training_is_started(tmp_path):
    assert main(["play", "--train", "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_a_program_of_its_own_ends_with_two_and_one_line():
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", "import sys; from lgdrl.cli import main; sys.exit(main(['play', 'expert:rule']))"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("driver", ["dummy", "offscreen"])
def test_a_driver_that_shows_nothing_runs_where_it_is_named(driver, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    open_window((640, 400))
    assert pygame.display.get_driver() == driver
