"""Shared pieces: scenes from a few numbers, a fallback that says what it did."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from experts.llm.prompt import example_scene
from experts.provider import Context, Decision, PolicyProvider

KEY = "test-key-0123456789abcdef"


class Fallback(PolicyProvider):
    """Always SLOWER; remembers what it was asked."""

    name = "spy"

    def __init__(self):
        self.asked = []

    def decide(self, contexts):
        self.asked += list(contexts)
        return [Decision(action=4) for _ in contexts]


def free_road(lane=1, speed=20.0, cars=(), goal=None, lanes=3):
    """A context on a road with `cars` rows of lane, dx, speed."""
    scene = example_scene({"lanes": lanes, "lane": lane, "speed": speed, "goal": goal, "cars": list(cars)})
    return Context(obs=np.zeros(1), action_space=gym.spaces.Discrete(5), scene=scene, legal=scene.legal)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return KEY


@pytest.fixture
def expert(key):
    """make(server, **options) -> LLMExpert with a spy as fallback and short times; closed at the end."""
    from experts.language_model import make
    from sim.config import deep_merge

    made = []

    def build(server, **options):
        base = {
            "model": "scripted",
            "fallback": Fallback(),
            "client": {
                "base_url": server.url,
                "retries": 0,
                "total_s": 20.0,
                "startup_s": 20.0,
                "backoff_s": 0.01,
                "breaker_failures": 100,
            },
        }
        made.append(make(deep_merge(base, options), "lane-change", 0))
        return made[-1]

    yield build
    for item in made:
        item.close()
