"""Worlds behind the window: each session plays one episode after the other and remembers what everyone thought.

`Track` is the episode so far; the window looks at it and may scrub through it. A live session extends it decision by
decision: `think` asks learner and expert about the present state, `act` executes. Both may be slow, so the window calls
them from worker threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces

from experts.episodes import Controller, Episode, Turn
from experts.human import Hands, action_of
from experts.provider import Context, Decision, PolicyProvider, Status
from experts.safety import unsafe_actions
from experts.views import ViewExpert
from lgdrl.constraint import js
from lgdrl.sac import DiscreteSAC
from sim.actions import MetaAction
from sim.config import to_dict
from sim.env import DrivingEnv, DrivingVecEnv
from sim.scene import Scene
from sim.view import manoeuvres, views_of


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

    def __len__(self) -> int:
        return len(self.turns)

    def scene(self, k: int) -> Scene:
        """The scene before decision k; the newest one for k = len(self)."""
        if k < len(self.turns):
            return self.turns[k].scene
        assert self.last is not None
        return self.last.scene

    @property
    def rewards(self) -> np.ndarray:
        return np.array([turn.reward for turn in self.turns])


class Session(Protocol):
    """What the window needs of a source of episodes."""

    title: str
    track: Track
    live: bool
    """Whether it can be extended and driven; a replay cannot."""
    expert_name: str
    """Who is asked for advice; empty: nobody."""

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

    def close(self) -> None: ...


class DriveSession:
    """One world, driven by the learner, the expert or a person, who may take over at any time.

    Args: the world; the learner and the expert, where there are any; who drives when no person does (None: only a
        person drives); the person's hands; words for the title.
    """

    live = True

    def __init__(
        self,
        world: DrivingEnv,
        learner: DiscreteSAC | None,
        expert: PolicyProvider | None,
        autopilot: Controller,
        hands: Hands | None,
        title: str,
    ) -> None:
        self.world, self.learner, self.expert = world, learner, expert
        self.autopilot, self.hands, self.title = autopilot, hands, title
        self.expert_name = expert.name if expert is not None else ""
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
        return thought if self.learner is None else replace(thought, **opinion(self.learner, obs, legal))

    def think(self) -> None:
        track = self.track  # the person may go on without the advice: then it lands on a track that nobody sees
        thought = track.last
        if self.expert is None or thought is None or thought.expert is not None or track.outcome:
            return
        # Only experts that answer at once may play with the world: it must not move meanwhile.
        branch = self.world.branch if isinstance(self.expert, ViewExpert) else None
        context = Context(
            thought.obs, self.world.action_space, thought.scene, thought.legal, step=len(track), branch=branch
        )
        started = time.perf_counter()
        decision = self.expert.decide([context])[0]
        decision = replace(decision, latency_s=decision.latency_s or time.perf_counter() - started)
        track.last = replace(thought, expert=decision)

    def act(self) -> None:
        thought = self.track.last
        assert thought is not None
        action, controller, reaction = self._choose(thought)
        obs, reward, terminated, truncated, info = self.world.step(action)
        self._ended = terminated, truncated
        turn = turn_of(thought, action, controller, float(reward), reaction)
        ended = terminated or truncated
        self.track = Track(
            turns=[*self.track.turns, turn],
            last=self._look(obs),
            outcome=(info.get("outcome") or "ended") if ended else "",
            summary=dict(info.get("summary", {})) if ended else {},
        )

    def _choose(self, thought: Thought) -> tuple[int | np.ndarray, Controller, float | None]:
        wish = self.hands.take() if self.hands is not None else None
        space = self.world.action_space
        if wish is not None or self.autopilot == "human":
            if wish is None:
                return idle_action(space, thought.legal, thought.scene), "human", None
            return action_of(wish, space, meanings_of(thought.scene), thought.legal), "human", wish.reaction_s
        if self.autopilot == "learner":
            assert thought.learner_action is not None
            return thought.learner_action, "learner", None
        if thought.expert is None or thought.expert.action is None:
            return idle_action(space, thought.legal, thought.scene), "expert", None
        return thought.expert.action, "expert", None

    def episode(self) -> Episode:
        return episode_of(self.track, self.world, self.seed, self.title, self._ended)

    def facts(self) -> list[tuple[str, str]]:
        return []

    def close(self) -> None:
        self.world.close()
        finish = getattr(self.expert, "close", None)
        if finish:
            finish()


class ReplaySession:
    """Recorded episodes, one after the other. A seed counts them: seed k is episode k, modulo their number."""

    live = False
    expert_name = ""

    def __init__(self, episodes: list[Episode], name: str) -> None:
        self.episodes = episodes
        self.name = name
        self.begin(0)

    def begin(self, seed: int) -> None:
        self.number = seed % len(self.episodes)
        found = self.episodes[self.number]
        last = Thought(found.last_scene, found.last_obs, found.last_legal, unsafe=unsafe_of(found.last_scene))
        outcome = found.summary.get("outcome", "") or "broken off"
        self.track = Track(list(found.turns), last, outcome, dict(found.summary))
        self.title = f"Replay · {found.driver}"

    def think(self) -> None:
        pass

    def act(self) -> None:
        raise RuntimeError("a recording cannot be driven")

    def episode(self) -> Episode:
        return self.episodes[self.number]

    def facts(self) -> list[tuple[str, str]]:
        return [("Episode", f"{self.number + 1} of {len(self.episodes)}")]

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


def opinion(learner: DiscreteSAC, obs: np.ndarray, legal: np.ndarray) -> dict[str, Any]:
    """The learner's greedy action, its probabilities and the smaller of its critics' values, as fields of a Thought."""
    with torch.no_grad():
        tensor, mask = torch.as_tensor(obs[None]), torch.as_tensor(legal[None])
        log_probs = learner.policy.log_probs(tensor, mask)[0]
        q = learner.policy.q_values(tensor).amin(dim=0)[0]
    return {
        "learner_action": int(log_probs.argmax()),
        "learner_probs": log_probs.exp().numpy(),
        "q_values": q.numpy(),
    }


def unsafe_of(scene: Scene) -> np.ndarray | None:
    """bool (A,): actions that the safety check calls unsafe; None where they are not meta-actions."""
    try:
        return unsafe_actions(views_of([scene]))[0]
    except ValueError:
        return None


def meanings_of(scene: Scene) -> tuple[MetaAction, ...]:
    """What action ids mean; empty where actions are continuous."""
    try:
        return manoeuvres(scene)
    except ValueError:
        return ()


def idle_action(space: spaces.Space, legal: np.ndarray, scene: Scene) -> int | np.ndarray:
    """Keep going."""
    if not isinstance(space, spaces.Discrete):
        return np.zeros(space.shape or (1,), np.float32)
    meanings = meanings_of(scene)
    idle = meanings.index(MetaAction.IDLE) if MetaAction.IDLE in meanings else 0
    return idle if legal[idle] else int(np.argmax(legal))


def turn_of(
    thought: Thought, action: int | np.ndarray, controller: Controller, reward: float, reaction: float | None
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
