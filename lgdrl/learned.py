"""The expert `policy:PATH`: a trained run of ours, or a model that Stable-Baselines3 saved.

It stands on this floor because a run folder is a thing of this floor; `experts.learned` holds the provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experts.learned import LearnedPolicy
from experts.sb3_zip import load_zip
from lgdrl.learners.files import load_policy_file
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from sim.config import NoOptions, resolve
from sim.errors import UsageError

POLICY_SUFFIX = ".safetensors"


def make(options: Mapping[str, Any], scenario: str, seed: int, target: str = "") -> LearnedPolicy:
    """The expert `policy:PATH`: the policy of a run, or of a zip of Stable-Baselines3.

    Args:
        options: It has none.
        scenario: Where it will decide.
        seed: Not used: the policy is greedy.
        target: The run folder, policy file or zip.

    Raises:
        UsageError: There is no policy at `target`.
    """
    resolve(NoOptions(), options, "policy")
    if not target:
        raise UsageError("expert 'policy': name a run folder or a zip of Stable-Baselines3, as in policy:runs/first")
    path, name = Path(target), f"policy:{target}"
    if path.is_file() and path.suffix != POLICY_SUFFIX:
        return LearnedPolicy(name, load_zip(path))
    model = load_policy_file(path) if path.is_file() else load_policy(Run.open(path))
    return LearnedPolicy(name, model, model.probabilities)
