"""Augmented random search (ARS V2-t) for a linear policy, which the expert `linear` reads.

Mania, Guy & Recht, "Simple random search provides a competitive approach to reinforcement learning", arXiv 1803.07055,
algorithm 2: perturb the matrix in random directions, run each direction forwards and backwards, and step along the
best ones by the difference of their returns, over the standard deviation of these returns. Observations are
whitened by running estimates of mean and standard deviation. The file holds the best policy of the periodic tests.

    python experiments/ars.py --scenario gym:Swimmer-v5 --seed 1 --out swimmer.npz
    lgdrl evaluate --expert linear:swimmer.npz --scenario gym:Swimmer-v5 --episodes 20
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from gymnasium import spaces

import sim
from sim.bounds import Count, Positive, config_dataclass
from sim.env import ScenarioEnv
from sim.files import write_atomically

TEST_SEED = 10**6
"""Seeds of test episodes start here, far from those of training."""


@config_dataclass
class ARSConfig:
    """Settings that reach 359 on Swimmer-v5 with seed 1; one direction with 0.02 and 0.01 stayed at 183 (seed 0)."""

    iterations: Count = 112  # of 2 episodes per direction
    directions: Count = 4  # N, tried per iteration
    best: Count = 4  # b <= N, used for the step
    step_size: Positive = 0.03  # alpha
    noise: Positive = 0.03  # nu, standard deviation of the perturbations
    test_every: Count = 25  # iterations
    test_episodes: Count = 5


class Whitening:
    """Running mean and variance of observations (Welford)."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(size), np.zeros(size)

    def add(self, obs: np.ndarray) -> None:
        """Take one observation, float (D,), into account."""
        self.count += 1
        delta = obs - self.mean
        self.mean += delta / self.count
        self.squares += delta * (obs - self.mean)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation, float (D,); 1 where there is none yet."""
        std = np.sqrt(self.squares / max(self.count - 1, 1))
        return np.where(std < 1e-7, 1.0, std)


def episode(
    env: ScenarioEnv, matrix: np.ndarray, mean: np.ndarray, std: np.ndarray, seed: int, seen: Whitening | None = None
) -> tuple[float, int]:
    """One episode of a linear policy.

    Args:
        env: The environment.
        matrix: Float (M, D).
        mean: Of observations, float (D,).
        std: Of observations, float (D,).
        seed: Of the episode.
        seen: Takes the observations into account.

    Returns:
        Its return, and its number of decisions.
    """
    assert isinstance(env.action_space, spaces.Box)
    low, high, dtype = env.action_space.low, env.action_space.high, env.action_space.dtype
    obs, _ = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        if seen is not None:
            seen.add(obs)
        action = np.clip(matrix @ ((obs - mean) / std), low, high).astype(dtype)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, steps, over = total + reward, steps + 1, terminated or truncated
    return total, steps


def train(scenario: str, seed: int, config: ARSConfig) -> tuple[dict[str, np.ndarray], float, int]:
    """Search for a linear policy.

    Args:
        scenario: Name of a scenario with continuous actions.
        seed: Of the perturbations; episodes have seeds of their own.
        config: Settings.

    Returns:
        Arrays W, mean and std of the policy with the best test, that test's mean return, and decisions made.
    """
    env, rng = sim.make(scenario), np.random.default_rng(seed)
    size, outputs = int(np.prod(env.observation_space.shape)), int(np.prod(env.action_space.shape))
    matrix, seen, decisions, best = np.zeros((outputs, size)), Whitening(size), 0, -np.inf
    kept: dict[str, np.ndarray] = {}
    for iteration in range(1, config.iterations + 1):
        mean, std = seen.mean.copy(), seen.std
        deltas = rng.standard_normal((config.directions, outputs, size))
        returns = np.zeros((config.directions, 2))
        for k, delta in enumerate(deltas):
            start = int(rng.integers(TEST_SEED))
            for side, sign in enumerate((1, -1)):
                tried = matrix + sign * config.noise * delta
                returns[k, side], steps = episode(env, tried, mean, std, start, seen)
                decisions += steps
        top = np.argsort(-returns.max(axis=1))[: config.best]
        gain = np.einsum("k,kmd->md", returns[top, 0] - returns[top, 1], deltas[top])
        matrix = matrix + config.step_size / (len(top) * max(returns[top].std(), 1e-6)) * gain
        if iteration % config.test_every == 0:
            seeds = range(TEST_SEED, TEST_SEED + config.test_episodes)
            mean, std = seen.mean.copy(), seen.std
            found = float(np.mean([episode(env, matrix, mean, std, each)[0] for each in seeds]))
            print(f"iteration {iteration}: {decisions:,} decisions, test return {found:.1f}", flush=True)
            if found > best:
                best, kept = found, {"W": matrix.copy(), "mean": mean, "std": std}
    env.close()
    return kept, best, decisions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenario", default="gym:Swimmer-v5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the .npz file")
    parser.add_argument("--iterations", type=int, default=ARSConfig.iterations)
    parser.add_argument("--directions", type=int, default=ARSConfig.directions)
    parser.add_argument("--best", type=int, default=ARSConfig.best)
    parser.add_argument("--step-size", type=float, default=ARSConfig.step_size)
    parser.add_argument("--noise", type=float, default=ARSConfig.noise)
    given = vars(parser.parse_args())
    scenario, seed, out = given.pop("scenario"), given.pop("seed"), given.pop("out")
    if given["best"] > given["directions"]:
        parser.error(f"--best {given['best']}: choose at most --directions {given['directions']}")
    config, started = ARSConfig(**given), time.process_time()
    arrays, found, decisions = train(scenario, seed, config)
    settings = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    about = {
        "environment": scenario.partition(":")[2] or scenario,
        "return": round(found, 1),
        "episodes": config.test_episodes,
        "decisions": decisions,
        "cpu_s": round(time.process_time() - started, 1),
        "seed": seed,
        "command": f"python experiments/ars.py --scenario {scenario} --seed {seed} {settings}",
    }
    arrays["metadata"] = np.array(json.dumps(about))
    write_atomically(out, lambda file: np.savez(file, **arrays))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
