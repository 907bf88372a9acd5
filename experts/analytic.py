"""Controllers from textbooks for gymnasium's control tasks: experts that need neither training nor downloads.

`lqr` balances the MuJoCo pendulums, `swing-up` drives Pendulum-v1, `inverse-kinematics` Reacher-v5 and `oscillator`
Swimmer-v5. docs/experts.md has their measured returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.linalg import solve_discrete_are

from experts.controllers import Controller, require_environment
from sim.bounds import NonNegative, Number, Positive, config_dataclass
from sim.config import resolve
from sim.errors import UsageError

# --- linear-quadratic regulator --------------------------------------------------------------------------------------


def _single_state(obs: np.ndarray) -> np.ndarray:
    """InvertedPendulum-v5 observes its state (x, theta, dx/dt, dtheta/dt) as it is."""
    return obs


def _double_state(obs: np.ndarray) -> np.ndarray:
    """InvertedDoublePendulum-v5 observes x, sin and cos of both angles, three velocities, and the constraint force."""
    return np.column_stack([obs[:, 0], np.arctan2(obs[:, 1:3], obs[:, 3:5]), obs[:, 5:8]])


PENDULUMS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "InvertedPendulum-v5": (4, _single_state),
    "InvertedDoublePendulum-v5": (9, _double_state),
}
"""Size of the observation, and the state (q, dq/dt), float (R, 2 nv), of observations (R, D). Upright is state 0."""
DIFFERENCE = 1e-6
"""Of positions, velocities and controls in finite differences: MuJoCo's own recommendation."""


@config_dataclass
class LQRConfig:
    """Weights of the cost x'Qx + u'Ru; equal ones reach the highest return on both tasks."""

    position: Positive = 1.0  # of each squared coordinate, m2 and rad2
    velocity: NonNegative = 1.0  # of each squared velocity, (m/s)2 and (rad/s)2
    control: Positive = 1.0  # of each squared control, in the actuator's unit


class LQR(Controller):
    """u = -K x about the upright state.

    Args:
        environment: One of `PENDULUMS`.
        config: Weights of the cost.
    """

    name = "lqr"

    def __init__(self, environment: str, config: LQRConfig | None = None) -> None:
        config = config or LQRConfig()
        self.observation_size, self._state = PENDULUMS[environment]
        transition, control = linearised(environment)
        half, self.action_size = len(transition) // 2, control.shape[1]
        state_cost = np.diag([config.position] * half + [config.velocity] * half)
        control_cost = config.control * np.eye(self.action_size)
        value = solve_discrete_are(transition, control, state_cost, control_cost)
        self.gain = np.linalg.solve(control_cost + control.T @ value @ control, control.T @ value @ transition)

    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return -self._state(obs) @ self.gain.T


def linearised(environment: str) -> tuple[np.ndarray, np.ndarray]:
    """x' = A x + B u over one decision of a MuJoCo environment, about its reference state at rest.

    MuJoCo differentiates one simulation step by finite differences (`mjd_transitionFD`); it refuses the Runge-Kutta
    integrator of these models, so Euler's takes its place. A decision is `frame_skip` such steps.

    Args:
        environment: A gymnasium id.

    Returns:
        A, float64 (2 nv, 2 nv), and B, float64 (2 nv, nu); the state is (q, dq/dt).

    Raises:
        UsageError: MuJoCo is not installed.
    """
    try:
        import mujoco

        inner: Any = gym.make(environment).unwrapped
    except (ImportError, gym.error.Error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"expert 'lqr' needs MuJoCo ({reason}): install lgdrl[mujoco]") from None
    model, frames = inner.model, inner.frame_skip
    inner.close()
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    data = mujoco.MjData(model)
    size = 2 * model.nv
    step, push = np.zeros((size, size)), np.zeros((size, model.nu))
    mujoco.mj_forward(model, data)
    mujoco.mjd_transitionFD(model, data, DIFFERENCE, True, step, push, None, None)
    transition, control = np.eye(size), np.zeros_like(push)
    for _ in range(frames):
        control = step @ control + push
        transition = step @ transition
    return transition, control


def make_lqr(options: Mapping[str, Any], scenario: str, seed: int) -> LQR:
    """The expert `lqr`: linear-quadratic regulator of InvertedPendulum-v5 and InvertedDoublePendulum-v5.

    Args:
        options: Fields of `LQRConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, the scenario is another one, or MuJoCo is not installed.
    """
    return LQR(require_environment("lqr", scenario, PENDULUMS), resolve(LQRConfig(), options, "lqr"))


# --- energy swing-up -------------------------------------------------------------------------------------------------


@config_dataclass
class SwingUpConfig:
    """Gains for Pendulum-v1: a rod of 1 kg and 1 m, 10 m/s2, torques up to 2 N m."""

    energy: Positive = 10.0  # torque per lacking energy and angular velocity; saturates nearly always, as it should
    catch: Positive = 0.5  # rad from the top within which the rod is held: 2 N m hold up to asin(2 / 5) = 0.41 rad
    stiffness: Positive = 10.0  # N m / rad, near the top; twice the 5 N m / rad that gravity takes
    damping: Positive = 2.0  # N m s / rad, near the top; a damping ratio of 0.77


class SwingUp(Controller):
    """Pump energy until it is that of the rod at rest at the top, then hold it there by PD control.

    Astrom & Furuta, "Swinging up a pendulum by energy control", Automatica 36 (2000).
    """

    name = "swing-up"
    observation_size, action_size = 3, 1

    def __init__(self, config: SwingUpConfig | None = None) -> None:
        self.config = config or SwingUpConfig()

    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        c = self.config
        angle, velocity = np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2]
        energy = velocity**2 / 6 + 5 * (np.cos(angle) - 1)  # J, above that at rest at the top
        pump = -c.energy * energy * np.where(velocity == 0, 1.0, velocity)
        hold = -c.stiffness * angle - c.damping * velocity
        return np.where(np.abs(angle) < c.catch, hold, pump)[:, None]


def make_swing_up(options: Mapping[str, Any], scenario: str, seed: int) -> SwingUp:
    """The expert `swing-up`: energy control, then PD control at the top, for Pendulum-v1.

    Args:
        options: Fields of `SwingUpConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario is another one.
    """
    require_environment("swing-up", scenario, ("Pendulum-v1",))
    return SwingUp(resolve(SwingUpConfig(), options, "swing-up"))


# --- inverse kinematics ----------------------------------------------------------------------------------------------


@config_dataclass
class InverseKinematicsConfig:
    """Lengths and gains for Reacher-v5; torques are in units of its actuators (-1 to 1)."""

    upper_arm: Positive = 0.1  # m
    forearm: Positive = 0.11  # m, to the fingertip
    stiffness: Positive = 0.3  # torque / rad; of 0.1, 0.2, 0.3, 0.5 and 1 with several dampings the best return
    damping: Positive = 0.05  # torque s / rad


class InverseKinematics(Controller):
    """Joint angles that put the fingertip on the target, held by PD control; of both elbows the nearer one."""

    name = "inverse-kinematics"
    observation_size, action_size = 10, 2

    def __init__(self, config: InverseKinematicsConfig | None = None) -> None:
        self.config = config or InverseKinematicsConfig()

    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        present, velocity = np.arctan2(obs[:, 2:4], obs[:, 0:2]), obs[:, 6:8]
        errors = wrapped(self.angles(obs[:, 4:6]) - present)
        nearer = np.abs(errors).sum(axis=2).argmin(axis=0)
        return self.config.stiffness * errors[nearer, np.arange(len(obs))] - self.config.damping * velocity

    def angles(self, target: np.ndarray) -> np.ndarray:
        """Joint angles that reach a point; the nearest reachable point on its ray where it is out of reach.

        Args:
            target: x and y, m, float (R, 2).

        Returns:
            rad, float (2, R, 2): with either elbow, shoulder and elbow angle.
        """
        upper, lower = self.config.upper_arm, self.config.forearm
        reach = (target**2).sum(axis=1)
        bend = np.arccos(np.clip((reach - upper**2 - lower**2) / (2 * upper * lower), -1, 1))
        elbow = np.stack([bend, -bend])
        lead = np.arctan2(lower * np.sin(elbow), upper + lower * np.cos(elbow))
        return np.stack([np.arctan2(target[:, 1], target[:, 0]) - lead, elbow], axis=2)


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Angles, rad, in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def make_inverse_kinematics(options: Mapping[str, Any], scenario: str, seed: int) -> InverseKinematics:
    """The expert `inverse-kinematics`: joint angles of the target and PD control, for Reacher-v5.

    Args:
        options: Fields of `InverseKinematicsConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario is another one.
    """
    require_environment("inverse-kinematics", scenario, ("Reacher-v5",))
    return InverseKinematics(resolve(InverseKinematicsConfig(), options, "inverse-kinematics"))


# --- open-loop oscillator --------------------------------------------------------------------------------------------


@config_dataclass
class OscillatorConfig:
    """A travelling wave for Swimmer-v5; other phases and gains that were tried are in docs/experts.md."""

    frequency: Positive = 0.62  # Hz
    phase: Number = 0.95  # turns by which the second joint leads
    amplitude: Positive = 1.0  # rad
    stiffness: Positive = 10.0  # torque / rad; torques are limited to 1, so this nearly switches
    damping: NonNegative = 0.5  # torque s / rad
    period: Positive = 0.04  # s per decision of Swimmer-v5: 4 frames of 0.01 s


class Oscillator(Controller):
    """Sines of time as wanted joint angles, followed by PD control.

    Raffin et al., "An Open-Loop Baseline for Reinforcement Learning Locomotion Tasks", RLC 2024, arXiv 2310.05808, with
    one frequency for swing and stance. The phase comes from `Context.step`.
    """

    name = "oscillator"
    observation_size, action_size = 8, 2

    def __init__(self, config: OscillatorConfig | None = None) -> None:
        self.config = config or OscillatorConfig()

    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        c = self.config
        turns = c.frequency * c.period * steps[:, None] + np.array([0.0, c.phase])
        wanted = c.amplitude * np.sin(2 * np.pi * turns)
        return c.stiffness * (wanted - obs[:, 1:3]) - c.damping * obs[:, 6:8]


def make_oscillator(options: Mapping[str, Any], scenario: str, seed: int) -> Oscillator:
    """The expert `oscillator`: open-loop oscillators and PD control, for Swimmer-v5.

    Args:
        options: Fields of `OscillatorConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario is another one.
    """
    require_environment("oscillator", scenario, ("Swimmer-v5",))
    return Oscillator(resolve(OscillatorConfig(), options, "oscillator"))
