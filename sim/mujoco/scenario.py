"""`MujocoScenario`: one of gymnasium's MuJoCo environments, and what its episodes are measured by."""

from __future__ import annotations

from dataclasses import dataclass

from sim.scenarios import Scenario


@dataclass(frozen=True)
class MujocoScenario(Scenario):
    """A registry entry. The body's own measures are reported where the environment has them."""

    env_id: str = ""
    """gymnasium's id."""
    travels: bool = False
    """The first coordinate is the body's forward position: episodes report a distance."""
    falls: bool = False
    """The episode ends where the body is no longer upright: episodes report whether it fell."""
