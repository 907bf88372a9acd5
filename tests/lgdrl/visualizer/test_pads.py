"""Gamepads: SDL's own virtual devices, from the device to what the car does."""

import pygame
import pytest

import sim
from experts import registry
from experts.human import Hands
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.clock import VirtualClock
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.session import DriveSession
from sim.actions import MetaAction
from tests.lgdrl.visualizer.virtual_pad import BUTTON_PAD, DUALSHOCK, FULL, REST, VirtualPad, sdl

pytestmark = pytest.mark.skipif(sdl() is None, reason="pygame uses the system's SDL: no virtual gamepads from here")
RIGHT_X, LEFT_TRIGGER, RIGHT_TRIGGER, RIGHT_Y = 2, 3, 4, 5  # of the DualShock
CENTRED = {3: REST, 4: REST}


class Seat:
    """A window with a person's hands and a gamepad."""

    def __init__(self, mapping, scenario="parking-v0", expert=None, axes=None, keys=None) -> None:
        self.hands = Hands()
        open_window((640, 400))
        env = sim.make(scenario)
        adviser = registry.make(expert, scenario) if expert else None
        session = DriveSession(env, None, adviser, "expert" if expert else "human", self.hands, "test")
        options = WindowOptions(draw_every=100)
        self.app = App([session], options, keys or keymap(), VirtualClock(), None)
        self.pad = VirtualPad(mapping, axes)
        self.read()

    def read(self):
        for event in pygame.event.get():
            self.app.handle(event)

    def take(self):
        self.read()
        return self.hands.take()

    def drive(self, decisions):
        until = self.app.length + decisions
        while self.app.length < until:
            self.app.frame()
        return [turn.controller for turn in self.app.panes[0].session.track.turns]


@pytest.fixture
def seat(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened = []

    def make(*args, **kwargs):
        opened.append(Seat(*args, **kwargs))
        return opened[-1]

    yield make
    for each in opened:
        each.pad.unplug()
        each.app.close()


def test_the_right_stick_of_a_dualshock_touched_and_centred_neither_brakes_nor_accelerates(seat):
    at = seat(DUALSHOCK, axes=CENTRED)
    for value in (10_000, 0):
        at.pad.axis(RIGHT_X, value)
        at.pad.axis(RIGHT_Y, -value)
        at.read()
    assert not at.hands.engaged
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    assert at.take().throttle == 1.0


@pytest.mark.parametrize(
    ("mapping", "press"),
    [
        (DUALSHOCK, lambda pad: pad.hat("left")),
        (BUTTON_PAD, lambda pad: pad.button(12)),
        (None, lambda pad: pad.hat("left")),
    ],
)
def test_the_directional_pad_drives_as_hat_and_as_buttons(seat, mapping, press):
    at = seat(mapping, axes=CENTRED if mapping == DUALSHOCK else None)
    press(at.pad)
    first, held = at.take(), at.take()
    assert first.manoeuvre is held.manoeuvre is MetaAction.SLOWER
    assert held.throttle == -1.0


def test_a_diagonal_holds_two_directions_and_rolling_over_it_keeps_the_first(seat):
    at = seat(None)
    at.pad.hat("right")
    at.read()
    at.pad.hat("right", "up")
    both = at.take()
    assert (both.throttle, both.steering) == (1.0, -0.4)
    at.pad.hat("right")
    assert at.take().steering == 0.0
    at.pad.hat()
    at.take()
    assert at.take().throttle == 0.0


def test_triggers_that_were_never_seen_at_rest_do_not_count(seat):
    at = seat(DUALSHOCK)  # SDL reports both triggers half pressed until they move
    assert not at.hands.engaged
    at.pad.axis(RIGHT_TRIGGER, 10_000)
    at.read()
    assert not at.hands.engaged
    at.pad.axis(RIGHT_TRIGGER, REST)
    at.read()
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    assert at.take().throttle == 1.0


def test_throttle_and_brake_held_together_cancel_and_each_is_back_when_the_other_goes(seat):
    at = seat(DUALSHOCK, axes=CENTRED)
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    at.pad.sweep(LEFT_TRIGGER, REST, FULL)
    assert at.take().throttle == 0.0
    at.pad.axis(RIGHT_TRIGGER, REST)
    assert at.take().throttle == -1.0
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    at.pad.axis(LEFT_TRIGGER, REST)
    assert at.take().throttle == 1.0


@pytest.mark.parametrize("mapping", [DUALSHOCK, None])
def test_a_stick_that_drifts_in_its_dead_zone_does_not_take_the_wheel(seat, mapping):
    at = seat(mapping, scenario="lane-change", expert="rule", axes=CENTRED)
    for drift in (3_000, -5_000, 7_000, 1_000):
        at.pad.axis(0, drift)
        controllers = at.drive(1)
    assert set(controllers) == {"expert"}


def test_a_stick_that_rests_outside_its_dead_zone_does_not_take_the_wheel_until_it_was_centred(seat):
    at = seat(DUALSHOCK, scenario="lane-change", expert="rule", axes=CENTRED | {0: 14_000})
    at.pad.axis(0, 15_000)
    assert set(at.drive(1)) == {"expert"}
    at.pad.axis(0, 0)
    at.read()
    at.pad.sweep(0, 0, FULL)
    assert at.take().steering == 1.0


def test_the_stick_begins_at_zero_at_the_edge_of_the_dead_zone(seat):
    at = seat(DUALSHOCK, axes=CENTRED)
    at.pad.sweep(0, 0, int(-0.25 * FULL))
    assert -0.02 < at.take().steering < 0.0
    at.pad.sweep(0, 0, REST)
    assert at.take().steering == -1.0


def test_a_trigger_that_is_let_go_after_the_hand_back_does_not_take_the_wheel_again(seat):
    at = seat(DUALSHOCK, scenario="lane-change", expert="rule", axes=CENTRED)
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    at.drive(2)
    for down in (True, False):
        at.pad.button(2, down)  # B
        at.read()
    for value in (20_000, 5_000, REST):
        at.pad.axis(RIGHT_TRIGGER, value)
        controllers = at.drive(1)
    assert controllers[-3:] == ["expert"] * 3
    at.pad.sweep(RIGHT_TRIGGER, REST, FULL)
    assert at.drive(1)[-1] == "human"


def test_triggers_and_stick_are_manoeuvres_where_actions_are_discrete(seat):
    at = seat(DUALSHOCK, scenario="lane-change", axes=CENTRED)
    at.pad.sweep(LEFT_TRIGGER, REST, FULL)
    assert at.take().manoeuvre is MetaAction.SLOWER
    at.pad.axis(LEFT_TRIGGER, REST)
    at.pad.sweep(0, 0, REST)
    assert at.take().manoeuvre is MetaAction.LANE_LEFT
    at.pad.axis(0, int(0.4 * REST))
    assert at.take().manoeuvre is MetaAction.IDLE


def test_an_unmapped_pad_steers_with_its_first_axis_and_no_other_axis_is_a_pedal(seat):
    at = seat(None)
    for axis in (1, 2, 3, 4, 5):
        for value in (REST, FULL, 0):
            at.pad.axis(axis, value)
            at.read()
    assert not at.hands.engaged
    at.pad.sweep(0, 0, FULL)
    wish = at.take()
    assert (wish.throttle, wish.steering) == (0.0, 1.0)
    assert "no mapping" in at.app.message.shown


@pytest.mark.parametrize(("rest", "half"), [(REST, 0), (0, FULL // 2)])
def test_pedals_of_an_unmapped_pad_can_be_named_and_may_rest_at_either_end(seat, tmp_path, rest, half):
    path = tmp_path / "keys.yaml"
    path.write_text("raw_axes: {throttle: 5}\naxes: {trigger_dead_zone: 0}\n")
    at = seat(None, keys=keymap(path), axes={5: rest})
    assert not at.hands.engaged
    at.pad.sweep(5, rest, half)
    assert at.take().throttle == pytest.approx(0.5, abs=0.01)


def test_an_unplugged_pad_lets_go_and_the_person_still_drives(seat):
    at = seat(DUALSHOCK, axes=CENTRED)
    at.pad.hat("left")
    at.take()
    assert at.take().manoeuvre is MetaAction.SLOWER
    at.pad.unplug()
    assert at.take().manoeuvre is MetaAction.IDLE
    at.pad = VirtualPad(DUALSHOCK)
