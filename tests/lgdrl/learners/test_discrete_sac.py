"""Discrete SAC: its losses are the written equations, the hooks see what they should, it resumes to the bit."""

import dataclasses
import itertools
import math
import pickle
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from lgdrl.guidance.arbiters import Arbiter
from lgdrl.guidance.constraint import LN2, DualConfig
from lgdrl.guidance.labelling import Labeller
from lgdrl.guidance.records import Execution, Labels, Reason
from lgdrl.guidance.replay import Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.guidance.terms import ConstraintTerm, Terms
from lgdrl.learners.discrete_sac import DiscreteSAC, DiscreteSACConfig
from lgdrl.learners.softmax_policy import TwinMLP, masked_log_softmax, sample_categorical
from sim.env import DrivingVecEnv

torch.set_num_threads(1)

SMALL = DiscreteSACConfig(
    hidden=(16, 16), batch_size=32, learning_starts=50, buffer_size=5_000, updates_per_decision=0.25
)

CARTPOLE = DiscreteSACConfig(
    learning_rate=2e-3,
    tau=0.1,  # fast targets: at 0.01 the greedy policy drifts off the track at 200-300 steps for 20k frames and more
    gamma=0.995,  # so that falling off 200 steps later still counts
    n_step=1,
    updates_per_decision=0.5,
    target_entropy_ratio=0.5,  # shows the critic what lies beside the usual drift
    alpha_cap=None,
)


class Corridor(DrivingVecEnv):
    """N corridors of 8 cells, walked left (0), not at all (1) or right (2); the goal is the right end.

    Left is illegal in the first cell, standing still in every third. Time runs out after 15 decisions (truncated).
    Refuses illegal actions. Cells reached count as reward; the observation carries noise from a stream of its own.
    """

    scenario, backend, scenario_config = "corridor", "test", None
    goal, limit = 7, 15

    def __init__(self, num_envs: int = 4, seed: int = 0) -> None:
        super().__init__(num_envs, gym.spaces.Box(-2.0, 2.0, (3,), np.float32), gym.spaces.Discrete(3))
        self.stream = np.random.default_rng(seed)
        self.cell, self.time = np.zeros(num_envs, int), np.zeros(num_envs, int)

    def seed(self, seed=None):
        return [None] * self.num_envs

    def _observe(self):
        noise = self.stream.uniform(-0.1, 0.1, self.num_envs)
        return np.stack([self.cell / self.goal, self.time / self.limit, noise], axis=1).astype(np.float32)

    def reset(self):
        self.cell[:], self.time[:] = 0, 0
        return self._observe()

    def action_masks(self):
        return np.stack([self.cell > 0, self.cell % 3 != 2, np.ones(self.num_envs, bool)], axis=1)

    def step_async(self, actions):
        assert self.action_masks()[np.arange(self.num_envs), actions].all(), "illegal action executed"
        self.actions = np.asarray(actions)

    def step_wait(self):
        before = self.cell.copy()
        self.cell += self.actions - 1
        self.time += 1
        rewards = (self.cell - before).astype(np.float64)
        arrived, late = self.cell == self.goal, self.time == self.limit
        dones, obs, masks = arrived | late, self._observe(), self.action_masks()
        infos = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            infos[i] = {"terminal_observation": obs[i].copy(), "terminal_action_mask": masks[i].copy()}
            infos[i]["TimeLimit.truncated"] = bool(late[i] and not arrived[i])
        self.cell[dones], self.time[dones] = 0, 0
        return self._observe() if dones.any() else obs, rewards, dones, infos

    def scenes(self, indices):
        return [f"scene {int(i)}" for i in indices]

    def branch(self, index, plans):
        raise NotImplementedError

    def reset_to(self, seeds):
        return self.reset()

    def get_state(self):
        return {"cell": self.cell.copy(), "time": self.time.copy(), "stream": self.stream.bit_generator.state}

    def set_state(self, state):
        self.cell, self.time = state["cell"].copy(), state["time"].copy()
        self.stream.bit_generator.state = state["stream"]

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


class RightAdvisor:
    """Always says right; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def on_episode_start(self, episodes):
        pass

    def label(self, env, context, rows):
        self.asked.append((rows.copy(), context.episodes.copy(), context.steps.copy()))
        labels, right = context.no_labels(), labels_right(context)
        labels.given[rows], labels.action[rows], labels.status[rows] = True, right, 0
        labels.probs[rows, right] = 1.0
        return labels


def labels_right(context):
    return context.legal.shape[1] - 1


class Half(Labeller):
    """Half of the steps are labelled; the expert may drive in all of them."""

    def __init__(self):
        self.stream = np.random.default_rng(3)

    def select(self, context):
        return self.stream.random(context.num_envs) < 0.5, np.ones(context.num_envs, bool)

    def state_dict(self):
        return {"stream": self.stream.bit_generator.state}

    def load_state_dict(self, state):
        self.stream.bit_generator.state = state["stream"]


class Sometimes(Arbiter):
    """The expert drives a share of the steps that have a label."""

    def __init__(self, share: float) -> None:
        self.share, self.stream = share, np.random.default_rng(4)

    def requires(self, context, wanted, allowed):
        return wanted

    def decide(self, context, labels, allowed):
        rows = labels.given & (self.stream.random(context.num_envs) < self.share)
        return Execution.switched(context, labels, rows, Reason.OTHER)

    def state_dict(self):
        return {"stream": self.stream.bit_generator.state}

    def load_state_dict(self, state):
        self.stream.bit_generator.state = state["stream"]


def constrained(dual: DualConfig, intervene: float = 0.0, kind: type[Strategy] = Strategy) -> Strategy:
    """LGDRL in small: labels for half of the steps, executes a share of them, adds dual x JS."""
    return kind("constrained", Half(), Sometimes(intervene), [ConstraintTerm("js", 32, dual)])


def make(env=None, config=SMALL, strategy=None, advisor=None, seed=0) -> DiscreteSAC:
    return DiscreteSAC(Corridor() if env is None else env, config, strategy, advisor, seed=seed, device="cpu")


def weights(model: DiscreteSAC) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def some_batch(rng: np.random.Generator, number: int = 40, num_actions: int = 3) -> Samples:
    """A batch in which everything varies: executed differs from proposed, some ended, some were cut off."""
    masks, next_masks = (rng.random((2, number, num_actions)) < 0.6) | (np.arange(num_actions) == 2)
    dones = rng.random(number) < 0.5
    label = rng.integers(num_actions, size=number)
    return Samples(
        observations=torch.tensor(rng.normal(size=(number, 3)), dtype=torch.float32),
        next_observations=torch.tensor(rng.normal(size=(number, 3)), dtype=torch.float32),
        legal=torch.tensor(masks),
        next_legal=torch.tensor(next_masks),
        learner_actions=torch.tensor(rng.integers(num_actions, size=number)),
        actions=torch.tensor(rng.integers(num_actions, size=number)),
        labelled=torch.ones(number, dtype=torch.bool),
        label_actions=torch.tensor(label),
        label_probs=torch.tensor(np.eye(num_actions)[label], dtype=torch.float32),
        label_status=torch.zeros(number, dtype=torch.int8),
        authority=torch.zeros(number),
        reason=torch.zeros(number, dtype=torch.int8),
        rewards=torch.tensor(rng.normal(size=number), dtype=torch.float32),
        discounts=torch.tensor(rng.uniform(0.5, 1.0, size=number), dtype=torch.float32),
        dones=torch.tensor(dones),
        terminated=torch.tensor(dones & (rng.random(number) < 0.5)),
        episodes=torch.arange(number),
        steps=torch.zeros(number, dtype=torch.int64),
    )


# ------------------------------------------------------------------------------------------- the equations


def numpy_mlp(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        x = np.maximum(x, 0.0) if index < len(layers) - 1 else x
    return x


def numpy_actor(model: DiscreteSAC, obs: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """pi (B, A), from the weights alone."""
    values = [value.double().numpy() for value in model.actor.network.state_dict().values()]
    layers = [(values[i].T, values[i + 1]) for i in range(0, len(values), 2)]
    z = np.where(masks, np.exp(numpy_mlp(layers, obs)), 0.0)
    return z / z.sum(axis=1, keepdims=True)


def numpy_critics(network: TwinMLP, obs: np.ndarray) -> np.ndarray:
    """(2, B, A), from the weights alone."""
    pairs = list(zip(network.weights, network.biases, strict=True))
    return np.stack(
        [
            numpy_mlp([(w[k].detach().double().numpy(), b[k].detach().double().numpy()) for w, b in pairs], obs)
            for k in range(2)
        ]
    )


@pytest.fixture
def trained() -> DiscreteSAC:
    """A little trained, so that critics, targets and temperature differ from each other and from their start."""
    return make().learn(200)


def test_critic_loss_is_the_written_equation_on_the_executed_action(trained):
    batch, alpha = some_batch(np.random.default_rng(0)), trained.alpha
    obs, next_obs = batch.observations.double().numpy(), batch.next_observations.double().numpy()
    pi = numpy_actor(trained, next_obs, batch.next_legal.numpy())
    q_bar = numpy_critics(trained.policy.critic_target, next_obs).min(axis=0)
    entropy_term = np.where(pi > 0, np.log(np.where(pi > 0, pi, 1.0)), 0.0)
    value = (pi * (q_bar - alpha.item() * entropy_term)).sum(axis=1)
    target = batch.rewards.numpy() + batch.discounts.numpy() * ~batch.terminated.numpy() * value
    q = numpy_critics(trained.critic.network, obs)[:, np.arange(len(batch)), batch.actions.numpy()]
    expected = ((q - target) ** 2).mean(axis=1).sum()
    assert trained.critic_loss(batch, alpha).item() == pytest.approx(expected, rel=1e-5)
    other = batch.replace(actions=batch.learner_actions)
    assert trained.critic_loss(other, alpha).item() != pytest.approx(expected, rel=1e-3)
    proposals_do_not_matter = batch.replace(learner_actions=batch.actions)
    assert trained.critic_loss(proposals_do_not_matter, alpha).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("floor", [None, 1e-3, 1.0])
def test_actor_loss_is_the_written_equation(trained, floor):
    trained.config = dataclasses.replace(trained.config, loss_scale_floor=floor)
    batch, alpha = some_batch(np.random.default_rng(1)), trained.alpha
    obs, masks = batch.observations.double().numpy(), batch.legal.numpy()
    pi = numpy_actor(trained, obs, masks)
    q = numpy_critics(trained.critic.network, obs).min(axis=0)
    log_pi = np.where(pi > 0, np.log(np.where(pi > 0, pi, 1.0)), 0.0)
    scale = 1.0 if floor is None else max(floor, np.abs(q[masks]).mean())
    expected = (pi * (alpha.item() * log_pi - q)).sum(axis=1).mean() / scale
    log_probs = trained.policy.log_probs(batch.observations, batch.legal)
    assert trained.actor_loss(batch, log_probs, alpha).item() == pytest.approx(expected, rel=1e-5)


def test_alpha_loss_is_the_written_equation_and_moves_alpha_towards_the_target_entropy():
    model = make()
    for entropy, direction in ((0.9, -1), (0.01, 1)):
        model.log_alpha.data.fill_(math.log(0.05))
        model.alpha_optimizer.state.clear()
        loss = model._update_alpha(torch.tensor(entropy))
        assert loss.item() == pytest.approx(0.05 * (entropy - 0.2 * math.log(3)), rel=1e-5)
        assert math.copysign(1, model.alpha.item() - 0.05) == direction


def test_alpha_is_capped_or_fixed_on_demand():
    model = make()
    for _ in range(20):
        model._update_alpha(torch.tensor(0.0))
    assert model.alpha.item() == pytest.approx(0.1)
    free = make(config=dataclasses.replace(SMALL, alpha_cap=None))
    for _ in range(20):
        free._update_alpha(torch.tensor(0.0))
    assert free.alpha.item() > 0.1
    fixed = make(config=dataclasses.replace(SMALL, alpha_fixed=True)).learn(200)
    assert fixed.alpha.item() == pytest.approx(0.1)


def test_targets_follow_by_polyak_averaging(trained):
    before = [p.clone() for p in trained.policy.critic_target.parameters()]
    trained.policy.update_targets(0.25)
    for old, new, online in zip(
        before, trained.policy.critic_target.parameters(), trained.critic.network.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * online)


def test_batched_twins_are_two_ordinary_networks():
    torch.manual_seed(0)
    twins = TwinMLP(5, 3, (8, 7))
    torch.manual_seed(0)
    singles = [torch.nn.Sequential(*create_mlp(5, 3, [8, 7])) for _ in range(2)]
    x = torch.randn(11, 5)
    torch.testing.assert_close(twins(x), torch.stack([single(x) for single in singles]))


# ---------------------------------------------------------------------------------------- legality, endings


def test_illegal_actions_have_probability_zero_and_no_gradient():
    logits = torch.randn(6, 4, requires_grad=True)
    masks = torch.tensor([[True, False, True, False]] * 6)
    log_probs = masked_log_softmax(logits, masks)
    probs = log_probs.exp()
    assert (probs[~masks] == 0).all()
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(6))
    (probs * log_probs).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~masks] == 0).all()


def test_sampling_follows_the_probabilities_and_never_leaves_their_support():
    probs = np.tile(np.array([[0.0, 0.3, 0.0, 0.7, 0.0]], np.float32), (20_000, 1))
    drawn = np.bincount(sample_categorical(probs, np.random.default_rng(0)), minlength=5) / 20_000
    np.testing.assert_allclose(drawn, probs[0], atol=0.015)
    assert drawn[[0, 2, 4]].sum() == 0


def test_training_never_proposes_an_illegal_action():
    model = make(config=dataclasses.replace(SMALL, updates_per_decision=0.02)).learn(2000)
    assert model.num_timesteps >= 2000, "the corridor refuses illegal actions"


def test_predict_respects_masks():
    model, masks = make(), np.tile([False, True, False], (50, 1))
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for deterministic in (False, True):
        actions, state = model.predict(obs, deterministic=deterministic, action_masks=masks)
        assert actions.tolist() == [1] * 50
        assert state is None
    assert model.predict(obs[0], action_masks=masks[0])[0] == 1
    assert len(set(model.predict(obs)[0].tolist())) > 1


def test_a_truncated_end_keeps_its_true_successor_and_is_bootstrapped():
    model = make(config=dataclasses.replace(SMALL, learning_starts=1000)).learn(800)
    stored = model.replay.state_dict()["columns"]
    truncated, dones = stored["timeouts"] > 0, stored["dones"] > 0
    terminated = dones & ~truncated
    assert truncated.any()
    assert terminated.any()
    assert (stored["next_observations"][truncated, 1] == 1.0).all()
    assert (stored["next_observations"][terminated, 0] == 1.0).all()
    cells = np.rint(stored["next_observations"][:, 0] * Corridor.goal).astype(int)
    legal = np.stack([cells > 0, cells % 3 != 2, np.ones(len(cells), bool)], axis=1)
    assert np.array_equal(stored["next_legal"], legal)
    samples = model.replay.sample_uniform(500)
    assert torch.equal(
        samples.dones & ~samples.terminated, (samples.next_observations[:, 1] == 1.0) & ~samples.terminated
    )


# -------------------------------------------------------------------------------------------------- guidance


BUSY = dataclasses.replace(SMALL, updates_per_decision=1.0)


@pytest.fixture(scope="module")
def plain() -> DiscreteSAC:
    """300 updates and more without an expert."""
    return make(config=BUSY).learn(360)


@pytest.mark.parametrize(
    "dual", [DualConfig(initial=0.0, fixed=True), DualConfig(initial=0.0, target=LN2 + 0.1)], ids=["fixed", "adaptive"]
)
def test_an_inactive_constraint_is_plain_sac_bit_for_bit(plain, dual):
    guided = make(config=BUSY, strategy=constrained(dual), advisor=RightAdvisor()).learn(360)
    assert plain._n_updates == guided._n_updates >= 300
    assert guided.replay.num_labelled > 100
    assert equal(weights(plain), weights(guided))
    assert torch.equal(plain.log_alpha, guided.log_alpha)


def test_an_active_constraint_pulls_the_policy_to_the_expert():
    obs = torch.as_tensor(Corridor(64).reset())
    masks = torch.ones(64, 3, dtype=torch.bool)
    # The expert says "left" here, against the reward, so agreement cannot come from learning alone.
    advisor = RightAdvisor()

    def left(env, context, rows):
        labels = Labels.none(context.num_envs, context.action_space)
        asked = rows & context.legal[:, 0]
        labels.given[asked], labels.probs[asked, 0], labels.status[asked] = True, 1.0, 0
        return labels

    advisor.label = left
    plain = make().learn(800)
    guided = make(strategy=constrained(DualConfig(20.0, fixed=True)), advisor=advisor).learn(800)
    left = [m.policy.log_probs(obs, masks).exp()[:, 0].mean().item() for m in (plain, guided)]
    assert left[0] < 0.2
    assert left[1] > 0.8


def test_base_share_weighs_the_rl_loss():
    class OnlyGuidance(Strategy):
        def actor_terms(self, batches, networks):
            return Terms(base_share=0.0)

        def critic_terms(self, batches, networks):
            return Terms(base_share=0.0)

    model = make(strategy=OnlyGuidance())
    before = weights(model)
    model.learn(300)
    assert model._n_updates > 50
    assert equal(before, weights(model))


def test_sample_weights_reach_both_losses():
    """Weight 0 for every sample is no gradient; weight 1 is plain SAC, bit for bit."""

    class Weighted(Strategy):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

        def critic_terms(self, batches, networks):
            return Terms(weights=torch.full((len(batches[RL]),), self.weight))

        actor_terms = critic_terms

    nothing = make(strategy=Weighted(0.0))
    before = weights(nothing)
    nothing.learn(200)
    assert equal(before, weights(nothing))
    plain, ones, twos = (make(strategy=s).learn(200) for s in (None, Weighted(1.0), Weighted(2.0)))
    assert equal(weights(plain), weights(ones))
    assert not equal(weights(plain), weights(twos))


def test_a_critic_term_is_added_to_the_critic_loss_only():
    """A large pull of Q towards 5 is followed by the critics, before the actor has noticed."""

    class Pull(Strategy):
        def critic_terms(self, batches, networks):
            return Terms((networks.q_values(batches[RL]) - 5.0).square().mean() * 100, metrics={"pull": 1.0})

    model = make(config=dataclasses.replace(BUSY, learning_rate=1e-2), strategy=Pull()).learn(400)
    q = model.policy.q_values(torch.as_tensor(Corridor(64).reset()))
    assert (q - 5.0).abs().mean() < 1.0
    assert model.logger.name_to_value.get("guidance/pull", 1.0) == 1.0


def test_the_strategy_sees_the_step_and_decides_what_is_executed_and_kept():
    class Recorder(Strategy):
        contexts, stored = [], []

        def on_action(self, context):
            self.contexts.append(context)
            assert context.scenes(np.array([2, 0])) == ["scene 2", "scene 0"]
            return super().on_action(context)

        def on_store(self, transitions):
            self.stored.append(transitions)
            return dataclasses.replace(transitions, rewards=transitions.rewards - 10.0 * transitions.intervened)

    advisor, strategy = RightAdvisor(), constrained(DualConfig(), 0.5, Recorder)
    model = make(strategy=strategy, advisor=advisor).learn(400)
    assert [c.decisions for c in strategy.contexts] == list(range(0, 400, 4))
    for context, kept in zip(strategy.contexts, strategy.stored, strict=True):
        probs = context.policy.probs
        assert (probs[~context.legal] == 0).all()
        np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-5)
        assert context.legal[np.arange(4), context.proposals].all()
        assert kept.learner_actions is context.proposals
        assert np.array_equal(kept.actions, np.where(kept.intervened, 2, context.proposals))
        assert np.array_equal(kept.reason, np.where(kept.intervened, Reason.OTHER, Reason.LEARNER))
        assert np.array_equal(kept.episodes, context.episodes)
        assert np.array_equal(kept.steps, context.steps)
    first = strategy.contexts[0]
    uniform = first.legal / first.legal.sum(axis=1, keepdims=True)
    assert np.array_equal(first.policy.probs, uniform.astype(np.float32))
    assert len(advisor.asked) > 0
    stored = model.replay.state_dict()["columns"]
    intervened = stored["authority"] > 0
    assert intervened.any()
    assert (stored["rewards"][intervened] < -5).all()
    assert (stored["rewards"][~intervened] > -5).all()
    assert stored["labelled"].sum() > intervened.sum() == strategy.interventions > 0
    assert (stored["actions"][intervened] == 2).all()


def test_stored_ids_put_trajectories_together():
    """Within an episode, equal ids and steps in succession: each successor is the next observation."""
    columns = make().learn(400).replay.state_dict()["columns"]
    place = {(e, s): i for i, (e, s) in enumerate(zip(columns["episodes"], columns["steps"], strict=True))}
    assert len(place) == 400
    inner = [(i, place[e, s + 1]) for (e, s), i in place.items() if (e, s + 1) in place]
    assert len(inner) > 300
    for i, j in inner:
        assert not columns["dones"][i]
        assert np.array_equal(columns["next_observations"][i], columns["observations"][j])


def test_episodes_are_numbered_uniquely_and_steps_count_within_them():
    class Recorder(Strategy):
        def __init__(self):
            super().__init__()
            self.seen, self.dones = [], []

        def on_action(self, context):
            self.seen.append((context.episodes, context.steps))
            return super().on_action(context)

        def on_store(self, transitions):
            self.dones.append(transitions.dones)
            return transitions

    strategy = Recorder()
    model = make(strategy=strategy).learn(200)
    model.learn(100)  # SB3's default starts all environments afresh
    pairs = [(int(e), int(s)) for episodes, steps in strategy.seen for e, s in zip(episodes, steps, strict=True)]
    assert len(set(pairs)) == len(pairs) == 300
    first = list(zip(strategy.seen, strategy.dones, strict=True))[:50]  # the first call of learn, 4 environments
    for (now, dones), (then, _) in itertools.pairwise(first):
        assert np.array_equal(then[1], np.where(dones, 0, now[1] + 1))
        assert np.array_equal(then[0][~dones], now[0][~dones])
        assert (then[0][dones] > now[0].max()).all()
    assert strategy.seen[50][0].min() > strategy.seen[49][0].max()


def test_values_of_a_step_are_the_smaller_critic():
    class Recorder(Strategy):
        def on_action(self, context):
            self.actions, self.obs = context.proposals, context.obs
            self.values = context.values(context.proposals)
            return super().on_action(context)

    model = make(strategy=Recorder(), config=dataclasses.replace(SMALL, updates_per_decision=0.0)).learn(80)
    expected = numpy_critics(model.critic.network, model.strategy.obs.astype(np.float64)).min(axis=0)
    expected = expected[np.arange(4), model.strategy.actions]
    np.testing.assert_allclose(model.strategy.values, expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------ schedule, determinism


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 1.0, 2.5])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_updates_follow_decisions_exactly(ratio, num_envs):
    config = dataclasses.replace(SMALL, updates_per_decision=ratio, learning_starts=10, hidden=(4,), batch_size=4)
    model = make(Corridor(num_envs), config).learn(60)
    warm_up_steps = 10 // num_envs
    assert model._n_updates == math.floor((60 - warm_up_steps * num_envs) * ratio + 1e-9)


def test_the_seed_decides_everything():
    one, again, other = (weights(make(seed=seed).learn(200)) for seed in (1, 1, 2))
    assert equal(one, again)
    assert not equal(one, other)


def test_foreign_random_draws_and_predictions_change_nothing():
    calm, disturbed = make(), make()
    calm.learn(200)
    for _ in range(2):
        disturbed.learn(100, reset_num_timesteps=False)
        disturbed.predict(np.zeros((5, 3), np.float32))
        torch.rand(10)
        np.random.rand(10)  # noqa: NPY002
    assert equal(weights(calm), weights(disturbed))


@pytest.mark.parametrize("cut", [40, 404], ids=["within the warm-up", "within training"])
def test_a_resumed_run_is_identical_to_the_bit(cut):
    def fresh():
        strategy = constrained(DualConfig(initial=1.0), intervene=0.3)
        config = dataclasses.replace(SMALL, buffer_size=300, updates_per_decision=0.3)  # the ring turns over
        return make(Corridor(seed=5), config, strategy, RightAdvisor())

    total = 800
    straight = fresh().learn(total)
    first = fresh().learn(cut)
    saved = pickle.dumps((first.state_dict(), first.env.get_state()))
    first.learn(100, reset_num_timesteps=False)  # going on does not touch what was saved
    model_state, env_state = pickle.loads(saved)
    resumed = DiscreteSAC(
        Corridor(seed=77),
        straight.config,
        constrained(DualConfig(initial=3.0), intervene=0.3),
        RightAdvisor(),
        seed=123,
        device="cpu",
    )
    resumed.load_state_dict(model_state)
    resumed.env.set_state(env_state)
    resumed.learn(total - resumed.num_timesteps, reset_num_timesteps=False)
    a, b = straight.state_dict(), resumed.state_dict()
    for state in (a, b):
        del state["counters"]["_num_timesteps_at_start"]  # where the last call of learn began: for SB3's fps only
    assert_same(a, b)


def assert_same(a, b, where="state"):
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), where
    else:
        assert a == b, where


# ------------------------------------------------------------------------------------------- SB3's contract


def test_save_and_load_keep_the_policy_and_leave_the_strategy_out(tmp_path):
    strategy = constrained(DualConfig())
    strategy.lock = threading.Lock()  # cannot be pickled
    model = make(strategy=strategy, advisor=RightAdvisor()).learn(200)
    model.save(tmp_path / "model.zip")
    loaded = DiscreteSAC.load(tmp_path / "model.zip", device="cpu")
    assert equal(weights(model), weights(loaded))
    assert torch.equal(model.log_alpha, loaded.log_alpha)
    assert loaded.config == model.config
    assert loaded.strategy.name == "none"
    obs = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    again = DiscreteSAC.load(tmp_path / "model.zip", env=Corridor(2), device="cpu")
    again.learn(100)


def test_parameters_move_between_models():
    one, two = make(seed=0).learn(150), make(seed=1)
    assert not equal(weights(one), weights(two))
    two.set_parameters(one.get_parameters())
    assert equal(weights(one), weights(two))
    assert set(one.get_parameters()) == {"policy", "actor.optimizer", "critic.optimizer", "alpha_optimizer"}


def test_the_policy_alone_can_be_saved(tmp_path):
    model = make()
    model.policy.save(tmp_path / "policy.pt")
    loaded = type(model.policy).load(tmp_path / "policy.pt", device="cpu")
    assert equal(model.policy.state_dict(), loaded.state_dict())


def test_logs_use_sb3s_names_and_the_strategys():
    model = make(VecMonitor(Corridor()), strategy=constrained(DualConfig()), advisor=RightAdvisor())
    model.set_logger(configure(None, []))
    model.learn(200, log_interval=None)
    names = set(model.logger.name_to_value)
    train = {"n_updates", "critic_loss", "actor_loss", "ent_coef", "ent_coef_loss", "entropy"}
    assert {f"train/{name}" for name in train} | {"guidance/divergence", "guidance/dual"} <= names
    written = {}
    model.logger.dump = lambda step: written.update(model.logger.name_to_value)
    model.dump_logs()
    assert {"guidance/interventions", "rollout/ep_rew_mean", "time/total_timesteps"} <= set(written)


def test_callbacks_see_context_and_execution():
    class Counter(BaseCallback):
        steps = 0

        def _on_step(self):
            assert np.array_equal(self.model.execution.actions, self.locals["actions"])
            assert self.model.context.legal.shape == (4, 3)
            self.steps += 1
            return True

    counter = Counter()
    make().learn(100, callback=counter)
    assert counter.steps == 25


class MaskedCartPole(gym.Wrapper):
    """CartPole that forbids pushing left when the pole leans right, and refuses to be disobeyed."""

    def action_masks(self):
        return np.array([self.unwrapped.state[2] <= 0, True])

    def step(self, action):
        assert self.action_masks()[action]
        return self.env.step(action)


@pytest.mark.parametrize("kind", ["id", "env", "vec", "masked"])
def test_it_learns_on_ordinary_gymnasium_environments(kind, tmp_path):
    env = {
        "id": lambda: "CartPole-v1",
        "env": lambda: gym.make("CartPole-v1"),
        "vec": lambda: make_vec_env("CartPole-v1", 3),
        "masked": lambda: DummyVecEnv([lambda: MaskedCartPole(gym.make("CartPole-v1"))] * 2),
    }[kind]()
    model = make(env)
    model.learn(120, callback=EvalCallback(make_vec_env("CartPole-v1", 1), eval_freq=50, n_eval_episodes=1, verbose=0))
    assert model._n_updates > 15
    if kind == "masked":
        assert not model.replay.column("legal").all()


def test_scenes_are_none_where_an_environment_has_none():
    class Looker(Strategy):
        def on_action(self, context):
            assert context.scenes(np.array([0])) == [None]
            assert context.views(np.array([0])) is None
            assert not context.ask(np.array([True])).given.any()
            return super().on_action(context)

    make("CartPole-v1", strategy=Looker()).learn(10)


# ------------------------------------------------------------------------------------------- what is refused


def test_a_strategy_that_needs_an_expert_requires_an_advisor():
    with pytest.raises(ValueError, match="'constrained' needs an expert"):
        make(strategy=constrained(DualConfig()))


def test_an_illegal_execution_names_the_strategy():
    class Rogue(Strategy):
        def on_action(self, context):
            execution = super().on_action(context)
            return dataclasses.replace(execution, actions=np.zeros_like(execution.actions))

    with pytest.raises(ValueError, match="'rogue' executed an illegal action"):
        make(strategy=Rogue("rogue")).learn(10)


def test_environments_without_any_legal_action_are_reported():
    env = Corridor()
    env.action_masks = lambda: np.array([[True] * 3, [False] * 3, [True] * 3, [True] * 3])
    with pytest.raises(ValueError, match=r"environments \[1\] offer no legal action"):
        make(env).learn(10)


def test_vecnormalize_is_refused():
    with pytest.raises(ValueError, match="VecNormalize"):
        make(VecNormalize(make_vec_env("CartPole-v1", 1)))


def test_continuous_actions_are_refused():
    with pytest.raises(AssertionError, match="only supports"):
        make("Pendulum-v1")


@pytest.mark.parametrize(
    "bad",
    [
        {"hidden": ()},
        {"learning_rate": 0.0},
        {"tau": 0.0},
        {"gamma": 1.1},
        {"batch_size": 0},
        {"buffer_size": 0},
        {"learning_starts": -1},
        {"updates_per_decision": -0.1},
        {"alpha_initial": 0.0},
        {"alpha_cap": 0.01},
        {"loss_scale_floor": 0.0},
    ],
)
def test_nonsense_settings_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DiscreteSACConfig(**bad)


# -------------------------------------------------------------------------------------------- it does learn


def test_it_finds_the_end_of_the_corridor():
    config = dataclasses.replace(SMALL, alpha_cap=None)
    model, env = make(config=config).learn(1500), Corridor(1)
    obs, total = env.reset(), 0.0
    for _ in range(Corridor.limit):
        actions, _ = model.predict(obs, deterministic=True, action_masks=env.action_masks())
        obs, rewards, dones, _ = env.step(actions)
        total += rewards[0]
        if dones[0]:
            break
    assert total == Corridor.goal


@pytest.mark.slow
def test_it_solves_cartpole():
    scores = []
    for seed in range(5):  # single seeds drift off the track: 17 of 20 reached 475
        model = DiscreteSAC(make_vec_env("CartPole-v1", 8, seed=seed), CARTPOLE, seed=seed, device="cpu")
        model.learn(24_000)
        scores.append(evaluate_policy(model, make_vec_env("CartPole-v1", 8, seed=1000), n_eval_episodes=20)[0])
    assert np.median(scores) >= 475, scores


@pytest.mark.slow
def test_it_solves_the_lunar_lander():
    config = DiscreteSACConfig(
        learning_rate=5e-4,
        batch_size=256,
        tau=0.02,
        gamma=0.995,
        n_step=1,
        target_entropy_ratio=0.65,
        alpha_initial=1.0,
        alpha_cap=None,
        updates_per_decision=0.5,
        buffer_size=200_000,
        learning_starts=5000,
    )
    envs = DummyVecEnv([lambda: Monitor(gym.make("LunarLander-v3"))] * 8)
    model = DiscreteSAC(envs, config, seed=0, device="cpu").learn(400_000)
    evaluation = Monitor(gym.make("LunarLander-v3"))
    evaluation.reset(seed=1000)
    assert evaluate_policy(model, evaluation, n_eval_episodes=20)[0] >= 200
