"""Manoeuvres as the plain numbers that compiled functions compare."""

from __future__ import annotations

from sim.actions import MetaAction

LEFT, IDLE, RIGHT, FASTER, SLOWER = (int(manoeuvre) for manoeuvre in MetaAction)
