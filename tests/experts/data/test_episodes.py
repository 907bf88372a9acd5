"""Recordings come back equal to the bit, and whatever is no recording is one clear line."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from experts.data.episodes import FORMAT, Episode, Turn, from_bytes, load_episodes, save_episode, to_bytes
from sim.errors import UsageError
from sim.scene import Ego, Goal, LaneShape, Scene, Vehicles
from tests.recordings import bits, drive

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
WORDS = st.text(max_size=8)
NUMBERS = st.integers(-(2**40), 2**40)
COLUMN_TYPES = {"ids": np.int64, "lane": np.int64, "crashed": np.bool_}
SMALL = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def vector(draw, dtype, size):
    return draw(st_np.arrays(dtype, size, fill=st.nothing()))


@st.composite
def shapes(draw):
    center = draw(st_np.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(2))))
    return LaneShape(center, draw(FLOATS), draw(WORDS), draw(WORDS))


@st.composite
def scenes(draw, drawings):
    count = draw(st.integers(0, 3))
    names = [f.name for f in dataclasses.fields(Vehicles)]
    optional = st.one_of(st.none(), FLOATS)
    ego = {"float": FLOATS, "int": NUMBERS, "bool": st.booleans()}
    return Scene(
        scenario=draw(WORDS),
        time=draw(FLOATS),
        decision_period=draw(FLOATS),
        ego=Ego(*(draw(ego[f.type]) for f in dataclasses.fields(Ego))),
        vehicles=Vehicles(*(vector(draw, COLUMN_TYPES.get(name, np.float64), count) for name in names)),
        lane_centers=tuple(draw(st.lists(FLOATS, max_size=3))),
        lane_width=draw(FLOATS),
        set_points=tuple(draw(st.lists(FLOATS, max_size=3))),
        legal=vector(draw, np.bool_, draw(st.integers(0, 3))),
        goal=draw(st.none() | st.builds(Goal, st.none() | NUMBERS, optional, optional)),
        shapes=draw(st.sampled_from(drawings)),
    )


@st.composite
def episodes(draw):
    drawings = draw(st.lists(st.lists(shapes(), max_size=2).map(tuple), min_size=1, max_size=2))
    keys = draw(st.none() | st.lists(WORDS, min_size=1, max_size=2, unique=True))
    kind = draw(st.sampled_from([np.float32, np.float64, np.uint8]))
    discrete = draw(st.booleans())

    def obs():
        one = lambda: vector(draw, kind, draw(st.sampled_from([(3,), (2, 2)])))  # noqa: E731
        return one() if keys is None else {key: one() for key in keys}

    def maybe(dtype):
        return vector(draw, dtype, 3) if draw(st.booleans()) else None

    def turn():
        return Turn(
            scene=draw(scenes(drawings)),
            obs=obs(),
            legal=vector(draw, np.bool_, 3),
            action=draw(NUMBERS) if discrete else vector(draw, np.float32, 2),
            controller=draw(st.sampled_from(["learner", "expert", "human"])),
            reward=draw(FLOATS),
            learner_action=draw(st.none() | NUMBERS),
            learner_probs=maybe(np.float32),
            q_values=maybe(np.float32),
            expert_action=draw(st.none() | NUMBERS),
            expert_probs=maybe(draw(st.sampled_from([np.float32, np.float64]))),
            expert_status=draw(st.none() | WORDS),
            expert_reason=draw(WORDS),
            expert_latency_s=draw(FLOATS),
            unsafe=maybe(np.bool_),
            terms=draw(st.none() | st.dictionaries(WORDS, FLOATS, max_size=2)),
            reaction_s=draw(st.none() | FLOATS),
        )

    plain = st.dictionaries(WORDS, st.none() | st.booleans() | NUMBERS | FLOATS | WORDS | st.lists(NUMBERS, max_size=2))
    return Episode(
        scenario=draw(WORDS),
        backend=draw(WORDS),
        scenario_config=draw(plain),
        seed=draw(st.none() | NUMBERS),
        driver=draw(WORDS),
        turns=tuple(turn() for _ in range(draw(st.integers(0, 3)))),
        last_scene=draw(scenes(drawings)),
        last_obs=obs(),
        last_legal=vector(draw, np.bool_, 3),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        summary=draw(plain),
    )


@pytest.fixture(scope="module")
def driven() -> Episode:
    return drive(turns=6)


@pytest.fixture(scope="module")
def recorded(driven, tmp_path_factory):
    return save_episode(tmp_path_factory.mktemp("recordings") / "one.npz", driven)


def back(episode: Episode, folder) -> Episode:
    (loaded,) = load_episodes(save_episode(folder / "episode", episode))
    return loaded


@SMALL
@given(episode=episodes())
def test_any_episode_comes_back_equal_to_the_bit(episode, tmp_path_factory):
    assert bits(back(episode, tmp_path_factory.mktemp("any"))) == bits(episode)


@pytest.mark.parametrize("scenario", ["lane-change", "exit-v1", "two-way-v0", "roundabout-v1", "intersection-v0"])
def test_driven_episodes_come_back_equal_to_the_bit(scenario, tmp_path):
    episode = drive(scenario, turns=5)
    assert bits(back(episode, tmp_path)) == bits(episode)


def test_a_finished_episode_keeps_how_it_ended(tmp_path):
    episode = drive(seed=1)
    loaded = back(episode, tmp_path)
    assert loaded.terminated or loaded.truncated
    assert loaded.summary == episode.summary
    assert loaded.summary["steps"] == len(loaded.turns)


def test_scenes_of_one_road_share_its_drawing(recorded):
    (episode,) = load_episodes(recorded)
    assert len({id(turn.scene.shapes) for turn in episode.turns} | {id(episode.last_scene.shapes)}) == 1


def test_a_folder_is_read_in_the_order_of_names(tmp_path, driven):
    for name, seed in (("b", 2), ("a", 1), ("c", 3)):
        save_episode(tmp_path / name, dataclasses.replace(driven, seed=seed))
    assert [episode.seed for episode in load_episodes(tmp_path)] == [1, 2, 3]


def test_saving_names_the_file_makes_its_folder_and_leaves_nothing_else(tmp_path, driven):
    path = save_episode(tmp_path / "new" / "take.1", driven)
    assert path == tmp_path / "new" / "take.1.npz"
    assert [each.name for each in path.parent.iterdir()] == ["take.1.npz"]


def test_recordings_from_before_there_were_terms_are_read(driven):
    with np.load(io.BytesIO(to_bytes(driven))) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    del header["turns"]["terms"]
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    assert bits(from_bytes(file.getvalue(), "old")) == bits(driven)


def test_the_same_episode_makes_the_same_file(tmp_path, driven, recorded):
    assert save_episode(tmp_path / "again", driven).read_bytes() == recorded.read_bytes()


def test_numpy_reads_the_arrays_without_pickle(recorded):
    with np.load(recorded, allow_pickle=False) as arrays:
        assert arrays["scene"]["ego_speed"].shape == (7,)
        assert all(arrays[name].dtype != object for name in arrays.files)


# --- what is no recording --------------------------------------------------------------------------------------------


def assert_one_line(path, *words):
    with pytest.raises(UsageError) as error:
        load_episodes(path)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def loaded_or_refused(path) -> Episode | None:
    """The episode, or None where one line says why not. Anything else is raised."""
    try:
        return load_episodes(path)[0]
    except UsageError as refusal:
        message = str(refusal)
    assert "\n" not in message
    return None


def rewritten(path, recorded, change):
    """A copy of a recording whose header was changed, with valid checksums."""
    with np.load(recorded) as found:
        arrays = {name: found[name] for name in found.files}
    header = json.loads(arrays["header"].tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    assert_one_line(tmp_path / "nothing.npz", "cannot read", "nothing.npz")
    assert_one_line(tmp_path, "no .npz file")
    assert_one_line("bad\0name", "cannot read")


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("episode")
    np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", header=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", header=np.frombuffer(b'{"kind": "song"}', np.uint8))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("text", "arrays", "pickled", "other", "zip"):
        assert_one_line(tmp_path / f"{name}.npz", f"{name}.npz")
    assert_one_line(tmp_path / "arrays.npz", "is not a recording")


def test_a_newer_format_says_what_to_do(tmp_path, recorded):
    newer = rewritten(tmp_path / "newer.npz", recorded, lambda header, _: header.update(format=FORMAT + 1, turns="new"))
    assert_one_line(newer, f"format {FORMAT + 1}", "update lgdrl")


def test_truncated_recordings_are_refused(tmp_path, recorded):
    content = recorded.read_bytes()
    for length in [0, 1, 30, *range(100, len(content), len(content) // 40), len(content) - 1]:
        (tmp_path / "cut.npz").write_bytes(content[:length])
        assert_one_line(tmp_path / "cut.npz", "cut.npz")


@settings(SMALL, max_examples=150)
@given(data=st.data())
def test_flipped_bytes_never_give_another_episode(data, recorded, driven):
    """Zip files hold bytes that mean nothing (dates): flipping those alone leaves the episode as it was."""
    content = bytearray(recorded.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = recorded.parent / "flipped.npz"
    path.write_bytes(content)
    loaded = loaded_or_refused(path)
    assert loaded is None or bits(loaded) == bits(driven)


def test_flipped_bytes_of_the_directory_are_errors_of_one_line_too(tmp_path, recorded, driven):
    content = recorded.read_bytes()
    directory = content.rindex(b"PK\x05\x06") - 60
    for position in range(directory, len(content)):
        for mask in (0x01, 0xFF):
            flipped = bytearray(content)
            flipped[position] ^= mask
            (tmp_path / "flipped.npz").write_bytes(flipped)
            loaded = loaded_or_refused(tmp_path / "flipped.npz")
            assert loaded is None or bits(loaded) == bits(driven)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(SMALL, max_examples=80)
@given(data=st.data())
def test_headers_that_make_no_sense_are_errors_of_one_line(data, recorded):
    def change(header, arrays):
        node, key = header, data.draw(st.sampled_from(sorted(header)))
        while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        node[key] = data.draw(JSON)

    strange = rewritten(recorded.parent / "strange.npz", recorded, change)
    loaded = loaded_or_refused(strange)
    assert loaded is None or bits(from_bytes(to_bytes(loaded), "again")) == bits(loaded)


def test_arrays_that_do_not_fit_are_refused(tmp_path, recorded):
    with np.load(recorded) as found:
        names = [name for name in found.files if name != "header"]
    for name in names:
        shorter = rewritten(
            tmp_path / "a.npz", recorded, lambda _, arrays, name=name: arrays.update({name: arrays[name][1:]})
        )
        assert_one_line(shorter, "is damaged")
        absent = rewritten(tmp_path / "b.npz", recorded, lambda _, arrays, name=name: arrays.pop(name))
        assert_one_line(absent, "is damaged")


def test_an_unwritable_path_is_one_line(tmp_path, driven):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write recording"):
        save_episode(tmp_path / "file" / "take", driven)


def test_what_is_not_plain_is_not_recorded(tmp_path, driven):
    with pytest.raises(TypeError, match="plain values only"):
        save_episode(tmp_path / "a", dataclasses.replace(driven, summary={"x": io.BytesIO()}))
    assert not list(tmp_path.iterdir())
