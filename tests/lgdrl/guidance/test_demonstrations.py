"""Recorded demonstrations are in the replay before the first decision, once, and teach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import sim
from experts import registry
from experts.data.collection import Plan, Policy, collect
from experts.data.demonstrations import demonstrations_in, demonstrations_of
from experts.data.episodes import Episode, save_episode
from experts.data.labelling import label_states
from experts.data.sources import load_demonstrations
from experts.data.transition_files import save_transitions
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.guidance.demonstrations import transitions_of
from lgdrl.guidance.records import STATUSES
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.errors import UsageError
from tests.recordings import drive

SMALL = {
    "steps": 240,
    "num_envs": 8,
    "log_every": 80,
    "evaluate_every": 0,
    "checkpoint_every": 80,
    "learner_options": {"learning_starts": 80, "hidden": [16, 16], "batch_size": 32},
}
ALONE = {"strategy": "sac-demo", "strategy_options": {"decisions": 0}}


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return [drive(seed=0), drive(seed=1, turns=7), drive(seed=2)]


@pytest.fixture(scope="module")
def recording(episodes, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("recordings")
    for k, episode in enumerate(episodes):
        save_episode(folder / f"{k}", episode)
    return str(folder)


def start(folder, recording, **changes):
    return training.start(load_config(None, SMALL | {"demonstrations": recording} | changes), folder)


def train(folder, recording, **changes):
    trainer = start(folder, recording, **changes)
    assert trainer.train()
    trainer.close()
    return trainer


def assert_same_policy(one, other):
    first, second = (load_policy(Run(folder)).policy.state_dict() for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_recorded_decision_is_a_transition_to_its_true_successor(episodes, recording):
    shown = load_demonstrations(recording, "lane-change")
    turns = [turn for episode in episodes for turn in episode.turns]
    after = [x for e in episodes for x in (*((t.obs, t.legal) for t in e.turns[1:]), (e.last_obs, e.last_legal))]
    assert np.array_equal(shown.obs, [turn.obs for turn in turns])
    assert np.array_equal(shown.next_obs, [obs for obs, _ in after])
    assert np.array_equal(shown.next_legal, [legal for _, legal in after])
    assert shown.rewards.tolist() == [turn.reward for turn in turns]
    ends = np.cumsum([len(episode.turns) for episode in episodes]) - 1
    assert np.flatnonzero(shown.dones).tolist() == ends.tolist()
    assert shown.terminated[ends].tolist() == [episode.terminated for episode in episodes]
    assert not shown.terminated[ends[1]], "an episode that was broken off goes on for the critic"


def test_the_replay_begins_with_them_labelled_and_driven(tmp_path, episodes, recording):
    trainer = start(tmp_path / "run", recording)
    replay, count = trainer.loop.model.replay, sum(len(episode.turns) for episode in episodes)
    assert (replay.size(), replay.num_labelled, replay.num_intervened) == (count, count, count)
    samples = replay.sample_intervened(200)
    assert torch.equal(samples.label_actions, samples.actions)
    assert torch.allclose(samples.label_probs.sum(dim=1), torch.ones(200))
    assert (samples.label_probs[~samples.legal] == 0).all()
    assert (samples.label_status == STATUSES.index("ok")).all()
    assert trainer.loop.progress == 0
    trainer.close()


def test_the_strategy_may_change_what_is_stored(tmp_path, episodes, recording):
    trainer = start(tmp_path / "run", recording, strategy="sac-rp")
    rewards = trainer.loop.model.replay.rewards[: trainer.loop.model.replay.size(), 0]
    plain = np.array([turn.reward for episode in episodes for turn in episode.turns], np.float32)
    assert (rewards < plain).all()
    trainer.close()


@pytest.mark.parametrize("strategy", [{"strategy": "lgdrl"}, ALONE, {"strategy": "sac"}], ids=["lgdrl", "demo", "sac"])
def test_a_stopped_and_resumed_run_does_not_load_them_twice(tmp_path, recording, strategy):
    straight = train(tmp_path / "straight", recording, **strategy)
    broken = start(tmp_path / "broken", recording, **strategy)
    broken.train(lambda progress: setattr(broken, "stop_requested", progress.done >= 160))
    broken.close()
    resumed = training.resume(tmp_path / "broken")
    assert resumed.loop.progress == 160
    assert resumed.train()
    resumed.close()
    assert resumed.loop.model.replay.size() == straight.loop.model.replay.size()
    assert resumed.loop.model.replay.num_labelled == straight.loop.model.replay.num_labelled
    assert_same_policy(tmp_path / "straight", tmp_path / "broken")


def test_a_run_that_never_reached_a_checkpoint_loads_them_again(tmp_path, recording):
    train(tmp_path / "straight", recording)
    start(tmp_path / "killed", recording).close()
    resumed = training.resume(tmp_path / "killed")
    assert resumed.train()
    resumed.close()
    assert_same_policy(tmp_path / "straight", tmp_path / "killed")


def test_a_checkpoint_needs_the_recording_no_more(tmp_path, episodes):
    path = save_episode(tmp_path / "once", episodes[1])
    trainer = start(tmp_path / "run", str(path))
    trainer.save()
    trainer.close()
    path.unlink()
    resumed = training.resume(tmp_path / "run")
    assert resumed.loop.model.replay.size() == len(episodes[1].turns)
    resumed.close()


def test_sac_demo_learns_from_them_without_an_expert(tmp_path, episodes, recording):
    trainer = train(tmp_path / "run", recording, **ALONE)
    assert trainer.loop.advisor is None
    assert trainer.loop.model.replay.num_intervened == sum(len(episode.turns) for episode in episodes)
    batch = trainer.loop.model.strategy.on_batch(trainer.loop.model.replay, 64)["rl"]
    assert (batch.authority[:32] == 1).all()


def test_lgdrl_is_held_to_their_labels(tmp_path, recording):
    trainer = train(tmp_path / "run", recording, label_budget=0)
    assert trainer.loop.advisor.counts["labels"] == 0
    assert float(trainer.metrics.rows[-1]["guidance/divergence"]) > 0


def test_without_them_sac_demo_must_be_driven_for(tmp_path):
    with pytest.raises(UsageError, match=r"decisions = 0: choose at least 1, or give demonstrations"):
        start(tmp_path / "run", None, **ALONE)
    assert not (tmp_path / "run").exists()


def test_advice_on_the_learners_decisions_is_a_label_and_no_intervention(episodes):
    turns = tuple(
        dataclasses.replace(turn, controller="learner", action=1, expert_action=1 if k % 2 else None, learner_action=1)
        for k, turn in enumerate(episodes[1].turns)
    )
    stored = transitions_of(demonstrations_of([dataclasses.replace(episodes[1], turns=turns)], "recording"), 0.05)
    assert stored.labels.given.tolist() == [False, True, False, True, False, True, False]
    assert (stored.labels.action[stored.labels.given] == 1).all()
    assert stored.labels.status.tolist() == [-1, 0, -1, 0, -1, 0, -1]
    assert (stored.labels.probs.sum(axis=1) > 0).tolist() == [False, True, False, True, False, True, False]
    assert not stored.intervened.any()


def test_the_experts_own_distribution_is_the_label(episodes):
    turn = episodes[1].turns[0]
    own = np.where(turn.legal, 1 / turn.legal.sum(), 0.0)
    turns = (dataclasses.replace(turn, expert_action=turn.action, expert_probs=own, expert_status="repaired"),)
    stored = transitions_of(demonstrations_of([dataclasses.replace(episodes[1], turns=turns)], "recording"), 0.05)
    assert stored.labels.probs[0] == pytest.approx(own)
    assert STATUSES[stored.labels.status[0]] == "repaired"


def test_what_does_not_fit_is_one_line_and_leaves_no_folder(tmp_path, episodes, recording):
    def with_turn(**changes):
        turn = dataclasses.replace(episodes[1].turns[0], **changes)
        return dataclasses.replace(episodes[1], turns=(turn, *episodes[1].turns[1:]))

    cases = {
        "scenario": (drive("highway-fast-v0", turns=2), "is of scenario 'highway-fast-v0', not 'lane-change'"),
        "shape": (
            dataclasses.replace(
                episodes[1],
                turns=tuple(dataclasses.replace(turn, obs=turn.obs[:9]) for turn in episodes[1].turns),
                last_obs=episodes[1].last_obs[:9],
            ),
            "observations of shape (9,), the environments give (29,)",
        ),
        "mixed": (with_turn(obs=np.zeros(3)), "mixes observations"),
        "actions": (with_turn(action=9), "action 9 is not legal"),
        "continuous": (with_turn(action=np.zeros(2)), "the action is continuous"),
        "learner": (
            dataclasses.replace(
                episodes[1],
                turns=tuple(
                    dataclasses.replace(t, controller="learner", expert_action=None) for t in episodes[1].turns
                ),
            ),
            "demonstrates nothing",
        ),
    }
    for name, (episode, words) in cases.items():
        path = save_episode(tmp_path / name, episode)
        with pytest.raises(UsageError) as error:
            start(tmp_path / "run", str(path))
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"raise learner_options\.buffer_size"):
        start(
            tmp_path / "run",
            recording,
            learner_options=SMALL["learner_options"] | {"buffer_size": 20, "batch_size": 16},
        )
    with pytest.raises(UsageError, match="cannot read recording"):
        start(tmp_path / "run", "nothing.npz")
    assert not (tmp_path / "run").exists()


# --- transition data sets ---------------------------------------------------------------------------------------------


def collected(scenario, names, mix="steps", budget=None):
    """150 transitions by a mixture, with labels of the first policy on every third state where there is a budget."""
    envs = sim.make_vec(scenario, 3)
    providers = [registry.make(name, scenario) for name in names]
    dataset = collect(envs, [Policy(each) for each in providers], Plan(seed=0, steps=150, mix=mix)).dataset
    envs.close()
    if budget is None:
        return dataset
    return label_states(dataset, providers[0], np.arange(0, 150, 3)[:budget], {})[0]


def test_a_data_set_without_labels_demonstrates_what_no_random_policy_did(tmp_path):
    dataset = collected("lane-change", ("rule", "random"))
    path = save_transitions(tmp_path / "d.npz", dataset)
    stored = transitions_of(load_demonstrations(str(path), "lane-change"), 0.05)
    assert np.array_equal(stored.labels.given, dataset.origin == 0)
    assert np.array_equal(stored.intervened, dataset.origin == 0)
    assert np.array_equal(stored.labels.action[dataset.origin == 0], dataset.actions[dataset.origin == 0])
    assert np.array_equal(stored.next_obs, dataset.next_observations)
    assert (stored.labels.probs[~dataset.legal] == 0).all()
    broken = transitions_of(demonstrations_in(dataset.take(np.arange(30)), "data set"), 0.05)
    assert not dataset.terminated[29]
    assert broken.truncated[29], "an episode that was broken off goes on for the critic"
    with pytest.raises(UsageError, match="demonstrates nothing"):
        demonstrations_in(dataset.take(dataset.origin == 1), "data set")


def test_a_data_set_with_labels_demonstrates_these_and_nothing_else():
    dataset = collected("lane-change", ("rule", "random"), budget=20)
    stored = transitions_of(demonstrations_in(dataset, "data set"), 0.05)
    assert np.flatnonzero(stored.labels.given).tolist() == list(range(0, 60, 3))
    assert (stored.labels.status == np.where(stored.labels.given, STATUSES.index("ok"), -1)).all()
    assert not stored.intervened.any()


def test_continuous_data_sets_fill_a_replay_buffer():
    dataset = collected("gym:Pendulum-v1", ("idle", "random"), budget=30)
    stored = transitions_of(demonstrations_in(dataset, "data set"), 0.05)
    buffer = GuidedReplayBuffer(200, dataset.about.observation_space, dataset.about.action_space, device="cpu")
    buffer.add_transitions(stored)
    assert (buffer.size(), buffer.num_labelled, buffer.num_intervened) == (150, 30, 0)
    samples = buffer.sample_labelled(40)
    assert (samples.label_actions == 0).all(), "idle labels the middle of the torques"
    assert samples.actions.shape == (40, 1)
    assert torch.isfinite(samples.label_actions).all()


def test_a_run_begins_with_a_data_set(tmp_path):
    path = save_transitions(tmp_path / "d.npz", collected("lane-change", ("rule", "random"), "episodes"))
    trainer = train(tmp_path / "run", str(path), **ALONE)
    assert trainer.loop.model.replay.size() == 150 + SMALL["steps"]
    with pytest.raises(UsageError, match="is of scenario 'lane-change', not 'gym:CartPole-v1'"):
        start(tmp_path / "other", str(path), scenario="gym:CartPole-v1", strategy="sac")
