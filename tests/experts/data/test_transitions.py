"""Transition data sets: what is written is read back to the bit, and what does not fit together is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.data.columns import pack, unpack
from experts.data.episodes import save_episode
from experts.data.transition_files import (
    from_bytes,
    is_transitions,
    load_transitions,
    save_transitions,
    to_bytes,
)
from experts.data.transitions import (
    NO_STATUS,
    DatasetInfo,
    References,
    StateLabels,
    TransitionDataset,
    concatenate,
)
from sim.errors import UsageError
from tests.recordings import bits, drive


def made(
    lengths=(3, 2), discrete=True, labelled=True, seed=0, origins=("rule", "random"), unfinished=False
) -> TransitionDataset:
    """A data set of arbitrary numbers with episodes of these lengths."""
    rng, count = np.random.default_rng(seed), sum(lengths)
    lasts = np.cumsum(lengths) - 1
    walks = [rng.normal(size=(length + 1, 2)).astype(np.float32) for length in lengths]
    masks = [rng.random((length + 1, 3)) < 0.5 for length in lengths]
    for mask in masks:
        mask[:, 1] = True
    ends = np.zeros(count, bool)
    ends[lasts] = True
    if unfinished:
        ends[-1] = False
    terminated = ends & (rng.random(count) < 0.5)
    legal = np.concatenate([mask[:-1] for mask in masks])
    continuous = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    given = rng.random(count) < 0.5
    labels = StateLabels(
        np.where(given, 1, 0) if discrete else np.where(given[:, None], continuous, 0).astype(np.float32),
        given,
        np.where(given, 0, NO_STATUS).astype(np.int8),
    )
    return TransitionDataset(
        about=DatasetInfo(
            scenario="lane-change",
            backend="engine",
            scenario_config={"lanes": 4, "limits": [0.5, None]},
            observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
            action_space=spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,), np.float32),
            origins=origins,
            made=({"step": "collect", "seed": seed},),
            references=References(-1.5, 12.0, "rule", 20),
        ),
        observations=np.concatenate([walk[:-1] for walk in walks]),
        next_observations=np.concatenate([walk[1:] for walk in walks]),
        actions=np.ones(count, np.int64) if discrete else continuous,
        rewards=rng.normal(size=count).astype(np.float32),
        terminated=terminated,
        truncated=ends & ~terminated,
        episodes=np.repeat(np.arange(len(lengths)), lengths),
        steps=np.concatenate([np.arange(length) for length in lengths]),
        origin=rng.integers(-1, len(origins), count).astype(np.int16),
        seeds=np.arange(seed, seed + len(lengths)),
        legal=legal if discrete else None,
        next_legal=np.concatenate([mask[1:] for mask in masks]) if discrete else None,
        labels=labels if labelled else None,
    )


CONTENT = made()
data_sets = st.builds(
    made,
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple),
    discrete=st.booleans(),
    labelled=st.booleans(),
    seed=st.integers(0, 2**40),
    origins=st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True).map(tuple),
    unfinished=st.booleans(),
)


@settings(max_examples=50)
@given(data_sets)
def test_what_is_written_is_read_back_to_the_bit(dataset):
    content = to_bytes(dataset)
    read = from_bytes(content, "d.npz")
    assert bits(read) == bits(dataset)
    assert to_bytes(read) == content


@settings(max_examples=50)
@given(data_sets, st.data())
def test_parts_of_a_split_join_to_the_whole(dataset, data):
    """By whole episodes: rows, seeds and labels are those of before; only the history tells."""
    cut = data.draw(st.integers(1, len(dataset.seeds)))
    first = dataset.episodes < cut
    parts = [dataset.take(rows) for rows in (first, ~first) if rows.any()]
    joined = concatenate(parts)
    about = dataclasses.replace(joined.about, made=dataset.about.made)
    assert bits(dataclasses.replace(joined, about=about)) == bits(dataset)
    assert [note["transitions"] for note in joined.about.made if note["step"] == "take"] == [len(p) for p in parts]


@settings(max_examples=50)
@given(data_sets, st.data())
def test_any_rows_may_be_taken(dataset, data):
    rows = np.array(data.draw(st.lists(st.booleans(), min_size=len(dataset), max_size=len(dataset))), bool)
    taken = dataset.take(rows)
    assert bits(taken.observations) == bits(dataset.observations[rows])
    assert taken.steps.tolist() == dataset.steps[rows].tolist()
    assert taken.seeds[taken.episodes].tolist() == dataset.seeds[dataset.episodes][rows].tolist()


def test_any_program_reads_the_file_without_pickle(tmp_path):
    dataset = made()
    path = save_transitions(tmp_path / "d.npz", dataset)
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["observations"], dataset.observations)
        assert file["label_actions"].dtype == np.int64
        header = json.loads(file["header"].tobytes())
    assert header["counts"] == {"transitions": 5, "episodes": 2, "labels": int(dataset.labels.given.sum())}
    assert header["origins"] == ["rule", "random"]
    assert [found.name for found in tmp_path.iterdir()] == ["d.npz"], "no temporary file is left"


def test_joining_gives_equal_policies_one_number():
    one, other = made(origins=("rule", "random")), made(origins=("idle", "rule"), seed=7, labelled=False)
    joined = concatenate([one, other])
    names = np.array([*joined.about.origins, "nobody"])
    expected = [np.array([*part.about.origins, "nobody"])[part.origin] for part in (one, other)]
    assert joined.about.origins == ("rule", "random", "idle")
    assert names[joined.origin].tolist() == np.concatenate(expected).tolist()
    assert joined.episodes.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert not joined.labels.given[5:].any()
    about = dataclasses.replace(other.about, scenario_config={})
    with pytest.raises(UsageError, match="differ in their scenario config"):
        concatenate([one, dataclasses.replace(other, about=about)])


def test_episodes_know_their_return_driver_and_whether_they_are_whole():
    dataset = made(lengths=(3, 2, 1), unfinished=True)
    origin = np.array([0, 0, -1, 1, 0, 1], np.int16)
    dataset = dataclasses.replace(dataset, origin=origin)
    assert dataset.returns == pytest.approx([dataset.rewards[a:b].sum() for a, b in ((0, 3), (3, 5), (5, 6))])
    assert dataset.drivers.tolist() == [0, -1, 1]
    assert dataset.finished.tolist() == [True, True, False]
    assert dataset.take(np.arange(6) != 1).finished.tolist() == [False, True, False], "a row was taken out"
    assert References(-10, 30, "rule", 20).normalised(np.array([-10, 10, 30])).tolist() == [0, 50, 100]


CHANGES = {
    "observations: not all": {"observations": np.full((5, 2), np.nan, np.float32)},
    "observations: expected float32 (5, 2)": {"observations": np.zeros((5, 3), np.float32)},
    "rewards: expected float32": {"rewards": np.zeros(5)},
    "rewards: not all": {"rewards": np.full(5, np.inf, np.float32)},
    "actions: some do not exist": {"actions": np.full(5, 3)},
    "actions: some are not legal": {"legal": np.zeros((5, 3), bool)},
    "legal: expected bool": {"legal": None},
    "origin: some have no name": {"origin": np.full(5, 2, np.int16)},
    "episodes: expected numbers from 0 to 1": {"episodes": np.array([0, 0, 1, 1, 0])},
    "steps: expected": {"steps": np.array([0, 1, 1, 0, 1])},
    "an episode ends once": {"terminated": np.array([True, False, True, False, True])},
    "next_observations: some are not": {"next_observations": np.zeros((5, 2), np.float32)},
    "next_legal: some are not": {"next_legal": np.ones((5, 3), bool)},
    "seeds: expected": {"seeds": np.array([1.0, 2.0])},
    "label_status: a label has none": {
        "labels": StateLabels(np.ones(5, np.int64), np.ones(5, bool), np.full(5, NO_STATUS, np.int8))
    },
    "label_actions: some are not legal": {
        "labels": StateLabels(np.zeros(5, np.int64), np.ones(5, bool), np.zeros(5, np.int8))
    },
}


@pytest.mark.parametrize("words", CHANGES)
def test_what_does_not_fit_together_is_refused_by_name(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        dataclasses.replace(made(), **CHANGES[words])


def changed(change) -> bytes:
    """A file whose arrays and header `change` has worked on."""
    arrays, header = unpack(to_bytes(made()))
    change(arrays, header)
    return pack(arrays, header)


DAMAGE = {
    "is damaged (rewards: not all": lambda a, h: a["rewards"].__setitem__(0, np.nan),
    "is damaged (arrays ['label_actions']": lambda a, h: (a.pop("labelled"), a.pop("label_status")),
    "is damaged (arrays ['extra']": lambda a, h: a.update(extra=np.zeros(3)),
    "is damaged (its header counts": lambda a, h: h["counts"].update(labels=9),
    "is damaged (space type 'dict'": lambda a, h: h["action_space"].update(type="dict"),
    "is damaged (it names statuses": lambda a, h: h["statuses"].reverse(),
    "is damaged (KeyError)": lambda a, h: h.pop("format"),
    "reads up to 1: update lgdrl": lambda a, h: h.update(format=2),
    "does not say 'lgdrl transitions'": lambda a, h: h.update(kind="something"),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_damaged_or_foreign_file_is_one_line(words):
    with pytest.raises(UsageError) as error:
        from_bytes(changed(DAMAGE[words]), "d.npz")
    assert words in str(error.value)
    assert "'d.npz'" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_other_kinds_are_one_line(tmp_path):
    content = to_bytes(made())
    pickled = io.BytesIO()
    np.savez(pickled, header=np.array([{"kind": 1}], object))
    recording = save_episode(tmp_path / "recording.npz", drive(turns=2))
    cases = {"cut.npz": content[:-30], "text.npz": b"la la", "empty.npz": b"", "pickle.npz": pickled.getvalue()}
    for name, each in cases.items():
        (tmp_path / name).write_bytes(each)
    for name in (*cases, recording.name, "gone.npz"):
        assert not is_transitions(tmp_path / name)
        with pytest.raises(UsageError, match=name) as error:
            load_transitions(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "good.npz").write_bytes(content)
    assert is_transitions(tmp_path / "good.npz")


@settings(max_examples=60)
@given(st.data())
def test_flipped_bytes_are_found_or_change_nothing(data):
    content = bytearray(to_bytes(CONTENT))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UsageError):
        assert bits(from_bytes(bytes(content), "d.npz")) == bits(CONTENT)
