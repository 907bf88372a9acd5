"""Configs: frozen dataclasses that merge deeply, validate by type, print as YAML and hash the same everywhere.

pydantic does the type checking (plain dataclasses, no base class); this module turns its findings into one line.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sim.bounds import bounds_of, numbers_in, spelled
from sim.errors import UsageError, unknown
from sim.yaml_text import MOST_CHARACTERS, dump_yaml_text, load_yaml_text

T = TypeVar("T")
MOST_LEVELS = 20
"""Most parts of a key, as in `strategy_options.arbiter.kind`."""


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The config of what has nothing to set."""


def deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; mappings merge key by key, everything else is replaced.

    Args:
        base: The lower one.
        override: The upper one.
    Returns:
        A new mapping.
    """
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def resolve(default: T, overrides: Mapping[str, Any] | None = None, where: str = "config") -> T:
    """Merge overrides into a config.

    Args:
        default: An instance of a config dataclass.
        overrides: Values by field name, nested as the dataclasses are.
        where: What the config belongs to, for messages.
    Returns:
        A validated instance of the same dataclass.
    Raises:
        UsageError: Unknown key, wrong type or failed check; names the key, the value and what is expected.
    """
    import pydantic

    if not overrides:
        return default
    if hasattr(default, "renamed") and isinstance(overrides, Mapping):
        overrides = default.renamed(overrides)  # a config may know some of its settings by other names too
    _check_keys(default, overrides, where)
    _check_numbers(overrides, where)
    merged = deep_merge(to_dict(default), overrides)
    try:
        return _adapter(type(default)).validate_python(merged)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join([where, *(str(part) for part in first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        value = "" if isinstance(first["input"], Mapping) else f" = {spelled(first['input'])}"
        joint = "." if re.match(r"\w+ = ", message) else f"{value}: "  # the check of a whole config names its field
        raise UsageError(f"{path}{joint}{message[0].lower()}{message[1:]}") from None
    except (ArithmeticError, RecursionError, TypeError) as error:  # a check that met a value which it did not expect
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{where}: its values cannot be used ({words})") from None


@functools.cache
def _adapter(config_type: type) -> Any:
    import pydantic

    return pydantic.TypeAdapter(config_type)


def _check_keys(config: Any, overrides: Mapping[str, Any], where: str) -> None:
    """Report unknown keys first: a misspelt key is named with the closest known one even if a type error follows."""
    if not isinstance(overrides, Mapping):
        raise UsageError(f"{where} = {overrides!r}: expected a mapping of option names to values")
    fields = {f.name for f in dataclasses.fields(config)}
    for key, value in overrides.items():
        if key not in fields:
            raise unknown(f"key in {where}", key, fields)
        child = getattr(config, key)
        if isinstance(value, bool) and bounds_of(type(config)).get(key):  # type: ignore[arg-type]  # a class is hashable
            raise UsageError(f"{where}.{key} = {value}: choose a number")
        if dataclasses.is_dataclass(child) and isinstance(value, Mapping):
            _check_keys(child, value, f"{where}.{key}")


def _check_numbers(values: Mapping[str, Any], where: str) -> None:
    """No setting is NaN, infinite, or beyond what any range allows, in options that are checked later too."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _check_numbers(value, f"{where}.{key}")
            continue
        for number in numbers_in(value):
            if not abs(number) < 1e30:
                raise UsageError(f"{where}.{key} = {spelled(value)}: choose a finite number")


def to_dict(config: Any) -> dict[str, Any]:
    """The values of a config, ready for YAML.

    Args:
        config: An instance of a config dataclass.
    Returns:
        Plain values by field name; tuples become lists.
    """
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def fingerprint(config: Any) -> str:
    """A short hash that is equal exactly when the resolved values are equal, on every machine.

    Args:
        config: A config dataclass or a plain mapping.
    Returns:
        12 hex digits.
    """
    values = to_dict(config) if dataclasses.is_dataclass(config) else _plain(config)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Overrides from the command line: `["a.b=1", "c=[2, 3]"]` -> `{"a": {"b": 1}, "c": [2, 3]}`.

    Args:
        assignments: `key.subkey=value` each, the value in YAML.
    Returns:
        Nested overrides; later assignments win.
    Raises:
        UsageError: An assignment cannot be read.
    """
    merged: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise UsageError(f"override {assignment!r}: write it as key.subkey=value")
        if path.count(".") > MOST_LEVELS:
            raise UsageError(
                f"override {path[:40]!r}...: {path.count('.')} levels; no config has more than {MOST_LEVELS}"
            )
        value = load_yaml_text(text, f"override {assignment!r:.200}")
        for key in reversed(path.split(".")):
            value = {key: value}
        merged = deep_merge(merged, value)
    return merged


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
    Returns:
        The mapping; empty for an empty file.
    Raises:
        UsageError: The file cannot be read, is not YAML (with the line), or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(4 * MOST_CHARACTERS + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        undecoded = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text" if undecoded else getattr(error, "strerror", None) or "it is no path"
        raise UsageError(f"cannot read config file {str(path)!r:.300}: {reason}") from None
    values = load_yaml_text(text, f"config file {str(path)!r:.300}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"config file {str(path)!r}: expected a mapping, found {type(values).__name__}")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML text of a mapping.

    Args:
        values: Plain values; their order is kept.
    Returns:
        The text.
    """
    return dump_yaml_text(_plain(values))
