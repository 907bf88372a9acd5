"""The same environment on highway-env and on the engine, driven side by side and compared field by field."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces
from numba import njit

import experts.registry
import sim
from experts.provider import Context
from sim.config import resolve
from sim.engine import traffic
from sim.engine.factory import make_batch
from sim.highway.scenes import number_bodies
from sim.outcome import Outcome

Fields = dict[str, tuple[Any, Any]]
"""Name -> (highway-env's, the engine's) values."""


class Pair:
    """One highway-env environment and one engine environment of a scenario."""

    def __init__(self, scenario: str, config: dict[str, Any], tolerance: float = 0.0) -> None:
        """`tolerance` (m, m/s, rad) > 0 compares real numbers loosely, and stops at the first contact."""
        chosen = sim.get(scenario)
        self.tolerance = tolerance
        self.env: Any = sim.make(scenario, "highway-env", config)
        self.batch: Any = make_batch(chosen, resolve(chosen.defaults, config), 1)
        self.fields = lane_change_fields if scenario == "lane-change" else highway_fields
        continuous = isinstance(self.env.action_space, spaces.Box)
        self.rule = experts.registry.make("idm-continuous" if continuous else "rule", scenario)

    def reset(self, seed: int | None) -> str | None:
        """Start both from a seed (None: go on with the random streams as they are); the first difference."""
        obs, _ = self.env.reset(seed=seed)
        if seed is not None:
            self.batch.seed([0], [seed])
        self.batch.reset()
        self.obs = obs
        return self.difference({"observation": (obs, self.batch.obs[0])})

    def step(self, action: Any) -> tuple[bool, str | None]:
        """One decision of both; (ended, first difference)."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.obs = obs
        self.batch.step(np.array([action]))
        extra: Fields = self._results(obs, reward, terminated, truncated)
        ended = terminated or truncated
        if ended:
            ours = dataclasses.asdict(self.batch.summary(0))
            for name, value in info["summary"].items():
                if name != "backend":
                    extra[f"summary {name}"] = (
                        (np.round(value, 9), np.round(ours[name], 9))
                        if isinstance(value, float)
                        else (hash(value), hash(ours[name]))
                    )
        return ended, self.difference(extra)

    def step_inner(self, action: Any) -> str | None:
        """One decision of both, whether the episode has ended or not."""
        obs, reward, terminated, truncated, _ = self.env.inner.step(action)
        number_bodies(self.env.inner)
        self.batch.step(np.array([action]))
        limit = self.batch.truncated[0] if self.env.kind.time_limit else truncated
        return self.difference(self._results(obs, reward, terminated, limit))

    def _results(self, obs: Any, reward: float, terminated: bool, truncated: bool) -> Fields:
        batch = self.batch
        return {
            "observation": (np.asarray(obs, np.float32), batch.obs[0]),
            "reward": (reward, batch.rewards[0]),
            "terminated": (terminated, batch.terminated[0]),
            "truncated": (truncated, batch.truncated[0]),
            "legal actions": (self.env.action_masks(), batch.masks[0]),
        }

    def difference(self, extra: Fields) -> str | None:
        """The first field that differs: its name, the body, both values and how many ulp lie between them."""
        for name, (theirs, ours) in {**self.fields(self.env, self.batch), **extra}.items():
            a, b = np.asarray(theirs, np.float64).ravel(), np.asarray(ours, np.float64).ravel()
            if a.shape != b.shape:
                return f"{name}: {a.size} values against {b.size}"
            real = name in REAL
            same = np.isclose(a, b, rtol=0, atol=self.tolerance) if real and self.tolerance else (a == b)
            if self.tolerance and name in ("observation", "reward"):
                same = np.isclose(a, b, atol=1e-6)
            if not same.all():
                i = int(np.argmin(same))
                return f"{name}[{i}]: {a[i]!r} on highway-env, {b[i]!r} on the engine, {_ulps(a[i], b[i])} ulp apart"
        return None

    def touched(self) -> bool:
        """Whether any body has been in contact."""
        return any(body.crashed or body.impact is not None for body in self.env.inner.road.vehicles)


REAL = (
    *("x", "y", "heading", "speed", "target speed", "timer", "acceleration", "steering", "push"),
    *("lateral speed", "yaw rate"),
)


def _ulps(a: float, b: float) -> int:
    x, y = (int(np.float64(value).view(np.int64)) for value in (a, b))
    return abs(x - y)


def highway_fields(env: Any, batch: Any) -> Fields:
    inner, w, rows = env.inner, batch.state.envs[0], batch.state.bodies[0]
    vehicles = in_rows(inner)
    bodies = [*vehicles, *inner.road.objects]
    number, count, cars = batch.mirror.numbers, len(bodies), len(vehicles)
    pushed = [body.impact is not None for body in vehicles]
    return {
        "vehicles": (cars, w["vehicles"]),
        "ego in the list": (inner.road.vehicles.index(inner.vehicle), w["place"]),
        "ids": ([body.scene_id for body in bodies], rows["id"][:count]),
        "x": ([body.position[0] for body in bodies], rows["x"][:count]),
        "y": ([body.position[1] for body in bodies], rows["y"][:count]),
        "heading": ([body.heading for body in bodies], rows["heading"][:count]),
        "speed": ([body.speed for body in bodies], rows["speed"][:count]),
        "lane": ([number[body.lane_index] for body in bodies], rows["lane"][:count]),
        "target lane": (
            [number[getattr(body, "target_lane_index", body.lane_index)] for body in vehicles],
            rows["target"][:cars],
        ),
        "target speed": ([getattr(body, "target_speed", 0.0) for body in vehicles], rows["target_speed"][:cars]),
        "timer": ([body.timer for body in vehicles[1:]], rows["timer"][1:cars]),
        "exponent": ([body.DELTA for body in vehicles[1:]], rows["delta"][1:cars]),
        "acceleration": ([body.action["acceleration"] for body in vehicles], rows["acceleration"][:cars]),
        "steering": ([body.action["steering"] for body in vehicles], rows["steering"][:cars]),
        "crashed": ([body.crashed for body in bodies], rows["crashed"][:count]),
        "pushed": (pushed, rows["pushed"][:cars]),
        "push": (
            [body.impact for body in vehicles if body.impact is not None],
            np.stack([rows["push_x"], rows["push_y"]], 1)[:cars][pushed],
        ),
        "speed index": (getattr(inner.vehicle, "speed_index", 0), w["speed_index"]),
        "lateral speed": (getattr(inner.vehicle, "lateral_speed", 0.0), w["lateral_speed"]),
        "yaw rate": (getattr(inner.vehicle, "yaw_rate", 0.0), w["yaw_rate"]),
        "route": ([_route_ahead(body) for body in vehicles], [_steps_ahead(batch, row) for row in rows[:cars]]),
        "yielding": ([getattr(body, "is_yielding", False) for body in vehicles], rows["yielding"][:cars]),
    }


def in_rows(inner: Any) -> list[Any]:
    """The vehicles in the engine's order: the ego first, the others as in highway-env's list."""
    return [inner.vehicle, *(car for car in inner.road.vehicles if car is not inner.vehicle)]


def _route_ahead(vehicle: Any) -> int:
    """Steps of a vehicle's route that lie ahead, the present one included."""
    return len(vehicle.route or ())


def _steps_ahead(batch: Any, row: Any) -> int:
    """`_route_ahead` of an engine body."""
    if row["route"] < 0:
        return 0
    return int((batch.params["routes"][0, row["route"], row["route_step"] :, 0] >= 0).sum())


def lane_change_fields(env: Any, batch: Any) -> Fields:
    from sim.engine import lane_traffic as engine

    inner = env.inner
    ego, w, cars = inner.vehicle, batch.state.envs[0], batch.state.bodies[0]
    others = inner.road.vehicles[1:]
    return {
        "x": ([ego.position[0], *(car.position[0] for car in others)], [w["x"], *cars[engine.X]]),
        "y": ([ego.position[1], *(car.position[1] for car in others)], [w["y"], *cars[engine.Y]]),
        "heading": (ego.heading, w["heading"]),
        "speed": ([ego.speed, *(car.speed for car in others)], [w["speed"], *cars[engine.V]]),
        "lane": (ego.lane_index[2], w["lane"]),
        "target lane": (ego.target_lane_index[2], w["target_lane"]),
        "speed index": (ego.speed_index, w["speed_index"]),
        "acceleration": ([car.action["acceleration"] for car in others], cars[engine.A]),
        "crashed": ([ego.crashed, *(car.crashed for car in others)], [w["crashed"], *(cars[engine.CRASHED] > 0)]),
        "pushed": ([car.impact is not None for car in others], cars[engine.PUSHED] > 0),
    }


def count_differences(pair: Pair, seed: int, decisions: int, limit: int = 40) -> dict[str, Any]:
    """Drive episodes from consecutive seeds and count what differs, to the end.

    Args:
        pair: The two environments.
        seed: Of the first episode.
        decisions: How many to make in all.
        limit: Decisions of one episode at most.
    Returns:
        `decisions`; `observations` compared (one more per episode than decisions) and how many `differ`; `values`:
        after how many decisions anything differed (states, reward, ends, legal actions); `largest`: of the differences
        between two observations; `first`: the first difference in words, or None.
    """
    found: dict[str, Any] = {"decisions": 0, "observations": 0, "differ": 0, "values": 0, "largest": 0.0, "first": None}

    def compare(wrong: str | None, counted: bool) -> None:
        gap = np.abs(np.asarray(pair.obs, np.float64) - pair.batch.obs[0])
        found["observations"] += 1
        found["differ"] += bool(gap.any())
        found["values"] += counted and wrong is not None
        found["largest"] = max(found["largest"], float(gap.max()))
        found["first"] = found["first"] or wrong

    while found["decisions"] < decisions:
        rng = np.random.default_rng([seed, 1])
        compare(pair.reset(seed), counted=False)
        for _ in range(min(limit, decisions - found["decisions"])):
            ended, wrong = pair.step(choose(pair, rng, seed % 4))
            found["decisions"] += 1
            compare(wrong, counted=True)
            if ended or not pair.batch.running(0):
                break
        seed += 1
    return found


# --- from seeds ------------------------------------------------------------------------------------------------------


def compare_seeds(pair: Pair, seeds: list[int], limit: int = 40, past_end: int = 0) -> dict[str, Any]:
    """Drive one episode per seed, `limit` decisions at most. Every fourth one goes on with the streams as they are."""
    decisions, continued, outcomes = 0, 0, {name.name.lower(): 0 for name in Outcome}

    def result(mismatch: dict[str, Any] | None) -> dict[str, Any]:
        return {"decisions": decisions, "continued": continued, "outcomes": outcomes, "mismatch": mismatch}

    for seed in range(*seeds):
        rng, goes_on = np.random.default_rng([seed, 1]), seed % 4 == 3 and seed > seeds[0]
        continued += goes_on
        wrong = pair.reset(None if goes_on else seed)
        if wrong:
            return result({"seed": seed, "decision": 0, "field": wrong})
        actions: list[Any] = []
        for _ in range(limit):
            actions.append(choose(pair, rng, seed % 4))
            ended, wrong = pair.step(actions[-1])
            decisions += 1
            if pair.tolerance and pair.touched():
                break
            if wrong:
                found = {"seed": seed, "decision": len(actions), "field": wrong}
                return result(found if goes_on else found | {"substep": locate(pair, seed, actions)})
            if ended:
                break
        outcomes[Outcome(pair.batch.outcomes[0]).name.lower()] += 1
        for _ in range(past_end if not pair.tolerance else 0):
            wrong = pair.step_inner(choose(pair, rng, 0))
            decisions += 1
            if wrong:
                return result({"seed": seed, "decision": "after the end", "field": wrong})
    return result(None)


def _one_substep(envs: Any, bodies: Any, lanes: Any, params: Any, meaning: int) -> None:
    traffic.substep(envs[0], bodies[0, 0], lanes[0], params[0], meaning)


_substep: Any = njit(_one_substep)


def locate(pair: Pair, seed: int, actions: list[Any]) -> str | None:
    """The simulation step of the last of `actions` in which the two environments of a highway-env scenario part."""
    if pair.fields is not highway_fields:
        return None
    pair.reset(seed)
    for action in actions[:-1]:
        pair.step(action)
    inner, batch = pair.env.inner, pair.batch
    meaning = traffic.NONE
    if batch.manoeuvres:
        meaning = int(batch.params["meanings"][0, actions[-1]])
    else:
        controls = batch.actions.for_kernels(batch.actions.one(actions[-1]))[1][0]
        batch.state.bodies["acceleration"][0, 0], batch.state.bodies["steering"][0, 0] = controls[:2]
    inner.action_type.act(actions[-1])
    for step in range(int(batch.params["substeps"][0])):
        inner.road.act()
        inner.road.step(1 / inner.config["simulation_frequency"])
        _substep(*batch.state, batch.lanes, batch.params, traffic.NONE if step else meaning)
        wrong = pair.difference({})
        if wrong:
            return f"{step}: {wrong}"
    return "none: what is computed after the last one"


def choose(pair: Pair, rng: np.random.Generator, kind: int) -> Any:
    """Drivers: any action; mostly keeping on; mostly braking with lane changes; the rule, which gets far.

    With controls: any action, beyond the bounds too; gentle ones; hard ones; pursuit of the lane, which gets far.
    """
    legal = pair.env.action_masks()
    if isinstance(pair.env.action_space, spaces.Box):
        return _controls(pair, rng, kind)
    if kind == 0 or not pair.batch.manoeuvres:
        return int(rng.integers(len(legal)))
    if kind in (1, 2) and len(legal) == 5:
        weights = [0.02, 0.83, 0.05, 0.05, 0.05] if kind == 1 else [0.1, 0.3, 0.15, 0.1, 0.35]
        action = int(rng.choice(5, p=weights))
        return action if legal[action] else 1
    return int(_ruled(pair))


def _controls(pair: Pair, rng: np.random.Generator, kind: int) -> np.ndarray:
    size = pair.env.action_space.shape
    if kind == 3:
        return np.asarray(_ruled(pair), np.float32)
    spread = {0: 1.2, 1: 0.05, 2: 0.4}[kind]
    return np.where(rng.random(size) < 0.1, 0.0, rng.uniform(-spread, spread, size)).astype(np.float32)


def _ruled(pair: Pair) -> Any:
    env = pair.env
    return pair.rule.decide([Context(pair.obs, env.action_space, env.scene(), env.action_masks())])[0].action
