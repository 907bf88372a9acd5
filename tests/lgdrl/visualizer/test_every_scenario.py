"""Every scenario that `lgdrl list` shows can be driven, watched, filmed and evaluated; what cannot fit says so."""

import itertools
from types import SimpleNamespace

import numpy as np
import pygame
import pytest
from gymnasium import spaces

import sim
from experts.data.episodes import load_episodes
from experts.human import Hands, HeldInput
from lgdrl.cli import main
from lgdrl.config import load_config
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.clock import VirtualClock
from lgdrl.visualizer.command import play_session
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.drivers import watched_expert
from lgdrl.visualizer.film import frames
from sim.actions import MetaAction
from sim.errors import UsageError

HERE = [each for each in sim.scenarios.registry().values() if "highway-env" in each.backends]
SERVED = [each for each in sim.scenarios.registry().values() if each.driving and "highway-env" not in each.backends]
CONTINUOUS = [each.name for each in HERE if each.actions == "continuous"]


def driven(scenario, expert, decisions=2):
    config = load_config(None, {"scenario": scenario, "expert": expert}).driven()
    session = watched_expert(config)
    session.begin(0)
    for _ in range(decisions):
        session.ask_expert()
        session.act()
    return session


@pytest.mark.parametrize("expert", ["idle", "random"])
@pytest.mark.parametrize("scenario", [each.name for each in HERE])
def test_an_expert_drives_and_is_filmed_in_every_scenario(scenario, expert):
    session = driven(scenario, expert)
    space = session.env.action_space
    assert all(space.contains(turn.action) for turn in session.track.turns)
    assert {turn.expert_status for turn in session.track.turns} == {"ok"}
    pictures = list(itertools.islice(frames(session.track), 2))
    assert np.std(pictures[-1]) > 1
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [each.name for each in SERVED if "carla-lite" in each.backends])
def test_an_expert_drives_and_is_filmed_in_every_served_scenario(scenario):
    pytest.importorskip("carla")
    session = driven(scenario, "idle")
    assert len(list(itertools.islice(frames(session.track), 2))) == 2
    session.close()


@pytest.mark.parametrize("scenario", CONTINUOUS)
def test_a_person_drives_every_continuous_scenario_with_pedals_and_steering(scenario, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    hands = Hands()
    arguments = SimpleNamespace(expert=None, drive=True)
    session = play_session(None, arguments, {"scenario": scenario}, hands)
    open_window((640, 400))
    app = App([session], WindowOptions(draw_every=10), keymap(), VirtualClock(), None)
    hands.press("key", HeldInput(MetaAction.FASTER, throttle=1.0, steering=0.4), 0.0)
    while app.length < 2 and not app.over:
        app.frame()
    action = session.track.turns[0].action
    assert action[-1] == pytest.approx(0.4)
    assert session.env.action_space.contains(action)
    assert app.panes[0].state_at(0.5, app.panes[0].scene_at(0.5)).control is action
    app.close()
    pygame.display.quit()


@pytest.mark.parametrize("scenario", ["racetrack-v0", "intersection-v1"])
def test_evaluate_reports_continuous_scenarios(scenario, capsys):
    assert main(["evaluate", "--expert", "random", "--scenario", scenario, "--episodes", "1"]) == 0
    assert "return" in capsys.readouterr().out


def test_a_continuous_episode_is_filmed_kept_and_replayed(tmp_path, capsys):
    film, kept = tmp_path / "drive.gif", tmp_path / "kept"
    words = ["play", "expert:random", "--scenario", "intersection-v1", "--record", str(film), "--save", str(kept)]
    assert main([*words, "--size", "320x160", "--pace", "16"]) == 0
    assert film.stat().st_size > 1000
    (episode,) = load_episodes(kept)
    assert all(turn.action.shape == (2,) for turn in episode.turns)


@pytest.mark.parametrize("expert", ["rule", "thresholds", "idm", "slower", "faster", "person"])
def test_experts_of_meta_actions_are_refused_by_what_would_fit(expert, capsys):
    assert main(["evaluate", "--expert", expert, "--scenario", "parking-v0", "--episodes", "1"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "idle, random" in said


def test_a_config_that_makes_actions_continuous_is_refused_by_rules_and_driven_by_chance(capsys):
    words = [
        "--scenario",
        "highway-fast-v0",
        "--episodes",
        "1",
        "scenario_config.action.type=ContinuousAction",
    ]
    assert main(["evaluate", "--expert", "rule", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["evaluate", "--expert", "random", *words]) == 0


def test_a_scripted_person_has_no_keys_for_continuous_actions(monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert main(["play", "--drive", "--scripted-person", "idle", "--scenario", "parking-v0"]) == 2
    assert "continuous" in capsys.readouterr().err
    pygame.display.quit()


def test_chance_does_not_draw_from_an_unbounded_space():
    from experts import registry
    from experts.provider import Context

    expert = registry.make("random", "parking-v0")
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert expert.decide([Context(np.zeros(1), space)])[0].action is None


def test_the_list_marks_action_types(tmp_path):
    import json

    path = tmp_path / "list.json"
    assert main(["list", "scenarios", "--json", str(path)]) == 0
    kinds = {row["name"]: row["actions"] for row in json.loads(path.read_text())["scenarios"]}
    assert (kinds["parking-v0"], kinds["lane-change"], kinds["intersection-v0"]) == (
        "continuous",
        "meta",
        "longitudinal",
    )


def test_unknown_scenarios_are_refused_before_anything_is_made():
    with pytest.raises(UsageError, match="did you mean"):
        load_config(None, {"scenario": "parkin-v0"}).driven()
