"""Thoughts in the text of an answer: what a reasoning model wrote for itself must not decide.

Endpoints without a parser for reasoning leave thoughts in the content. Known forms: tags (`<think>`, `<thinking>`,
`<reasoning>`, `<seed:think>`, `◁think▷`, `[THINK]`, `<|START_THINKING|>`, `<|begin_of_thought|>`, also HTML-escaped), a
closing tag alone (the chat template has opened the thought), channels (`<|channel|>analysis<|message|>`, also with its
special tokens lost), and Granite's two headings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TAG = re.compile(
    r"""
    (?: <\|? | &lt; | ◁ ) \s{0,3}
    (?P<way> / | (?:begin|start)_(?:of_)? | end_(?:of_)? )? \s{0,3} (?:\w{1,20}:)?
    (?P<name> think(?:ing)? | thoughts? | reason(?:ing)? | reflection | analysis | scratchpad | chain_of_thought )
    (?: \s [^<>\n]{0,80} )?? (?P<alone> \s{0,3} / )?
    \s{0,3} (?: \|?> | &gt; | ▷ )
    | (?P<bracket> \[/?THINK\] )
    | (?P<channel> <\|channel> \s{0,3} \w{0,20} | <channel\|> )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]{0,80}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNEL = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z]).*?(?:assistantfinal|\Z)", re.DOTALL)
"""Channels whose special tokens were not decoded: `analysisThe car ...assistantfinal#### 1`."""
_HEADINGS = re.compile(
    r"\s*Here(?:'|’)?s? (?:is )?my thought process:.*?(?:Here(?:'|’)?s? (?:is )?my response:|\Z)", re.DOTALL
)
_WRAPPER = re.compile(
    r"</?(?:answer|final|response|output)>|<\|(?:begin|end)_of_box\|>|<\|(?:START|END)_RESPONSE\|>"
    r"|<\|(?:im_end|endoftext|eot_id|end|return|start|message)\|>(?:assistant)?|</s>\s*\Z",
    re.IGNORECASE,
)
"""What may stand around the answer itself."""


@dataclass(frozen=True, slots=True)
class Visible:
    """A text with its thoughts apart."""

    answer: str
    """As long as the text; thoughts and their marks are spaces, so that positions stay what they are."""
    thought: str
    cut: bool
    """The last thought has no end."""


def visible(text: str, is_json: bool = False) -> Visible:
    """Take the thoughts out of an answer. Never raises.

    Args:
        text: The answer, finished or still arriving.
        is_json: JSON was asked for: what is JSON as a whole holds no thoughts, whatever its strings say.

    Returns:
        What may decide, and what may not.
    """
    if is_json and _is_object(text):
        return Visible(text, "", False)
    spans, cut = _channels(text) if _CHANNEL.search(text) else _tags(text)
    parts, position = [], 0
    for begin, end in spans:
        parts += [text[position:begin], " " * (end - begin)]
        position = end
    answer = "".join(parts) + text[position:]
    answer = _WRAPPER.sub(lambda found: " " * len(found.group()), answer)
    thought = "\n".join(text[begin:end] for begin, end in spans)
    thought = _CHANNEL_END.sub("", _CHANNEL.sub("", _TAG.sub("", thought)))
    return Visible(answer, thought.strip(), cut)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _tags(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Spans of thoughts between marks, and whether the last one is open. A thought ends at its first closing mark."""
    spans: list[tuple[int, int]] = []
    opened: tuple[int, str] | None = None
    for words in (_BARE_CHANNEL, _HEADINGS):
        found = words.match(text)
        if found:
            ended = found.group().rstrip().endswith(("assistantfinal", "response:"))
            return [found.span()], not ended
    for begin, end, closes, name in _marks(text):
        if not closes:
            opened = opened or (begin, name)
        elif opened is None:  # the beginning of the thought was in the prompt: all that came before belongs to it
            spans = [(0, end)]
        elif opened[1] == name:
            spans.append((opened[0], end))
            opened = None
    return (spans, False) if opened is None else ([*spans, (opened[0], len(text))], True)


def _marks(text: str) -> Iterator[tuple[int, int, bool, str]]:
    """Begin, end, whether it closes, and the first letters of the name, of each mark."""
    for found in _TAG.finditer(text):
        special = found["bracket"] or found["channel"]
        if special is not None:
            closes = special[1] == "/" or special.startswith("<channel")
            yield found.start(), found.end(), closes, special.strip("[]/<|>")[:4].lower()
        elif found["alone"] is None:
            closes = (found["way"] or "").lower().startswith(("/", "end"))
            yield found.start(), found.end(), closes, found["name"][:5].lower()


def _channels(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Spans of everything but the final channel, and whether a thought is the last thing and has no end."""
    heads = list(_CHANNEL.finditer(text))
    spans, cut, position = [], False, 0
    for number, head in enumerate(heads):
        until = heads[number + 1].start() if number + 1 < len(heads) else len(text)
        if head[1].lower() == "final":
            spans.append((position, head.end()))
            position = until
        else:
            cut = number + 1 == len(heads) and not _CHANNEL_END.search(text, head.end())
    if position < len(text) and heads[-1][1].lower() != "final":
        spans.append((position, len(text)))
    return spans, cut
