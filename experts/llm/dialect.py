"""What an endpoint takes: parameters that it refuses are found from its own words, and left out from then on.

Endpoints disagree about `temperature`, `seed`, the name of the token limit, and how many `top_logprobs` there may be.
They say so in their errors, one or several parameters at a time. Each error is read once; what was learnt holds for all
later requests to this endpoint, and `notes` says it in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experts.llm.failures import ErrorText

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
DISPENSABLE = ("temperature", "seed", "tool_choice", "strict", "stream_options")
"""Parameters without which a request asks for the same thing."""
PARAMETERS = (*TOKEN_FIELDS, *DISPENSABLE, "logprobs", "top_logprobs", "response_format", "tools", "structured_outputs")
"""What `client.leave_out` may name."""
FEWEST_ALTERNATIVES = 5
"""`top_logprobs` that is tried where an endpoint says that there are too many, but not how many it takes."""

_LIMIT = re.compile(
    r"too (?:large|high|big|small|low|many|few)|exceed|m(?:ax|in)imum|\bm(?:ax|in)\b|at (?:most|least)|below|above"
    r"|range|limit|between|(?:less|greater|smaller|larger|more|fewer|higher|lower) than|<=|>=|≤|≥|up to",
    re.IGNORECASE,
)
"""Words of a message about a value, not about the parameter."""


class Dialect:
    """The differences of one endpoint from the protocol, as far as they are known."""

    def __init__(self, left_out: Sequence[str] = ()) -> None:
        """Nothing is learnt yet.

        Args:
            left_out: Parameters that are never sent.
        """
        self._configured = frozenset(left_out)
        self._refused: dict[str, None] = {}
        """In the order in which they were found."""
        self._supposed: tuple[str, ...] = ()
        self._token_field: str | None = None
        """The name to be used in place of the configured one."""
        self._limits: dict[str, int] = {}
        """Values to be used in place of the configured ones."""

    @property
    def left_out(self) -> frozenset[str]:
        """Parameters that are not sent."""
        return self._configured | frozenset(self._refused) | frozenset(self._supposed)

    @property
    def notes(self) -> list[str]:
        """What was learnt, a sentence each."""
        found = []
        refused = dict.fromkeys((*self._refused, *self._supposed))
        if refused:
            found.append(f"The endpoint refuses {' and '.join(refused)}: left out.")
        if self._token_field is not None and self._token_field not in self.left_out:
            found.append(f"The endpoint takes {self._token_field} for the token limit.")
        found += [f"The endpoint limits {name}: {value} is sent." for name, value in self._limits.items()]
        return found

    def suppose(self, names: Sequence[str]) -> None:
        """Leave parameters out although the endpoint has not named them.

        Args:
            names: All those that it is supposed to refuse.
        """
        self._supposed = tuple(names)

    def apply(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as this endpoint takes them.

        Args:
            args: Arguments of `chat.completions.create`.
        """
        found = {}
        for name, value in args.items():
            if name in TOKEN_FIELDS and self._token_field is not None:
                name = self._token_field
            if name in self.left_out:
                continue
            if "strict" in self.left_out and name in ("response_format", "tools"):
                value = _without_strict(value)
            found[name] = self._limits.get("one-token answers" if name in TOKEN_FIELDS and value == 1 else name, value)
        return found

    def learn(self, error: ErrorText, sent: Mapping[str, Any]) -> bool:
        """Learn from a refusal.

        Args:
            error: What the endpoint said.
            sent: The arguments that it refused.

        Returns:
            Whether a request with the same arguments would now be another one.
        """
        present = {*sent, *(["strict"] if _without_strict(dict(sent)) != dict(sent) else [])}
        named = [name for name in PARAMETERS if name in present and name in error.names]
        if not named:
            words = set(re.findall(r"[A-Za-z_]\w*", error.message.lower()))
            named = [name for name in PARAMETERS if name in present and name in words]
        before = (self.left_out, self._token_field, dict(self._limits))
        for name in named:
            self._refuse(name, error.message, sent)
        return before != (self.left_out, self._token_field, self._limits)

    def _refuse(self, name: str, message: str, sent: Mapping[str, Any]) -> None:
        about_value = _LIMIT.search(message) is not None
        numbers = {int(digits) for digits in re.findall(r"(?<![\w.])\d{1,9}(?![\w])", message)}
        if name in ("logprobs", "top_logprobs"):
            count = sent.get("top_logprobs", 0)
            fits = [number for number in numbers if 1 < number < count]
            if about_value and (fits or count > FEWEST_ALTERNATIVES):
                self._limits["top_logprobs"] = max(fits, default=FEWEST_ALTERNATIVES)
        elif name in TOKEN_FIELDS:
            self._refuse_tokens(name, int(sent[name]), numbers if about_value else set())
        elif name in DISPENSABLE:
            self._refused.setdefault(name)

    def _refuse_tokens(self, name: str, value: int, numbers: set[int]) -> None:
        """Another number of tokens where the message names one; else the other name of the field; else none."""
        fits = [n for n in numbers if (1 < n <= 64 if value == 1 else 16 <= n < value)]
        if fits and value == 1:
            self._limits["one-token answers"] = min(fits)
        elif fits:
            self._limits[name] = max(fits)
        elif self._token_field is None:
            self._token_field = next(other for other in TOKEN_FIELDS if other != name)
        else:
            self._refused.setdefault(name)


def _without_strict(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_strict(item) for name, item in value.items() if name != "strict"}
