"""Worlds behind the window: each session plays one episode after the other and remembers what everyone thought.

`Track` is the episode so far; the window looks at it and may scrub through it. A live session extends it decision by
decision: `think` asks the expert about the present state, `act` executes. Both may be slow, so the window calls
them from worker threads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces

import experts.registry
import sim
from experts.data.episodes import Controller, Episode, Turn
from experts.human import Hands, HumanExpert
from experts.provider import Context, Decision, PolicyProvider, Status
from experts.safety import unsafe_actions
from experts.views import ViewExpert
from lgdrl.config import RunConfig
from lgdrl.guidance.constraint import js
from lgdrl.guidance.log import LoggedEpisodes
from lgdrl.guidance.shield import safe_masks
from lgdrl.learners.guided import Guided
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.actions import MetaAction
from sim.config import to_dict
from sim.env import DrivingEnv, DrivingVecEnv
from sim.render import interpolate
from sim.scene import Scene
from sim.view import views_of


@dataclass(frozen=True)
class Thought:
    """What everyone thinks of one state, before anything is executed."""

    scene: Scene
    obs: np.ndarray
    legal: np.ndarray
    learner_action: int | None = None
    learner_probs: np.ndarray | None = None
    q_values: np.ndarray | None = None
    unsafe: np.ndarray | None = None
    expert: Decision | None = None


@dataclass
class Track:
    """One episode as far as it went; a session puts a longer one in its place.

    Scene k is the state before decision k; the last one has no decision yet.
    """

    turns: list[Turn] = field(default_factory=list)
    last: Thought | None = None
    outcome: str = ""
    """success | crash | missed; empty while it goes on."""
    summary: dict[str, Any] = field(default_factory=dict)
    saying: str = ""
    """What the expert is saying about the newest state, before it has decided."""

    def __len__(self) -> int:
        return len(self.turns)

    def scene(self, k: int) -> Scene:
        """The scene before decision k; the newest one for k = len(self)."""
        if k < len(self.turns):
            return self.turns[k].scene
        assert self.last is not None
        return self.last.scene

    def between(self, k: int, share: float) -> Scene:
        """The scene at `share` of the way from decision k to the next one; scene k itself where others lie between."""
        a, b = self.scene(k), self.scene(min(k + 1, len(self)))
        return interpolate(a, b, share) if b.time - a.time < 1.5 * a.decision_period else a

    @property
    def rewards(self) -> np.ndarray:
        return np.array([turn.reward for turn in self.turns])


class Session(Protocol):
    """What the window needs of a source of episodes."""

    title: str
    track: Track
    live: bool
    """Whether it can be extended and driven; a replay cannot."""
    waits: bool
    """Whether the world must not move before the expert has answered, because the expert plays with copies of it."""
    expert_name: str
    """Who is asked for advice; empty: nobody."""
    autopilot: Controller
    """Who drives when no person does; human: nobody else."""
    hands: Hands | None
    """Those of the person who may take over; None: nobody may."""

    @property
    def done(self) -> bool:
        """Whether no further episode can follow."""
        ...

    def begin(self, seed: int) -> None:
        """Start an episode."""
        ...

    def think(self) -> None:
        """Complete the newest thought; may take seconds."""
        ...

    def act(self) -> None:
        """Make one decision."""
        ...

    def facts(self) -> list[tuple[str, str]]:
        """(name, value) pairs for the panel, beyond those of the track."""
        ...

    def episode(self) -> Episode:
        """The episode so far, to be kept."""
        ...

    def interrupt(self) -> None:
        """The window closes: an expert that somebody waits for shall come to an end. From any thread."""
        ...

    def close(self) -> None: ...


class DriveSession:
    """One world, driven by the learner, the expert or a person, who may take over at any time.

    Args: the world; the learner and the expert, where there are any; whether the learner may only do what is safe; see
        `Session` for the others.
    """

    live = True
    done = False

    def __init__(
        self,
        world: DrivingEnv,
        learner: Guided | None,
        expert: PolicyProvider | None,
        autopilot: Controller,
        hands: Hands | None,
        title: str,
        shield: bool = False,
    ) -> None:
        self.world, self.learner, self.expert = world, learner, expert
        self.autopilot, self.hands, self.title, self.shield = autopilot, hands, title, shield
        self.person = None if hands is None else HumanExpert(hands)
        self.expert_name = expert.name if expert is not None else ""
        self.waits = isinstance(expert, ViewExpert)
        self.track = Track()
        self.seed: int | None = None
        self._ended: tuple[bool, bool] = (False, False)

    def begin(self, seed: int) -> None:
        obs, _ = self.world.reset(seed=seed)
        self.seed, self._ended = seed, (False, False)
        self.track = Track(last=self._look(obs))

    def _look(self, obs: np.ndarray) -> Thought:
        """What can be known at once: everything but the expert's advice."""
        scene, legal = self.world.scene(), self.world.action_masks()
        thought = Thought(scene, obs, legal, unsafe=unsafe_of(scene))
        if self.learner is None:
            return thought
        allowed = safe_masks(views_of([scene]), legal[None])[0] if self.shield else legal
        return replace(thought, **opinion(self.learner, obs, allowed))

    def think(self) -> None:
        track = self.track  # the person may go on without the advice: then it lands on a track that nobody sees
        thought = track.last
        if self.expert is None or thought is None or thought.expert is not None or track.outcome:
            return

        def hear(words: str) -> None:
            track.saying = words

        started = time.perf_counter()
        decision = self.expert.decide([replace(self.context(thought, self.waits), say=hear)])[0]
        decision = replace(decision, latency_s=decision.latency_s or time.perf_counter() - started)
        track.last = replace(thought, expert=decision)

    def context(self, thought: Thought, branch: bool) -> Context:
        """A request for advice on a thought, with or without leave to play with copies of the world."""
        return Context(
            thought.obs,
            self.world.action_space,
            thought.scene,
            thought.legal,
            step=len(self.track),
            branch=self.world.branch if branch else None,
        )

    def act(self) -> None:
        thought = self.track.last
        assert thought is not None
        action, controller, reaction = self._choose(thought)
        obs, reward, terminated, truncated, info = self.world.step(action)
        self._ended = terminated, truncated
        ask = getattr(self.world, "reward_terms", None)  # what takes long is not in the info of every step
        terms = contributions(info.get("rewards") or (ask() if ask else None), self.world.scenario_config)
        turn = turn_of(thought, action, controller, float(reward), reaction, terms)
        ended = terminated or truncated
        self.track = Track(
            turns=[*self.track.turns, turn],
            last=self._look(obs),
            outcome=(info.get("outcome") or "ended") if ended else "",
            summary=dict(info.get("summary", {})) if ended else {},
        )

    def _choose(self, thought: Thought) -> tuple[int | np.ndarray, Controller, float | None]:
        """(action, who chose it, a person's reaction time)."""
        if self.person is not None:
            wanted = self.person.decide([self.context(thought, branch=False)])[0]
            if wanted.action is not None:
                return wanted.action, "human", self.person.reaction_s
        action: int | np.ndarray | None = None
        if self.autopilot == "learner":
            action = thought.learner_action
        elif self.autopilot == "expert" and thought.expert is not None:
            action = thought.expert.action
        return idle_action(self.world.action_space, thought) if action is None else action, self.autopilot, None

    def episode(self) -> Episode:
        return episode_of(self.track, self.world, self.seed, self.title, self._ended)

    def facts(self) -> list[tuple[str, str]]:
        return []

    def interrupt(self) -> None:
        if self.expert is not None:
            self.expert.interrupt()

    def close(self) -> None:
        self.world.close()
        if self.expert is not None:
            self.expert.close()


def watched_run(
    run: Run, config: RunConfig, expert: PolicyProvider | None = None, hands: Hands | None = None
) -> DriveSession:
    """The trained policy of a finished run at the wheel, in a world of `config`; `expert` only advises."""
    learner, title = load_policy(run), f"{config.strategy} · {run.folder.name}"
    return DriveSession(_world(config), learner, expert, "learner", hands, title, config.shield)


def asked_in_training(run: Run, config: RunConfig) -> ReplaySession:
    """The moments at which a run asked its expert, as its guidance log has them."""
    world = str(config.scenario), str(config.backend), dict(config.scenario_config)
    return ReplaySession(LoggedEpisodes(run.guidance_log, run.folder.name, *world), config.expert)


def watched_expert(config: RunConfig, hands: Hands | None = None) -> DriveSession:
    """The expert of `config` at the wheel."""
    return DriveSession(_world(config), None, expert_of(config), "expert", hands, f"Expert {config.expert}")


def driven_by_hand(config: RunConfig, expert: PolicyProvider | None, hands: Hands | None) -> DriveSession:
    """A person at the wheel."""
    return DriveSession(_world(config), None, expert, "human", hands, "You")


def expert_of(config: RunConfig) -> PolicyProvider:
    """The expert that a config names. UsageError where it cannot drive there."""
    return experts.registry.make(config.expert, config.scenario, config.expert_options, config.seed)


def _world(config: RunConfig) -> DrivingEnv:
    return sim.make(config.scenario, config.backend, config.scenario_config)


class ReplaySession:
    """Recorded episodes, or those of a guidance log, one after the other. A seed counts them: k modulo their number."""

    live = done = waits = False
    autopilot: Controller = "learner"
    hands: Hands | None = None

    def __init__(self, episodes: list[Episode] | LoggedEpisodes, expert_name: str = "") -> None:
        self.episodes, self.expert_name = episodes, expert_name
        self.begin(0)

    def begin(self, seed: int) -> None:
        self.number = seed % len(self.episodes)
        found = self.episodes[self.number]
        last = Thought(found.last_scene, found.last_obs, found.last_legal, unsafe=unsafe_of(found.last_scene))
        outcome = found.summary.get("outcome", "") or "broken off"
        turns = [
            turn if turn.unsafe is not None else replace(turn, unsafe=unsafe_of(turn.scene)) for turn in found.turns
        ]
        self.track = Track(turns, last, outcome, dict(found.summary))
        self.title = f"Replay · {found.driver}"

    def think(self) -> None:
        pass

    def act(self) -> None:
        raise RuntimeError("a recording cannot be driven")

    def episode(self) -> Episode:
        return self.episodes[self.number]

    def facts(self) -> list[tuple[str, str]]:
        rows = [("Episode", f"{self.number + 1:,} of {len(self.episodes):,}")]
        if isinstance(self.episodes, LoggedEpisodes):
            rows.append(("Questions kept", f"{self.episodes.moments:,} of {self.episodes.questions:,}"))
        return rows

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


def episode_of(
    track: Track, world: DrivingEnv | DrivingVecEnv, seed: int | None, driver: str, ended: tuple[bool, bool]
) -> Episode:
    """A track as an episode to keep. Args: `ended` is (terminated, truncated)."""
    assert track.last is not None
    return Episode(
        scenario=world.scenario,
        backend=world.backend,
        scenario_config=to_dict(world.scenario_config),
        seed=seed,
        driver=driver,
        turns=tuple(track.turns),
        last_scene=track.last.scene,
        last_obs=track.last.obs,
        last_legal=track.last.legal,
        terminated=ended[0],
        truncated=ended[1],
        summary=track.summary,
    )


# --- what everyone thinks -------------------------------------------------------------------------------------------


def opinion(learner: Guided, obs: np.ndarray, legal: np.ndarray) -> dict[str, Any]:
    """The learner's greedy action, its probabilities and the smaller of its critics' values, as fields of a Thought."""
    policy, values = learner.describe(obs[None], legal[None])
    assert policy.probs is not None
    assert values is not None
    return {"learner_action": int(policy.probs[0].argmax()), "learner_probs": policy.probs[0], "q_values": values[0]}


def unsafe_of(scene: Scene) -> np.ndarray | None:
    """bool (A,): actions that the safety check calls unsafe; None where they are not meta-actions."""
    return unsafe_actions(views_of([scene]))[0] if scene.meanings else None


def idle_action(space: spaces.Space, thought: Thought) -> int | np.ndarray:
    """Keep going."""
    if not isinstance(space, spaces.Discrete):
        return np.zeros(space.shape or (1,), np.float32)
    meanings, legal = thought.scene.meanings, thought.legal
    idle = meanings.index(MetaAction.IDLE) if MetaAction.IDLE in meanings else 0
    return idle if legal[idle] else int(np.argmax(legal))


def contributions(terms: Mapping[str, float] | None, config: Any) -> dict[str, float] | None:
    """What the terms that a world reports add to its reward, before the world rescales their sum.

    highway-env reports terms named `..._reward` without their weights, which its config has under the same names (a
    term without one is a factor, not a summand); other worlds report weighted terms.
    """
    if not terms:
        return None
    unweighted = {name: float(getattr(config, name, 0.0)) for name in terms if name.endswith("_reward")}
    return {name: value * unweighted.get(name, 1.0) for name, value in terms.items()}


def turn_of(
    thought: Thought,
    action: int | np.ndarray,
    controller: Controller,
    reward: float,
    reaction: float | None,
    terms: dict[str, float] | None = None,
) -> Turn:
    """A thought and what came of it."""
    expert = thought.expert
    given = expert is not None and expert.action is not None
    return Turn(
        scene=thought.scene,
        obs=thought.obs,
        legal=thought.legal,
        action=action,  # type: ignore[arg-type]
        controller=controller,
        reward=reward,
        learner_action=thought.learner_action,
        learner_probs=thought.learner_probs,
        q_values=thought.q_values,
        expert_action=int(expert.action) if given and np.ndim(expert.action) == 0 else None,  # type: ignore[union-attr, arg-type]
        expert_probs=None if expert is None else expert.probs,
        expert_status=None if expert is None else str(expert.status.value),
        expert_reason="" if expert is None else expert.reason or "",
        expert_latency_s=0.0 if expert is None else expert.latency_s,
        unsafe=thought.unsafe,
        terms=terms,
        reaction_s=reaction,
    )


def thought_of(turn: Turn) -> Thought:
    """What was thought before a recorded decision."""
    expert = None
    if turn.expert_status is not None:
        expert = Decision(
            action=turn.expert_action,
            probs=turn.expert_probs,
            reason=turn.expert_reason,
            status=Status(turn.expert_status),
            latency_s=turn.expert_latency_s,
        )
    return Thought(
        scene=turn.scene,
        obs=turn.obs,
        legal=turn.legal,
        learner_action=turn.learner_action,
        learner_probs=turn.learner_probs,
        q_values=turn.q_values,
        unsafe=turn.unsafe,
        expert=expert,
    )


def divergence(thought: Thought) -> float | None:
    """JS between the learner's policy and the expert's advice, nats; None where one of them is missing."""
    if thought.learner_probs is None or thought.expert is None or thought.expert.action is None:
        return None
    probs = thought.expert.probs
    if probs is None:
        probs = np.eye(len(thought.learner_probs), dtype=np.float32)[int(thought.expert.action)]
    log_p = torch.log(torch.as_tensor(np.maximum(thought.learner_probs, 1e-12))[None])
    return float(js(log_p, torch.as_tensor(np.asarray(probs, np.float32))[None])[0])
