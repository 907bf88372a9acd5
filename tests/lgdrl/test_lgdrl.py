"""LGDRL: its parts are those that the config names, its steps follow its rules, its actor minimises L_0 + dual x JS."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from stable_baselines3.common.vec_env import DummyVecEnv

from lgdrl.config import load_config
from lgdrl.guidance.arbiters import Disagree, LearnerDrives, Rationed, Unsafe
from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.labelling import GuidedEpisodes
from lgdrl.guidance.records import LATE, Reason
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.guidance.strategy import RL
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.learners.discrete_sac import DiscreteSAC, DiscreteSACConfig
from lgdrl.lgdrl import METHOD, LGDRLConfig, build
from lgdrl.loops.online import OnlineSettings
from sim.config import resolve
from sim.errors import UsageError
from tests.experts.expert_scenes import make_scene
from tests.lgdrl.steps import Expert, labels_of, step_of, transitions_of

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
ALWAYS = {"episodes": {"kind": "always", "until": 1.0}}


def strategy(budget: int | None = None, total: int = 1000, seed: int = 0, **options):
    config = resolve(LGDRLConfig(), options)
    return build(config, OnlineSettings(total, budget, np.random.SeedSequence(seed)))


# ------------------------------------------------------------------------------------------------- composition


def test_the_parts_are_those_of_the_config():
    found = strategy(
        constraint="kl",
        pull="bc",
        full_price=33,
        dual={"initial": 2.0},
        fade=[0.25, 0.75],
        guide_batch=17,
        episodes={"kind": "periodic", "options": {"period": 5, "guided": 2}, "until": 0.4},
        arbiter={"kind": "disagree"},
        label_share=0.3,
    )
    assert found.name == METHOD.name == "lgdrl"
    assert found.needs_expert
    assert isinstance(found.labeller, GuidedEpisodes)
    assert (found.labeller.gate.share, found.labeller.end, found.labeller.label_share) == (0.4, 400, 0.3)
    assert isinstance(found.arbiter, Disagree)
    (term,) = found.actor
    assert isinstance(term, ConstraintTerm)
    assert (term.divergence, term.pull, term.full_price) == ("kl", "bc", 33)
    assert (term.dual.config, term.dual.value, term.batch_size) == (DualConfig(initial=2.0), 2.0, 17)
    assert term.fade == (250, 750)  # shares of the training as decisions


def test_the_defaults_are_the_settings_that_were_measured_best():
    found = strategy()
    assert isinstance(found.arbiter, Unsafe)
    assert (found.labeller.gate.share, found.labeller.end, found.labeller.label_budget) == (0.5, 500, None)
    (term,) = found.actor
    assert (term.divergence, term.pull, term.full_price, term.batch_size, term.fade) == ("js", "kl", 20, 128, None)
    assert dataclasses.asdict(term.dual.config) == {
        "initial": 1.0,
        "target": 0.03,
        "step_size": 0.002,
        "maximum": 20.0,
        "fixed": False,
    }


def test_the_first_form_is_reachable_by_options():
    config = load_config(ROOT / "experiments/lgdrl_first_form.yaml", {"label_budget": 100}).resolved()
    assert config.learner_options["n_step"] == 1
    found = strategy(budget=100, **config.strategy_options)
    assert isinstance(found.arbiter, Unsafe), "it may ask for as many labels as there are"
    assert (found.labeller.end, found.labeller.label_budget) == (500, 100)
    (term,) = found.actor
    assert (term.divergence, term.pull, term.full_price) == ("js", "js", None)
    assert (term.dual.config.initial, term.dual.config.step_size, term.dual.config.maximum) == (6.0, 0.01, 20.0)


@pytest.mark.parametrize(
    ("budget", "pace", "end"),
    [
        (None, 0.15, 5000),
        (0, 0.15, 5000),
        (20, 0.15, 1500),  # few labels are asked for early,
        (80, 0.15, 3000),
        (500, 0.15, 5000),  # many over the whole guided part,
        (20, None, 5000),
        (4000, 0.15, 8000),  # and more than fit into that make it longer
        (9000, 0.15, 10_000),
    ],
)
def test_the_guided_part_fits_the_label_budget(budget, pace, end):
    assert strategy(budget=budget, total=10_000, pace=pace).labeller.end == pytest.approx(end)


def test_without_constraint_the_expert_only_intervenes():
    assert strategy(constraint="none").actor == ()
    assert strategy(constraint="none").needs_expert


def test_a_budget_paces_the_labels_over_the_guided_part():
    def labelled(**options):
        labeller = strategy(budget=100, pace=None, episodes={"kind": "always"}, **options).labeller
        steps = [labeller.select(step_of([0] * 4, decisions=decisions))[0].sum() for decisions in range(0, 1000, 4)]
        return sum(steps[:62]), sum(steps)

    assert labelled() == (pytest.approx(50, abs=20), 100)
    assert labelled(label_share=0.9) == (100, 100)


def test_interventions_have_a_share_of_the_budget_of_their_own():
    found = strategy(budget=100, intervention_share=0.3)
    assert isinstance(found.arbiter, Rationed)
    assert isinstance(found.arbiter.inner, Unsafe)
    assert (found.arbiter.labels, found.arbiter.until, found.labeller.label_budget) == (
        30.0,
        pytest.approx(335.4, abs=0.1),
        70,
    )
    for kind in ("learner", "disagree"):  # ask for no label by themselves
        found = strategy(budget=100, intervention_share=0.3, arbiter={"kind": kind})
        assert not isinstance(found.arbiter, Rationed)
        assert found.labeller.label_budget == 100
    assert isinstance(strategy(intervention_share=0.3).arbiter, Unsafe)  # no budget, no ration


def test_gate_and_labels_draw_from_streams_of_the_runs_seed():
    def draws(seed):
        found = strategy(seed=seed, label_share=0.5, episodes={"until": 1.0})
        return [found.labeller.select(step_of([0] * 8, episodes=np.arange(8) + 8 * i))[0].tolist() for i in range(20)]

    assert draws(1) == draws(1) != draws(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_share": 1.5}, "label_share = 1.5"),
        ({"guide_batch": 0}, "guide_batch = 0"),
        ({"fade": [0.5, 0.5]}, "0 <= from < to"),
        ({"fade": [-0.1, 0.5]}, "fade = [-0.1, 0.5]: choose 0 to 1"),
        ({"constraint": "jss"}, "constraint = 'jss'"),
        ({"dual": {"initial": 30.0}}, "initial = 30.0"),
        ({"episodes": {"until": 2.0}}, "until = 2.0"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, words):
    with pytest.raises(UsageError) as error:
        resolve(LGDRLConfig(), options, "strategy_options")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ steps by hand

IDLE, FASTER, SLOWER = 1, 3, 4
BLOCKED, FREE = make_scene([(0, 8.0, 5.0)], lane=0, speed=20.0), make_scene(lane=1)


def step_with(expert: Expert, episodes, decisions: int = 0, proposals=(FASTER, FASTER, SLOWER, FASTER)):
    """Environments 0, 2 and 3 behind a slow car, environment 1 on a free road."""
    scenes = [BLOCKED, FREE, BLOCKED, BLOCKED]
    return step_of(
        proposals, num_actions=5, scene_list=scenes, episodes=np.array(episodes), decisions=decisions, ask=expert
    )


def slower() -> Expert:
    return Expert(labels_of([SLOWER] * 4, num_actions=5))


def test_in_guided_episodes_every_step_is_labelled_and_unsafe_proposals_are_replaced():
    expert = slower()
    found = strategy(episodes={"kind": "periodic", "until": 0.5})  # even episodes are guided
    execution = found.on_action(step_with(expert, episodes=[0, 2, 4, 1]))
    assert expert.asked == [([True, True, True, False], [True, False, False, False])]
    assert execution.actions.tolist() == [SLOWER, FASTER, SLOWER, FASTER]
    assert execution.authority.tolist() == [1, 0, 0, 0]
    assert execution.reason.tolist() == [Reason.UNSAFE, Reason.LEARNER, Reason.LEARNER, Reason.LEARNER]
    assert execution.labels.given.tolist() == [True, True, True, False]  # kept whether executed or not
    assert found.interventions == 1
    assert found.metrics() == {"interventions": 1.0}


def test_after_its_share_of_the_training_nothing_is_asked_and_the_learner_drives():
    expert, found = slower(), strategy(episodes={"kind": "always", "until": 0.5})
    execution = found.on_action(step_with(expert, episodes=[0, 1, 2, 3], decisions=500))
    assert expert.asked == [([False] * 4, [False] * 4)]
    assert execution.actions.tolist() == [FASTER, FASTER, SLOWER, FASTER]
    assert found.interventions == 0


def test_unlabelled_steps_are_asked_at_once_where_the_proposal_is_unsafe():
    expert, found = slower(), strategy(**ALWAYS, label_share=0.0)
    execution = found.on_action(step_with(expert, episodes=[0, 1, 2, 3]))
    assert expert.asked == [([True, False, False, True], [True, False, False, True])]
    assert execution.actions.tolist() == [SLOWER, FASTER, SLOWER, SLOWER]


def test_labels_that_are_on_their_way_change_nothing_in_the_step():
    expert = Expert(labels_of([SLOWER] * 4, num_actions=5), lag=True)
    execution = strategy(**ALWAYS).on_action(step_with(expert, episodes=[0, 1, 2, 3]))
    assert execution.actions.tolist() == [SLOWER, FASTER, SLOWER, SLOWER]
    assert execution.labels.given.tolist() == [True, False, False, True]


def test_a_late_label_is_kept_but_the_learner_drives():
    expert = Expert(labels_of([SLOWER] * 4, status=[LATE, 0, 0, 0], num_actions=5))
    execution = strategy(**ALWAYS).on_action(step_with(expert, episodes=[0, 1, 2, 3]))
    assert execution.actions.tolist() == [FASTER, FASTER, SLOWER, SLOWER]
    assert execution.labels.given[0]


def test_a_constraint_without_interventions_leaves_the_proposals():
    expert, found = slower(), strategy(**ALWAYS, arbiter={"kind": "learner"})
    assert isinstance(found.arbiter, LearnerDrives)
    execution = found.on_action(step_with(expert, episodes=[0, 1, 2, 3]))
    assert expert.asked == [([True] * 4, [False] * 4)]
    assert execution.actions.tolist() == [FASTER, FASTER, SLOWER, FASTER]
    assert execution.labels.given.all()


def test_what_is_stored_is_what_happened():
    transitions = transitions_of(step_of([0, 1]))
    assert strategy().on_store(transitions) is transitions


# -------------------------------------------------------------------------------------------- the loss by hand


class Nothing(gym.Env):
    """Only spaces."""

    observation_space = spaces.Box(-9.0, 9.0, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), 0.0, False, False, {}


class Watched(DiscreteSAC):
    """Keeps the loss that the actor minimised last."""

    def update(self, batch_size):
        minimise = self.actor.minimise
        self.actor.minimise = lambda loss: (setattr(self, "minimised", loss.item()), minimise(loss))
        try:
            return super().update(batch_size)
        finally:
            self.actor.minimise = minimise


def filled(model: DiscreteSAC, rng: np.random.Generator, number: int = 60) -> None:
    """Transitions with random observations; every third one has a label."""
    labels = labels_of([int(rng.integers(3)) if i % 3 == 0 else None for i in range(number)])
    labels.probs[labels.given] = rng.dirichlet(np.ones(3), size=int(labels.given.sum()))
    obs = rng.normal(size=(number, 4)).astype(np.float32)
    context = step_of(rng.integers(3, size=number), obs=obs)
    model.replay.add_transitions(transitions_of(context, labels=labels, next_obs=obs[::-1].copy()))


def model_with(found) -> Watched:
    envs = DummyVecEnv([Nothing])
    config = DiscreteSACConfig(hidden=(8,), batch_size=16, learning_rate=1e-3)
    model = Watched(envs, config, found, advisor=object() if found.needs_expert else None, seed=3, device="cpu")
    filled(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize(("pull", "full_price", "price"), [(None, None, 3.0), ("kl", 20, 3.0), ("kl", 5, 1.5)])
def test_the_actor_minimises_l0_plus_the_price_times_the_pull_on_labelled_states(pull, full_price, price):
    """There are 20 labels."""
    dual = {"initial": 3.0, "target": 0.1, "step_size": 0.5}
    guided = model_with(strategy(guide_batch=24, dual=dual, pull=pull, full_price=full_price))
    alone = model_with(strategy(constraint="none"))
    before = [p.clone() for p in guided.actor.network.parameters()]
    values, metrics = guided.update(16)
    alone_values, _ = alone.update(16)
    assert values["actor_loss"] == alone_values["actor_loss"] == pytest.approx(alone.minimised)  # L_0, the same batch

    drawn = model_with(strategy(guide_batch=24)).replay.sample_labelled(24)
    with torch.no_grad():
        for parameter, old in zip(guided.actor.network.parameters(), before, strict=True):
            parameter.copy_(old)
        probs = guided.log_probs(drawn).exp().numpy()
    labels = drawn.label_probs.numpy()
    expected = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(probs, labels, strict=True)])
    pulled = expected if pull is None else np.mean([rel_entr(q, p).sum() for p, q in zip(probs, labels, strict=True)])
    assert drawn.labelled.all()
    assert metrics["divergence"] == pytest.approx(expected, rel=1e-4)
    assert guided.minimised == pytest.approx(alone.minimised + price * pulled, rel=1e-5)
    (term,) = guided.strategy.actor
    assert term.dual.value == pytest.approx(3.0 + 0.5 * (expected - 0.1), rel=1e-5)


def test_the_batches_of_an_update_are_uniform_and_labelled():
    model = model_with(strategy(guide_batch=7))
    batches = model.strategy.on_batch(model.replay, 16)
    assert {name: len(samples) for name, samples in batches.items()} == {RL: 16, "constraint": 7}
    assert batches["constraint"].labelled.all()
    empty = GuidedReplayBuffer(10, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), "cpu", seed=0)
    empty.add_transitions(transitions_of(step_of([0], obs=np.zeros((1, 4), np.float32))))
    assert set(model.strategy.on_batch(empty, 4)) == {RL}  # no label yet: no term


def test_its_state_is_that_of_all_its_parts():
    found, resumed = (strategy(fade=[0.0, 1.0], label_share=0.5, arbiter={"kind": "js"}) for _ in range(2))
    found.interventions = 5
    for decisions in (0, 100):
        found.labeller.select(step_of([0, 0], decisions=decisions))
        found.actor[0].on_step(decisions)
    found.on_update({"divergence": 0.5})
    resumed.load_state_dict(found.state_dict())
    assert resumed.interventions == 5
    assert resumed.actor[0].dual.value == found.actor[0].dual.value != 6.0
    assert resumed.actor[0].state_dict() == found.actor[0].state_dict()
    step = step_of([0] * 6, decisions=110)
    assert resumed.labeller.select(step)[0].tolist() == found.labeller.select(step)[0].tolist()
