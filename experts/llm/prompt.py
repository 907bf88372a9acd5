"""Prompt generator: a Scene as text, the static part first so that prefix caches hit.

Version 1. System message: role, action glossary, ordered rules, answer format, examples; the same for every scene of a
run. User message: ego, goal, six neighbours in fixed roles, crossing cars where there are any, the action analysis, the
available labels. Only numbers and fixed words go into it (no names from maps or vehicles), rounded to one decimal, so
that equal scenes give equal prompts in every process and nothing can be injected through a scene.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experts.labels import ActionSet
from experts.llm.utility import Utility, analyse
from sim import assets
from sim.actions import FULL, LATERAL, MetaAction, legal_mask
from sim.bounds import Whole, config_dataclass
from sim.config import to_dict
from sim.errors import UsageError
from sim.scene import Ego, Goal, Neighbour, Scene, Vehicles

Form = Literal["label", "json", "text"]
TEMPLATE = "driving_v1"
MOST_CROSSING = 4
"""Crossing cars that are named, the nearest along the ego's path."""
MAX_REASON = 200
"""Characters of a reason that are kept."""


@config_dataclass
class PromptConfig:
    """What the prompt contains. Everything here is part of its version hash."""

    verdicts: bool = True  # hand the model the finished SAFE/UNSAFE analysis (small models cannot do without)
    few_shot: Whole = 0  # examples, 0-4; they made small models worse, so none by default
    reasoning: Literal["none", "short", "long"] = "none"  # text asked for before or beside the action
    ask_probs: bool = False  # ask JSON answers for a probability per label
    ask_plan: bool = False  # ask JSON answers for the labels of the next decisions and their horizon

    def __post_init__(self) -> None:
        limit = len(_example_data())
        if self.few_shot > limit:
            raise UsageError(f"few_shot = {self.few_shot}: expected 0 to {limit}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One finished prompt."""

    messages: tuple[dict[str, str], ...]
    """Chat messages with `role` and `content`."""
    actions: ActionSet
    legal: tuple[int, ...]
    """Ids that are available."""
    form: Form
    version: str
    utility: Utility

    @property
    def labels(self) -> list[str]:
        """Letters of the available actions, in the order of ids."""
        return self.actions.labels(self.legal)

    def text(self) -> str:
        """All messages as one string, as it is hashed and stored."""
        return json.dumps(self.messages, ensure_ascii=False, separators=(",", ":"))

    def repair(self, answer: str, fault: str) -> Prompt:
        """This prompt, the unusable answer (cut to 500 characters) and a request to answer again.

        Args:
            answer: Text of the unusable answer.
            fault: Why it is unusable.
        """
        how, available = _format_line(self.form, "none"), _available(self.actions, self.legal, self.form)
        text = _formats()["repair"].format(fault=fault, format=how, available=available)
        turns = ({"role": "assistant", "content": _storable(answer[:500])}, {"role": "user", "content": text})
        return Prompt((*self.messages, *turns), self.actions, self.legal, self.form, self.version, self.utility)


class PromptGenerator:
    """Renders scenes with one `PromptConfig`. Stateless after construction; safe to share between threads."""

    def __init__(self, config: PromptConfig | None = None) -> None:
        self.config = config or PromptConfig()
        self._system = _template(f"{TEMPLATE}.system.j2")
        self._user = _template(f"{TEMPLATE}.user.j2")
        self.version = _version(self.config)

    def build(self, scene: Scene, form: Form, legal: np.ndarray | None = None) -> Prompt:
        """The prompt about a scene.

        Args:
            scene: Any with meta-actions.
            form: Of the answer: "label" (one letter), "json" or "text" (#### id).
            legal: Legal actions, bool (A,); None: the scene's own.

        Raises:
            ValueError: No action is legal, or the actions are not meta-actions.
        """
        mask = np.asarray(scene.legal if legal is None else legal, dtype=bool)
        actions = ActionSet.of(scene)
        utility = analyse(scene, mask)
        chosen = tuple(int(i) for i in np.flatnonzero(mask))
        messages = (
            {"role": "system", "content": self._prefix(form, actions)},
            {"role": "user", "content": self._scene_text(scene, actions, chosen, utility, form)},
        )
        return Prompt(messages, actions, chosen, form, self.version, utility)

    @functools.lru_cache(maxsize=16)  # noqa: B019 - one generator per run, a handful of forms
    def _prefix(self, form: Form, actions: ActionSet) -> str:
        config = self.config
        return self._system.render(
            glossary=_glossary(actions),
            verdicts=config.verdicts,
            format=_format(config, form),
            examples=self._examples(form, actions),
        ).strip()

    def _examples(self, form: Form, actions: ActionSet) -> list[dict[str, str]]:
        rendered = []
        for data in _example_data()[: self.config.few_shot]:
            scene = example_scene(data, actions.manoeuvres)
            utility = analyse(scene)
            legal = tuple(int(i) for i in np.flatnonzero(scene.legal))
            text = self._scene_text(scene, actions, legal, utility, form)
            rendered.append({"scene": text, "answer": _example_answer(self.config, form, actions, utility)})
        return rendered

    def _scene_text(self, scene: Scene, actions: ActionSet, legal: Sequence[int], utility: Utility, form: Form) -> str:
        ego = scene.ego
        return self._user.render(
            lane=ego.lane,
            target_lane=ego.target_lane,
            lanes=scene.num_lanes,
            speed=number(ego.speed),
            acceleration=number(ego.acceleration),
            goal=_goal(scene.goal),
            cars=_cars(scene) + _crossing(scene),
            verdicts=_verdicts(utility, actions, form) if self.config.verdicts else [],
            recommended=f"{_mark(actions, utility.recommended, form)} ({utility.reason})",
            available=_available(actions, legal, form),
        ).strip()


def number(value: float) -> str:
    """One decimal, never "-0.0"; "-" for what is not finite."""
    return f"{round(value, 1) + 0.0:.1f}" if np.isfinite(value) else "-"


def _storable(text: str) -> str:
    """The text without lone surrogates, which neither a socket nor SQLite takes."""
    return text.encode("utf-8", "replace").decode()


def example_scene(data: dict[str, Any], manoeuvres: Sequence[MetaAction] = FULL) -> Scene:
    """A scene from a few numbers, with lanes of 4 m.

    Args:
        data: `lanes`, `lane`, `speed`, `goal`, and `cars` as rows of lane, dx, speed.
        manoeuvres: What the actions do: FULL, LONGITUDINAL or LATERAL of `sim.actions`. LATERAL has no set-points.
    """
    centers = tuple(4.0 * lane for lane in range(data["lanes"]))
    points = tuple(float(v) for v in np.linspace(6.0, 30.0, 13))
    index = int(np.argmin(np.abs(np.array(points) - data["speed"])))
    cars = np.array(data["cars"], dtype=float).reshape(-1, 3)
    lane, d, zero = cars[:, 0].astype(int), 4.0 * cars[:, 0], np.zeros(len(cars))
    mask = legal_mask(data["lane"], data["lanes"], index, len(points))
    goal = data["goal"]
    here, lane_d = data["lane"], centers[data["lane"]]
    return Scene(
        scenario="example",
        time=0.0,
        decision_period=1.0,
        ego=Ego(0.0, lane_d, 0.0, data["speed"], 0.0, lane_d, here, here, index),
        vehicles=Vehicles(
            ids=np.arange(len(cars)),
            x=cars[:, 1],
            y=d,
            heading=zero,
            speed=cars[:, 2],
            acceleration=zero,
            s=cars[:, 1],
            d=d,
            lane=lane,
            length=zero + 5.0,
            width=zero + 2.0,
            crashed=zero.astype(bool),
        ),
        lane_centers=centers,
        lane_width=4.0,
        set_points=() if tuple(manoeuvres) == LATERAL else points,
        legal=mask[list(manoeuvres)],
        goal=Goal(lane=goal["lane"], remaining=goal["remaining"]) if goal else None,
    )


def probe_scene() -> Scene:
    """A fixed scene with which a server's abilities are tried out."""
    return example_scene(_example_data()[0])


def _glossary(actions: ActionSet) -> list[str]:
    ids = sorted(range(len(actions)), key=actions.label)
    return [f"{actions.label(i)} {i} {actions.name(i)}" for i in ids]


def _goal(goal: Goal | None) -> str:
    if goal is None or (goal.lane is None and goal.remaining is None):
        return "none, drive fast and safely"
    lane = "any lane" if goal.lane is None else f"lane {goal.lane}"
    return lane if goal.remaining is None else f"{lane}, {goal.remaining:.0f} m remaining"


def _cars(scene: Scene) -> list[str]:
    """Six rows: own, left and right lane, front before rear."""
    rows = []
    for side, lane in (("own", scene.ego.lane), ("left", scene.ego.lane - 1), ("right", scene.ego.lane + 1)):
        if not 0 <= lane < scene.num_lanes:
            rows.append(f"{side}: no lane")
            continue
        rows += [_car(f"{side} front", scene.front(lane)), _car(f"{side} rear", scene.rear(lane))]
    return rows


def _crossing(scene: Scene) -> list[str]:
    """Cars whose paths cross or join the ego's, the nearest first; no rows where there are none."""
    rows = []
    for k, c in enumerate(scene.conflicts[:MOST_CROSSING]):
        side = "left" if c["side"] < 0 else "right"
        times = f"in your path from {number(c['enter'])} s to {number(c['leave'])} s"
        place = f"its path {number(max(c['begin'], 0.0))} m ahead of you"
        rows.append(f"crossing {k + 1}: from the {side}, speed {number(c['speed'])}, {times}, {place}")
    return rows


def _car(role: str, car: Neighbour | None) -> str:
    if car is None:
        return f"{role}: none"
    return f"{role}: gap {number(car.gap)}, speed {number(car.speed)}, TTC {number(car.ttc)}"


def _mark(actions: ActionSet, action: int, form: Form) -> str:
    """What an action is called in a form: its letter, or id and name where the answer is an id."""
    return f"{action} {actions.name(action)}" if form == "text" else actions.label(action)


def _verdicts(utility: Utility, actions: ActionSet, form: Form) -> list[str]:
    rows = []
    for v in utility.verdicts:
        rear = f", rear gap {number(v.rear)}" if np.isfinite(v.rear) else ""
        why = f" ({v.why})" if v.why else ""
        verdict = "SAFE" if v.safe else "UNSAFE"
        mark = _mark(actions, v.action, form)
        rows.append(f"{mark}: {verdict}, TTC {number(v.ttc)}, gap {number(v.gap)}{rear}{why}")
    return rows


def _available(actions: ActionSet, legal: Sequence[int], form: Form) -> str:
    ordered = legal if form == "text" else sorted(legal, key=actions.label)
    return ", ".join(_mark(actions, i, form) for i in ordered)


def _format(config: PromptConfig, form: Form) -> str:
    lines = [_format_line(form, config.reasoning)]
    if form == "json":
        wanted = {"probs": config.ask_probs, "plan": config.ask_plan}
        lines += [_formats()["extras"][key] for key, asked in wanted.items() if asked]
    return " ".join(lines)


def _format_line(form: Form, reasoning: str) -> str:
    return _formats()[form]["none" if form == "label" else reasoning]


def _example_answer(config: PromptConfig, form: Form, actions: ActionSet, utility: Utility) -> str:
    label, reason = actions.label(utility.recommended), utility.reason
    if form == "label":
        return label
    if form == "json":
        parts = {"none": {}, "short": {"reason": reason}, "long": {"reasoning": reason}}[config.reasoning]
        first = {"action": label}
        return json.dumps({**parts, **first} if config.reasoning == "long" else {**first, **parts})
    line = f"#### {utility.recommended}"
    return line if config.reasoning == "none" else f"{reason}\n{line}"


@functools.cache
def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    return environment.from_string(assets.read_text(f"prompts/{name}"))


@functools.cache
def _formats() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(assets.read_text(f"prompts/{TEMPLATE}.formats.yaml"))


@functools.cache
def _example_data() -> list[dict[str, Any]]:
    import yaml

    return yaml.safe_load(assets.read_text(f"prompts/{TEMPLATE}.examples.yaml"))


def _version(config: PromptConfig) -> str:
    """Name and 12 hex digits of a hash over all template files and flags."""
    files = [f"{TEMPLATE}.{part}" for part in ("system.j2", "user.j2", "formats.yaml", "examples.yaml")]
    content = json.dumps([[assets.read_text(f"prompts/{name}") for name in files], to_dict(config)], sort_keys=True)
    return f"{TEMPLATE}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
