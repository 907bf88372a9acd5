"""The MuJoCo scenarios. Light: they are listed where MuJoCo is not installed."""

from __future__ import annotations

from sim.mujoco.config import MujocoConfig
from sim.mujoco.scenario import MujocoScenario
from sim.scenarios import Backend

PREFIX = "mujoco:"
BACKEND = "mujoco"
BACKENDS = {BACKEND: Backend("sim.mujoco.factory:make_env", "sim.mujoco.factory:make_vec")}


def body(env_id: str, summary: str, travels: bool = False, falls: bool = False, limit: int = 1000) -> MujocoScenario:
    """A scenario.

    Args:
        env_id: gymnasium's id.
        summary: One line for listings.
        travels: Episodes report a distance.
        falls: Episodes report whether the body fell.
        limit: Time limit of gymnasium, decisions.
    Returns:
        The registry entry.
    """
    return MujocoScenario(
        name=PREFIX + env_id,
        summary=summary,
        defaults=MujocoConfig(max_episode_steps=limit),
        backends=BACKENDS,
        family=BACKEND,
        actions="continuous",
        driving=False,
        env_id=env_id,
        travels=travels,
        falls=falls,
    )


MUJOCO_SCENARIOS: tuple[MujocoScenario, ...] = (
    body("InvertedPendulum-v5", "balance a pole on a cart, 1,000 steps", falls=True),
    body("InvertedDoublePendulum-v5", "balance two joined poles on a cart, 1,000 steps", falls=True),
    body("Reacher-v5", "move the tip of a two-joint arm to a random target, 50 steps", limit=50),
    body("Swimmer-v5", "swim forward with three links in a viscous fluid, 1,000 steps", travels=True),
    body("Hopper-v5", "hop forward on one leg, 1,000 steps", travels=True, falls=True),
    body("HalfCheetah-v5", "run forward on two legs in a plane, 1,000 steps", travels=True),
    body("Walker2d-v5", "walk forward on two legs in a plane, 1,000 steps", travels=True, falls=True),
    body("Ant-v5", "walk forward on four legs, 1,000 steps", travels=True, falls=True),
    body("Humanoid-v5", "walk forward as a humanoid of 17 actuators, 1,000 steps", travels=True, falls=True),
)
