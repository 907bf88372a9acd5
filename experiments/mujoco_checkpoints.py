"""Soft actor-critic on MuJoCo's walkers, for the policies that the expert `trained` brings.

Our learner `sac` without a strategy, 8 environments, one update per decision. Every 10,000 decisions the greedy policy
is tested on seeds of its own, and the file holds the best of these tests so far; the returns in docs/experts.md are
those of other seeds. The file is read by `experts.actors`: plain arrays, computed by NumPy.

    python experiments/mujoco_checkpoints.py --scenario mujoco:Hopper-v5 --decisions 200000 --seed 0 --out hopper.npz
    lgdrl evaluate --expert policy:hopper.npz --scenario mujoco:Hopper-v5 --episodes 20
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.sac.policies import Actor

import sim
from experts.actors import ActorExpert, actor_of
from experts.driving import run_episodes
from lgdrl.learners.sac import SAC, SACConfig
from sim.files import write_atomically

CONFIG = SACConfig(
    hidden=(64, 64),  # an update takes a tenth of the time of the usual 256-256
    learning_rate=1e-3,  # a short training
    batch_size=128,
    buffer_size=400_000,
    learning_starts=5000,
)
NUM_ENVS = 8
TEST_EVERY = 10_000
"""Decisions."""
TEST_SEEDS = range(10**6, 10**6 + 5)
"""Far from those of training and of the report."""


def arrays_of(actor: Actor, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """The greedy policy as `experts.actors` reads it.

    Args:
        actor: The Gaussian actor of Stable-Baselines3's SAC.
        low: Lower bounds of the actions, float (M,).
        high: Upper bounds, float (M,).
    """
    hidden = [module for module in actor.latent_pi if isinstance(module, torch.nn.Linear)]
    arrays: dict[str, np.ndarray] = {"final": np.array("tanh"), "low": low, "high": high}
    for i, layer in enumerate([*hidden, actor.mu]):
        arrays[f"W{i}"], arrays[f"b{i}"] = (values.detach().numpy().copy() for values in (layer.weight, layer.bias))
    return arrays


class Best(BaseCallback):
    """Tests the policy now and then, and keeps the file of the best one.

    Args:
        out: The file.
        about: Its metadata, without what a test finds.
    """

    model: SAC

    def __init__(self, out: Path, about: dict[str, Any]) -> None:
        super().__init__()
        self.out, self.about, self.best = out, about, -np.inf
        self.env = sim.make_vec(about["scenario"], len(TEST_SEEDS))
        self.started = time.process_time()

    def _on_step(self) -> bool:
        if self.num_timesteps % TEST_EVERY == 0:
            self._test()
        return True

    def _test(self) -> None:
        space = self.model.action_space
        arrays = arrays_of(self.model.actor, space.low, space.high)  # type: ignore[attr-defined]
        episodes = run_episodes(self.env, ActorExpert("test", actor_of(arrays)), TEST_SEEDS)
        found = float(np.mean([episode["episode_return"] for episode in episodes]))
        used = time.process_time() - self.started
        print(f"{self.num_timesteps:,} decisions, {used:.0f} CPU-s: test return {found:.1f}", flush=True)
        if found <= self.best:
            return
        self.best = found
        about = self.about | {"return": round(found, 1), "decisions": self.num_timesteps, "cpu_s": round(used)}
        arrays["metadata"] = np.array(json.dumps(about))
        write_atomically(self.out, lambda file: np.savez_compressed(file, **arrays))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenario", default="mujoco:Hopper-v5")
    parser.add_argument("--decisions", type=int, default=200_000, help=f"tests are made every {TEST_EVERY:,}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the .npz file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "environment": given.scenario.partition(":")[2] or given.scenario,
        "scenario": given.scenario,
        "episodes": len(TEST_SEEDS),
        "seed": given.seed,
        "command": f"python experiments/mujoco_checkpoints.py --scenario {given.scenario} "
        f"--decisions {given.decisions} --seed {given.seed}",
    }
    env = sim.make_vec(given.scenario, NUM_ENVS, seed=1000 * given.seed)
    SAC(env, CONFIG, seed=given.seed, device="cpu").learn(given.decisions, callback=Best(given.out, about))
    env.close()


if __name__ == "__main__":
    main()
