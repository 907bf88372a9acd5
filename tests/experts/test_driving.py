"""`run_episodes`: one episode per seed, in order, whatever the batch size."""

import numpy as np
import pytest

import sim
from experts.driving import contexts_of, idle_actions, run_episodes
from experts.provider import Decision, PolicyProvider, Status
from experts.rules.provider import RuleExpert


@pytest.fixture(scope="module")
def envs():
    return sim.make_vec("lane-change", num_envs=4, seed=0)


def test_batch_size_does_not_matter(envs):
    seeds = [5, 1, 9, 3, 3, 8]
    alone = sim.make_vec("lane-change", num_envs=1, seed=99)
    together, one_by_one = run_episodes(envs, RuleExpert(), seeds), run_episodes(alone, RuleExpert(), seeds)
    assert together == one_by_one
    assert [episode["seed"] for episode in together] == seeds


def test_equals_a_single_environment(envs):
    env = sim.make("lane-change")
    env.reset(seed=21)
    done, info = False, {}
    while not done:
        _, _, done, _, info = env.step(int(env.action_masks().argmax()))
    (episode,) = run_episodes(envs, lambda obs, masks, contexts, running: masks[running].argmax(axis=1), [21])
    assert episode == {"seed": 21, **info["summary"], "undecided": 0}


def test_no_seeds(envs):
    assert run_episodes(envs, RuleExpert(), []) == []


def test_only_running_environments_are_asked(envs):
    asked = []

    def actor(obs, masks, contexts, running):
        asked.append(len(running))
        assert obs.shape[0] == masks.shape[0] == envs.num_envs
        return np.ones(len(running), int)

    episodes = run_episodes(envs, actor, [1, 2, 3])
    assert asked == sorted(asked, reverse=True)
    assert sum(asked) == sum(episode["steps"] for episode in episodes)


def test_failed_decisions_are_counted_and_idle(envs):
    class Silent(PolicyProvider):
        name = "silent"

        def decide(self, contexts):
            return [Decision(action=None, status=Status.FAILED) for _ in contexts]

    idle = run_episodes(envs, lambda obs, masks, contexts, running: np.ones(len(running), int), [4])
    (silent,) = run_episodes(envs, Silent(), [4])
    assert silent["undecided"] == silent["steps"]
    assert silent["episode_return"] == idle[0]["episode_return"]


def test_contexts_branch_from_their_own_environment(envs):
    obs = envs.reset_to([1, 2, 3, 4])
    requests = contexts_of(envs, obs, envs.action_masks(), [2, 0])
    plans = np.ones((1, 1), int)
    for request, i in zip(requests, (2, 0), strict=True):
        assert (request.obs == obs[i]).all()
        assert request.branch(plans).final.tolist() == envs.branch(i, plans).final.tolist()


def test_dummy_actions_are_legal():
    masks = np.array([[True, False, True, True, True], [False, True, False, False, False]])
    assert idle_actions(sim.make("lane-change").action_space, masks).tolist() == [0, 1]


def test_an_expert_hears_of_every_episode_before_its_first_context(envs):
    class Counting(PolicyProvider):
        name = "counting"

        def __init__(self):
            self.begun, self.seen = [], set()

        def on_episode_start(self, episodes):
            self.begun += episodes

        def decide(self, contexts):
            self.seen |= {context.episode for context in contexts}
            assert self.seen <= set(self.begun)
            return [Decision(action=1) for _ in contexts]

    expert = Counting()
    seeds = range(envs.num_envs + 1)
    run_episodes(envs, expert, seeds)
    assert expert.begun == sorted(expert.seen) == list(seeds)
