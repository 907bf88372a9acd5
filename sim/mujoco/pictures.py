"""Pictures without a display: which OpenGL library MuJoCo draws with.

gymnasium's renderer reads `MUJOCO_GL` and otherwise tries a window first. A library that is broken may raise anything
or end the process, so each is tried in a process of its own, once.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from sim.errors import UsageError, unknown

VARIABLE = "MUJOCO_GL"
HEADLESS = ("egl", "osmesa")
"""Libraries that need no display, in the order of preference."""
KNOWN = (*HEADLESS, "glfw")
"""Values of the variable that gymnasium's renderer accepts."""
PATIENCE_S = 60.0
"""Longest trial of a library; one takes about a second."""
TRIAL = """
import importlib, sys
context = importlib.import_module(f"mujoco.{sys.argv[1]}").GLContext(16, 16)
context.make_current()
import mujoco
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


def require_pictures() -> None:
    """Have `MUJOCO_GL` name a library that works here; a value that the user set stays.

    Raises:
        UsageError: None works, or not the one that the user named.
    """
    named = os.environ.get(VARIABLE)
    if named is not None and named not in KNOWN:
        raise unknown(f"value of {VARIABLE}", named, KNOWN)
    os.environ[VARIABLE] = named_library(named) if named else first_library()


def named_library(name: str) -> str:
    """The library that the user named.

    Raises:
        UsageError: It does not work here.
    """
    failure = why_not(name)
    if failure is not None:
        raise UsageError(f"{VARIABLE} = {name!r}: this OpenGL library does not work here ({failure}): unset {VARIABLE}")
    return name


def first_library() -> str:
    """The first library that draws without a display.

    Raises:
        UsageError: There is none.
    """
    for name in HEADLESS:
        if why_not(name) is None:
            return name
    raise UsageError(
        "MuJoCo finds no OpenGL library that draws without a display: install EGL (Debian, Ubuntu: apt install libegl1 "
        "libgl1-mesa-dri) or OSMesa (libosmesa6), or make the environment without render_mode"
    )


@functools.cache
def why_not(name: str) -> str | None:
    """What an attempt to draw with a library says.

    Args:
        name: egl | osmesa | glfw.
    Returns:
        The last line of its error; None where it works.
    """
    command, environment = [sys.executable, "-P", "-c", TRIAL, name], os.environ | {VARIABLE: name}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"no picture after {PATIENCE_S:.0f} s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1][:200] if said else f"exit code {done.returncode}"
