"""From an answer to an action, strictly. Nothing here raises on any text, and no illegal action ever comes out.

Text answers are read in the order `#### <id>` (the last one), action names, label letters; JSON answers by the schema
of `experts.llm.ladder`; label answers from the probabilities of their first token. What a model thinks on the way
(`experts.llm.thoughts`, `Completion.thought`) is at most the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experts.labels import ActionSet
from experts.llm.completion import Completion
from experts.llm.faults import Fault
from experts.llm.prompt import MAX_REASON, Form, Prompt
from experts.llm.thoughts import visible

MAX_ANSWER = 20_000
"""Characters of an answer beyond which it is not read."""
ECHO_LINES = 3
"""Lines of the prompt that make an answer an echo of it."""
MIN_LABEL_MASS = 0.05
"""Probability that the labels must have together for a first-token distribution to mean anything."""
MAX_PLAN = 32

_MARKED_LINE = re.compile(r"####([^\n]*)")
_INTEGER = re.compile(r"(?<![\w.])-?[0-9]+(?![\w])(?!\.[0-9])")
_REFUSAL = re.compile(
    r"\b(i(?:'|’)?m sorry|i am sorry|i can(?:'|’)?t (?:help|assist|comply)|i cannot|i can not"
    r"|unable to (?:help|assist|comply)|as an ai\b|i won(?:'|’)?t|i must decline)",
    re.IGNORECASE,
)
_STATED_LABEL = re.compile(r"\b(?i:answer|action|label|choice|choose|option)\b\W{0,3}(?:is\W{0,3})?([A-Z])(?!\w)")
_FENCE = re.compile(r"^```[a-zA-Z]*\s*(.*?)\s*```$", re.DOTALL)
_ACTION = re.compile(r'"(?:action|plan)"\s*:\s*\[?\s*"[^"]*"')
_LETTER = re.compile(r"\S")
_REASON = re.compile(r'"reason(?:ing)?"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])*)')
"""The reason of a JSON answer that may end anywhere, up to the last whole character."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer says. Either `action` is a legal id, or `fault` says why there is none."""

    action: int | None = None
    fault: Fault | None = None
    probs: np.ndarray | None = None
    """float64 (A,), sums to 1, zero on illegal actions."""
    plan: tuple[int, ...] = ()
    """Ids of the next decisions where the answer gave them; the first is `action`."""
    horizon_s: float | None = None
    reason: str | None = None


def parse(completion: Completion, prompt: Prompt) -> Parsed:
    """Read an answer in the form that `prompt` asked for. Never raises; never returns an illegal action."""
    said = visible(completion.content, prompt.form == "json")
    thought = completion.thought or said.thought
    if prompt.form == "label" and completion.first_token and not (thought or said.cut):  # else it is a thought's
        return _legal(parse_labels(completion.first_token, prompt), prompt)
    if completion.refusal or completion.finish_reason == "content_filter":
        return Parsed(fault=Fault.REFUSAL)
    if said.cut:
        return Parsed(fault=Fault.TRUNCATED)
    found = _parse_visible(said.answer, completion.finish_reason == "length", prompt)
    return replace(found, reason=_newest(thought)) if found.action is not None and not found.reason else found


def _parse_visible(text: str, hit_limit: bool, prompt: Prompt) -> Parsed:
    """Read an answer without its thoughts."""
    if not text.strip():
        return Parsed(fault=Fault.TRUNCATED if hit_limit else Fault.EMPTY)
    if len(text.strip()) > MAX_ANSWER:
        return Parsed(fault=Fault.OVERSIZED)
    text, echoed = _without_echo(text, prompt)
    found = parse_json(text, prompt) if prompt.form == "json" else parse_text(text, prompt.actions)
    if echoed and (prompt.form != "text" or not _MARKED_LINE.search(text)):
        found = Parsed(fault=Fault.PROMPT_ECHO)
    if hit_limit and not _complete(found, text, prompt):
        return Parsed(fault=Fault.TRUNCATED)
    if found.fault in (Fault.MALFORMED, Fault.TWO_ACTIONS) and _REFUSAL.search(text):
        return Parsed(fault=Fault.REFUSAL)
    return _legal(found, prompt)


def spent_on_thinking(completion: Completion, parsed: Parsed) -> bool:
    """Whether an answer ends with thoughts, where it should have named an action."""
    if parsed.fault not in (Fault.TRUNCATED, Fault.EMPTY):
        return False
    said = visible(completion.content)
    return said.cut or bool(completion.thought or completion.reasoning_tokens or said.thought)


def settled(text: str, form: Form) -> int | None:
    """Characters of an answer after which its action is certain, whatever follows; None where it names none."""
    pattern = {"json": _ACTION, "text": _MARKED_LINE, "label": _LETTER}[form]
    found = list(pattern.finditer(visible(text, form == "json").answer))
    return (found[-1] if form == "text" else found[0]).end() if found else None


def reason_so_far(text: str, form: Form) -> str:
    """The reason in an answer that is still arriving, its newest `MAX_REASON` characters; empty while there is none."""
    said = visible(text, form == "json")
    found = _REASON.search(said.answer) if form == "json" else None
    if found is not None:
        reason = json.loads(f'"{found.group(1)}"', strict=False)
    else:
        reason = said.answer.split("####")[0].rstrip("#") if form == "text" else ""
    return _newest(reason if reason.strip() else said.thought) or ""


def parse_labels(first_token: Mapping[str, float], prompt: Prompt) -> Parsed:
    """The distribution over legal actions from the alternatives of one token (log-probabilities by token text).

    Spellings of one letter ("B", " B") add up; what is not a legal label is dropped and the rest renormalised.
    """
    mass = np.zeros(len(prompt.actions))
    seen = 0.0
    for token, logprob in first_token.items():
        action = prompt.actions.from_label(token.strip())
        if action is None:
            continue
        if math.isnan(logprob) or logprob > 1e-3:
            return Parsed(fault=Fault.NAN_CONFIDENCE)
        probability = math.exp(logprob)
        seen += probability
        if action in prompt.legal:
            mass[action] += probability
    if seen < MIN_LABEL_MASS:
        return Parsed(fault=Fault.MALFORMED)
    if mass.sum() <= 0.0:
        return Parsed(fault=Fault.UNAVAILABLE)
    probs = mass / mass.sum()
    return Parsed(action=int(np.argmax(probs)), probs=probs)


def parse_text(text: str, actions: ActionSet) -> Parsed:
    """`#### <id>` (last line so marked), else the one action name, else the one label letter."""
    marked = _MARKED_LINE.findall(text)
    if marked:
        return _with_reason(_from_marked(marked[-1], actions), text)
    names = {i for i in range(len(actions)) if re.search(rf"(?<!\w){actions.name(i)}(?!\w)", text)}
    if names:
        return _with_reason(_single(names), text)
    bare = text.strip().strip("*`'\"()[]{}.:! \n\t")
    letters = {bare} if len(bare) == 1 else set(_STATED_LABEL.findall(text))
    if bare.isascii() and bare.isdigit() and len(bare) <= 3:
        return _from_id(int(bare), actions)
    known = {actions.from_label(letter.upper()) for letter in letters if letter.isascii() and letter.isalpha()}
    if not known:
        return Parsed(fault=Fault.MALFORMED)
    if None in known:
        return Parsed(fault=Fault.OUT_OF_RANGE)
    return _with_reason(_single({i for i in known if i is not None}), text)


def parse_json(text: str, prompt: Prompt) -> Parsed:
    """One JSON object by the answer schema; a Markdown fence around it is tolerated, other text is not."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    body = fenced.group(1) if fenced else stripped
    try:
        data = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return Parsed(fault=_broken_json(body, prompt.actions))
    if not isinstance(data, _Pairs):
        return Parsed(fault=Fault.MALFORMED)
    chosen = [value for key, value in data if key == "action"]
    if not chosen:
        return Parsed(fault=Fault.MALFORMED)
    results = [_from_value(value, prompt.actions) for value in chosen]
    if len({(r.action, r.fault) for r in results}) > 1:
        return Parsed(fault=Fault.TWO_ACTIONS)
    if results[0].action is None:
        return results[0]
    return _with_extras(results[0].action, dict(data), prompt)


class _Pairs(list):
    """The members of a JSON object in order, doubles included."""


def _from_value(value: Any, actions: ActionSet) -> Parsed:
    """The action that a JSON value names: a label, a name or an id."""
    if isinstance(value, bool) or value is None or isinstance(value, float | _Pairs):
        return Parsed(fault=Fault.MALFORMED)
    if isinstance(value, int):
        return _from_id(value, actions)
    if isinstance(value, list):
        return Parsed(fault=Fault.TWO_ACTIONS if len(value) > 1 else Fault.MALFORMED)
    word = str(value).strip()
    action = actions.from_label(word)
    action = actions.from_name(word) if action is None else action
    if action is not None:
        return Parsed(action=action)
    if re.fullmatch(r"[A-Z]", word):
        return Parsed(fault=Fault.OUT_OF_RANGE)
    found = parse_text(word, actions)
    words = {w for w in re.findall(r"\w+", word) if actions.from_label(w) is not None}
    if found.fault is Fault.TWO_ACTIONS or len(words) > 1:
        return Parsed(fault=Fault.TWO_ACTIONS)
    return Parsed(fault=Fault.OUT_OF_RANGE if word.lstrip("-").isdigit() else Fault.MALFORMED)


def _with_extras(action: int, data: Mapping[str, Any], prompt: Prompt) -> Parsed:
    probs: np.ndarray | None = None
    if data.get("probs") is not None:
        probs = _probs(data["probs"], prompt)
        if probs is None:
            return Parsed(fault=Fault.NAN_CONFIDENCE)
    if data.get("confidence") is not None and not _is_probability(data["confidence"]):
        return Parsed(fault=Fault.NAN_CONFIDENCE)
    reason = data.get("reason") if data.get("reason") is not None else data.get("reasoning")
    return Parsed(
        action=action,
        probs=probs,
        plan=_plan(data.get("plan"), action, prompt.actions),
        horizon_s=_horizon(data.get("horizon_s")),
        reason=_shorten(reason) if isinstance(reason, str) else None,
    )


def _probs(value: Any, prompt: Prompt) -> np.ndarray | None:
    """A {label: probability} object over the legal actions, renormalised; None when it is not one."""
    if not isinstance(value, _Pairs):
        return None
    mass = np.zeros(len(prompt.actions))
    for key, probability in value:
        action = prompt.actions.from_label(key)
        action = prompt.actions.from_name(key) if action is None else action
        if not _is_probability(probability):
            return None
        if action in prompt.legal:
            mass[action] = float(probability)
    return mass / mass.sum() if mass.sum() > 0 else None


def _is_probability(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= 1  # False for NaN and the infinities


def _plan(value: Any, action: int, actions: ActionSet) -> tuple[int, ...]:
    """The plan if it is a list of known actions that begins with `action`; else empty (it is optional)."""
    if not isinstance(value, list) or isinstance(value, _Pairs) or not 0 < len(value) <= MAX_PLAN:
        return ()
    steps = [_from_value(item, actions).action for item in value]
    if steps[0] != action or None in steps:
        return ()
    return tuple(step for step in steps if step is not None)


def _horizon(value: Any) -> float | None:
    """Seconds from 0.5 to 5, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value <= 5:
        return None
    return float(value)


def _from_marked(tail: str, actions: ActionSet) -> Parsed:
    """What follows `####` on its line: an id, or failing that a name or a letter."""
    numbers = set(_INTEGER.findall(tail))
    if len(numbers) > 1:
        return Parsed(fault=Fault.TWO_ACTIONS)
    if numbers:
        digits = numbers.pop()
        return _from_id(int(digits), actions) if len(digits) <= 3 else Parsed(fault=Fault.OUT_OF_RANGE)
    words = re.findall(r"\w+", tail)
    found = {actions.from_name(w) for w in words} | {actions.from_label(w) for w in words}
    return _single({i for i in found if i is not None})


def _from_id(value: int, actions: ActionSet) -> Parsed:
    return Parsed(action=value) if 0 <= value < len(actions) else Parsed(fault=Fault.OUT_OF_RANGE)


def _single(found: Iterable[int]) -> Parsed:
    ids = set(found)
    if len(ids) == 1:
        return Parsed(action=ids.pop())
    return Parsed(fault=Fault.TWO_ACTIONS if ids else Fault.MALFORMED)


def _broken_json(body: str, actions: ActionSet) -> Fault:
    """Two objects in a row with different actions are two actions; everything else is malformed."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found: set[int | None] = set()
    position = 0
    while (position := body.find("{", position)) >= 0 and len(found) < 8:
        try:
            data, position = decoder.raw_decode(body, position)
        except (ValueError, RecursionError):
            break
        found |= {_from_value(value, actions).action for key, value in data if key == "action"}
    return Fault.TWO_ACTIONS if len(found - {None}) > 1 else Fault.MALFORMED


def _complete(found: Parsed, text: str, prompt: Prompt) -> bool:
    """Whether an answer that hit its token limit was nevertheless finished as far as the action goes.

    A text after a marked line may have been going on to another one (a thought that the chat template has opened).
    """
    if found.action is None or prompt.form != "text":
        return found.action is not None
    marked = list(_MARKED_LINE.finditer(text))
    return bool(marked) and not text[marked[-1].end() :].strip()


def _without_echo(text: str, prompt: Prompt) -> tuple[str, bool]:
    """The text without lines copied from the prompt, and whether there were enough of them to call it an echo."""
    lines = text.splitlines()
    known = {line.strip() for message in prompt.messages for line in message["content"].splitlines() if len(line) > 11}
    copied = [line.strip() in known for line in lines]
    if sum(copied) < ECHO_LINES:
        return text, False
    given = {line.strip() for message in prompt.messages for line in message["content"].splitlines()}
    return "\n".join(line for line in lines if line.strip() not in given), True


def _legal(found: Parsed, prompt: Prompt) -> Parsed:
    """`found`, unless its action is not available now."""
    if found.action is None:
        return found if found.fault else Parsed(fault=Fault.MALFORMED)
    return (
        found
        if found.action in prompt.legal
        else replace(found, action=None, probs=None, plan=(), fault=Fault.UNAVAILABLE)
    )


def _with_reason(found: Parsed, text: str) -> Parsed:
    before = _MARKED_LINE.split(text)[0].strip()
    return replace(found, reason=_shorten(before)) if found.action is not None and len(before) > 1 else found


def _shorten(text: str) -> str:
    """At most `MAX_REASON` characters on one line, storable everywhere (no lone surrogates)."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."


def _newest(text: str) -> str | None:
    """The end of a text, at most `MAX_REASON` characters on one line; None where it is empty."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return (line if len(line) <= MAX_REASON else "..." + line[3 - MAX_REASON :]) or None
