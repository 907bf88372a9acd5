"""The families of the engine: what they cover, and that the catalog says so."""

from __future__ import annotations

import pytest

import sim
from sim.config import resolve
from sim.engine.factory import make_batch, why_not
from sim.engine.families import FAMILIES, family_of
from sim.errors import UsageError


def test_every_kind_belongs_to_one_family():
    kinds = [kind for family in FAMILIES for kind in family.kinds]
    assert len(kinds) == len(set(kinds))
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_catalog_offers_the_engine_exactly_where_a_family_covers_the_scenario():
    offered = {name for name, scenario in sim.registry().items() if "engine" in scenario.backends}
    assert offered == {name for name, scenario in sim.registry().items() if family_of(scenario)}


def test_the_defaults_of_every_scenario_on_the_engine_are_covered():
    for scenario in sim.registry().values():
        if "engine" in scenario.backends:
            assert why_not(scenario, scenario.defaults) is None


def test_a_scenario_without_a_family_is_refused():
    scenario = sim.get("carla-roundabout")
    assert why_not(scenario, scenario.defaults) == f"environments of kind {scenario.family}"
    with pytest.raises(UsageError, match="'carla-roundabout' does not run on the engine"):
        make_batch(scenario, scenario.defaults, 1)


def test_an_exit_from_too_many_lanes_is_left_to_highway_env():
    scenario = sim.get("exit-v1")
    config = resolve(scenario.defaults, {"lanes_count": 17})
    assert why_not(scenario, config) == "an exit from a road of 17 lanes"
    assert scenario.backend(None, config)[0] == "highway-env"


@pytest.mark.parametrize(
    ("config", "size"), [({"roundabout_lanes": 30}, "30 lanes"), ({"roundabout_radius": 0}, "radius 0")]
)
def test_a_roundabout_without_room_for_its_routes_or_lanes_is_left_to_highway_env(config, size):
    scenario = sim.get("roundabout-generic-v1")
    assert why_not(scenario, resolve(scenario.defaults, config)) == f"a roundabout of {size}"
    assert why_not(scenario, resolve(scenario.defaults, {"roundabout_lanes": 29})) is None
