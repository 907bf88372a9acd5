"""Driving late: episodes in which the environment runs on while the expert decides.

The environment is stepped at its simulation frequency. At a decision (every period D) a car without an open query sends
one, and the response to that scene arrives `latency` later. Until then the last action goes on. A decision within D is
executed when it arrives, if it is still legal. What happens beyond D is the *policy*:

- pause: the environment waits for the decision, as in training; the cost is wall time. It is driven once.
- hold-last: the last action goes on; the late decision is executed if it is still legal and the shield does not refuse
  it in the scene in which it arrives.
- rule, novice: from the deadline on the rule (a trained policy) decides from the present scene at each decision; the
  late decision is discarded.
- unchecked: the late decision is executed as it is, if it is legal: not a way to drive, but it shows
  what the checks prevent.

With a latency of 0 every policy is the plain scenario (tested to the bit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

import sim
from experts import registry
from experts.driving import contexts_of, idle_actions
from experts.provider import Context, PolicyProvider
from experts.safety import refused, unsafe_actions
from lgdrl.profiler.frequency import finest
from lgdrl.statistics import Rate
from sim.env import DrivingVecEnv

Policy = Literal["pause", "hold-last", "rule", "novice", "unchecked"]
NUM_ENVS = 32
"""Environments driven at once."""
Delay = Callable[[np.random.Generator, int, float], float]
"""(random stream, seed of the episode, seconds into it) -> seconds until the decision of a query sent there."""


@dataclass(frozen=True)
class LatencyOutcome:
    """Episodes with one latency under one policy."""

    policy: str
    latency: str
    """As tables call it: "0.5 D", "measured", or "stall 3 s"."""
    latency_s: float
    """Mean of what was injected."""
    success: Rate
    crash: Rate
    speed: float
    """Mean, m/s."""
    jerk: float
    """Mean change of the acceleration between decisions, m/s3."""
    decisions: int
    """Queries that were sent."""
    late: float
    """Share of the decisions that came after the deadline."""
    discarded: float
    """Share of the decisions that were never executed: late, illegal or refused by then."""
    staleness: float
    """Speed at the query times latency, m, mean; 0 where the environment paused."""
    waited_s: float
    """Latency of all queries of an episode together, s, mean: how long a pausing environment waits."""
    injected: bool = True
    """A constant latency, a point of the safety curve."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"success": self.success.to_dict(), "crash": self.crash.to_dict()}


class Late:
    """Drives an expert through a scenario that does not wait for it.

    Args:
        expert: Decides; its own latency does not count.
        scenario: Its name.
        config: Changes to its config.
        backend: The simulator; None: the fastest.
        novice: An `experts.driving.Actor`, for the policy of that name.
    """

    def __init__(
        self,
        expert: PolicyProvider,
        scenario: str,
        config: Mapping[str, Any],
        backend: str | None = None,
        novice: Any = None,
    ) -> None:
        fine, self.steps = finest(scenario, config)
        self.expert, self.novice = expert, novice
        self._make_rule = partial(registry.make, "rule", scenario, {}, 0)
        self._open = partial(sim.make_driving_vec, scenario, backend=backend, config=fine)

    def run(self, policy: Policy, name: str, delay: Delay, seeds: Sequence[int], seed: int = 0) -> LatencyOutcome:
        """One episode per seed.

        Args:
            policy: What happens beyond the deadline.
            name: Of the latency, for tables.
            delay: The latency.
            seeds: Of the episodes.
            seed: Of the random stream that `delay` is given.
        """
        rng = np.random.default_rng(seed)
        with self._make_rule() as rule:
            drives = [
                _Drive(self, rule, policy, delay, rng, self._open(len(chunk))).through(chunk)
                for chunk in (list(seeds[k : k + NUM_ENVS]) for k in range(0, len(seeds), NUM_ENVS))
            ]
        summaries = [summary for drive in drives for summary in drive.summaries]
        latencies = np.concatenate([drive.latencies for drive in drives])
        arrived = max(sum(drive.arrived for drive in drives), 1)
        outcomes = [summary["outcome"] for summary in summaries]
        return LatencyOutcome(
            policy=policy,
            latency=name,
            latency_s=float(latencies.mean()),
            success=Rate(outcomes.count("success"), len(outcomes)),
            crash=Rate(outcomes.count("crash"), len(outcomes)),
            speed=float(np.mean([summary["mean_speed"] for summary in summaries])),
            jerk=float(np.mean(np.concatenate([drive.jerks for drive in drives]))),
            decisions=len(latencies),
            late=sum(drive.late for drive in drives) / arrived,
            discarded=sum(drive.discarded for drive in drives) / arrived,
            staleness=float(np.concatenate([drive.stale for drive in drives]).mean()),
            waited_s=float(latencies.sum()) / len(outcomes),
        )


class _Drive:
    """A batch of environments under one policy, one episode each. Time is counted in simulation steps."""

    def __init__(
        self,
        late: Late,
        rule: PolicyProvider,
        policy: Policy,
        delay: Delay,
        rng: np.random.Generator,
        envs: DrivingVecEnv,
    ) -> None:
        self.expert, self.rule, self.novice, self.period = late.expert, rule, late.novice, late.steps
        self.policy, self.delay, self.rng, self.envs = policy, delay, rng, envs
        count = envs.num_envs
        self.sent = np.full(count, -1)
        """Step of each environment's open query; -1 where there is none."""
        self.due = np.zeros(count, np.int64)
        self.decision: list[Any] = [None] * count
        self.summaries: list[dict[str, Any]] = [{} for _ in range(count)]
        self.latencies: list[float] = []
        self.stale: list[float] = []
        self.arrived = self.late = self.discarded = 0
        self.speeds: list[list[float]] = [[] for _ in range(count)]

    def through(self, seeds: Sequence[int]) -> _Drive:
        """Drive until every episode has ended; closes the environments."""
        try:
            obs: Any = self.envs.reset_to(seeds)
            self.seeds = seeds
            running = np.arange(len(seeds))
            now = 0
            self.step_s = self.envs.scenes([0])[0].decision_period
            while running.size:
                masks = self.envs.action_masks()
                actions = idle_actions(self.envs.action_space, masks)
                self._decide(now, obs, masks, running, actions)
                obs, _, dones, infos = self.envs.step(actions)
                for i in running[dones[running]]:
                    self.summaries[i] = infos[i]["summary"]
                running = running[~dones[running]]
                now += 1
        finally:
            self.envs.close()
        return self

    def _decide(self, now: int, obs: Any, masks: np.ndarray, running: np.ndarray, actions: np.ndarray) -> None:
        """Fill in the action of each environment in this simulation step."""
        self._arrivals(now, masks, running, actions)
        if now % self.period:
            return
        views = self.envs.views(running.tolist()).rows
        for i, view in zip(running, views, strict=True):
            self.speeds[i].append(float(view.speed))
        free = running[self.sent[running] < 0]
        if free.size:
            self._send(now, obs, masks, free)
            self._arrivals(now, masks, free, actions)
        overdue = running[(self.sent[running] >= 0) & (now - self.sent[running] >= self.period)]
        if overdue.size and self.policy in ("rule", "novice"):
            self._stand_in(now, obs, masks, overdue, actions)

    def _send(self, now: int, obs: Any, masks: np.ndarray, rows: np.ndarray) -> None:
        contexts = self._contexts(now, obs, masks, rows)
        for i, context, decision in zip(rows, contexts, self.expert.decide(contexts), strict=True):
            seconds = self.delay(self.rng, self.seeds[i], now * self.step_s)
            steps = 0 if self.policy == "pause" else round(seconds / self.step_s)
            self.sent[i], self.due[i], self.decision[i] = now, now + steps, decision.action
            assert context.scene is not None
            self.latencies.append(seconds)
            self.stale.append(0.0 if self.policy == "pause" else seconds * context.scene.ego.speed)

    def _contexts(self, now: int, obs: Any, masks: np.ndarray, rows: np.ndarray) -> list[Context]:
        """Contexts as at one step per decision; there is no look-ahead from an environment that moves."""
        found = []
        for context in contexts_of(self.envs, obs, masks, rows.tolist(), step=now // self.period):
            assert context.scene is not None
            scene = replace(context.scene, decision_period=self.period * self.step_s)
            found.append(replace(context, scene=scene, branch=None))
        return found

    def _arrivals(self, now: int, masks: np.ndarray, rows: np.ndarray, actions: np.ndarray) -> None:
        """Execute the decisions that come now, or discard them."""
        here = rows[(self.sent[rows] >= 0) & (self.due[rows] <= now)]
        for i in here:
            action, late = self.decision[i], self.due[i] - self.sent[i] > self.period
            self.arrived += 1
            self.late += bool(late)
            self.sent[i] = -1
            legal = action is not None and bool(masks[i, int(action)])
            if legal and (not late or self._still_good(i, masks[i], int(action))):
                actions[i] = int(action)
            else:
                self.discarded += 1

    def _still_good(self, i: int, legal: np.ndarray, action: int) -> bool:
        """Whether a late decision may be executed in the scene in which it arrives."""
        if self.policy == "hold-last":
            return not refused(unsafe_actions(self.envs.views([int(i)]))[0], legal, action)
        return self.policy == "unchecked"

    def _stand_in(self, now: int, obs: Any, masks: np.ndarray, rows: np.ndarray, actions: np.ndarray) -> None:
        if self.policy == "rule":
            chosen = [decision.action for decision in self.rule.decide(self._contexts(now, obs, masks, rows))]
        else:
            chosen = self.novice(obs, masks, lambda indices: self._contexts(now, obs, masks, np.array(indices)), rows)
        for i, action in zip(rows, chosen, strict=True):
            if action is not None:
                actions[i] = int(action)

    @property
    def jerks(self) -> np.ndarray:
        """|change of acceleration| between consecutive decisions of all cars, m/s3."""
        period = self.period * self.step_s
        found = [np.abs(np.diff(speeds, 2)) / period**2 for speeds in self.speeds if len(speeds) > 2]
        return np.concatenate(found) if found else np.zeros(1)
