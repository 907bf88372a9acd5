"""Controllers of gymnasium's control tasks reach the returns that they are known for, by the right physics."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import sim
from experts import registry
from experts.analytic import LQR, PENDULUMS, InverseKinematics, Oscillator, SwingUp, linearised
from experts.driving import run_episodes
from experts.provider import Context, Status
from sim.errors import UsageError

pytest.importorskip("mujoco")

MADE_FOR = {
    "lqr": ("InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
    "swing-up": ("Pendulum-v1",),
    "inverse-kinematics": ("Reacher-v5",),
    "oscillator": ("Swimmer-v5",),
    "linear": ("Swimmer-v5",),
}


def returns(name, scenario, episodes, **options):
    envs = sim.make_vec(scenario, episodes, seed=0)
    with registry.make(name, scenario, options) as expert:
        found = run_episodes(envs, expert, range(episodes))
    envs.close()
    return np.array([episode["episode_return"] for episode in found])


@pytest.mark.parametrize(
    ("name", "scenario", "episodes", "least"),
    [
        ("lqr", "gym:InvertedPendulum-v5", 2, 1000.0),
        ("lqr", "gym:InvertedDoublePendulum-v5", 2, 9355.0),
        ("swing-up", "gym:Pendulum-v1", 10, -330.0),
        ("inverse-kinematics", "gym:Reacher-v5", 10, -9.0),
        ("oscillator", "gym:Swimmer-v5", 1, 340.0),
        ("linear", "gym:Swimmer-v5", 1, 340.0),
    ],
)
def test_every_episode_returns_at_least(name, scenario, episodes, least):
    assert returns(name, scenario, episodes).min() >= least


@pytest.mark.parametrize("environment", PENDULUMS)
def test_the_linear_model_is_the_derivative_of_the_environments_own_step(environment):
    """By central differences through the environment's own steps, with the integrator that the model was made with."""
    env = gym.make(environment).unwrapped
    env.model.opt.integrator = 0  # Euler
    transition, control = linearised(environment)
    half, size = len(transition) // 2, control.shape[1]

    def stepped(state, action):
        env.reset(seed=0)
        env.set_state(state[:half], state[half:])
        env.do_simulation(action, env.frame_skip)
        return np.concatenate([env.data.qpos, env.data.qvel])

    def derivative(function, count, eps=1e-5):
        return np.stack([(function(eps * e) - function(-eps * e)) / (2 * eps) for e in np.eye(count)], axis=1)

    assert derivative(lambda x: stepped(x, np.zeros(size)), 2 * half) == pytest.approx(transition, abs=1e-4)
    assert derivative(lambda u: stepped(np.zeros(2 * half), u), size) == pytest.approx(control, abs=1e-4)
    closed = transition - control @ LQR(environment).gain
    assert np.abs(np.linalg.eigvals(transition)).max() > 1.01  # it falls over when left alone
    assert np.abs(np.linalg.eigvals(closed)).max() < 1


def test_the_double_pendulums_state_is_read_back_from_sines_and_cosines():
    env = gym.make("InvertedDoublePendulum-v5").unwrapped
    env.reset(seed=0)
    state = np.array([0.1, -0.4, 2.5, 0.3, -0.2, 1.0])
    env.set_state(state[:3], state[3:])
    assert PENDULUMS["InvertedDoublePendulum-v5"][1](env._get_obs()[None])[0] == pytest.approx(state)


def test_swing_up_pumps_energy_until_it_is_that_at_the_top():
    env = gym.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    env.state, energies, expert = np.array([np.pi, 0.0]), [], SwingUp()
    for step in range(60):
        angle, velocity = env.state
        energies.append(velocity**2 / 6 + 5 * (np.cos(angle) - 1))  # of a rod: I = m l2 / 3, its centre at l / 2
        obs = np.array([[np.cos(angle), np.sin(angle), velocity]])
        env.step(np.clip(expert.control(obs, np.array([step]))[0], -2, 2))
    assert energies[0] == pytest.approx(-10.0)
    assert (np.diff(energies[:20]) > -0.2).all()
    assert max(energies) == pytest.approx(0.0, abs=1.0)


def test_inverse_kinematics_is_the_inverse_of_forward_kinematics():
    rng = np.random.default_rng(0)
    radius, angle = rng.uniform(0.011, 0.209, 50), rng.uniform(-np.pi, np.pi, 50)
    target = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    both = InverseKinematics().angles(target)
    assert both[0, :, 1] == pytest.approx(-both[1, :, 1])  # the elbow to either side
    for joints in both:
        first, second = joints[:, 0], joints.sum(axis=1)
        reached = 0.1 * np.column_stack([np.cos(first), np.sin(first)])
        reached += 0.11 * np.column_stack([np.cos(second), np.sin(second)])
        assert reached == pytest.approx(target)
    beyond = InverseKinematics().angles(np.array([[0.3, 0.3]]))
    assert beyond[:, 0] == pytest.approx(np.array([[np.pi / 4, 0.0]] * 2))  # stretched towards it


def test_the_oscillators_phase_is_the_time_in_the_episode():
    expert, still = Oscillator(), np.zeros((3, 8))
    period = 1 / (0.62 * 0.04)  # decisions
    wanted = expert.control(still, np.array([0.0, period / 4, period]))
    assert wanted[:, 0] == pytest.approx([0.0, 10.0, 0.0], abs=1e-9)
    assert wanted[0] == pytest.approx(wanted[2])


@pytest.mark.parametrize("name", MADE_FOR)
@pytest.mark.parametrize("prefix", ["gym", "mujoco"])
def test_an_environment_is_recognised_under_either_prefix_and_another_one_is_refused(name, prefix):
    for environment in MADE_FOR[name]:
        registry.make(name, f"{prefix}:{environment}").close()
    with pytest.raises(UsageError, match=r"Hopper-v5'.*: (choose another expert or scenario|name a file)"):
        registry.make(name, f"{prefix}:Hopper-v5")


def test_another_observation_of_the_same_environment_is_refused_before_it_is_driven():
    options = {"options": {"exclude_current_positions_from_observation": False}}
    envs = sim.make_vec("gym:Swimmer-v5", 1, config=options)
    with (
        registry.make("oscillator", "gym:Swimmer-v5") as expert,
        pytest.raises(UsageError, match=r"takes observations of shape \(8,\), those of 'gym:Swimmer-v5' are .*\(10,\)"),
    ):
        run_episodes(envs, expert, [0])
    envs.close()


def test_an_observation_that_is_not_finite_is_no_decision_and_spoils_no_other():
    space = gym.spaces.Box(-2, 2, (1,))
    good, bad = np.array([1.0, 0.0, 0.1]), np.array([np.nan, 0.0, 0.0])
    decisions = SwingUp().decide([Context(good, space), Context(bad, space)])
    assert [decision.status for decision in decisions] == [Status.OK, Status.FAILED]
    assert decisions[0].action.dtype == np.float32
    with pytest.raises(UsageError, match=r"takes observations of shape \(3,\), this environment gives \(4,\)"):
        SwingUp().decide([Context(np.zeros(4), space)])


def test_options_are_checked():
    assert returns("oscillator", "gym:Swimmer-v5", 1, amplitude=0.2)[0] < 100
    with pytest.raises(UsageError, match=r"lqr\.control"):
        registry.make("lqr", "gym:InvertedPendulum-v5", {"control": 0})
