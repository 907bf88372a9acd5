"""`HighwayScenario`: a registered scenario whose config is made from highway-env's defaults when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sim.config import resolve
from sim.highway.families import Family
from sim.scenarios import Backend, Scenario

HIGHWAY_ENV = Backend(env="sim.highway.factory:make_env", vec="sim.highway.factory:make_vec")
ENGINE = {
    "engine": Backend(
        env="sim.engine.factory:make_env",
        vec="sim.engine.factory:make_vec",
        why_not="sim.engine.highway:why_not",
        vector="sim.engine.factory:make_vector",
    )
}


class HighwayScenario(Scenario):
    """A scenario on a highway-env world.

    `defaults` imports highway_env, so it is computed on first use and listing scenarios stays quick.
    """

    world: Family
    preset: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        summary: str,
        world: Family,
        preset: Mapping[str, Any] | None = None,
        actions: str = "meta",
    ) -> None:
        """`preset` overrides the world's defaults."""
        for attribute, value in {
            "name": name,
            "summary": summary,
            "backends": {**(ENGINE if world.on_engine else {}), "highway-env": HIGHWAY_ENV},
            "family": world.name,
            "actions": actions,
            "world": world,
            "preset": preset or {},
        }.items():
            object.__setattr__(self, attribute, value)

    @functools.cached_property
    def defaults(self) -> Any:
        """Instance of the world's frozen config dataclass."""
        from sim.highway.schema import make_config

        return resolve(make_config(self.world), self.preset, self.name)
