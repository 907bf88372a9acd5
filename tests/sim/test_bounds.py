"""Numbers of configs: every field has a range, and what lies outside is refused in one line."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from experts.idm import IDMConfig
from experts.llm.config import LLMConfig
from experts.recorded import RecordedConfig
from experts.rules.config import RuleConfig
from experts.rules.thresholds import ThresholdConfig
from experts.safety import ActionSafetyConfig
from experts.search import SearchConfig
from experts.serving.fault_server.mix import FaultMix
from lgdrl.comparison import CompareConfig
from lgdrl.config import RunConfig
from lgdrl.guidance.arbiters import ARBITERS
from lgdrl.guidance.labelling import GATES
from lgdrl.learners.discrete_sac import DiscreteSACConfig
from lgdrl.learners.registry import LEARNERS
from lgdrl.methods import METHODS
from lgdrl.profiler.config import ProfileConfig
from sim.bounds import Bounds, Count, Share, bounds_of, config_dataclass, spelled
from sim.config import resolve
from sim.errors import UsageError


@config_dataclass
class Inner:
    share: Share = 0.5


@config_dataclass
class Outer:
    count: Count = 1
    pair: tuple[Annotated[float, Bounds(0, 1, open_low=True)], ...] = (0.5,)
    limit: Annotated[int, Bounds(2, 4, open_high=True)] | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit > self.count:
            raise ValueError(f"limit = {self.limit}: choose at most count")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"count": 0}, "outer.count = 0: choose 1 to 1,000,000,000,000"),
        ({"count": True}, "outer.count = True: choose a number"),
        ({"count": 10**5000}, "integer of thousands of digits"),
        ({"pair": [0.5, 0.0]}, "outer.pair = [0.5, 0.0]: choose more than 0 and at most 1"),
        ({"pair": [math.nan]}, "outer.pair = [nan]: choose a finite number"),
        ({"limit": 4}, "outer.limit = 4: choose 2 to below 4"),
        ({"limit": 3}, "outer.limit = 3: choose at most count"),
        ({"inner": {"share": math.inf}}, "outer.inner.share = inf: choose a finite number"),
        ({"inner": {"share": -0.1}}, "outer.inner.share = -0.1: choose 0 to 1"),
        ({"options": {"deep": [{"x": -math.inf}]}}, "outer.options.deep = [{'x': -inf}]: choose a finite number"),
    ],
)
def test_a_number_outside_its_range_is_named_with_the_range(overrides, words):
    with pytest.raises(UsageError) as error:
        resolve(Outer(), overrides, "outer")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_instance_that_is_made_directly_is_checked_too():
    with pytest.raises(ValueError, match="share = 2: choose 0 to 1"):
        Inner(2)
    with pytest.raises(ValueError, match="share = nan"):
        Inner(math.nan)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-5, 5), st.floats(-5, 5), st.booleans(), st.booleans())
def test_bounds_are_an_interval_and_nan_is_in_none(value, low, high, open_low, open_high):
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    assert Bounds(low, high, open_low, open_high).holds(value) == inside
    assert not Bounds(low, high, open_low, open_high).holds(math.nan)


def test_long_values_are_short_in_messages():
    assert spelled(10**100).endswith("(101 characters)")
    assert len(spelled(list(range(10_000)))) < 80


def configs() -> list[Any]:
    """The defaults of everything that is configured by name, and of runs and comparisons."""
    found = [RunConfig(), CompareConfig(), ProfileConfig(), LLMConfig(), FaultMix()]
    found += [RuleConfig(), ThresholdConfig(), SearchConfig(), IDMConfig(), RecordedConfig(), ActionSafetyConfig()]
    found += [each.defaults for each in sim.registry().values() if each.family == "lane-change" or "carla" in each.name]
    for registry in (METHODS, LEARNERS, ARBITERS, GATES):
        found += [registry.get(name).defaults for name in registry.available()]
    return found


def numeric_fields(cls: type, seen: set[type]) -> list[str]:
    """Names of numeric fields without bounds, of a config class and those nested in it."""
    if cls in seen:
        return []
    seen.add(cls)
    missing = []
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        parts = [hints[field.name]]
        for part in parts:
            parts.extend(get_args(part))
        if any(part in (int, float) for part in parts) and not bounds_of(cls)[field.name]:
            missing.append(f"{cls.__module__}.{cls.__name__}.{field.name}")
        for part in parts:
            if isinstance(part, type) and dataclasses.is_dataclass(part) and part is not Bounds:
                missing += numeric_fields(part, seen)
    return missing


def test_every_numeric_setting_has_a_range():
    seen: set[type] = set()
    missing = [name for config in configs() for name in numeric_fields(type(config), seen)]
    assert not missing
    assert DiscreteSACConfig in seen
    assert len(seen) > 20


@pytest.mark.parametrize("scenario", [each.name for each in sim.registry().values() if "highway-env" in each.backends])
def test_every_number_of_highway_envs_configs_has_a_range(scenario):
    defaults = sim.get(scenario).defaults
    for field in dataclasses.fields(defaults):
        value = getattr(defaults, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            for senseless in (1e20, -1e20, 10**20, math.nan):
                with pytest.raises(UsageError, match=field.name):
                    resolve(defaults, {field.name: senseless}, "config")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DiscreteSACConfig)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e300])
def test_no_number_of_the_learner_can_be_senseless(name, value):
    if bounds_of(DiscreteSACConfig)[name]:
        value = [value] if name == "hidden" else value
        with pytest.raises(UsageError, match=name):
            resolve(DiscreteSACConfig(), {name: value}, "learner_options")
