"""The collector: numbers episodes, knows legal actions and true successors, and stores steps when their labels came."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

import sim
from lgdrl.guidance.arbiters import Arbiter, LearnerDrives
from lgdrl.guidance.labelling import Labeller
from lgdrl.guidance.records import NO_STATUS, Execution, PolicySummary, Reason
from lgdrl.guidance.strategy import Strategy
from lgdrl.learners.collector import Collector, legal_actions
from tests.lgdrl.steps import OK

NUM = 3


class Scripted(VecEnv):
    """Environments of which nothing is computed: tests say what a step brings. Offers masks unless they are None."""

    def __init__(self, action_space: spaces.Space, masks: np.ndarray | None = None) -> None:
        self.masks = masks
        super().__init__(NUM, spaces.Box(-1, 999, (1,), np.float32), action_space)

    def has_attr(self, name):
        return name == "action_masks" and self.masks is not None

    def env_method(self, name, *args, indices=None, **kwargs):
        assert name == "action_masks"
        return list(self.masks)

    def get_attr(self, name, indices=None):
        return [None] * NUM  # SB3 asks for the render mode

    reset = step_async = step_wait = close = set_attr = env_is_wrapped = lambda self, *_, **__: None


class Proposes:
    """A learner with given proposals."""

    def __init__(self, proposals) -> None:
        self.proposals = np.array(proposals)
        self.calls = []

    def propose(self, obs, legal, warming_up):
        self.calls.append((obs.copy(), legal, warming_up))
        return self.proposals.copy(), PolicySummary()

    def values(self, obs, actions):
        return (obs[:, 0] + actions).astype(np.float32)


class Queue:
    """An advisor; its labels say in which call they were asked. Requests wait until they are collected."""

    def __init__(self) -> None:
        self.calls, self.waiting, self.begun = [], deque(), []

    def on_episode_start(self, episodes):
        self.begun += episodes.tolist()

    def label(self, env, context, rows):
        self.calls.append(("label", rows.tolist()))
        return self._labels(context, rows)

    def request(self, env, context, rows):
        self.calls.append(("request", rows.tolist()))
        self.waiting.append(self._labels(context, rows))

    def collect(self):
        self.calls.append(("collect",))
        return self.waiting.popleft()

    def _labels(self, context, rows):
        labels = context.no_labels()
        labels.given[rows], labels.status[rows] = True, OK
        labels.action[rows] = (context.decisions // NUM) % 5  # the step in which it was asked
        labels.probs[rows, (context.decisions // NUM) % 5] = 1.0
        return labels


class AllSteps(Labeller):
    def select(self, context):
        every = np.ones(context.num_envs, bool)
        return every, every


class FirstDriven(Arbiter):
    """The expert drives the first environment."""

    def requires(self, context, wanted, allowed):
        return np.arange(context.num_envs) == 0

    def decide(self, context, labels, allowed):
        return Execution.switched(context, labels, labels.given & (np.arange(NUM) == 0), Reason.OTHER)


FIVE, BOX = spaces.Discrete(5), spaces.Box(-1, 1, (2,), np.float32)
INFO = {"terminal_observation": np.array([99.0], np.float32)}


def collector(strategy=None, advisor=None, lag: int = 0, proposals=(0, 1, 2)) -> Collector:
    found = Collector(Proposes(proposals), strategy or Strategy(), advisor, lag)
    found.begin(NUM)
    return found


def take_step(found: Collector, env, number: int, dones=(), infos=None, rewards=(0.0, 0.0, 0.0)):
    """Step `number`: observations are its number, successors the next. Returns: what is ready to be stored."""
    found.act(env, np.full((NUM, 1), number, np.float32), number * NUM, False)
    ended = np.isin(np.arange(NUM), dones)
    infos = infos or [{} for _ in range(NUM)]
    next_obs = np.full((NUM, 1), number + 1, np.float32)
    return list(found.finish(env, next_obs, np.array(rewards), ended, infos))


# ---------------------------------------------------------------------------------------------------- episodes


def test_episodes_are_numbered_in_the_order_in_which_they_begin():
    found, env = collector(), Scripted(FIVE)
    seen = []
    for number, dones in enumerate([(), (1,), (), (0, 2), ()]):
        (stored,) = take_step(found, env, number, dones)
        seen.append((stored.episodes.tolist(), stored.steps.tolist()))
    assert seen == [
        ([0, 1, 2], [0, 0, 0]),
        ([0, 1, 2], [1, 1, 1]),
        ([0, 3, 2], [2, 0, 2]),
        ([0, 3, 2], [3, 1, 3]),
        ([4, 3, 5], [0, 2, 0]),
    ]
    found.begin(NUM)  # environments were reset: new episodes, no number twice
    (stored,) = take_step(found, env, 5)
    assert stored.episodes.tolist() == [6, 7, 8]


def test_the_advisor_receives_the_numbers_of_episodes_as_they_begin():
    advisor, env = Queue(), Scripted(FIVE)
    found = collector(advisor=advisor)
    for number, dones in enumerate([(), (1,), (0, 2)]):
        take_step(found, env, number, dones)
    assert advisor.begun == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.sets(st.integers(0, NUM - 1)), min_size=1, max_size=12))
@settings(max_examples=40)
def test_episode_and_step_name_every_transition_once(endings):
    found, env, seen = collector(), Scripted(FIVE), []
    for number, dones in enumerate(endings):
        (stored,) = take_step(found, env, number, tuple(dones))
        seen += zip(stored.episodes.tolist(), stored.steps.tolist(), strict=True)
    assert len(set(seen)) == len(seen)
    assert {episode for episode, _ in seen} <= set(range(NUM + sum(map(len, endings))))
    for episode, step in seen:
        assert step == 0 or (episode, step - 1) in seen


# --------------------------------------------------------------------------------------- what came of a step


def test_a_transition_says_what_was_known_done_and_seen():
    found, env = collector(), Scripted(FIVE)
    (stored,) = take_step(found, env, 7, rewards=(0.5, -1.0, 2.0))
    assert stored.obs.tolist() == [[7]] * NUM
    assert stored.next_obs.tolist() == [[8]] * NUM
    assert stored.actions.tolist() == stored.learner_actions.tolist() == [0, 1, 2]
    assert stored.rewards.dtype == np.float32
    assert stored.rewards.tolist() == [0.5, -1.0, 2.0]
    assert not stored.dones.any()
    assert stored.labels.status.tolist() == [NO_STATUS] * NUM


def test_successors_of_ended_episodes_are_their_terminal_observations():
    infos = [{}, INFO, INFO | {"TimeLimit.truncated": True}]
    (stored,) = take_step(collector(), Scripted(FIVE), 0, (1, 2), infos)
    assert stored.next_obs.tolist() == [[1], [99], [99]]
    assert stored.terminated.tolist() == [False, True, False]
    assert stored.truncated.tolist() == [False, False, True]


def test_legal_actions_of_the_successor_are_those_of_the_terminal_state():
    masks = np.array([[True, True, True, True, False]] * NUM)
    terminal = np.array([False, False, True, False, False])
    infos = [{}, INFO | {"terminal_action_mask": terminal}, INFO]
    (stored,) = take_step(collector(), Scripted(FIVE, masks), 0, (1, 2), infos)
    assert stored.legal.tolist() == masks.tolist()
    assert stored.next_legal.tolist() == [masks[0].tolist(), terminal.tolist(), [True] * 5]  # not named: all


def test_the_observations_given_to_finish_are_left_alone():
    found, env = collector(), Scripted(FIVE)
    found.act(env, np.zeros((NUM, 1), np.float32), 0, False)
    next_obs = np.zeros((NUM, 1), np.float32)
    list(found.finish(env, next_obs, np.zeros(NUM), np.ones(NUM, bool), [INFO] * NUM))
    assert not next_obs.any()


# ----------------------------------------------------------------------------------------------------- legality


def test_without_masks_all_discrete_actions_are_legal_and_continuous_ones_have_none():
    assert legal_actions(Scripted(FIVE)).tolist() == [[True] * 5] * NUM
    assert legal_actions(Scripted(BOX)) is None


def test_the_learner_proposes_among_the_legal_actions_and_knows_whether_it_warms_up():
    masks = np.eye(5, dtype=bool)[[0, 1, 2]]
    found, env = collector(), Scripted(FIVE, masks)
    for warming_up in (True, False):
        found.act(env, np.zeros((NUM, 1), np.float32), 0, warming_up)
        _, legal, passed_on = found.learner.calls[-1]
        assert legal.tolist() == masks.tolist()
        assert passed_on == warming_up


def test_an_environment_without_a_legal_action_is_named():
    masks = np.ones((NUM, 5), bool)
    masks[1] = False
    with pytest.raises(ValueError, match=r"environments \[1\] offer no legal action"):
        collector().act(Scripted(FIVE, masks), np.zeros((NUM, 1), np.float32), 0, False)


def test_a_strategy_that_executes_an_illegal_action_is_named():
    masks = np.ones((NUM, 5), bool)
    masks[2, 2] = False
    with pytest.raises(ValueError, match=r"strategy 'daring' executed an illegal action in environments \[2\]"):
        collector(Strategy("daring")).act(Scripted(FIVE, masks), np.zeros((NUM, 1), np.float32), 0, False)


def test_continuous_actions_pass_without_masks():
    found = collector(proposals=[[0.1, 0.2]] * NUM)
    (stored,) = take_step(found, Scripted(BOX), 0)
    assert stored.legal is None
    assert stored.next_legal is None
    assert stored.actions.shape == (NUM, 2)


# --------------------------------------------------------------------------------------------------- the context


def test_the_context_knows_decisions_episodes_and_values():
    class Looks(Strategy):
        def on_action(self, context):
            self.context = context
            return super().on_action(context)

    strategy, env = Looks(), Scripted(FIVE)
    found = collector(strategy)
    take_step(found, env, 0, (1,))
    found.act(env, np.full((NUM, 1), 10, np.float32), 3, False)
    context = strategy.context
    assert context is found.context
    assert context.decisions == 3
    assert context.episodes.tolist() == [0, 3, 2]
    assert context.steps.tolist() == [1, 0, 1]
    assert context.values(np.array([1, 0, 4])).tolist() == [11, 10, 14]
    assert context.scenes(np.array([0, 1])) == [None, None]
    assert context.views(np.array([0])) is None


def test_scenes_views_and_masks_are_found_behind_wrappers():
    envs = sim.make_vec("lane-change", NUM, seed=0)
    wrapped = VecMonitor(envs)
    obs = wrapped.reset()
    found = collector(proposals=np.argmax(envs.action_masks(), axis=1))
    found.act(wrapped, obs, 0, False)
    assert found.context.legal.tolist() == np.array(envs.action_masks()).tolist()
    assert not found.context.legal.all()  # the leftmost lane has no lane to its left
    (scene,) = found.context.scenes(np.array([1]))
    assert scene.ego.s == envs.scenes([1])[0].ego.s
    assert len(found.context.views(np.array([0, 2])).rows) == 2
    envs.close()


# -------------------------------------------------------------------------------------------------------- labels


def guided(arbiter: Arbiter | None = None) -> Strategy:
    return Strategy("guided", AllSteps(), arbiter or LearnerDrives())


def test_without_lag_every_label_is_asked_once_and_waited_for():
    advisor = Queue()
    (stored,) = take_step(collector(guided(FirstDriven()), advisor), Scripted(FIVE), 1)
    assert advisor.calls == [("label", [True] * NUM)]
    assert stored.labels.action.tolist() == [1, 1, 1]
    assert stored.actions.tolist() == [1, 1, 2]


def test_with_lag_executed_labels_are_waited_for_and_the_others_requested():
    advisor = Queue()
    assert not take_step(collector(guided(FirstDriven()), advisor, lag=2), Scripted(FIVE), 0)
    assert advisor.calls == [("label", [True, False, False]), ("request", [False, True, True])]


def test_steps_are_stored_in_order_when_their_labels_came():
    advisor, env = Queue(), Scripted(FIVE)
    found = collector(guided(FirstDriven()), advisor, lag=2)
    stored = [take_step(found, env, number) for number in range(5)]
    assert [[int(each.obs[0, 0]) for each in ready] for ready in stored] == [[], [], [0], [1], [2]]
    assert [int(each.obs[0, 0]) for each in found.ready()] == [3, 4]
    assert not advisor.waiting
    assert not list(found.ready())


def test_labels_reach_the_step_that_asked_for_them_whole():
    advisor, env = Queue(), Scripted(FIVE)
    found = collector(guided(FirstDriven()), advisor, lag=3)
    stored = [each for number in range(6) for each in take_step(found, env, number, (1,) if number % 2 else ())]
    stored += found.ready()
    for number, each in enumerate(stored):
        assert each.labels.given.all()
        assert each.labels.action.tolist() == [number % 5] * NUM
        assert each.labels.probs.argmax(axis=1).tolist() == [number % 5] * NUM
        assert each.actions.tolist() == [number % 5, 1, 2]  # what came later changed nothing
        assert each.authority.tolist() == [1, 0, 0]


def test_strategies_change_what_is_kept_after_its_labels_came():
    class CountsLabels(Strategy):
        def on_store(self, transitions):
            return dataclasses.replace(transitions, rewards=transitions.labels.given.astype(np.float32))

    strategy = CountsLabels("counts", AllSteps(), FirstDriven())
    found, env = collector(strategy, Queue(), lag=1), Scripted(FIVE)
    take_step(found, env, 0)
    (stored,) = take_step(found, env, 1)
    assert stored.rewards.tolist() == [1.0] * NUM


def test_a_step_that_asks_nothing_waits_its_turn_but_for_no_label():
    class Alternating(AllSteps):
        def select(self, context):
            every = np.full(context.num_envs, context.decisions % (2 * NUM) == 0)
            return every, every

    advisor, env = Queue(), Scripted(FIVE)
    found = collector(Strategy("odd", Alternating(), LearnerDrives()), advisor, lag=1)
    stored = [each for number in range(4) for each in take_step(found, env, number)] + list(found.ready())
    assert [int(each.obs[0, 0]) for each in stored] == [0, 1, 2, 3]
    assert [each.labels.given.all() for each in stored] == [True, False, True, False]
    assert [call[0] for call in advisor.calls].count("collect") == 2


def test_without_an_advisor_there_are_no_labels():
    strategy = Strategy("guided", AllSteps(), LearnerDrives())
    (stored,) = take_step(collector(strategy), Scripted(FIVE), 0)
    assert not stored.labels.given.any()


def test_observations_that_the_environment_overwrites_stay_those_of_their_step():
    found, env = collector(guided(), Queue(), lag=1), Scripted(FIVE)
    obs = np.zeros((NUM, 1), np.float32)
    for number in range(3):
        obs[:] = number
        found.act(env, obs, number * NUM, False)
        ready = list(found.finish(env, obs + 1, np.zeros(NUM), np.zeros(NUM, bool), [{}] * NUM))
        assert [int(each.obs[0, 0]) for each in ready] == ([number - 1] if number else [])


def test_a_restored_collector_has_its_numbers_and_the_steps_that_wait():
    advisor, env = Queue(), Scripted(FIVE)
    found = collector(guided(FirstDriven()), advisor, lag=2)
    for number, dones in enumerate([(), (0,)]):
        take_step(found, env, number, dones)
    resumed = Collector(found.learner, found.strategy, copy.deepcopy(advisor), 2)
    resumed.load_state_dict(found.state_dict())
    for each in (found, resumed):
        (stored,) = take_step(each, env, 2, (2,))
        assert stored.obs[0, 0] == 0
        assert stored.labels.given.all()
        assert take_step(each, env, 3)[0].episodes.tolist() == [0, 1, 2]
    assert resumed.context.episodes.tolist() == found.context.episodes.tolist() == [3, 1, 4]
