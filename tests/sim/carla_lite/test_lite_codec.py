"""The wire formats: sizes that clients of 0.9.16 were measured to read, and round trips."""

from __future__ import annotations

import struct
import sys
from importlib import metadata
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite_servers import read_token

from sim.carla_lite import blueprints, codec
from sim.carla_lite.library import library
from sim.errors import UsageError

TABLE = codec.VERSIONS["0.9.16"]
finite = st.floats(-1e6, 1e6)
singles = st.floats(-1e6, 1e6, width=32)


def test_records_have_the_sizes_that_the_client_reads():
    assert len(codec.token(7, 2001)) == 24
    assert codec.WORLD.size == 36
    assert codec.HEADER.size == 48
    assert codec.ACTOR.itemsize == 119
    assert (codec.VEHICLE.itemsize, codec.LIGHT.itemsize, codec.WALKER.itemsize) == (30, 54, 17)
    assert codec.UNION_BYTES == 54


@pytest.mark.parametrize("view", [codec.ACTOR_VEHICLE, codec.ACTOR_LIGHT, codec.ACTOR_WALKER])
def test_views_of_an_actor_are_as_large_as_an_actor(view):
    assert view.itemsize == codec.ACTOR.itemsize
    assert {"id", "active", "pose", "velocity", "angular_velocity", "acceleration"} < set(view.names)


def test_an_empty_world_is_a_header_and_a_world():
    frame = codec.world_state(TABLE, 3, 0.15, 1, 0.0, 0.05, np.zeros(0, codec.ACTOR))
    assert len(frame) == 48 + 36
    assert struct.unpack_from("<QQd", frame) == (17, 3, 0.15)  # 17: the world in 0.9.16, found in the client
    assert struct.unpack_from("<Qdf", frame, 48) == (1, 0.0, pytest.approx(0.05))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
def test_tokens_come_back(stream, port):
    assert read_token(codec.token(stream, port)) == (stream, port)


@given(st.tuples(*[finite] * 6))
def test_transforms_come_back(pose):
    assert codec.read_transform(_sent(codec.transform(*pose))) == pose


@given(st.builds(codec.Settings, fixed_delta_seconds=st.none() | st.floats(0.001, 1.0), synchronous_mode=st.booleans()))
def test_settings_come_back(settings):
    wire = _sent(settings.pack())
    assert len(wire) == 11
    assert codec.Settings.read(wire) == settings


@given(st.none() | st.integers() | st.text())
def test_optional_values_come_back(value):
    assert codec.read_optional(codec.optional(value)) == value


@given(st.tuples(*[singles] * 3), singles, st.booleans(), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
def test_a_vehicle_is_read_back_field_by_field_without_numpy(velocity, throttle, reverse, gear, light):
    """The oracle is `struct`, with the layout as it was measured."""
    records = np.zeros(2, codec.ACTOR)
    vehicle = records.view(codec.ACTOR_VEHICLE)[1:]
    vehicle["id"], vehicle["velocity"], vehicle["pedals"] = 9, velocity, (throttle, 0.0, 0.0)
    vehicle["switches"], vehicle["gear"], vehicle["light"] = (False, reverse, False), gear, light
    frame = codec.world_state(TABLE, 1, 0.0, 1, 0.0, 0.05, records)
    fields = struct.unpack_from("<IB6f3f3f3f fff??? if B?I B", frame, 48 + 36 + 119)
    assert len(frame) == 48 + 36 + 2 * 119
    assert fields[0] == 9
    assert fields[8:11] == velocity
    assert (fields[17], fields[21], fields[23], fields[27]) == (throttle, reverse, gear, light)


def test_flags_tell_that_the_map_is_another():
    empty = np.zeros(0, codec.ACTOR)
    frames = [codec.world_state(TABLE, 1, 0.0, 1, 0.0, 0.05, empty, map_changed=flag) for flag in (False, True)]
    assert [struct.unpack_from("<i", frame, 48 + 32)[0] for frame in frames] == [0, 1]


@pytest.mark.parametrize(
    "wire", [[[0, 0, float("nan")], [0, 0, 0]], [[0, 0], [0, 0, 0]], [[0, 0, 0], [0, float("inf"), 0]]]
)
def test_poses_that_are_no_numbers_are_refused(wire):
    with pytest.raises(ValueError, match=r"finite|unpack"):
        codec.read_transform(wire)


def test_results_and_errors_are_wrapped_as_the_client_unwraps_them():
    assert codec.value(5) == [[1, 5]]
    assert codec.failure("no") == [[0, ["no"]]]
    assert codec.DONE == [[False]]
    assert codec.refusal("no") == [[True, ["no"]]]


def test_a_client_of_an_unknown_version_is_not_served(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", SimpleNamespace())
    monkeypatch.setattr(metadata, "version", lambda name: "0.9.13")
    with pytest.raises(UsageError, match=r"0\.9\.13.*0\.9\.16"):
        codec.check_client()


def test_a_client_that_disagrees_with_its_table_is_not_served(monkeypatch):
    zero_based = SimpleNamespace(Bool=0, Int=1, Float=2, String=3, RGBColor=4)
    monkeypatch.setitem(sys.modules, "carla", SimpleNamespace(ActorAttributeType=zero_based))
    monkeypatch.setattr(metadata, "version", lambda name: "0.9.16")
    with pytest.raises(UsageError, match="attribute type bool is 0, not 1"):
        codec.check_client()


def test_without_a_client_the_newest_table_is_spoken(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    assert codec.check_client().name == codec.NEWEST


def test_blueprints_pack_to_what_is_read_as_definitions():
    for blueprint in library().values():
        uid, name, tags, attributes = _sent(blueprint.pack(TABLE))
        assert (uid, name) == (blueprint.uid, blueprint.id)
        assert tags.split(",") == name.split(".")
        for attribute in attributes:
            assert [type(part) for part in attribute] == [str, int, str, list, bool, bool]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("image_size_x", "many", "a whole number from 1"),
        ("image_size_x", "0", "from 1 up to"),
        ("sensor_tick", "-1", "from 0"),
        ("sensor_tick", "nan", "a number"),
        ("enable_postprocess_effects", "perhaps", "true or false"),
        ("size", "1", "no attribute 'size'"),
    ],
)
def test_attributes_that_make_no_sense_are_refused(name, value, problem):
    camera = library()["sensor.camera.rgb"]
    with pytest.raises(ValueError, match=problem):
        blueprints.check_attributes(camera, [[name, 4, value]])


def test_attributes_are_read_as_people_write_them():
    def read(name: str, attribute: str, value: str) -> str:
        return blueprints.check_attributes(library()[name], [[attribute, 4, value]])[attribute]

    assert read("sensor.other.obstacle", "only_dynamics", "True") == "true"
    assert read("vehicle.audi.tt", "color", "1,2,3") == "1,2,3"
    assert read("vehicle.audi.tt", "number_of_wheels", "3") == "4"  # what cannot be modified is not


def _sent(wire: codec.Wire) -> codec.Wire:
    return msgpack.unpackb(msgpack.packb(wire))
