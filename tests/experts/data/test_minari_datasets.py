"""Recordings survive the way through Minari; datasets of other people can be learned from, not looked at."""

from __future__ import annotations

import builtins
import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from experts import registry
from experts.data.demonstrations import demonstrations_of
from experts.data.minari_datasets import export_dataset, import_dataset
from experts.data.sources import load_demonstrations
from sim.errors import UsageError
from tests.recordings import bits, drive

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.fixture(scope="module")
def episodes():
    return [drive(seed=0, turns=9), drive(seed=1)]


def foreign(name="theirs-v0", actions=None, infos=None, obs=None):
    """A dataset of two episodes that knows nothing of scenes."""
    actions = np.array([1, 2, 3]) if actions is None else actions
    ends = np.array([False, False, True])
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=k,
            observations=np.arange(4 * 29, dtype=np.float32).reshape(4, 29) if obs is None else obs,
            actions=actions,
            rewards=np.array([0.5, 0.25, 1.0]) + k,
            terminations=ends & (k == 0),
            truncations=ends & (k == 1),
            infos=infos or {},
        )
        for k in range(2)
    ]
    space = spaces.Discrete(5) if np.ndim(actions) == 1 else spaces.Box(-1, 1, (2,))
    box = spaces.Box(-np.inf, np.inf, (29,), np.float32)
    minari.create_dataset_from_buffers(name, buffers, observation_space=box, action_space=space)
    return name


def test_what_is_imported_equals_what_was_exported_to_the_bit(episodes):
    export_dataset(episodes, "lane-change/rule-v0")
    assert bits(import_dataset("lane-change/rule-v0")) == bits(episodes)


def test_other_programs_see_observations_actions_rewards_and_legal_actions(episodes):
    export_dataset(episodes, "rule-v0")
    dataset = minari.load_dataset("rule-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (2, sum(len(episode.turns) for episode in episodes))
    for seen, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert np.array_equal(seen.observations[:-1], [turn.obs for turn in episode.turns])
        assert np.array_equal(seen.observations[-1], episode.last_obs)
        assert seen.actions.tolist() == [turn.action for turn in episode.turns]
        assert seen.rewards.tolist() == [turn.reward for turn in episode.turns]
        assert seen.terminations[-1] == episode.terminated
        assert seen.truncations[-1] == (not episode.terminated)
        assert np.array_equal(seen.infos["legal"][:-1], [turn.legal for turn in episode.turns])
        assert {len(each) for each in seen.infos.values()} == {len(seen) + 1}


def test_recordings_survive_the_combination_of_datasets(episodes):
    export_dataset(episodes[:1], "one-v0")
    export_dataset(episodes[1:], "two-v0")
    parts = [minari.load_dataset(name) for name in ("one-v0", "two-v0")]
    minari.combine_datasets(parts, "both-v0")
    assert bits(import_dataset("both-v0")) == bits(episodes)


def test_a_dataset_demonstrates_what_its_recording_does(episodes):
    export_dataset(episodes, "rule-v0")
    shown = load_demonstrations("minari:rule-v0", "lane-change")
    direct = demonstrations_of(episodes, shown.source)
    assert bits(shown) == bits(direct)
    with pytest.raises(UsageError, match="is of scenario 'lane-change', not 'highway-v0'"):
        load_demonstrations("minari:rule-v0", "highway-v0")


def test_continuous_environments_pass_too():
    import sim
    from experts.data.episodes import Episode, Turn

    env = sim.make("racetrack-v0")
    obs, _ = env.reset(seed=0)
    scene, legal = env.scene(), env.action_masks()
    after, reward, *_ = env.step(np.array([0.1], np.float32))
    turn = Turn(scene, obs, legal, np.array([0.1], np.float32), "human", float(reward))
    last = (env.scene(), after, env.action_masks())
    episode = Episode("racetrack-v0", env.backend, {}, 0, "human", (turn,), *last, False, False, {})
    export_dataset([episode], "race-v0")
    assert bits(import_dataset("race-v0")) == bits([episode])


def test_a_foreign_dataset_teaches_but_has_no_scenes():
    name = foreign()
    shown = load_demonstrations(f"minari:{name}", "lane-change")
    assert len(shown) == 6
    assert shown.labels.tolist() == shown.actions.tolist() == [1, 2, 3, 1, 2, 3]
    assert shown.dones.tolist() == [False, False, True, False, False, True]
    assert shown.terminated.tolist() == [False, False, True, False, False, False]
    assert np.array_equal(shown.next_obs[:2], shown.obs[1:3])
    assert shown.legal.all()
    expert = registry.make("recorded", "lane-change", {"path": f"minari:{name}"})
    assert expert.demonstrations.rewards.tolist() == [0.5, 0.25, 1.0, 1.5, 1.25, 2.0]
    with pytest.raises(UsageError, match=f"holds no scenes.*demonstrations=minari:{name}"):
        import_dataset(name)


def test_continuous_actions_of_others_are_demonstrations_too():
    actions = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    shown = load_demonstrations(f"minari:{foreign(actions=actions)}", "racetrack-v0")
    assert np.array_equal(shown.labels, np.concatenate([actions, actions]))
    assert shown.given.all()
    assert (shown.legal, shown.probs) == (None, None)
    shown.check((29,), spaces.Box(-1, 1, (2,)))
    for other in (spaces.Discrete(5), spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (2,))):
        with pytest.raises(UsageError, match=r"holds actions of shape \(2,\) in \[-1, 1\], the environments take"):
            shown.check((29,), other)


def test_a_foreign_dataset_may_say_what_was_legal():
    legal = np.ones((4, 5), bool)
    legal[:, 0] = False
    shown = load_demonstrations(f"minari:{foreign(infos={'legal': legal})}", "lane-change")
    assert np.array_equal(shown.legal[:3], legal[:3])
    assert np.array_equal(shown.next_legal[:3], legal[1:])


def assert_refused(words, call, *arguments):
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_used_is_one_line(episodes):
    assert_refused("no Minari dataset 'gone-v0' here", import_dataset, "gone-v0")
    assert_refused("no Minari dataset", import_dataset, "../..")
    assert_refused("holds no scenes", import_dataset, foreign("box-v0", actions=np.zeros((3, 2), np.float32)))
    legal = np.zeros((4, 5), bool)
    assert_refused("not legal", import_dataset, foreign("odd-v0", infos={"legal": legal}))
    export_dataset(episodes, "rule-v0")
    assert_refused("exists already", export_dataset, episodes, "rule-v0")
    assert_refused("name-v0", export_dataset, episodes, "no version")
    assert_refused("name-v0", export_dataset, episodes, "../rule-v0")
    assert_refused("no decision", export_dataset, [dataclasses.replace(episodes[0], turns=())], "a-v0")
    other = dataclasses.replace(episodes[0], scenario_config={"lanes": 2})
    assert_refused("different scenarios", export_dataset, [episodes[0], other], "a-v0")


def test_a_damaged_or_changed_dataset_is_one_line(store, episodes):
    import h5py

    export_dataset(episodes, "rule-v0")
    path = store / "rule-v0" / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        file["episode_0/rewards"][0] += 1.0
    assert_refused("was changed after it was recorded", import_dataset, "rule-v0")
    with h5py.File(path, "a") as file:
        file["episode_0/infos/lgdrl_recording"][2, 5:20] += 1
    assert_refused("'rule-v0, episode 0'", import_dataset, "rule-v0")
    path.write_bytes(path.read_bytes()[:1000])
    assert_refused("cannot read Minari dataset", import_dataset, "rule-v0")


def test_without_minari_one_line_says_what_to_install(monkeypatch, episodes):
    real = builtins.__import__

    def absent(name, *arguments, **named):
        if name in ("minari", "h5py"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert_refused("pip install lgdrl[minari]", export_dataset, episodes, "rule-v0")
    assert_refused("pip install lgdrl[minari]", import_dataset, "rule-v0")
