"""The expert `policy:PATH`: a trained run of ours, a model that Stable-Baselines3 saved, or an actor as plain arrays.

It stands on this floor because a run folder is a thing of this floor; `experts.learned` and `experts.actors` hold the
providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces

from experts.actors import SUFFIX as ACTOR_SUFFIX
from experts.actors import ActorExpert, load_actor
from experts.learned import LearnedPolicy
from experts.provider import PolicyProvider
from experts.sb3_zip import load_zip
from lgdrl.learners.files import load_policy_file
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.config import NoOptions, resolve
from sim.errors import UsageError

POLICY_SUFFIX = ".safetensors"


def make(options: Mapping[str, Any], scenario: str, seed: int, target: str = "") -> PolicyProvider:
    """The expert `policy:PATH`: the policy of a run, of a zip of Stable-Baselines3, or of an .npz file of arrays.

    Args:
        options: It has none.
        scenario: Where it will decide.
        seed: Not used: the policy is greedy.
        target: The run folder, policy file, zip or `.npz` file.

    Raises:
        UsageError: There is no policy at `target`.
    """
    resolve(NoOptions(), options, "policy")
    if not target:
        raise UsageError(
            "expert 'policy': name a run folder or a zip of Stable-Baselines3, or an .npz file, as in policy:runs/first"
        )
    path, name = Path(target), f"policy:{target}"
    if path.suffix == ACTOR_SUFFIX:
        return ActorExpert(name, load_actor(path))
    if path.is_file() and path.suffix != POLICY_SUFFIX:
        return LearnedPolicy(name, load_zip(path))
    model = load_policy_file(path) if path.is_file() else load_policy(Run.open(path))
    discrete = isinstance(model.action_space, spaces.Discrete)
    return LearnedPolicy(name, model, model.probabilities if discrete else None)
