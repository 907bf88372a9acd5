"""The adapter's contract on a server that runs: `CARLA_SERVER=HOST:PORT pytest -m carla_server`.

It is the only evidence about Unreal's physics that this project can get: it was never run on a real server here. The
responses to pedals and steering are written to carla_responses.json; please attach it to a report.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import sim
from experts import registry
from experts.provider import Context
from sim.actions import MetaAction

pytestmark = pytest.mark.carla_server
RESPONSES = Path("carla_responses.json")
LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = MetaAction


@pytest.fixture
def backend() -> str:
    address = os.environ.get("CARLA_SERVER")
    if not address:
        pytest.skip("name a running server: CARLA_SERVER=HOST:PORT")
    return f"carla@{address}"


@pytest.fixture
def make(backend):
    envs = []

    def build(scenario, config):
        envs.append(sim.make(scenario, backend, config))
        return envs[-1]

    yield build
    for env in envs:
        env.close()


def test_lanes_and_speeds_are_reached(make):
    env = make("lane-change", {"density": [1, 1], "ahead": 1, "behind": 1})
    env.reset(seed=0)
    for action in [LANE_RIGHT, *[IDLE] * 8, *[SLOWER] * 4, *[IDLE] * 8]:
        env.step(int(action))
    ego = env.scene().ego
    assert ego.lane == 1
    assert abs(ego.d - 4.0) < 0.5
    assert ego.speed == pytest.approx(env.scene().set_points[ego.speed_index], abs=1.0)


def test_an_episode_repeats_itself(make):
    env = make("lane-change", {"density": [8, 8]})
    ends = []
    for _ in range(2):
        env.reset(seed=3)
        for _ in range(10):
            obs = env.step(int(IDLE))[0]
        ends.append(obs)
    assert ends[0] == pytest.approx(ends[1], abs=1e-2)


@pytest.mark.parametrize("scenario", ["carla-highway", "carla-merge"])
def test_the_rule_drives_through(make, scenario):
    env = make(scenario, {})
    rule = registry.make("rule", scenario, {}, 0)
    env.reset(seed=1)
    ended = False
    while not ended:
        scene = env.scene()
        request = Context(obs=None, action_space=env.action_space, scene=scene, legal=scene.legal)
        _, _, terminated, truncated, info = env.step(rule.decide([request])[0].action)
        ended = terminated or truncated
    assert info["outcome"] == "success"


def test_running_into_a_car_is_reported(make):
    env = make("lane-change", {"density": [25, 25]})
    env.reset(seed=3)
    for _ in range(60):
        _, _, terminated, _, info = env.step(int(FASTER))
        if terminated:
            break
    assert info["outcome"] == "crash"


def test_responses_to_pedals_and_steering_are_recorded(make, backend):
    """Speed and heading after each 0.1 s of full throttle, full brake and a steering step."""
    env = make("carla-highway", {"action": "continuous", "traffic": "none", "policy_frequency": 10, "duration": 60})
    found = {"server": backend}
    for name, action in {"throttle": (1.0, 0.0), "brake": (-1.0, 0.0), "steer": (0.2, 0.05)}.items():
        env.reset(seed=0)
        rows = []
        for _ in range(40):
            _, _, terminated, truncated, _ = env.step(np.array(action))
            ego = env.scene().ego
            rows.append([round(ego.speed, 3), round(float(np.degrees(ego.heading)), 3), round(ego.acceleration, 3)])
            if terminated or truncated:
                break
        found[name] = rows
    found["backend"] = env.backend
    RESPONSES.write_text(json.dumps(found))
    assert found["throttle"][10][0] > found["throttle"][0][0]
    assert found["brake"][10][0] < found["brake"][0][0]
