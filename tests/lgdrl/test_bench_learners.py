"""`lgdrl bench learner`: its contenders make the updates they are named after; ratios are those of rounds."""

import pytest
import torch

from lgdrl.bench.learners import (
    SUBJECTS,
    UPDATES_PER_CALL,
    Contender,
    Size,
    _contenders,
    _rows,
    _transitions,
    benchmark,
    parse_learners,
    parse_sizes,
)
from sim.errors import UsageError

SMALL = Size(8, 16)
CONTENDERS = {
    (each.learner, each.implementation): each
    for each in _contenders(list(SUBJECTS), SMALL, _transitions(0), 0)
    if each.implementation != "SBX"
}


def trained(learner: str, implementation: str):
    model = CONTENDERS[learner, implementation].open()
    model.train(gradient_steps=UPDATES_PER_CALL, batch_size=SMALL.batch)
    return model


@pytest.mark.parametrize(("learner", "implementation"), CONTENDERS)
def test_every_contender_makes_updates(learner, implementation):
    model = trained(learner, implementation)
    assert model.logger.name_to_value["train/n_updates"] == UPDATES_PER_CALL
    assert model.replay_buffer.size() == 20_000


def test_each_learner_is_measured_on_both_cores_and_beside_stable_baselines3_where_it_has_the_algorithm():
    by_learner: dict[str, list[str]] = {}
    for learner, implementation in CONTENDERS:
        by_learner.setdefault(learner, []).append(implementation)
    assert by_learner == {
        "discrete-sac": ["torch", "fused"],
        "discrete-sac + JS constraint": ["torch", "fused"],
        "sac": ["SB3", "torch", "fused"],
        "td3": ["SB3", "torch", "fused"],
        "dqn": ["SB3", "torch", "fused"],
    }


@pytest.mark.parametrize("learner", ["sac", "td3", "dqn"])
def test_all_implementations_of_a_learner_have_the_same_settings(learner):
    theirs, *ours = (CONTENDERS[learner, name].open() for name in ("SB3", "torch", "fused"))
    names = ["batch_size", "gamma", "tau", "learning_rate", "observation_space", "action_space"]
    names += {"td3": ["policy_delay", "target_policy_noise", "target_noise_clip"], "dqn": ["max_grad_norm"]}.get(
        learner, ["target_entropy", "target_update_interval"]
    )
    for model in ours:
        assert {name: getattr(model, name) for name in names} == {name: getattr(theirs, name) for name in names}
        assert shapes(model) == shapes(theirs)
        assert model.config.n_step == 1
        assert (model.core is None) == (model.config.core == "torch")


def shapes(model) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.policy.state_dict().items()}


@pytest.mark.parametrize("learner", ["sac", "td3", "dqn"])
def test_the_cores_make_the_same_updates(learner):
    name = "train/loss" if learner == "dqn" else "train/critic_loss"
    torch_loss, fused_loss = (trained(learner, core).logger.name_to_value[name] for core in ("torch", "fused"))
    assert fused_loss == pytest.approx(torch_loss, rel=1e-3)


@pytest.mark.parametrize("implementation", ["torch", "fused"])
def test_the_constraint_is_computed_where_it_is_named(implementation):
    plain, constrained = (trained(f"discrete-sac{more}", implementation) for more in ("", " + JS constraint"))
    assert plain.config.core == constrained.config.core == implementation
    assert (plain.core is None) == (implementation == "torch")
    assert constrained.logger.name_to_value["guidance/dual"] > 0
    assert "guidance/dual" not in plain.logger.name_to_value


def test_implementations_start_from_the_same_transitions_and_losses():
    losses = {
        implementation: trained("discrete-sac + JS constraint", implementation).logger.name_to_value["train/actor_loss"]
        for implementation in ("torch", "fused")
    }
    assert losses["fused"] == pytest.approx(losses["torch"], rel=1e-3)


def test_a_ratio_is_the_median_of_the_ratios_of_rounds():
    names = [("discrete-sac", "torch"), ("discrete-sac", "fused"), ("dqn", "SB3"), ("dqn", "SBX")]
    torch, fused, sb3, sbx = (Contender(*each, SMALL, lambda: None) for each in names)
    rows = _rows({torch: [100, 50, 10], fused: [200, 300, 90], sb3: [40, 40, 40], sbx: [20, 20]})
    assert [row.reference for row in rows] == ["torch", "torch", "SB3", "SB3"]
    assert [row.updates_per_cpu_s for row in rows] == [50, 200, 40, 20]
    assert [row.ratio for row in rows] == [1, 6, 1, 0.5]  # not 200 / 50
    assert (rows[1].ratio_low, rows[1].ratio_high) == (2, 9)
    assert rows[1].cpu_us_per_update == 5000
    assert _rows({torch: [], fused: []}) == []


def test_only_the_named_learners_are_measured():
    *_, (done, rows) = benchmark(["dqn"], [SMALL], rounds=1, seconds=0.01)
    assert done.startswith("round 1 of 1: dqn")
    assert {row.learner for row in rows} == {"dqn"}
    assert {row.reference for row in rows} == {"SB3"}


def test_learners_and_sizes_are_read_in_order():
    assert parse_learners("td3,discrete-sac") == ["td3", "discrete-sac"]
    assert parse_sizes("64/32,8/16", ["sac"]) == [Size(64, 32), Size(8, 16)]
    assert str(Size(64, 32)) == "64/32"


@pytest.mark.parametrize(("text", "said"), [("ppo", "'ppo'"), ("", "''"), ("sac,td3,sac", "once")])
def test_learners_that_cannot_be_measured_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_learners(text)
