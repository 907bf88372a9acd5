"""The language of the driving model: scenes as prompts, reasoning and plans as answers.

    prompt   lanes 4 ego l2 v22 goal l3 r12 ; own F g5 c3 R g11 c-2 ; left F g7 c-1 R g1 c2 ; right F none R g8 c0 ;
             legal LANE_LEFT IDLE LANE_RIGHT FASTER SLOWER ; plan 1 <think>
    answer   own F t4 limit v20 ; left unsafe R ; right safe ; </think> LANE_RIGHT <eos>

`Picture` is what a prompt says of a scene, in numbers. It can be taken from a `Scene` or read back from the text of an
LLM prompt (`experts.llm.prompt`), which shows exactly the same: so the model is asked in the same way as any
other language model. `Facts` are what an answer reasons with: they can be computed, so they can be checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts.labels import LETTERS
from experts.language.vocabulary import ANSWERED, CLOSING, COUNT, EOS, GAP, LANE, REMAINING, SPEED, THINK, TTC
from sim.actions import MetaAction
from sim.errors import UsageError
from sim.scene import Neighbour, Scene

SIDES = ("own", "left", "right")
MAX_PLAN = COUNT.highest


@dataclass(frozen=True, slots=True)
class ShownCar:
    """A neighbour: bumper gap in m and speed in m/s, to one decimal."""

    gap: float
    speed: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene as prompts show it: numbers to one decimal, six neighbours by lane, seen from the ego's present lane."""

    lanes: int
    lane: int
    target: int
    """Lane that the ego steers to."""
    speed: float
    goal_lane: int | None
    remaining: float | None
    """m to the goal"""
    cars: tuple[tuple[ShownCar | None, ShownCar | None] | None, ...]
    """(front, rear) of the own, left and right lane; None where there is no such lane."""
    legal: tuple[MetaAction, ...]

    @classmethod
    def of(cls, scene: Scene, legal: np.ndarray | None = None) -> Picture:
        """The picture of a scene.

        Args:
            scene: Any.
            legal: Legal actions, bool (A,); None: the scene's own.

        Raises:
            ValueError: Actions are not meta-actions, or none is legal.
        """
        ego, goal = scene.ego, scene.goal
        lanes = [lane if 0 <= lane < scene.num_lanes else None for lane in (ego.lane, ego.lane - 1, ego.lane + 1)]
        mask = scene.legal if legal is None else legal
        actions = tuple(scene.meanings[i] for i in np.flatnonzero(mask)) if scene.meanings else ()
        if not actions:
            raise ValueError("the scene offers no meta-action")
        return cls(
            lanes=scene.num_lanes,
            lane=ego.lane,
            target=ego.target_lane,
            speed=_rounded(ego.speed),
            goal_lane=goal.lane if goal is not None else None,
            remaining=None if goal is None or goal.remaining is None else float(f"{goal.remaining:.0f}"),
            cars=tuple(None if lane is None else (_car(scene.front(lane)), _car(scene.rear(lane))) for lane in lanes),
            legal=tuple(sorted(actions)),
        )

    @classmethod
    def read(cls, text: str) -> Picture:
        """The picture behind the user message of an LLM prompt. UsageError for any other text."""
        return read_prompt(text)[0]

    def prompt(self, plan: int = 1) -> str:
        """The words that ask for a plan.

        Args:
            plan: Its number of decisions.
        """
        ego = f"lanes {COUNT.word(self.lanes)} ego {LANE.word(self.lane)}"
        if self.target != self.lane:
            ego += f" to {LANE.word(self.target)}"
        ego += f" {SPEED.word(self.speed)} goal"
        ego += " none" if self.goal_lane is None else f" {LANE.word(self.goal_lane)}"
        if self.remaining is not None:
            ego += f" {REMAINING.word(self.remaining)}"
        rows = [f"{side} {self._cars(cars)}" for side, cars in zip(SIDES, self.cars, strict=True)]
        legal = "legal " + " ".join(action.name for action in self.legal)
        return " ; ".join([ego, *rows, legal, f"plan {COUNT.word(plan)} {THINK}"])

    def _cars(self, cars: tuple[ShownCar | None, ShownCar | None] | None) -> str:
        if cars is None:
            return "none"
        front, rear = cars
        ahead = "none" if front is None else f"{GAP.word(front.gap)} {CLOSING.word(self.speed - front.speed)}"
        behind = "none" if rear is None else f"{GAP.word(rear.gap)} {CLOSING.word(rear.speed - self.speed)}"
        return f"F {ahead} R {behind}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer says before its plan, as words."""

    own: str
    """`free`, or `F tK limit vN`: seconds until the car ahead is met, and the speed that is safe behind it."""
    left: str
    """safe | unsafe F | unsafe R | wait (the ego is not settled in a lane yet) | blocked (there is no such lane)"""
    right: str

    def words(self) -> str:
        return f"own {self.own} ; left {self.left} ; right {self.right} ; {ANSWERED}"


def answer(facts: Facts, plan: Sequence[int]) -> str:
    """An expert's answer: its facts and its meta-actions."""
    return f"{facts.words()} {' ; '.join(MetaAction(a).name for a in plan)} {EOS}"


def own_fact(ttc: float, limit: float) -> str:
    """The words on the own lane: s until the car ahead is met (inf: never); m/s that are safe (inf: no car ahead)."""
    return "free" if math.isinf(limit) else f"F {TTC.word(ttc)} limit {SPEED.word(limit)}"


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """An answer that could be read."""

    facts: Facts
    plan: tuple[int, ...]


_ANSWER = re.compile(
    r"own (?P<own>free|F t\d+ limit v\d+) ; "
    r"left (?P<left>safe|unsafe [FR]|wait|blocked) ; right (?P<right>safe|unsafe [FR]|wait|blocked) ; "
    rf"{re.escape(ANSWERED)} (?P<plan>[A-Z_]+(?: ; [A-Z_]+)*) {re.escape(EOS)}"
)


def read_answer(text: str, steps: int) -> ReadAnswer | None:
    """Read an answer.

    Args:
        text: Its words.
        steps: Meta-actions of the plan.

    Returns:
        The answer; None where it breaks the grammar or its plan has another length.
    """
    found = _ANSWER.fullmatch(text)
    if found is None:
        return None
    names = found["plan"].split(" ; ")
    if len(names) != steps or any(name not in MetaAction.__members__ for name in names):
        return None
    return ReadAnswer(
        Facts(found["own"], found["left"], found["right"]), tuple(int(MetaAction[name]) for name in names)
    )


def in_english(reasoning: str) -> str:
    """Reasoning as people read it, as far as it has come; words without meaning there stay as they are."""
    said = []
    for part in reasoning.replace(ANSWERED, "").replace(EOS, "").split(";"):
        words = part.split()
        if words:
            said.append(_sentence(words))
    return " ".join(said)


_SIDE = {
    "safe": "{side} lane is safe.",
    "unsafe F": "{side} lane is unsafe: car ahead too close.",
    "unsafe R": "{side} lane is unsafe: car behind too close.",
    "wait": "{side} lane: settle in this one first.",
    "blocked": "No {lower} lane.",
}


def _sentence(words: list[str]) -> str:
    side, rest = words[0], " ".join(words[1:])
    if side in ("left", "right") and rest in _SIDE:
        return _SIDE[rest].format(side=side.capitalize(), lower=side)
    if rest == "free" and side == "own":
        return "Nobody ahead."
    found = re.fullmatch(r"own F t(\d+) limit v(\d+)", " ".join(words))
    if found is None:
        return " ".join(words)
    seconds = int(found[1])
    meet = f"not met within {seconds} s" if seconds >= TTC.highest else f"met in {seconds} to {seconds + 1} s"
    return f"Car ahead, {meet}; {found[2]} m/s are safe behind it."


def _rounded(value: float) -> float:
    """As prompts print numbers."""
    return round(value, 1) + 0.0


def _car(car: Neighbour | None) -> ShownCar | None:
    return None if car is None else ShownCar(_rounded(car.gap), _rounded(car.speed))


_EGO = re.compile(r"Ego: lane (\d+) of (\d+)(?: moving to lane (\d+))?, speed (-?[\d.]+), acceleration \S+")
_CAR = re.compile(r"gap (-?[\d.]+), speed (-?[\d.]+), TTC \S+")
_HIGHEST = 1_000_000
"""Numbers beyond it are it: no word tells them apart."""
_LETTERS = tuple(LETTERS)
_GOAL = re.compile(r"Goal: (?:none, drive fast and safely|(any lane|lane (\d+))(?:, (-?\d+) m remaining)?)")


def read_prompt(text: str) -> tuple[Picture, dict[MetaAction, str]]:
    """The picture behind the user message of an LLM prompt, and what the prompt calls the available actions: their
    letters, or where it asks for ids, those. UsageError for any other text."""
    try:
        return _read(text)
    except (ValueError, KeyError, IndexError):
        raise UsageError(
            "this model only answers driving prompts (version driving_v1, as lgdrl's LLM expert writes them): "
            f"it cannot read {' '.join(text.split())[:60]!r}"
        ) from None


def _read(text: str) -> tuple[Picture, dict[MetaAction, str]]:
    lines = [line.strip() for line in text.splitlines()]
    ego, goal = _match(_EGO, lines[0]), _match(_GOAL, lines[1])
    rows = _rows(lines[2:])
    cars: list[tuple[ShownCar | None, ShownCar | None] | None] = []
    for side in SIDES:
        if rows.get(side) == "no lane":
            cars.append(None)
        else:
            cars.append((_read_car(rows[f"{side} front"]), _read_car(rows[f"{side} rear"])))
    marks = _marks(rows)
    picture = Picture(
        lanes=_whole(ego[2]),
        lane=_whole(ego[1]),
        target=_whole(ego[3] or ego[1]),
        speed=_number(ego[4]),
        goal_lane=_whole(goal[2]) if goal[2] else None,
        remaining=_number(goal[3]) if goal[3] else None,
        cars=tuple(cars),
        legal=tuple(sorted(marks)),
    )
    return picture, marks


def _rows(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.strip().split(": ", 1) for line in lines if ": " in line.strip()]
    return dict(pairs)


def _marks(rows: Mapping[str, str]) -> dict[MetaAction, str]:
    """From `C, B`, or `1 IDLE, 2 LANE_RIGHT`."""
    found = {}
    for word in rows["Available"].split(", "):
        mark, *name = word.split()
        found[MetaAction[name[0]] if name else MetaAction(_LETTERS.index(mark))] = mark
    return found


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError
    return found


def _whole(digits: str) -> int:
    return min(int(digits), _HIGHEST)


def _number(text: str) -> float:
    return min(max(float(text), -_HIGHEST), _HIGHEST)


def _read_car(text: str) -> ShownCar | None:
    if text == "none":
        return None
    found = _match(_CAR, text)
    return ShownCar(_number(found[1]), _number(found[2]))
