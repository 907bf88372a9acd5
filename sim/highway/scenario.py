"""`HighwayScenario`: a registered scenario whose config is made from highway-env's defaults when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sim.catalog import ENGINE
from sim.config import resolve
from sim.highway.kinds import EnvKind
from sim.scenarios import Backend, Scenario

HIGHWAY_ENV = Backend(env="sim.highway.factory:make_env", vec="sim.highway.factory:make_vec")


class HighwayScenario(Scenario):
    """A scenario on one kind of highway-env environment.

    `defaults` imports highway_env, so it is computed on first use and listing scenarios stays quick.
    """

    kind: EnvKind
    preset: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        summary: str,
        kind: EnvKind,
        preset: Mapping[str, Any] | None = None,
        actions: str = "meta",
    ) -> None:
        """Describe the scenario.

        Args:
            name: Registry name.
            summary: One line.
            kind: What it runs.
            preset: What differs from highway-env's own config of that kind.
            actions: meta | longitudinal | continuous.
        """
        for attribute, value in {
            "name": name,
            "summary": summary,
            "backends": ({"engine": ENGINE} if kind.on_engine else {}) | {"highway-env": HIGHWAY_ENV},
            "family": kind.name,
            "actions": actions,
            "kind": kind,
            "preset": preset or {},
        }.items():
            object.__setattr__(self, attribute, value)

    @functools.cached_property
    def defaults(self) -> Any:
        """Instance of the environment's frozen config dataclass."""
        from sim.highway.schema import make_config

        return resolve(make_config(self.kind), self.preset, self.name)
