"""Views of the engine's environments equal those of their scenes; experts decide alike one by one and all together."""

import numpy as np
import pytest

import sim
from experts import registry
from experts.driving import batch_decisions, contexts_of
from experts.safety import is_unsafe, unsafe_actions
from sim.by_value import same_values
from sim.view import LANE, VIEW, views_of

WORLDS = {
    "lane-change": {},
    "highway-fast-v0": {"vehicles_count": 40, "vehicles_density": 2},
    "two-way-v0": {},
    "merge-v1": {},
    "exit-v0": {},
    "roundabout-v0": {},
    "roundabout-generic-v1": {"vehicles_count": 15},
    "u-turn-v1": {},
    "highway-v0": {"action": {"longitudinal": False}, "vehicles_count": 10},
    "intersection-v0": {},
}


def driven(name, config, decisions=25, envs=6):
    """The environments after some random decisions, after each of them."""
    batch = sim.make_vec(name, envs, seed=3, config=config)
    obs, rng = batch.reset(), np.random.default_rng(0)
    for _ in range(decisions):
        yield batch, obs
        obs, *_ = batch.step(rng.integers(0, batch.action_space.n, envs))


@pytest.mark.parametrize("name", WORLDS)
def test_views_of_engine_environments_are_those_of_their_scenes(name):
    seen = conflicts = 0
    for batch, _ in driven(name, WORLDS[name]):
        rows = np.array([4, 0, 1])
        ours, theirs = batch.views(rows), views_of(batch.scenes(rows))
        assert ours.manoeuvres == theirs.manoeuvres
        assert same_values(ours.rows["conflicts"], theirs.rows["conflicts"])
        for field in set(VIEW.names) - {"conflicts"}:
            columns = [(field,)] if VIEW[field] != LANE else [(field, part) for part in LANE.names]
            for column in columns:
                a, b = ours.rows, theirs.rows
                for part in column:
                    a, b = a[part], b[part]
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=f"{name} {column}")
        seen += np.isfinite(theirs.rows["target"]["front"]).sum()
        conflicts += theirs.rows["conflict_count"].sum()
    assert seen > 10
    assert (conflicts > 10) == name.startswith(("intersection", "roundabout"))


@pytest.mark.parametrize("expert", ["rule", "thresholds", "idm", "search", "slower"])
@pytest.mark.parametrize("name", ["lane-change", "highway-fast-v0", "exit-v0"])
def test_all_together_as_one_by_one(name, expert):
    driver = registry.make(expert, name)
    decisions = 4 if expert == "search" else 15
    for batch, obs in driven(name, WORLDS[name], decisions):
        masks, rows = batch.action_masks(), np.array([5, 0, 3])
        alone = driver.decide(contexts_of(batch, obs, masks, rows))
        actions, choice = batch_decisions(driver, batch, masks, rows)
        assert actions.tolist() == [decision.action for decision in alone]
        assert [choice.reason(k) for k in range(3)] == [decision.reason for decision in alone]


@pytest.mark.parametrize("name", ["lane-change", "two-way-v0"])
def test_safety_of_all_actions_together(name):
    found = []
    for batch, _ in driven(name, WORLDS[name], 10):
        together = unsafe_actions(batch.views(range(6)))
        found += together.ravel().tolist()
        scenes = batch.scenes(range(6))
        assert together.tolist() == [[is_unsafe(scene, a) for a in range(together.shape[1])] for scene in scenes]
    assert 0 < np.mean(found) < 1
