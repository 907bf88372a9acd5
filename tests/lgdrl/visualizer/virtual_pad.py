"""Gamepads that exist only in SDL: its virtual joysticks, with or without a mapping, moved as a person moves one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pygame

AXES, BUTTONS, HATS = 6, 14, 1
REST, FULL = -32768, 32767
DUALSHOCK = (
    "a:b1,b:b2,x:b0,y:b3,back:b8,start:b9,leftshoulder:b4,rightshoulder:b5,"
    "dpup:h0.1,dpdown:h0.4,dpleft:h0.8,dpright:h0.2,leftx:a0,lefty:a1,rightx:a2,righty:a5,lefttrigger:a3,righttrigger:a4,"
)
"""The right stick where an Xbox pad has triggers; the directional pad is a hat."""
BUTTON_PAD = "a:b0,b:b1,dpup:b10,dpdown:b11,dpleft:b12,dpright:b13,leftx:a0,lefttrigger:a2,righttrigger:a5,"
"""The directional pad is four buttons."""
NUMBER_OF = {"up": 1, "right": 2, "down": 4, "left": 8}


class _Guid(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * 16),)


def sdl() -> ctypes.CDLL | None:
    """The SDL that pygame has loaded; None where the wheel does not bring its own."""
    folder = Path(pygame.__file__).parent.parent / "pygame_ce.libs"
    found = sorted(folder.glob("libSDL2-2*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.SDL_JoystickGetDeviceGUID.restype = _Guid
    library.SDL_JoystickOpen.restype = library.SDL_JoystickFromInstanceID.restype = ctypes.c_void_p
    return library


class VirtualPad:
    """One gamepad; `open_window` comes first.

    Args:
        mapping: SDL's mapping, without name; None: SDL does not know the pad.
        axes: Values of axes at the moment of plugging in.
    """

    def __init__(self, mapping: str | None, axes: dict[int, int] | None = None) -> None:
        library = sdl()
        assert library is not None
        self.sdl = library
        index = library.SDL_JoystickAttachVirtual(0, AXES, BUTTONS, HATS)
        assert index >= 0
        guid = bytes(library.SDL_JoystickGetDeviceGUID(index).data).hex()
        if mapping is not None:
            assert library.SDL_GameControllerAddMapping(f"{guid},Virtual pad,{mapping}".encode()) >= 0
        self.index, self._pad = index, ctypes.c_void_p(library.SDL_JoystickOpen(index))
        for axis, value in (axes or {}).items():
            self.axis(axis, value)

    def axis(self, number: int, value: int) -> None:
        """Move an axis, -32768 to 32767."""
        assert self.sdl.SDL_JoystickSetVirtualAxis(self._pad, number, ctypes.c_int16(value)) == 0

    def sweep(self, number: int, begin: int, end: int) -> None:
        """Move an axis through a position in between, as fingers do."""
        self.axis(number, begin + (end - begin) // 20)
        pygame.event.pump()
        self.axis(number, end)

    def button(self, number: int, down: bool = True) -> None:
        """Press or release a button."""
        assert self.sdl.SDL_JoystickSetVirtualButton(self._pad, number, ctypes.c_uint8(down)) == 0

    def hat(self, *directions: str) -> None:
        """Hold the directional pad in one or two directions, or in none."""
        value = sum(NUMBER_OF[each] for each in directions)
        assert self.sdl.SDL_JoystickSetVirtualHat(self._pad, 0, ctypes.c_uint8(value)) == 0

    def unplug(self) -> None:
        """Take it away."""
        self.sdl.SDL_JoystickClose(self._pad)
        self.sdl.SDL_JoystickDetachVirtual(self.index)
