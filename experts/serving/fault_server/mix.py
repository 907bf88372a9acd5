"""A mix of faults: how often each of them comes, how long answers take, and which request meets which.

Everything is drawn from a hash of the seed, the request's messages and the number of the retry, never from the order in
which requests arrive: the same request meets the same fate in any order, in another process and after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from experts.delay import LONGEST_S, Delay, read_delay
from sim.bounds import Bounds, Share, config_dataclass
from sim.config import load_yaml, resolve, to_dict
from sim.errors import UsageError, unknown

HEALTHY = "healthy"
Seconds = Annotated[float, Bounds(0, LONGEST_S)]


@config_dataclass
class FaultMix:
    """Shares of the requests, 0 to 1, that meet each fault (the rest is healthy), and times.

    Start-up probes are spared.
    """

    stall: Share = 0.0  # the answer is good but comes `stall_s` after the request
    rate_limit: Share = 0.0  # 429 with Retry-After
    server_error: Share = 0.0  # 500
    hang_up: Share = 0.0  # the connection closes without a byte
    hang_up_body: Share = 0.0  # ... after half of the body
    hang_up_stream: Share = 0.0  # ... inside a chunked body, or between the events of a stream
    slow_drip: Share = 0.0  # the body comes byte by byte (a stream event by event) over `drip_s`
    truncated_json: Share = 0.0  # the body, or an event of the stream, is half a JSON text
    wrong_type: Share = 0.0  # a gateway's HTML page with status 200
    oversized: Share = 0.0  # a body of `oversized_bytes`
    no_usage: Share = 0.0  # good, but without a token count
    no_logprobs: Share = 0.0  # good, but without the log-probabilities that were asked for
    wrong_enum: Share = 0.0  # an action that does not exist
    illegal_action: Share = 0.0  # an action that exists but is not available now; healthy where all of them are
    two_actions: Share = 0.0
    refusal: Share = 0.0
    empty: Share = 0.0
    cut_off: Share = 0.0  # the answer ends at the token limit, in its first third
    nan_confidence: Share = 0.0  # a confidence or log-probability that is no number; free text has neither
    instructions: Share = 0.0  # text that gives orders, without any action
    injected_reason: Share = 0.0  # a good action with such text beside it
    prompt_echo: Share = 0.0  # the prompt instead of an answer
    delay: Delay = field(default_factory=Delay)  # from a request to its answer, of a stream to its first content
    token_delay: Delay = field(default_factory=Delay)  # between the contents of a stream; drawn once for each
    stall_s: Delay = field(default_factory=lambda: Delay("constant", (5.0,)))
    drip_s: Seconds = 60.0  # s over which a dripping answer is spread
    retry_after_s: Seconds = 1.0  # s that a 429 asks for
    oversized_bytes: Annotated[int, Bounds(0, 10**9)] = 2_000_000
    # (start, length) in s after the first request: nothing leaves then
    freezes: tuple[tuple[Seconds, Seconds], ...] = ()

    def __post_init__(self) -> None:
        if sum(self.shares.values()) > 1 + 1e-9:
            raise UsageError(f"the shares add up to {sum(self.shares.values()):g}: expected 1 at most")

    @property
    def shares(self) -> dict[str, float]:
        """Share of each fault by its name."""
        return {name: getattr(self, name) for name in SHARES}

    def fate(self, seed: int, messages: Sequence[Mapping[str, Any]], retry: int = 0) -> Fate:
        """What a request meets: a function of these arguments and the mix alone."""
        text = json.dumps(messages, sort_keys=True, separators=(",", ":"))
        luck, delay, pace = _uniforms(f"{seed}/{retry}/{text}", 3)
        kind, limit = HEALTHY, 0.0
        for name, share in self.shares.items():
            limit += share
            if luck < limit:
                kind = name
                break
        (choice, taste) = _uniforms(f"{seed}/{text}", 2)
        seconds = (self.stall_s if kind == "stall" else self.delay).at(delay)
        return Fate(kind, seconds, self.token_delay.at(pace), choice, taste)

    def text(self) -> str:
        """As `read_mix` reads it: what differs from the mix `none`."""
        plain = FaultMix()
        given = [name for name in FIELDS if getattr(self, name) != getattr(plain, name)]
        return ",".join(f"{name}={_text(getattr(self, name))}" for name in given) or "none"


@dataclass(frozen=True, slots=True)
class Fate:
    """What one request meets."""

    kind: str
    """A field of `SHARES`, or "healthy"."""
    delay_s: float
    token_delay_s: float
    choice: float
    """[0, 1), the same for every retry of a request: what a healthy answer chooses."""
    taste: float
    """[0, 1), likewise: whether it follows the recommendation."""


FIELDS = tuple(each.name for each in fields(FaultMix))
SHARES = FIELDS[: FIELDS.index("delay")]
"""The faults, in the order in which they are drawn."""
DELAYS = ("delay", "token_delay", "stall_s")
MIXES = {
    "none": FaultMix(),
    "mild": FaultMix(
        stall=0.002,
        rate_limit=0.01,
        server_error=0.01,
        hang_up=0.002,
        wrong_enum=0.002,
        refusal=0.002,
        empty=0.002,
        cut_off=0.005,
        delay=Delay("lognormal", (0.05, 0.3)),
    ),
    "full": FaultMix(
        **dict.fromkeys(SHARES, 0.01) | {"rate_limit": 0.03, "server_error": 0.03},  # type: ignore[arg-type]
        delay=Delay("lognormal", (0.05, 0.5)),
    ),
}
"""The named mixes. `mild`: an endpoint on an ordinary day; `full`: every fault there is, a quarter of all requests."""


def read_mix(text: str) -> FaultMix:
    """A mix from text: a name (`full`), settings (`stall=0.01,delay=lognormal:0.05:0.5`), both (`full,stall=0`), or the
    path of a YAML file with such settings. UsageError, one line, for anything else."""
    if text.strip().endswith((".yaml", ".yml")):
        return _mix(MIXES["none"], load_yaml(text.strip()))
    words = [word.strip() for word in text.split(",")]
    base = MIXES["none"]
    if "=" not in words[0]:
        name = words.pop(0)
        if name not in MIXES:
            raise unknown("fault mix", name, MIXES)
        base = MIXES[name]
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise UsageError(f"faults: {word!r} in {text!r}: write NAME=VALUE, separated by commas")
        if key in given:
            raise UsageError(f"faults: {key} is set twice in {text!r}: set it once")
        given[key] = value
    return _mix(base, given)


def _mix(base: FaultMix, given: Mapping[str, Any]) -> FaultMix:
    values = dict(given)
    for name in values.keys() & set(DELAYS):
        if isinstance(values[name], str | int | float):
            values[name] = to_dict(read_delay(str(values[name])))
    if isinstance(values.get("freezes"), str):
        values["freezes"] = _read_freezes(values["freezes"])
    return resolve(base, values, "faults")


def _read_freezes(text: str) -> list[list[float]]:
    """`START:LENGTH`, several joined by `+`."""
    try:
        found = [[float(part) for part in word.split(":")] for word in text.split("+")]
    except ValueError:
        found = [[]]
    if any(len(pair) != 2 for pair in found):
        raise UsageError(f"faults: freezes = {text!r}: write START:LENGTH in seconds, several joined by +")
    return found


def _freezes_text(freezes: Sequence[Sequence[float]]) -> str:
    return "+".join(f"{begin!r}:{length!r}" for begin, length in freezes)


def _text(value: Any) -> str:
    if isinstance(value, Delay):
        return value.text()
    return _freezes_text(value) if isinstance(value, tuple) else repr(value)


def _uniforms(text: str, count: int) -> list[float]:
    """Numbers in [0, 1), each with 53 random bits, from a hash of the text."""
    digest = hashlib.blake2b(text.encode()).digest()
    return [(int.from_bytes(digest[8 * k : 8 * k + 8], "big") >> 11) * 2.0**-53 for k in range(count)]
