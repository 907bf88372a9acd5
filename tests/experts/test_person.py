"""The scripted person: another expert's keys, later."""

from __future__ import annotations

import time

import numpy as np
import pytest

from experts import registry
from lgdrl.profiler.scenes import stream
from sim.errors import UsageError


@pytest.fixture(scope="module")
def contexts():
    return [asked.context for asked in stream("lane-change", 64)]


def test_a_person_presses_the_keys_of_the_expert_that_they_think_like(contexts):
    person = registry.make("person", "lane-change", {"real_time": False}, 1)
    rule = registry.make("rule", "lane-change", {}, 1)
    assert [one.action for one in person.decide(contexts)] == [one.action for one in rule.decide(contexts)]


def test_reactions_are_drawn_by_scene_and_have_the_distribution_asked_for(contexts):
    person = registry.make("person", "lane-change", {"real_time": False, "reaction": "lognormal:0.5:1.0"}, 1)
    first = [one.latency_s for one in person.decide(contexts)]
    again = [person.decide([context])[0].latency_s for context in reversed(contexts)]
    assert first == again[::-1]
    observations = np.random.default_rng(0).normal(size=(4000, 8))
    drawn = [person.reaction_s(obs) for obs in observations]
    assert np.percentile(drawn, [50, 99]) == pytest.approx([0.5, 1.0], rel=0.05)


def test_a_person_takes_as_long_as_they_say(contexts):
    person = registry.make("person", "lane-change", {"reaction": "uniform:0.05:0.1"}, 1)
    begin = time.perf_counter()
    decisions = person.decide(contexts[:3])
    assert time.perf_counter() - begin >= max(one.latency_s for one in decisions) >= 0.05


@pytest.mark.parametrize(("options", "said"), [({"reaction": "soon"}, "soon"), ({"thinks_like": "nobody"}, "nobody")])
def test_bad_options_are_one_line(options, said):
    with pytest.raises(UsageError, match=said) as caught:
        registry.make("person", "lane-change", options, 0)
    assert "\n" not in str(caught.value)
