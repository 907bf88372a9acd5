"""Settings of learners on single scenarios, where their defaults, which are those of driving, do not do.

They are laid under `learner_options`, so that every setting of a config or an override wins.
"""

from __future__ import annotations

from typing import Any

TUNED: dict[tuple[str, str], dict[str, Any]] = {
    # found on training seeds 0 to 2, 500 of 500 on seeds 3 to 5 after 24,000 decisions in 8 environments
    ("discrete-sac", "gym:CartPole-v1"): {
        "learning_rate": 2e-3,
        "tau": 0.1,  # fast targets: at 0.01 the greedy policy drifts off the track
        "gamma": 0.995,  # so that falling off 200 steps later still counts
        "n_step": 1,
        "updates_per_decision": 0.5,
        "target_entropy_ratio": 0.5,  # shows the critic what lies beside the usual drift
        "alpha_cap": None,
    },
    # training seeds 0 and 1 reached 266 and 249 after 400,000 decisions in 8 environments; 200 counts as solved
    ("discrete-sac", "gym:LunarLander-v3"): {
        "learning_rate": 5e-4,
        "batch_size": 256,
        "tau": 0.02,
        "gamma": 0.995,
        "n_step": 1,
        "target_entropy_ratio": 0.65,
        "alpha_initial": 1.0,
        "alpha_cap": None,
        "updates_per_decision": 0.5,
        "buffer_size": 200_000,
        "learning_starts": 5000,
    },
    # from here on: hyper-parameters of RL Baselines3 Zoo, without its schedules
    ("dqn", "gym:CartPole-v1"): {
        "hidden": [256, 256],
        "learning_rate": 5e-4,  # 2.3e-3 there, with which the last policy was often a bad one
        "target_interval": 256,  # 10 there, but only between bursts of 128 updates
        "learning_starts": 1000,
        "updates_per_decision": 0.5,
        "exploration_decisions": 8000,
        "exploration_final": 0.04,
    },
    ("dqn", "gym:LunarLander-v3"): {
        "hidden": [256, 256],
        "learning_rate": 6.3e-4,
        "target_interval": 250,
        "batch_size": 128,
        "buffer_size": 50_000,
        "updates_per_decision": 1.0,
        "exploration_decisions": 12_000,
        "exploration_final": 0.1,
    },
    ("ppo", "gym:CartPole-v1"): {
        "learning_rate": 1e-3,
        "rollout": 256,
        "batch_size": 256,
        "epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
    },
    ("ppo", "gym:LunarLander-v3"): {
        "rollout": 16_384,
        "epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "entropy_weight": 0.01,
    },
    ("sac", "gym:Pendulum-v1"): {"learning_rate": 1e-3},
    ("td3", "gym:Pendulum-v1"): {"gamma": 0.98, "learning_starts": 1000},
}
"""Options by (learner, scenario)."""

LOCOMOTION: dict[str, dict[str, Any]] = {
    "Swimmer-v5": {"gamma": 0.9999},  # it never falls: at 0.99 only the next two seconds count
    **{f"{body}-v5": {"learning_starts": 10_000} for body in ("Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid")},
}
"""Options of `sac` and `td3` on MuJoCo's bodies, from RL Baselines3 Zoo."""
for _body, _options in LOCOMOTION.items():
    for _learner in ("sac", "td3"):
        TUNED |= {(_learner, f"{prefix}:{_body}"): _options for prefix in ("gym", "mujoco")}
