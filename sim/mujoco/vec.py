"""`MujocoEnvs`: N MuJoCo environments, in this process or spread over worker processes."""

from __future__ import annotations

import numpy as np

from sim.mujoco.rollouts import Rollouts
from sim.vec import ScenarioEnvs


class MujocoEnvs(ScenarioEnvs):
    """N environments of one scenario that can be rolled out."""

    def branch(self, index: int, plans: np.ndarray) -> Rollouts:
        """`MujocoEnv.branch` from one environment.

        Args:
            index: The environment.
            plans: Continuous actions, float (P, H, D).
        Returns:
            How they went.
        Raises:
            UsageError: There is no such environment, or the plans have another shape or are not finite.
        """
        return self.env_method("branch", plans, indices=index)[0]
