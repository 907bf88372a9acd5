"""The contract of experts: what a subclass may leave out, and the documented example."""

from __future__ import annotations

import textwrap

import pytest

import experts.provider
import sim
from experts import registry
from experts.driving import run_episodes
from experts.provider import Decision, PolicyProvider, check_needs
from sim.errors import UsageError

NAMES = ["rule", "thresholds", "idm", "search", "random", "idle", "slower", "faster", "person"]


class Minimal(PolicyProvider):
    name = "minimal"

    def decide(self, contexts):
        return [Decision(action=1) for _ in contexts]


def test_a_name_and_decide_are_enough():
    with Minimal() as expert:
        assert expert.metrics() == expert.state_dict() == {}
        expert.load_state_dict({})
        expert.on_episode_start([0])
        expert.interrupt()
    assert (expert.needs, expert.concurrent, expert.note, expert.endpoint) == (frozenset(), False, "", None)


def test_without_decide_it_is_no_provider():
    class Undecided(PolicyProvider):
        name = "undecided"

    with pytest.raises(TypeError, match="decide"):
        Undecided()


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_expert_keeps_the_contract_and_says_what_it_needs(name):
    with registry.make(name, "lane-change") as expert:
        assert isinstance(expert, PolicyProvider)
        assert expert.name == name
        needed = {"random": set(), "search": {"scene", "branch"}}.get(name, {"scene"})
        assert expert.needs == needed
        state = expert.state_dict()
        assert not state or name in ("random", "person"), "only these draw"
        expert.load_state_dict(state)
        assert expert.state_dict() == state


def test_the_documented_example_drives():
    text = experts.provider.__doc__
    code = text[text.index("    from experts.provider") : text.index("with an entry point")]
    module = {}
    exec(textwrap.dedent(code), module)
    with module["make"]({"distance": 40.0}, "lane-change", 0) as expert:
        episodes = run_episodes(sim.make_vec("lane-change", 2), expert, [1, 2])
    assert [episode["undecided"] for episode in episodes] == [0, 0]


def test_a_run_that_cannot_give_what_an_expert_needs_says_so_in_one_line():
    search = registry.make("search", "lane-change")
    check_needs(search, frozenset({"scene", "branch"}), "lane-change")
    with pytest.raises(
        UsageError, match="'search' needs exact copies of the environment, which scenario 'x'"
    ) as caught:
        check_needs(search, frozenset({"scene"}), "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="'rule' needs driving scenes"):
        check_needs(registry.make("rule", "lane-change"), frozenset(), "gym:CartPole-v1")
    check_needs(Minimal(), frozenset(), "gym:CartPole-v1")
