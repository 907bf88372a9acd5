"""`lgdrl bench learner`: its contenders make the updates they are named after; ratios are those of rounds."""

import pytest

from lgdrl.bench.learners import UPDATES_PER_CALL, Contender, Size, _contenders, _rows, _transitions, parse_sizes

SMALL = Size(8, 16)
CONTENDERS = {
    (each.learner, each.implementation): each
    for each in _contenders(SMALL, _transitions(0), 0)
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
    names = [("discrete-sac", "torch"), ("discrete-sac", "fused"), ("DQN", "SB3"), ("DQN", "SBX")]
    torch, fused, sb3, sbx = (Contender(*each, SMALL, lambda: None) for each in names)
    rows = _rows({torch: [100, 50, 10], fused: [200, 300, 90], sb3: [40, 40, 40], sbx: [20, 20]})
    assert [row.reference for row in rows] == ["torch", "torch", "SB3", "SB3"]
    assert [row.updates_per_cpu_s for row in rows] == [50, 200, 40, 20]
    assert [row.ratio for row in rows] == [1, 6, 1, 0.5]  # not 200 / 50
    assert (rows[1].ratio_low, rows[1].ratio_high) == (2, 9)
    assert rows[1].cpu_us_per_update == 5000
    assert _rows({torch: [], fused: []}) == []


def test_sizes_are_read_in_order():
    assert parse_sizes("64/32,8/16") == [Size(64, 32), Size(8, 16)]
    assert str(Size(64, 32)) == "64/32"
