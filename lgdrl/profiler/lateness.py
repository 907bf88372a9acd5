"""What lateness does to a car: episodes in which the world runs on while the expert thinks.

The world is stepped at its simulation frequency. At a decision (every period D) a car asks, if no question of it is
open, and its scene of that moment is answered `latency` later. Until then it goes on as commanded. An answer within D
is executed when it arrives, if it is still legal. What happens beyond D is the *policy*:

- pause: the world waits for the answer, as in training; what that costs is wall time. It is driven once.
- hold-last: the last command stands; the late answer is executed if it is still legal and no shield refuses it in the
  scene into which it comes.
- rule, novice: from the deadline on the rule (a trained policy) decides from the present scene at each decision; the
  late answer is thrown away.
- unchecked: the late answer is executed as it is, if it is legal. Nobody should do that; it shows what the checks save.

With a latency of 0 every policy is the plain scenario (tested to the bit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

import sim
from experts import registry
from experts.driving import contexts_of, idle_actions
from experts.provider import Context, PolicyProvider
from experts.safety import refused, unsafe_actions
from lgdrl.statistics import Rate
from sim.config import deep_merge, resolve
from sim.env import DrivingVecEnv
from sim.errors import UsageError

Policy = Literal["pause", "hold-last", "rule", "novice", "unchecked"]
WORLDS = 32
FIRST_SEED = 30_000
"""First of the seeds driven here."""
MEASURED = "measured"
"""Name of the latencies that were measured under load, drawn anew for each question."""
STALL_BEGINS_S = 10.0
"""A stall begins at a moment before this one, drawn anew for each episode."""
Delay = Callable[[np.random.Generator, int, float], float]
"""(random stream, seed of the episode, seconds into it) -> seconds until the answer to a question asked there."""


@dataclass(frozen=True)
class SafetyConfig:
    """Episodes under injected latency."""

    episodes: int = 20  # for each latency and policy; 0: leave out
    latencies: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # in deadlines; without 0 there is no budget
    policies: tuple[Policy, ...] = ("pause", "hold-last", "rule", "unchecked")
    measured: bool = True  # also with the latencies that were measured under the first load
    novice: str | None = None  # run folder whose policy stands in where the policy is `novice`
    tolerated_loss: float = 0.05  # of success rate, which ends the latency budget

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise UsageError(f"safety.episodes = {self.episodes}: expected 0 or more")
        if 0 not in self.latencies or any(not 0 <= latency <= 100 for latency in self.latencies):
            raise UsageError(
                f"safety.latencies = {list(self.latencies)}: expected deadlines from 0 to 100, 0 among them"
            )
        if ("novice" in self.policies) != (self.novice is not None):
            raise UsageError(f"safety.novice = {self.novice!r}: policy `novice` and a run folder need each other")
        if not 0 < self.tolerated_loss < 1:
            raise UsageError(f"safety.tolerated_loss = {self.tolerated_loss}: expected a share above 0")


@dataclass(frozen=True)
class Outcome:
    """Episodes with one latency under one policy."""

    policy: str
    latency: str
    """As tables call it: "0.5 D", `MEASURED`, or "stall 3 s"."""
    latency_s: float
    """Mean of what was injected."""
    success: Rate
    crash: Rate
    speed: float
    """Mean, m/s."""
    jerk: float
    """Mean change of the acceleration between decisions, m/s3."""
    decisions: int
    """Questions that were asked."""
    late: float
    """Share of the answers that came after the deadline."""
    discarded: float
    """Share of the answers that were never executed: late, illegal or refused by then."""
    staleness: float
    """Speed when asked times latency, m, mean; 0 where the world paused."""
    waited_s: float
    """Latency of all questions of an episode together, s, mean: how long a world that pauses stands still."""
    injected: bool = True
    """A constant latency, a point of the safety curve."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"success": self.success.to_dict(), "crash": self.crash.to_dict()}


def with_frequency(scenario: str, config: Mapping[str, Any], hertz: float | None) -> dict[str, Any]:
    """The scenario's config with another decision frequency; a time limit in decisions keeps its seconds.

    UsageError where the scenario has none, or this one is impossible.
    """
    if hertz is None:
        return dict(config)
    chosen = sim.get(scenario)
    plain = resolve(chosen.defaults, config, chosen.name)
    if hasattr(plain, "policy_frequency"):
        return deep_merge(dict(config), {"policy_frequency": hertz})
    if not hasattr(plain, "decision_frequency"):
        raise UsageError(f"scenario {scenario!r} has no decision frequency to set: leave `frequency` out")
    limit = max(1, round(plain.time_limit * hertz / plain.decision_frequency))
    return deep_merge(dict(config), {"decision_frequency": hertz, "time_limit": limit})


def finest(scenario: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A config in which every simulation step is a decision, and how many of them make one decision of `config`."""
    chosen = sim.get(scenario)
    plain = resolve(chosen.defaults, config, chosen.name)
    if hasattr(plain, "policy_frequency"):
        steps = round(plain.simulation_frequency / plain.policy_frequency)
        return with_frequency(scenario, config, plain.simulation_frequency), steps
    if not hasattr(plain, "decision_frequency"):
        raise UsageError(f"scenario {scenario!r} cannot run on between decisions: leave out `safety`")
    return with_frequency(scenario, config, plain.decision_frequency * plain.substeps), plain.substeps


class Late:
    """Drives `expert` through a scenario that does not wait for it."""

    def __init__(
        self,
        expert: PolicyProvider,
        scenario: str,
        config: Mapping[str, Any],
        backend: str | None = None,
        novice: Any = None,
    ) -> None:
        """`novice`: an `experts.driving.Actor`, for the policy of that name."""
        fine, self.steps = finest(scenario, config)
        self.expert, self.novice = expert, novice
        self._make_rule = partial(registry.make, "rule", scenario, {}, 0)
        self._open = partial(sim.make_driving_vec, scenario, backend=backend, config=fine)

    def run(self, policy: Policy, name: str, delay: Delay, seeds: Sequence[int], seed: int = 0) -> Outcome:
        """One episode per seed."""
        rng = np.random.default_rng(seed)
        with self._make_rule() as rule:
            drives = [
                _Drive(self, rule, policy, delay, rng, self._open(len(chunk))).through(chunk)
                for chunk in (list(seeds[k : k + WORLDS]) for k in range(0, len(seeds), WORLDS))
            ]
        summaries = [summary for drive in drives for summary in drive.summaries]
        latencies = np.concatenate([drive.latencies for drive in drives])
        answers = max(sum(drive.answers for drive in drives), 1)
        outcomes = [summary["outcome"] for summary in summaries]
        return Outcome(
            policy=policy,
            latency=name,
            latency_s=float(latencies.mean()),
            success=Rate(outcomes.count("success"), len(outcomes)),
            crash=Rate(outcomes.count("crash"), len(outcomes)),
            speed=float(np.mean([summary["mean_speed"] for summary in summaries])),
            jerk=float(np.mean(np.concatenate([drive.jerks for drive in drives]))),
            decisions=len(latencies),
            late=sum(drive.late for drive in drives) / answers,
            discarded=sum(drive.discarded for drive in drives) / answers,
            staleness=float(np.concatenate([drive.stale for drive in drives]).mean()),
            waited_s=float(latencies.sum()) / len(outcomes),
        )


class _Drive:
    """Some worlds under one policy, one episode each. Time is counted in simulation steps."""

    def __init__(
        self,
        late: Late,
        rule: PolicyProvider,
        policy: Policy,
        delay: Delay,
        rng: np.random.Generator,
        worlds: DrivingVecEnv,
    ) -> None:
        self.expert, self.rule, self.novice, self.period = late.expert, rule, late.novice, late.steps
        self.policy, self.delay, self.rng, self.worlds = policy, delay, rng, worlds
        count = worlds.num_envs
        self.asked = np.full(count, -1)
        """Step of each world's open question; -1 where there is none."""
        self.due = np.zeros(count, np.int64)
        self.answer: list[Any] = [None] * count
        self.summaries: list[dict[str, Any]] = [{} for _ in range(count)]
        self.latencies: list[float] = []
        self.stale: list[float] = []
        self.answers = self.late = self.discarded = 0
        self.speeds: list[list[float]] = [[] for _ in range(count)]

    def through(self, seeds: Sequence[int]) -> _Drive:
        """Drive until every episode has ended; closes the worlds."""
        try:
            obs: Any = self.worlds.reset_to(seeds)
            self.seeds = seeds
            running = np.arange(len(seeds))
            now = 0
            self.step_s = self.worlds.scenes([0])[0].decision_period
            while running.size:
                masks = self.worlds.action_masks()
                actions = idle_actions(self.worlds.action_space, masks)
                self._decide(now, obs, masks, running, actions)
                obs, _, dones, infos = self.worlds.step(actions)
                for i in running[dones[running]]:
                    self.summaries[i] = infos[i]["summary"]
                running = running[~dones[running]]
                now += 1
        finally:
            self.worlds.close()
        return self

    def _decide(self, now: int, obs: Any, masks: np.ndarray, running: np.ndarray, actions: np.ndarray) -> None:
        """Fill in what each world does in this simulation step."""
        self._arrivals(now, masks, running, actions)
        if now % self.period:
            return
        views = self.worlds.views(running.tolist()).rows
        for i, view in zip(running, views, strict=True):
            self.speeds[i].append(float(view.speed))
        free = running[self.asked[running] < 0]
        if free.size:
            self._ask(now, obs, masks, free)
            self._arrivals(now, masks, free, actions)
        overdue = running[(self.asked[running] >= 0) & (now - self.asked[running] >= self.period)]
        if overdue.size and self.policy in ("rule", "novice"):
            self._stand_in(now, obs, masks, overdue, actions)

    def _ask(self, now: int, obs: Any, masks: np.ndarray, rows: np.ndarray) -> None:
        contexts = self._contexts(now, obs, masks, rows)
        for i, context, decision in zip(rows, contexts, self.expert.decide(contexts), strict=True):
            seconds = self.delay(self.rng, self.seeds[i], now * self.step_s)
            steps = 0 if self.policy == "pause" else round(seconds / self.step_s)
            self.asked[i], self.due[i], self.answer[i] = now, now + steps, decision.action
            assert context.scene is not None
            self.latencies.append(seconds)
            self.stale.append(0.0 if self.policy == "pause" else seconds * context.scene.ego.speed)

    def _contexts(self, now: int, obs: Any, masks: np.ndarray, rows: np.ndarray) -> list[Context]:
        """Requests as in a world that is stepped once per decision; from a moving world nobody can look ahead."""
        found = []
        for context in contexts_of(self.worlds, obs, masks, rows.tolist(), step=now // self.period):
            assert context.scene is not None
            scene = replace(context.scene, decision_period=self.period * self.step_s)
            found.append(replace(context, scene=scene, branch=None))
        return found

    def _arrivals(self, now: int, masks: np.ndarray, rows: np.ndarray, actions: np.ndarray) -> None:
        """Execute the answers that come now, or throw them away."""
        here = rows[(self.asked[rows] >= 0) & (self.due[rows] <= now)]
        for i in here:
            action, late = self.answer[i], self.due[i] - self.asked[i] > self.period
            self.answers += 1
            self.late += bool(late)
            self.asked[i] = -1
            legal = action is not None and bool(masks[i, int(action)])
            if legal and (not late or self._still_good(i, masks[i], int(action))):
                actions[i] = int(action)
            else:
                self.discarded += 1

    def _still_good(self, i: int, legal: np.ndarray, action: int) -> bool:
        """Whether a late answer may be executed in the scene into which it has come."""
        if self.policy == "hold-last":
            return not refused(unsafe_actions(self.worlds.views([int(i)]))[0], legal, action)
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


def curve(
    late: Late,
    config: SafetyConfig,
    deadline_s: float,
    measured: Sequence[float] | None,
    seed: int = 0,
    stall_s: float = 0.0,
    observer: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Every policy with every latency; `measured` are seconds to draw from. The pausing world is driven once, with the
    measured latencies where there are some; there the expert may stall too, for `stall_s`."""
    seeds = range(FIRST_SEED + 1000 * seed, FIRST_SEED + 1000 * seed + config.episodes)
    delays: list[tuple[str, Delay]] = [
        (f"{latency:g} D", partial(_constant, latency * deadline_s)) for latency in config.latencies
    ]
    if measured is not None and config.measured:
        delays.append((MEASURED, partial(_drawn, np.asarray(measured))))
    last = delays[-1]
    if stall_s:
        delays.append((f"stall {stall_s:g} s", partial(stalled, last[1], stall_s)))
    constant = {name for name, _ in delays[: len(config.latencies)]}
    found: list[Outcome] = []
    timely: dict[str, Outcome] = {}  # where no answer is late, all policies are one
    for policy in config.policies:
        for name, delay in delays if policy != "pause" else [last]:
            if policy == "pause" or name not in timely:
                outcome = late.run(policy, name, delay, seeds, seed)
                found.append(replace(outcome, injected=name in constant))
            else:
                found.append(replace(timely[name], policy=policy))
            if policy != "pause" and not found[-1].late:
                timely[name] = found[-1]
            observer(found[-1])
    return found


def _constant(seconds: float, rng: np.random.Generator, episode: int, now: float) -> float:
    return seconds


def _drawn(sample: np.ndarray, rng: np.random.Generator, episode: int, now: float) -> float:
    return float(rng.choice(sample))


def stalled(usual: Delay, seconds: float, rng: np.random.Generator, episode: int, now: float) -> float:
    """What is due during the stall comes at its end."""
    begin = float(np.random.default_rng(episode).uniform(0.0, STALL_BEGINS_S))
    due = now + usual(rng, episode, now)
    return (begin + seconds if begin <= due < begin + seconds else due) - now


def budget(outcomes: Sequence[Outcome], policy: str, tolerated_loss: float) -> float | None:
    """The latency budget of a scenario, s: the longest injected latency at which the success rate under `policy` has
    not fallen by more than `tolerated_loss` below that without latency, interpolated between the injected ones; None
    where it never falls so far, 0 where there is nothing to lose. One of the latencies must be 0."""
    rows = [outcome for outcome in outcomes if outcome.policy == policy and outcome.injected]
    rows.sort(key=lambda outcome: outcome.latency_s)
    floor = rows[0].success.value - tolerated_loss
    if floor <= 0:
        return 0.0
    for before, after in pairwise(rows):
        if after.success.value < floor - 1e-9:
            share = (before.success.value - floor) / (before.success.value - after.success.value)
            return before.latency_s + share * (after.latency_s - before.latency_s)
    return None
