"""Transition data sets survive the way through Minari; other programs see them complete."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sim
from experts import registry
from experts.data.collection import Plan, Policy, collect
from experts.data.labelling import label_states
from experts.data.minari_datasets import load_dataset
from experts.data.minari_transitions import export_transitions
from experts.data.sources import load_demonstrations
from experts.data.transitions import References, TransitionDataset
from sim.errors import UsageError
from tests.recordings import bits

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def collected(scenario: str, label: bool = True) -> TransitionDataset:
    """Three episodes by two policies, with reference returns and some labels."""
    envs = sim.make_vec(scenario, 3)
    with registry.make("idle", scenario) as idle, registry.make("random", scenario) as random:
        dataset = collect(envs, [Policy(idle), Policy(random)], Plan(seed=5, episodes=3, mix="steps")).dataset
        about = dataclasses.replace(dataset.about, references=References(-1300.0, -150.0, "expert", 20))
        dataset = dataclasses.replace(dataset, about=about)
        if label:
            dataset, _ = label_states(dataset, idle, np.arange(0, len(dataset), 7), {})
    envs.close()
    return dataset


@pytest.mark.parametrize("scenario", ["lane-change", "gym:Pendulum-v1"])
def test_what_is_imported_equals_what_was_exported_to_the_bit(scenario):
    dataset = collected(scenario)
    export_transitions(dataset, "mine/mixed-v0")
    assert bits(load_dataset("mine/mixed-v0")) == bits(dataset)


def test_other_programs_see_episodes_environment_and_reference_scores():
    dataset = collected("gym:Pendulum-v1", label=False)
    export_transitions(dataset, "pendulum/mixed-v0")
    seen = minari.load_dataset("pendulum/mixed-v0")
    assert (seen.total_episodes, seen.total_steps) == (3, len(dataset))
    first = next(seen.iterate_episodes())
    assert np.array_equal(first.observations[:-1], dataset.observations[:200])
    assert np.array_equal(first.observations[-1], dataset.next_observations[199])
    assert minari.get_normalized_score(seen, np.array([-1300.0, -150.0])).tolist() == [0, 1]
    env = seen.recover_environment()
    assert env.action_space == dataset.about.action_space
    env.close()


def test_an_episode_that_was_broken_off_counts_as_truncated():
    dataset = collected("gym:Pendulum-v1").take(np.arange(250))
    assert not dataset.finished[1]
    export_transitions(dataset, "short-v0")
    read = load_dataset("short-v0")
    assert read.truncated.tolist() == [*[False] * 199, True, *[False] * 49, True]
    assert np.array_equal(read.labels.given, dataset.labels.given)


def test_after_others_joined_two_datasets_they_are_foreign():
    """Minari drops metadata when it combines: names of the policies are lost, transitions are not."""
    dataset = collected("gym:Pendulum-v1", label=False)
    for name in ("one-v0", "two-v0"):
        export_transitions(dataset, name)
    minari.combine_datasets([minari.load_dataset(name) for name in ("one-v0", "two-v0")], "both-v0")
    read = load_dataset("both-v0")
    assert np.array_equal(read.observations[len(dataset) :], dataset.observations)
    assert read.about.origins != dataset.about.origins
    assert len(load_demonstrations("minari:both-v0", "gym:Pendulum-v1")) == 2 * len(dataset)


def test_what_cannot_be_exported_is_one_line():
    dataset = collected("gym:Pendulum-v1", label=False)
    parts = {
        "transitions are missing": dataset.take(np.arange(len(dataset)) != 7),
        "does not say of which scenario": dataclasses.replace(
            dataset, about=dataclasses.replace(dataset.about, scenario="")
        ),
    }
    for words, each in parts.items():
        with pytest.raises(UsageError, match=words) as error:
            export_transitions(each, "some-v0")
        assert "\n" not in str(error.value)
    export_transitions(dataset, "some-v0")
    with pytest.raises(UsageError, match="exists already"):
        export_transitions(dataset, "some-v0")


def test_datasets_of_others_say_what_they_know():
    """A dataset as minari.create_dataset_from_buffers leaves it, of an environment with another name than ours."""
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
        observations=np.zeros((4, 3), np.float32),
        actions=np.array([[0.5], [1.0], [-2.0]], np.float32),
        rewards=np.array([-1.0, -2.0, -3.0]),
        terminations=np.zeros(3, bool),
        truncations=np.array([False, False, True]),
        infos={},
    )
    about = {"algorithm_name": "TD3", "ref_min_score": -1200.0, "ref_max_score": -150.0}
    minari.create_dataset_from_buffers("theirs-v0", [buffer], env="Pendulum-v1", **about)
    read = load_dataset("theirs-v0")
    assert (read.about.scenario, read.about.origins, read.about.foreign) == ("gym:Pendulum-v1", ("TD3",), True)
    assert (read.about.references.random, read.about.references.expert) == (-1200, -150)
    assert (read.seeds.tolist(), read.truncated.tolist()) == ([-1], [False, False, True])
    assert load_demonstrations("minari:theirs-v0", "another-name").labels.ravel().tolist() == [0.5, 1, -2]
