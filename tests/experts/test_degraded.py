"""`degraded:NAME`: without faults it is the expert itself; each fault is as large as it says, seeded and resumable."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

import sim
from experts import registry
from experts.degraded import Degraded, DegradedConfig
from experts.driving import run_episodes
from experts.provider import Context, Decision, PolicyProvider, Status
from sim.errors import UsageError

BOX, MOVES = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64), spaces.Discrete(4)


class Counting(PolicyProvider):
    """The step as the action; remembers what happened to it."""

    name = "counting"

    def __init__(self, space):
        self.space, self.events = space, []

    def decide(self, contexts):
        if isinstance(self.space, spaces.Box):
            return [Decision(np.array([0.0, 2.0], np.float32), reason="middle") for _ in contexts]
        return [Decision(c.step % 4, probs=np.eye(4)[c.step % 4]) for c in contexts]

    def on_episode_start(self, episodes):
        self.events.append(list(episodes))

    def state_dict(self):
        return {"asked": 3}

    def load_state_dict(self, state):
        self.events.append(state)

    def close(self):
        self.events.append("closed")


def degraded(space, seed=0, **faults):
    return Degraded(Counting(space), DegradedConfig(**faults), seed)


def drive(expert, space, steps=4000, episode=0, legal=None):
    found = []
    for step in range(steps):
        found += expert.decide([Context(np.zeros(1), space, episode=episode, step=step, legal=legal)])
    return found


def test_without_faults_it_is_the_expert_itself():
    scenario = "gym:Pendulum-v1"
    envs = sim.make_vec(scenario, 2, seed=0)
    names = ("swing-up", "degraded:swing-up", "degraded:degraded:swing-up")
    runs = [run_episodes(envs, registry.make(name, scenario), [3, 4]) for name in names]
    envs.close()
    assert runs[0] == runs[1] == runs[2]


def test_noise_is_gaussian_in_halves_of_the_range_and_stays_inside_it():
    actions = np.stack([decision.action for decision in drive(degraded(BOX, noise=0.1), BOX)])
    assert actions.std(axis=0) == pytest.approx([0.1, 0.2], rel=0.05)
    assert actions.mean(axis=0) == pytest.approx([0.0, 2.0], abs=0.02)
    actions = np.stack([decision.action for decision in drive(degraded(BOX, noise=3.0), BOX, 200)])
    assert (actions >= BOX.low).all()
    assert (actions <= BOX.high).all()


def test_epsilon_is_the_share_of_random_actions_and_of_the_distribution():
    legal = np.array([True, True, False, True])
    expert = degraded(MOVES, epsilon=0.3)
    context = Context(np.zeros(1), MOVES, step=1, legal=legal)
    decisions = expert.decide([context] * 4000)
    shares = np.bincount([decision.action for decision in decisions], minlength=4) / 4000
    assert shares == pytest.approx([0.1, 0.8, 0.0, 0.1], abs=0.02)
    assert decisions[0].probs == pytest.approx([0.1, 0.8, 0.0, 0.1])
    actions = np.stack([decision.action for decision in drive(degraded(BOX, epsilon=0.5), BOX)])
    assert (actions != [0.0, 2.0]).any(axis=1).mean() == pytest.approx(0.5, abs=0.03)


def test_skill_is_the_share_of_episodes_that_the_expert_decides():
    expert = degraded(BOX, skill=0.6)
    skilled = []
    for episode in range(1000):
        actions = np.stack([decision.action for decision in drive(expert, BOX, 3, episode)])
        own = (actions == [0.0, 2.0]).all(axis=1)
        assert own.all() or not own.any()
        skilled.append(own.all())
    assert np.mean(skilled) == pytest.approx(0.6, abs=0.002)
    assert all(5 <= sum(skilled[k : k + 10]) <= 7 for k in range(990))
    again = [(drive(degraded(BOX, skill=0.6), BOX, 1, k)[0].action == [0.0, 2.0]).all() for k in range(50)]
    assert again == skilled[:50]


def test_lag_gives_the_action_of_that_many_decisions_ago():
    found = drive(degraded(MOVES, lag=3), MOVES, 10)
    assert [decision.action for decision in found] == [max(step - 3, 0) % 4 for step in range(10)]
    legal = np.array([True, False, True, True])
    statuses = [decision.status for decision in drive(degraded(MOVES, lag=3), MOVES, 6, legal=legal)]
    assert statuses == [Status.OK] * 4 + [Status.FAILED, Status.OK]


def test_lag_keeps_episodes_apart_and_forgets_them_when_they_begin_anew():
    expert = degraded(MOVES, lag=2)
    for step in range(5):
        pair = expert.decide([Context(np.zeros(1), MOVES, episode=k, step=step + k) for k in (0, 1)])
    assert [decision.action for decision in pair] == [2, 3]
    expert.on_episode_start([0])
    assert expert.decide([Context(np.zeros(1), MOVES, episode=0, step=1)])[0].action == 1


def test_delay_is_latency_only():
    (decision,) = drive(degraded(BOX, delay="uniform:0.2:0.3"), BOX, 1)
    assert 0.2 <= decision.latency_s <= 0.3
    assert decision.action.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("space", [BOX, MOVES], ids=["continuous", "discrete"])
def test_it_continues_from_its_state(space):
    faults = {"epsilon": 0.5, "lag": 2, "delay": "uniform:0:1"} | ({"noise": 0.3} if space is BOX else {})
    one, other = degraded(space, **faults), degraded(space, seed=9, **faults)
    drive(one, space, 7)
    other.load_state_dict(one.state_dict())
    context = Context(np.zeros(1), space, step=7)
    first, second = (expert.decide([context])[0] for expert in (one, other))
    assert np.array_equal(first.action, second.action)
    assert first.latency_s == second.latency_s
    assert other.expert.events == [{"asked": 3}]


def test_episodes_and_closing_reach_the_expert():
    expert = degraded(BOX)
    with expert:
        expert.on_episode_start([4, 5])
    assert expert.expert.events == [[4, 5], "closed"]


def test_mean_returns_of_any_share_of_the_experts_can_be_reached():
    scenario = "gym:InvertedPendulum-v5"
    pytest.importorskip("mujoco")
    envs = sim.make_vec(scenario, 20, seed=0, config={"options": {"max_episode_steps": 100}})
    with registry.make("degraded:lqr", scenario, {"skill": 0.3}, seed=1) as expert:
        found = run_episodes(envs, expert, range(40))
        skilled = [expert._skilled(episode) for episode in range(40)]
    envs.close()
    values = np.array([episode["episode_return"] for episode in found])
    assert (values == 100).tolist() == skilled
    assert values.mean() == pytest.approx(30, abs=8)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("degraded", {}, "name the expert that is made worse"),
        ("degraded:lqrr", {}, "unknown expert 'lqrr': did you mean 'lqr'"),
        ("degraded:swing-up", {"skill": 1.5}, r"degraded\.skill = 1.5"),
        ("degraded:swing-up", {"delay": "soon"}, "delay 'soon'"),
        ("degraded:swing-up", {"options": {"energi": 1}}, "unknown key in swing-up 'energi'"),
    ],
)
def test_what_cannot_be_made_is_one_line(name, options, words):
    with pytest.raises(UsageError, match=words) as error:
        registry.make(name, "gym:Pendulum-v1", options)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused():
    noisy = registry.make("degraded:random", "gym:CartPole-v1", {"noise": 0.5})
    with pytest.raises(UsageError, match=r"degraded\.noise = 0.5: .* set epsilon instead"):
        noisy.check_spaces(spaces.Box(-1, 1, (4,)), spaces.Discrete(2), "gym:CartPole-v1")
    inner = registry.make("degraded:swing-up", "gym:Pendulum-v1")
    with pytest.raises(UsageError, match="expert 'swing-up' takes observations"):
        inner.check_spaces(spaces.Box(-1, 1, (4,)), spaces.Box(-2, 2, (1,)), "there")
