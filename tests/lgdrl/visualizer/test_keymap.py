"""Key maps: what keys, buttons and axes mean, remapped by a file."""

import pygame
import pytest

from lgdrl.visualizer.controls import Command, keymap
from sim.errors import UsageError


def test_keys_can_be_remapped(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(
        "keys: {pause: [x], lane_left: [space]}\nbuttons: {pause: [guide, 9], lane_left: dpad_left}\n"
        "axes: {steering: right_x}\nraw_axes: {steering: 3}\n"
    )
    keys = keymap(path)
    assert keys.keys[pygame.K_x] is Command.PAUSE
    assert keys.keys[pygame.K_SPACE] is Command.LANE_LEFT
    assert keys.buttons[9] is keys.buttons["guide"] is Command.PAUSE
    assert keys.buttons["dpad_left"] is Command.LANE_LEFT
    assert "start" not in keys.buttons
    assert (keys.axes.steering, keys.raw_axes.steering) == ("right_x", 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keys: {paus: [x]}", "paus"),
        ("keys: {pause: [nokey]}", "nokey"),
        ("keys: {pause: [x], restart: [x]}", "both"),
        ("buttons: {pause: -1}", "-1"),
        ("buttons: {pause: stat}", "did you mean 'start'"),
        ("buttons: {pause: a, keep: a}", "both"),
        ("knobs: {}", "knobs"),
        ("axes: {steering: left}", "left_x"),
        ("axes: {steering: 3}", "raw_axes"),
        ("axes: {dead_zone: 1.0}", "dead zone"),
        ("axes: {dead_zone: .nan}", "nan"),
        ("raw_axes: {brake: -2}", "-2"),
    ],
)
def test_bad_key_maps_are_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as error:
        keymap(path)
    assert "\n" not in str(error.value)
