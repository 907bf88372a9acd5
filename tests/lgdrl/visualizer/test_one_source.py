"""Numbers of one picture do not contradict each other: each has one source, the scene that is drawn."""

import re

import numpy as np
import pygame
import pytest

import sim
from experts import registry
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.clock import VirtualClock
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.session import DriveSession
from sim.render import interpolate
from sim.render.text import Typist
from tests.experts.expert_scenes import make_scene

DRIVEN = [
    "lane-change",
    "intersection-v0",
    "highway-fast-v0",
    "merge-v0",
    "roundabout-v0",
    "parking-v0",
    "racetrack-v0",
]


@pytest.fixture
def written(monkeypatch):
    """Words in the order in which they are drawn."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    words = []
    text = Typist.text

    def spy(self, said, *args, **kwargs):
        words.append(said)
        return text(self, said, *args, **kwargs)

    monkeypatch.setattr(Typist, "text", spy)
    yield words
    pygame.display.quit()


def app_of(scenario):
    env = sim.make(scenario)
    expert = registry.make("rule", scenario) if hasattr(env.action_space, "n") else None
    open_window((1280, 720))
    session = DriveSession(env, None, expert, "expert" if expert else "human", None, "test")
    return App([session], WindowOptions(draw_every=10**9), keymap(), VirtualClock(), None)


def numbers(app, words, head):
    """(speeds, times to collision) of one picture."""
    words.clear()
    app.playback.head = head
    app.draw()
    header = next(k for k, said in enumerate(words) if said == "m/s")
    speeds = [float(words[header - 2])] + [float(said[:-4]) for said in words if re.fullmatch(r"[\d.]+ m/s", said)]
    on_the_road = [float(found[1]) for said in words if (found := re.search(r"TTC ([\d.]+) s", said))]
    panel = words.index("TIME TO COLLISION AHEAD") + 1 if "TIME TO COLLISION AHEAD" in words else 0
    in_the_panel = re.fullmatch(r"([\d.]+) s", words[panel])
    return speeds, on_the_road, None if in_the_panel is None else float(in_the_panel[1])


@pytest.mark.parametrize("scenario", DRIVEN)
def test_header_road_and_panel_say_the_same_at_every_moment(scenario, written):
    app = app_of(scenario)
    app.playback.pace = 16.0
    while app.length < 6 and not app.over:
        app.frame()
    app.playback.paused = True
    told = 0
    for head in np.arange(0.0, app.length + 0.01, 0.25):
        speeds, ttcs, panel = numbers(app, written, float(head))
        assert len(speeds) == 2
        assert speeds[0] == speeds[1], head
        assert set(ttcs) == ({panel} - {None}), head
        told += panel is not None
    assert told or scenario not in ("highway-fast-v0", "merge-v0")
    app.close()


def test_the_curves_end_where_the_playhead_is(written):
    app = app_of("lane-change")
    while app.length < 3:
        app.frame()
    for head in (0.0, 1.5, float(app.length)):
        scene = app.panes[0].scene_at(head)
        speed = app.panes[0].state_at(head, scene).curves[0]
        assert (speed.head, speed.now) == (head, scene.ego.speed)
    assert app.panes[0].scene_at(float(app.length)) is app.panes[0].session.track.last.scene
    app.close()


def test_between_two_roads_places_along_the_road_are_not_mixed():
    before = make_scene([(1, 20.0, 20.0), (1, -30.0, 20.0)], lane=1)
    after = make_scene([(0, 30.0, 20.0), (0, -30.0, 20.0)], lane=0, lanes=1)
    object.__setattr__(after, "time", before.time + 0.5)
    for share, road in ((0.4, before), (0.6, after)):
        between = interpolate(before, after, share)
        front = between.front(between.ego.lane)
        assert front.gap == pytest.approx(road.front(road.ego.lane).gap)
        assert between.lane_centers == road.lane_centers


def test_where_nothing_ahead_is_shown_in_the_header_nothing_is_shown_in_the_panel(written):
    app = app_of("parking-v0")
    app.draw()
    assert "AHEAD" not in written
    assert "TIME TO COLLISION AHEAD" not in written
    app.close()
