"""Compares the engine's lane-change kernel with highway-env, bit for bit, in a process with a pinned NumPy.

NumPy's AVX-512 tangent and arc functions differ from libm in the last bit, so the process has to be started with them
switched off (`PINNED`); a self-check at the start fails loudly where that did not work. Run as a script:

    python tests/parity/oracle.py '{"seeds": [0, 10], "config": {}, "limit": 40, "fault": null}'

`fault` is [module, old text, new text]: a slip planted into a copy of the engine's source, which the comparison must
notice. Prints one JSON line: decisions compared, outcomes, and the first mismatch if there is one.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PINNED = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"}


def run(**job: Any) -> dict[str, Any]:
    """One comparison in a process of its own. Raises with the process's words if it failed."""
    environment = os.environ | PINNED
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(job)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def check_pin() -> None:
    """NumPy's elementary functions must be libm's here, or equality means nothing."""
    import numpy as np

    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    pairs = [(np.tan, math.tan), (np.arctan, math.atan), (np.arcsin, math.asin), (np.sin, math.sin), (np.cos, math.cos)]
    for ours, libm in pairs:
        different = sum(float(ours(value)) != libm(value) for value in values)
        if different:
            raise SystemExit(f"the oracle is not pinned: {ours.__name__} differs from libm in {different} of 100,000")


def plant(fault: list[str]) -> None:
    """Put a slip into the engine: the module is compiled from a changed copy of its source."""
    name, old, new = fault
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    if source.count(old) < 1:
        raise SystemExit(f"fault not planted: {old!r} is not in {name}")
    changed = source.replace(old, new).replace("cache=True", "cache=False")
    path = Path(tempfile.mkdtemp()) / "planted.py"
    path.write_text(changed, encoding="utf-8")
    planted = importlib.util.spec_from_file_location(name, path)
    assert planted is not None
    assert planted.loader is not None
    module = importlib.util.module_from_spec(planted)
    sys.modules[name] = module
    planted.loader.exec_module(module)


def compare(seeds: list[int], config: dict[str, Any], limit: int) -> dict[str, Any]:
    """Drive both simulators with the same actions from the same seeds; `limit` decisions per seed at most."""
    import numpy as np

    import experts.registry
    import sim
    from sim.config import resolve
    from sim.engine.lane_change import LaneChangeWorld
    from sim.lane_change import LaneChangeConfig
    from sim.outcome import Outcome

    resolved = resolve(LaneChangeConfig(), config)
    world = LaneChangeWorld(resolved, 1)
    env = sim.make("lane-change", "highway-env", config)
    rule = experts.registry.make("rule", "lane-change")
    decisions, outcomes, continued = 0, {name.name.lower(): 0 for name in Outcome}, 0
    for seed in range(*seeds):
        rng = np.random.default_rng([seed, 1])
        if seed % 4 != 3 or seed == seeds[0]:
            obs, _ = env.reset(seed=seed)
            world.seed([0], [seed])
        else:  # every fourth episode goes on with the random streams as they are
            obs, _ = env.reset()
            continued += 1
        world.reset()
        if seed % 4 == 0 and seed == seeds[0]:
            assert np.array_equal(obs, world.obs[0]), "reset"
        for _ in range(limit):
            action = _choose(rng, seed % 4, env, rule)
            obs, reward, ended, _, info = env.step(action)
            world.step(np.array([action]))
            decisions += 1
            wrong = _first_difference(env, obs, reward, ended, world)
            if wrong:
                where = {"seed": seed, "decision": int(world.state.worlds["steps"][0]), "field": wrong}
                return {"decisions": decisions, "outcomes": outcomes, "mismatch": where}
            if ended:
                break
        outcomes[info.get("outcome") or "running"] += 1
    return {"decisions": decisions, "outcomes": outcomes, "continued": continued, "mismatch": None}


def _choose(rng: Any, kind: int, env: Any, rule: Any) -> int:
    """Drivers: any legal action; mostly braking with lane changes; the rule, which gets to the goal."""
    from experts.provider import Context

    legal = env.action_masks()
    if kind == 0:
        return int(rng.choice(legal.nonzero()[0]))
    if kind == 1:
        action = int(rng.choice(5, p=[0.02, 0.33, 0.15, 0.15, 0.35]))
        return action if legal[action] else 1
    return rule.decide([Context(legal, env.action_space, env.scene(), legal)])[0].action


def _first_difference(env: Any, obs: Any, reward: float, ended: bool, world: Any) -> str | None:
    """Name of the first field that is not equal to the bit, or None."""
    import numpy as np

    from sim.engine import lane_change as engine
    from sim.outcome import Outcome

    inner = env.inner
    ego, w, cars = inner.vehicle, world.state.worlds[0], world.state.cars[0]
    others = inner.road.vehicles[1:]
    pairs: dict[str, tuple[Any, Any]] = {
        "observation": (obs, world.obs[0]),
        "reward": (reward, world.rewards[0]),
        "ended": (ended, world.outcomes[0] != Outcome.RUNNING),
        "outcome": (int(inner.outcome), world.outcomes[0]),
        "ego x": (ego.position[0], w["x"]),
        "ego y": (ego.position[1], w["y"]),
        "ego heading": (ego.heading, w["heading"]),
        "ego speed": (ego.speed, w["speed"]),
        "ego lane": (ego.lane_index[2], w["lane"]),
        "ego target lane": (ego.target_lane_index[2], w["target_lane"]),
        "ego speed index": (ego.speed_index, w["speed_index"]),
        "legal actions": (env.action_masks(), world.masks[0]),
        "traffic x": ([car.position[0] for car in others], cars[engine.X]),
        "traffic y": ([car.position[1] for car in others], cars[engine.Y]),
        "traffic speed": ([car.speed for car in others], cars[engine.V]),
        "traffic acceleration": ([car.action["acceleration"] for car in others], cars[engine.A]),
        "traffic crashed": ([car.crashed for car in others], cars[engine.CRASHED] > 0),
        "traffic pending push": ([car.impact is not None for car in others], cars[engine.PUSHED] > 0),
    }
    for name, (theirs, ours) in pairs.items():
        if not np.array_equal(np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)):
            return name
    return None


def main(job: dict[str, Any]) -> None:
    check_pin()
    if job.get("fault"):
        plant(job["fault"])
    print(json.dumps(compare(job["seeds"], job.get("config", {}), job.get("limit", 40))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
