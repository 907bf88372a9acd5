"""YAML as configs use it: maps, lists and plain scalars. What else YAML can say is refused, with its line.

Scalars follow YAML 1.2 (`1e-3` is a number, `2020-01-01` and `1:30` are text); `yes`, `no`, `on`, `off` are booleans
still. There are no tags and no merge keys; keys are text and stand once. Size, depth and the number of values, aliases
expanded, have limits, so that reading takes no longer than the text is worth.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from sim.errors import UsageError

MOST_CHARACTERS, MOST_VALUES, MOST_DEPTH, MOST_DIGITS = 1 << 19, 50_000, 40, 40
"""Limits of a text: characters, values (aliases expanded), nested lists and maps, digits of a number."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = (
    {form for word in words for form in (word, word.capitalize(), word.upper())}
    for words in (("true", "yes", "on"), ("false", "no", "off"))
)
_INT = re.compile(r"[-+]?[0-9](_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9](_?[0-9])*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
"""Characters that only double quotes keep as they are."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml_text(text: str, what: str) -> Any:
    """The value of a YAML text.

    Args:
        text: The text.
        what: What it is, for messages.
    Returns:
        None, bool, int, float, str, list or dict with text as keys.
    Raises:
        UsageError: It is not YAML of this kind; names the line.
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"{what} has {len(text):,} characters: configs have {MOST_CHARACTERS:,} at most")
    try:
        text.encode()
        return _Reader(yaml.parse(text, Loader=_LOADER), what).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise UsageError(f"{what} is not valid YAML{line}") from None
    except UnicodeError:
        raise UsageError(f"{what} is not valid Unicode text") from None


def dump_yaml_text(values: Any) -> str:
    """YAML text that `load_yaml_text` reads as the same values.

    Args:
        values: Plain values; the order of keys is kept.
    Raises:
        UsageError: A text among them is not valid Unicode.
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)


class _Reader:
    """Values from the events of one document."""

    def __init__(self, events: Iterator[Any], what: str) -> None:
        self.events = events
        self.what = what
        self.values = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        """Finished values by anchor, and how many values each is made of."""

    def refused(self, event: Any, words: str) -> UsageError:
        return UsageError(f"{self.what}, line {event.start_mark.line + 1}: {words}")

    def document(self) -> Any:
        next(self.events)  # the stream begins
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self.value(next(self.events), 0)
        next(self.events)  # the document ends
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.refused(event, "a second document begins: keep one")
        return value

    def value(self, event: Any, depth: int) -> Any:
        before = self.values
        self.count(event, 1)
        if depth > MOST_DEPTH:
            raise self.refused(event, f"lists and maps are nested more than {MOST_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if event.tag is not None:
            raise self.refused(event, f"tag {event.tag!r:.80}: configs hold plain values only")
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event) if not event.style else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.items(depth)
        else:
            value = self.pairs(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def count(self, event: Any, number: int) -> None:
        self.values += number
        if self.values > MOST_VALUES:
            raise self.refused(event, f"more than {MOST_VALUES:,} values, aliases expanded")

    def alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            raise self.refused(event, f"alias {event.anchor!r:.80} of something that is not finished or not there")
        value, number = self.anchors[event.anchor]
        self.count(event, number)
        return copy.deepcopy(value)

    def items(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.value(event, depth + 1))
        return found

    def pairs(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event)
            if key in found:
                raise self.refused(event, f"key {key!r:.80} stands at line {lines[key]} already: keep one")
            found[key], lines[key] = None, event.start_mark.line + 1
            found[key] = self.value(next(self.events), depth + 1)
        return found

    def key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
            raise self.refused(event, "a key has to be plain text")
        if not event.style and event.value == "<<":
            raise self.refused(event, "merge keys (<<) are not read: write the keys out")
        self.count(event, 1)
        return event.value

    def scalar(self, event: Any) -> Any:
        try:
            return plain_scalar(event.value)
        except ValueError as error:
            raise self.refused(event, str(error)) from None


def plain_scalar(text: str) -> Any:
    """The value of a scalar without quotes.

    Args:
        text: As it stands.
    Raises:
        ValueError: A number that is too long or too large.
    """
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text.lower() in _SPECIAL and text[-3:] in ("inf", "Inf", "INF", "nan", "NaN", "NAN"):
        return float(_SPECIAL[text.lower()])
    is_int = _INT.fullmatch(text)
    if not is_int and not _FLOAT.fullmatch(text):
        return text
    if sum(character.isalnum() for character in text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} characters: {MOST_DIGITS} digits are the most")
    if is_int:
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f"{text} is too large for a number")
    return number


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quoted where a reader would take it for something else."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{text!r:.200} is not valid Unicode: leave out the bytes that are not UTF-8") from None
    style = '"' if _BREAKS.search(text) else "'" if _is_ambiguous(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_ambiguous(text: str) -> bool:
    try:
        return text == "<<" or plain_scalar(text) != text
    except ValueError:
        return True


_Dumper.add_representer(str, _represent_text)
