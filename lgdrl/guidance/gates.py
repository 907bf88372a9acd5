"""Gates: when the expert's action is executed in place of the learner's.

I = g w. The episode gate g picks whole episodes (the intermittent part: the learner keeps exploring on its own in the
others); the step gate w picks decisions within them. LGDRL-style, as specified here; `value` is the rule of TS2C
(arXiv 2303.01728).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from experts.safety import unsafe_actions
from lgdrl.guidance.constraint import js
from lgdrl.guidance.strategy import Advice, Moment
from sim.errors import UsageError


@dataclass(frozen=True)
class EpisodeGateConfig:
    """Which episodes are guided, and for how long."""

    kind: Literal["never", "always", "bernoulli", "periodic"] = "bernoulli"
    share: float = 0.5  # bernoulli: probability that an episode is guided
    period: int = 2  # periodic: of every `period` episodes ...
    guided: int = 1  # ... the first `guided` are
    until: float = 0.5  # guidance ends at this share of the training's decisions

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share}: choose 0 to 1")
        if not 1 <= self.guided <= self.period:
            raise ValueError(f"guided = {self.guided} of period = {self.period}: choose 1 <= guided <= period")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until = {self.until}: choose a share of the training, 0 to 1")

    @property
    def guided_share(self) -> float:
        """Expected share of all decisions of the training that lie in guided episodes."""
        shares = {"never": 0.0, "always": 1.0, "bernoulli": self.share, "periodic": self.guided / self.period}
        return self.until * shares[self.kind]


class EpisodeGate:
    """Decides once per episode. Its draw depends on the episode's number alone, so it needs no state."""

    def __init__(self, config: EpisodeGateConfig, total_decisions: int, seed: np.random.SeedSequence) -> None:
        self.config = config
        self.end = config.until * total_decisions
        self._key = int(seed.generate_state(1, np.uint64)[0])

    def guided(self, moment: Moment) -> np.ndarray:
        """bool (N,): worlds whose present episode is guided."""
        config, episodes = self.config, moment.episodes
        if config.kind == "never" or moment.decisions >= self.end:
            return np.zeros(len(episodes), bool)
        if config.kind == "always":
            return np.ones(len(episodes), bool)
        if config.kind == "periodic":
            return episodes % config.period < config.guided
        return self._uniform(episodes) < config.share

    def _uniform(self, episodes: np.ndarray) -> np.ndarray:
        """A number in [0, 1) per episode (splitmix64 of its number and the key)."""
        with np.errstate(over="ignore"):
            z = episodes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self._key)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


StepGateName = Literal["never", "always", "disagree", "unsafe", "value", "js"]


@dataclass(frozen=True)
class StepGateConfig:
    """Which decisions of a guided episode the expert executes."""

    kind: StepGateName = "unsafe"  # the best reading of "when necessary"
    value_margin: float = 0.5  # value: fire where min Q(u) - min Q(a) exceeds this
    js_on: float = 0.35  # js: start to intervene where JS exceeds this, nats (ln 2 = 0.69 is total disagreement) ...
    js_off: float = 0.15  # ... and hand back where it falls below this

    def __post_init__(self) -> None:
        if not 0 <= self.js_off <= self.js_on:
            raise ValueError(f"js_off = {self.js_off}, js_on = {self.js_on}: choose 0 <= js_off <= js_on")


class StepGate:
    """`fires(moment, advice, rows)`: bool (N,), True where the advice replaces the learner's proposal."""

    def __init__(self, config: StepGateConfig) -> None:
        self.config = config
        self._rule: Callable[[Moment, Advice, np.ndarray], np.ndarray] = getattr(self, f"_{config.kind}")
        self._engaged = np.zeros(0, bool)
        self._engaged_in = np.zeros(0, np.int64)

    @property
    def asks_first(self) -> bool:
        """Whether the rule needs the advice to decide; if not, only rows where it fires have to be asked."""
        return self.config.kind in ("disagree", "value", "js")

    def fires(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        """Args: the moment; advice so far (may be empty unless `asks_first`); bool (N,) rows that are guided."""
        return rows & self._rule(moment, advice, rows)

    def _never(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows), bool)

    def _always(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), bool)

    def _disagree(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        return advice.given & (advice.action != moment.proposals)

    def _unsafe(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        """The learner's proposal fails the safety check of the scene."""
        found = np.zeros(len(rows), bool)
        indices = np.flatnonzero(rows)
        if indices.size:
            views = moment.views(indices)
            if views is None:
                raise UsageError("step gate 'unsafe' needs traffic scenes: choose 'disagree', 'value' or 'js' here")
            found[indices] = unsafe_actions(views)[np.arange(indices.size), moment.proposals[indices]]
        return found

    def _value(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        """The critics prefer the expert's action by more than the margin (TS2C)."""
        fires = np.zeros(len(rows), bool)
        given = np.flatnonzero(advice.given)
        if given.size:
            q = moment.q_values()
            gain = q[given, advice.action[given]] - q[given, moment.proposals[given]]
            fires[given] = gain > self.config.value_margin
        return fires

    def _js(self, moment: Moment, advice: Advice, rows: np.ndarray) -> np.ndarray:
        """Policy and expert are far apart, with hysteresis within an episode against chattering."""
        if len(self._engaged) != len(rows):
            self._engaged, self._engaged_in = np.zeros(len(rows), bool), np.full(len(rows), -1)
        engaged = self._engaged & (self._engaged_in == moment.episodes)
        with np.errstate(divide="ignore"):
            log_probs = torch.from_numpy(np.log(moment.probs))
        distance = js(log_probs, torch.from_numpy(advice.probs)).numpy()
        threshold = np.where(engaged, self.config.js_off, self.config.js_on)
        self._engaged = advice.given & (distance > threshold)
        self._engaged_in = moment.episodes.copy()
        return self._engaged

    def state_dict(self) -> dict[str, Any]:
        return {"engaged": self._engaged.copy(), "engaged_in": self._engaged_in.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._engaged, self._engaged_in = state["engaged"].copy(), state["engaged_in"].copy()


STEP_GATES = get_args(StepGateName)
