"""Traffic lights: which light is green when, for any changes of times, clocks and single lights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.carla_lite import maps
from sim.carla_lite.lights import GREEN, OFF, RED, YELLOW, Times, TrafficLights
from sim.carla_lite.roads import RoadMap
from sim.errors import UsageError

INTERSECTION = RoadMap.parse(maps.read("intersection"))
EAST_WEST, NORTH_SOUTH = ("1", "3"), ("2", "4")


def lights(**times: float) -> TrafficLights:
    return TrafficLights(INTERSECTION, Times(**times))


def states(groups: TrafficLights) -> dict[str, int]:
    return {light.signal: light.state for light in groups.lights}


def pair(east_west: int, north_south: int) -> dict[str, int]:
    return dict.fromkeys(EAST_WEST, east_west) | dict.fromkeys(NORTH_SOUTH, north_south)


def test_numbers_of_the_states_are_those_of_carlas_client() -> None:
    carla = pytest.importorskip("carla")
    names = carla.TrafficLightState.names
    assert [int(names[name]) for name in ("Red", "Yellow", "Green", "Off")] == [RED, YELLOW, GREEN, OFF]


def test_one_cycle_goes_green_yellow_red_for_each_phase_with_all_red_between() -> None:
    groups = lights(green=10, yellow=3, red=2)
    seen = []
    for _ in range(600):  # 30 s
        seen.append(states(groups))
        groups.step(0.05)
    expected = [
        *[pair(GREEN, RED)] * 200,
        *[pair(YELLOW, RED)] * 60,
        *[pair(RED, RED)] * 40,
        *[pair(RED, GREEN)] * 200,
        *[pair(RED, YELLOW)] * 60,
        *[pair(RED, RED)] * 40,
    ]
    assert seen == expected
    assert states(groups) == pair(GREEN, RED)


def test_the_intersection_is_one_group_with_numbered_poles() -> None:
    groups = lights()
    assert [group.junction for group in groups.groups] == ["1000"]
    assert {light.group for light in groups.lights} == {0}
    assert sorted(light.pole for light in groups.lights) == [0, 1, 2, 3]
    assert {light.signal: light.phase for light in groups.lights} == {"1": 0, "3": 0, "2": 1, "4": 1}


def test_elapsed_time_counts_from_when_a_light_got_its_state() -> None:
    groups = lights(green=5, yellow=1, red=1)
    groups.step(4.0)
    assert [groups.light(signal).elapsed for signal in ("1", "2")] == pytest.approx([4.0, 4.0])
    groups.step(1.5)  # yellow for half a second
    assert [groups.light(signal).elapsed for signal in ("1", "2")] == pytest.approx([0.5, 5.5])
    groups.step(2.0)  # north and south are green for half a second
    assert [groups.light(signal).elapsed for signal in ("1", "2")] == pytest.approx([1.5, 0.5])


steps = st.lists(st.floats(0, 20), max_size=30)
seconds = st.floats(0, 12)
orders = st.one_of(
    st.tuples(st.just("step"), st.floats(0, 40)),
    st.tuples(st.just("times"), st.sampled_from("1234"), st.tuples(seconds, seconds, seconds)),
    st.tuples(st.just("freeze"), st.sampled_from("1234"), st.booleans()),
    st.tuples(st.just("freeze all"), st.booleans()),
    st.tuples(st.just("reset")),
)


@given(st.lists(orders, max_size=40), seconds, seconds, seconds)
def test_opposite_phases_are_never_green_together(
    sequence: list[tuple], green: float, yellow: float, red: float
) -> None:
    groups = lights(green=green, yellow=yellow, red=red)
    for order, *values in sequence:
        if order == "step":
            groups.step(values[0])
        elif order == "times":
            groups.set_times(values[0], *values[1])
        elif order == "freeze":
            groups.freeze(*values)
        elif order == "freeze all":
            groups.freeze_all(*values)
        else:
            groups.reset()
        now = states(groups)
        assert now["1"] == now["3"]
        assert now["2"] == now["4"]
        assert RED in (now["1"], now["2"])


@given(steps, st.floats(0.5, 12), st.floats(0.5, 5), st.floats(0.5, 5))
def test_states_depend_on_the_time_that_passed_and_not_on_the_steps(
    sequence: list[float], green: float, yellow: float, red: float
) -> None:
    groups = lights(green=green, yellow=yellow, red=red)
    for dt in sequence:
        groups.step(dt)
    half = green + yellow + red
    since = sum(sequence) % (2 * half)
    borders = np.cumsum([0.0, green, yellow, red, green, yellow, red])
    if np.abs(borders - since).min() > 1e-6:
        own = [GREEN, YELLOW, RED][int(np.searchsorted(borders, since % half, side="right")) - 1]
        assert states(groups) == (pair(own, RED) if since < half else pair(RED, own))


def test_a_frozen_group_stands_still_and_goes_on_where_it_was() -> None:
    groups = lights(green=5)
    groups.step(4.0)
    groups.freeze("2")
    groups.step(100.0)
    assert states(groups) == pair(GREEN, RED)
    assert all(light.frozen and light.elapsed == pytest.approx(4.0) for light in groups.lights)
    groups.freeze_all(False)
    groups.step(1.5)
    assert states(groups) == pair(YELLOW, RED)
    assert not any(light.frozen for light in groups.lights)


def test_a_light_that_was_overruled_follows_its_phase_again_at_the_next_change() -> None:
    groups = lights(green=10, yellow=3, red=2)
    groups.step(1.0)
    groups.set_state("1", RED)
    groups.set_state("2", OFF)
    groups.step(8.0)
    assert states(groups) == {"1": RED, "3": GREEN, "2": OFF, "4": RED}
    assert groups.light("1").elapsed == pytest.approx(8.0)
    groups.step(1.0)
    assert states(groups) == {"1": YELLOW, "3": YELLOW, "2": OFF, "4": RED}
    groups.step(5.0)
    assert states(groups) == pair(RED, GREEN)


def test_times_are_those_of_a_phase() -> None:
    groups = lights(green=10, yellow=3, red=2)
    groups.set_times("3", green=1.0)
    assert [groups.light(signal).times.green for signal in "1234"] == [1.0, 10.0, 1.0, 10.0]
    assert groups.light("1").times.yellow == 3.0
    groups.step(1.0)
    assert states(groups) == pair(YELLOW, RED)


def test_a_reset_begins_the_cycle_anew_with_the_times_that_were_set() -> None:
    groups = lights(green=2)
    groups.set_times("1", green=7.0)
    groups.step(13.0)
    groups.set_state("4", OFF)
    groups.reset()
    assert states(groups) == pair(GREEN, RED)
    assert all(light.elapsed == 0 for light in groups.lights)
    groups.step(6.5)
    assert states(groups) == pair(GREEN, RED)


def test_without_controllers_the_arms_of_a_junction_take_turns() -> None:
    text = maps.read("intersection")
    start, end = text.index(" <controller"), text.index(" <junction")
    bare = text[:start] + text[end:].replace('<controller id="10000" type="0" />', "").replace(
        '<controller id="10001" type="0" />', ""
    )
    groups = TrafficLights(RoadMap.parse(bare))
    assert len(groups.groups) == 1
    for _ in range(80):
        groups.step(1.0)
        assert sum(light.state != RED for light in groups.lights) <= 1


@pytest.mark.parametrize("name", sorted(set(maps.available()) - {"intersection"}))
def test_maps_without_lights_have_no_groups(name: str) -> None:
    groups = TrafficLights(RoadMap.parse(maps.read(name)))
    groups.step(1.0)
    groups.reset()
    assert groups.lights == []


def test_unknown_lights_states_and_times_are_refused() -> None:
    groups = lights()
    with pytest.raises(UsageError, match="no traffic light '9'"):
        groups.light("9")
    with pytest.raises(UsageError, match="state 7"):
        groups.set_state("1", 7)
    with pytest.raises(UsageError, match="green time -1 s"):
        groups.set_times("1", green=-1)
    with pytest.raises(UsageError, match="red time nan s"):
        lights(red=float("nan"))
