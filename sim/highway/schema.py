"""Typed scenario configs made from highway-env's own `default_config()`.

highway-env merges configs shallowly, takes any key and any type, and ignores some keys that it lists. Here each kind of
environment gets a frozen dataclass with one checked field per key, so that `sim.config.resolve` merges deeply, suggests
the right spelling, and refuses what would have no effect.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from sim.bounds import LARGEST
from sim.config import deep_merge
from sim.errors import UsageError, unknown
from sim.highway.kinds import EnvKind
from sim.highway.traffic import private_copy
from sim.highway.upstream import env_class

Bool = pydantic.StrictBool
Text = pydantic.StrictStr
MOST = 1_000_000
"""Of everything that is counted: vehicles, lanes, pixels, steps per second."""
Count = Annotated[int, pydantic.Strict(), pydantic.Field(ge=0, le=MOST)]
Positive = Annotated[int, pydantic.Strict(), pydantic.Field(ge=1, le=MOST)]
Number = Annotated[float, pydantic.Strict(), pydantic.AllowInfNan(False), pydantic.Field(ge=-LARGEST, le=LARGEST)]
PositiveNumber = Annotated[float, pydantic.Strict(), pydantic.AllowInfNan(False), pydantic.Field(gt=0, le=LARGEST)]
Numbers = list[Number]


def _ascending_pair(value: list[float]) -> list[float]:
    if value[0] >= value[1]:
        raise ValueError("expected [lowest, highest]")
    return value


def _set_points(value: list[float]) -> list[float]:
    steps = np.diff(value)
    if len(value) < 2 or (steps <= 0).any() or not np.allclose(steps, steps[0]):
        raise ValueError("expected two or more ascending, evenly spaced speeds (highway-env assumes it)")
    return value


def _vehicle_class(value: str) -> str:
    module, _, name = value.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError("expected the dotted path of a vehicle class") from None
    return value


def _only_one(value: int) -> int:
    if value != 1:
        raise ValueError("only one controlled vehicle is supported (multi-agent environments are out of scope)")
    return value


Pair = Annotated[list[Number], pydantic.Field(min_length=2, max_length=2)]
Range = Annotated[Pair, pydantic.AfterValidator(_ascending_pair)]
Ranges = dict[str, Range]
SetPoints = Annotated[Numbers, pydantic.AfterValidator(_set_points)]

FIELD_TYPES: dict[str, Any] = {
    "simulation_frequency": Positive,
    "policy_frequency": PositiveNumber,
    "duration": PositiveNumber,
    "scaling": PositiveNumber,
    "screen_width": Positive,
    "screen_height": Positive,
    "centering_position": Pair,
    "reward_speed_range": Range,
    "reward_weights": Annotated[Numbers, pydantic.Field(min_length=6, max_length=6)],
    "other_vehicles_type": Annotated[Text, pydantic.AfterValidator(_vehicle_class)],
    "controlled_vehicles": Annotated[Positive, pydantic.AfterValidator(_only_one)],
    "offscreen_rendering": Bool | None,
    "initial_lane_id": Count | None,
    "incoming_vehicle_destination": Annotated[Count, pydantic.Field(le=2)] | None,
    "destination": Literal["o1", "o2", "o3"] | None,
    "lanes_count": Positive,
    "no_lanes": Annotated[int, pydantic.Strict(), pydantic.Field(ge=2, le=MOST)],
    "roundabout_lanes": Positive,
    "vehicles_count": Count,
    "initial_vehicle_count": Positive,
    "other_vehicles": Count,
    "vehicles_density": PositiveNumber,
    "ego_spacing": PositiveNumber,
    "spawn_probability": Annotated[Number, pydantic.Field(ge=0, le=1)],
}
"""Types of top-level keys; other keys take the type of their default (bool, text, or number)."""

KINEMATICS: dict[str, Any] = {
    "features": list[Text],
    "vehicles_count": Positive,
    "features_range": Ranges,
    "absolute": Bool,
    "order": Text,
    "normalize": Bool,
    "clip": Bool,
    "see_behind": Bool,
    "observe_intentions": Bool,
    "include_obstacles": Bool,
    "flatten": Bool,
}
OBSERVATIONS: dict[str, dict[str, Any]] = {
    "Kinematics": KINEMATICS,
    "ExitObservation": KINEMATICS,
    "KinematicsGoal": KINEMATICS | {"scales": Numbers},
    "OccupancyGrid": {
        "features": list[Text],
        "grid_size": list[Pair],
        "grid_step": Pair,
        "features_range": Ranges,
        "absolute": Bool,
        "align_to_vehicle_axes": Bool,
        "clip": Bool,
        "as_image": Bool,
    },
    "TimeToCollision": {"horizon": Positive},
    "LidarObservation": {"cells": Positive, "maximum_range": PositiveNumber, "normalize": Bool},
    "GrayscaleObservation": {
        "observation_shape": Annotated[list[Positive], pydantic.Field(min_length=2, max_length=2)],
        "stack_size": Positive,
        "weights": Annotated[Numbers, pydantic.Field(min_length=3, max_length=3)],
        "scaling": PositiveNumber,
        "centering_position": Pair,
    },
    "AttributesObservation": {"attributes": list[Text]},
}
CONTINUOUS: dict[str, Any] = {
    "acceleration_range": Range,
    "steering_range": Range,
    "speed_range": Range,
    "longitudinal": Bool,
    "lateral": Bool,
    "dynamical": Bool,
    "clip": Bool,
    "target_speeds": SetPoints,
}
ACTIONS: dict[str, dict[str, Any]] = {
    "DiscreteMetaAction": {"longitudinal": Bool, "lateral": Bool, "target_speeds": SetPoints},
    "ContinuousAction": CONTINUOUS,
    "DiscreteAction": CONTINUOUS | {"actions_per_axis": Annotated[Positive, pydantic.Field(ge=2)]},
}
"""Keys of each observation and action type (their constructors swallow unknown ones), multi-agent types left out."""
MULTI_AGENT = ("MultiAgentObservation", "MultiAgentAction")
MISPRINTS = {("LidarObservation", "normalise")}
"""Keys that highway-env's documentation writes though no type has them; like those of other types they do nothing."""

NO_EFFECT: dict[tuple[str, str], str] = {
    ("observation", "flatten"): "highway-env ignores it; use gymnasium's FlattenObservation",
    ("ContinuousAction", "target_speeds"): "a continuous ego has no set-points",
    ("DiscreteAction", "target_speeds"): "a grid of accelerations has no set-points",
    ("DiscreteAction", "speed_range"): "highway-env drops it for DiscreteAction",
}


def make_config(kind: EnvKind) -> Any:
    """The default config of a kind.

    Args:
        kind: The kind of environment.
    Returns:
        An instance of its own frozen config dataclass.
    Raises:
        UsageError: highway-env's own defaults do not fit the schema.
    """
    try:
        # Through the validators once, so that a default and the same value given by a user are equal (40 and 40.0).
        return pydantic.TypeAdapter(config_type(kind)).validate_python(kind_defaults(kind))
    except pydantic.ValidationError as error:
        raise UsageError(f"highway-env's own config of {kind.name} does not fit its schema: {error}") from None


@functools.cache
def config_type(kind: EnvKind) -> type:
    """The config class of a kind.

    Args:
        kind: The kind of environment.
    Returns:
        A frozen dataclass with one field per key of `kind_defaults`.
    """
    fields = []
    for name, value in kind_defaults(kind).items():
        if name in ("observation", "action"):
            kinds = OBSERVATIONS if name == "observation" else ACTIONS
            check = pydantic.AfterValidator(_type_checker(name, kinds, value))
            annotation: Any = Annotated[dict[str, Any], pydantic.BeforeValidator(_plain), check]
        else:
            annotation = Annotated[_field_type(name, value), pydantic.BeforeValidator(_plain)]
            if name in kind.inert:
                annotation = Annotated[annotation, pydantic.AfterValidator(_inert(value, kind.inert[name]))]
        fields.append((name, annotation, dataclasses.field(default_factory=_copier(value))))
    namespace = {
        "__doc__": f"Config of {kind.name}, from highway-env's defaults.",
        "__post_init__": _check_frequencies,
        "__reduce__": lambda config: (_revive, (kind, vars(config).copy())),
    }
    words = kind.name.replace("-", " ").title().replace(" ", "")
    return dataclasses.make_dataclass(f"{words}Config", fields, frozen=True, namespace=namespace)


def _revive(kind: EnvKind, values: dict[str, Any]) -> Any:
    """A pickled config: its class is made, not imported, so it is named by its kind."""
    return config_type(kind)(**values)


def kind_defaults(kind: EnvKind) -> dict[str, Any]:
    """The default config of a kind in plain values.

    Args:
        kind: The kind of environment.
    Returns:
        highway-env's own defaults with the kind's overrides and time limit.
    """
    defaults = _plain(env_class(kind.env_class).default_config())
    defaults = deep_merge(defaults, kind.overrides)
    if kind.time_limit is not None:
        defaults["duration"] = kind.time_limit
    return defaults


def to_inner(config: Any, kind: EnvKind) -> dict[str, Any]:
    """A config in highway-env's own form.

    Args:
        config: The resolved config.
        kind: Its kind of environment.
    Returns:
        What the environment's constructor takes.
    """
    inner = {field.name: copy.deepcopy(getattr(config, field.name)) for field in dataclasses.fields(config)}
    inner["observation"] = inner_observation(inner["observation"])
    if kind.private_traffic:
        inner["other_vehicles_type"] = private_copy(inner["other_vehicles_type"])
    return inner


def inner_observation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an observation type in highway-env's own form: the shape of a picture is a tuple."""
    inner = copy.deepcopy(dict(settings))
    if "observation_shape" in inner:
        inner["observation_shape"] = tuple(inner["observation_shape"])
    return inner


def _field_type(name: str, default: Any) -> Any:
    if name in FIELD_TYPES:
        return FIELD_TYPES[name]
    if isinstance(default, bool):
        return Bool
    if isinstance(default, int | float):
        return Number
    return Text if isinstance(default, str) else Any


def _type_checker(part: str, kinds: Mapping[str, Mapping[str, Any]], default: Mapping[str, Any]) -> Any:
    """Validator of `observation` or `action`: keys and values by the chosen type.

    A key of another type is left out with a warning, as highway-env's own examples hold such keys.
    """
    known_elsewhere = {key for table in kinds.values() for key in table}

    def check(value: dict[str, Any]) -> dict[str, Any]:
        kind = value.get("type", "")
        if kind in MULTI_AGENT:
            raise ValueError(f"type {kind} is not supported (multi-agent environments are out of scope)")
        if kind not in kinds:
            raise unknown(f"{part} type", kind, kinds)
        allowed = kinds[kind]
        checked: dict[str, Any] = {"type": kind}
        for key, item in value.items():
            if key == "type":
                continue
            inherited = key in default and item == default[key]
            if key not in allowed:
                if inherited:
                    continue  # a left-over of the default type, which the user has replaced
                if key in known_elsewhere or (kind, key) in MISPRINTS:
                    warnings.warn(f"{part}.{key} = {item!r} has no effect: type {kind} has no such key", stacklevel=2)
                    continue
                raise unknown(f"key of {part} type {kind}", key, allowed)
            reason = NO_EFFECT.get((part, key)) or NO_EFFECT.get((kind, key))
            if reason:
                if inherited or item is None:
                    continue
                raise ValueError(f"{key!r} has no effect: {reason}")
            if item is not None:
                checked[key] = _validated(allowed[key], key, item)
        return checked

    return check


def _validated(kind: Any, key: str, value: Any) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *(str(part) for part in first["loc"])])
        raise ValueError(f"{where} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}") from None


def _inert(default: Any, reason: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value != default:
            raise ValueError(f"this key has no effect here: {reason}")
        return value

    return check


def _check_frequencies(config: Any) -> None:
    """A decision should last a whole number of simulation steps: highway-env's clock and physics drift apart else."""
    steps = config.simulation_frequency / config.policy_frequency
    if steps < 1:
        raise ValueError(
            f"policy_frequency = {config.policy_frequency} is above simulation_frequency = "
            f"{config.simulation_frequency}: a decision needs at least one simulation step"
        )
    if abs(steps - round(steps)) > 1e-9:
        warnings.warn(
            f"simulation_frequency = {config.simulation_frequency} is not a multiple of policy_frequency = "
            f"{config.policy_frequency}: highway-env simulates {int(steps) / config.simulation_frequency:.3g} s per "
            f"decision and counts {1 / config.policy_frequency:.3g} s",
            stacklevel=2,
        )


def checked(part: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an observation or action type of highway-env, checked.

    Args:
        part: observation | action
        value: Settings by name, `type` among them.
    Returns:
        Plain values.
    Raises:
        ValueError: The type is unknown, or a setting is or has a value that it does not take.
    """
    return _type_checker(part, OBSERVATIONS if part == "observation" else ACTIONS, {})(_plain(value))


def _copier(value: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(value)


def _plain(value: Any) -> Any:
    """numpy values and tuples as plain Python ones."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
