"""The guidance log: what was asked, what came of it, and its scenes, of whole, broken and resumed runs."""

import itertools
import sqlite3

import numpy as np
import pytest
import torch

from experts import registry
from experts.human import Hands, HeldInput
from experts.provider import Decision, PolicyProvider, Status
from lgdrl import training
from lgdrl.config import load_config
from lgdrl.guidance.log import LAST, LoggedEpisodes
from lgdrl.runs import Run
from lgdrl.visualizer.drivers import queried_in_training
from sim.actions import MetaAction
from sim.errors import UsageError
from tests.recordings import bits

SMALL = {
    "steps": 320,
    "num_envs": 8,
    "log_every": 80,
    "evaluate_every": 0,
    "checkpoint_every": 160,
    "learner_options": {"learning_starts": 64, "hidden": [16, 16], "batch_size": 32},
}
EARLY = {"learner_options": SMALL["learner_options"] | {"learning_starts": 20}}
ALWAYS = {"strategy_options": {"episodes": {"kind": "always", "until": 1.0}}}


class Remembering(PolicyProvider):
    """A slow expert, asked scene by scene, that remembers what it was asked and how it answered."""

    name = "remembering"

    def __init__(self):
        self.rule, self.asked = registry.make("rule", "lane-change"), []

    def decide(self, contexts):
        statuses = itertools.cycle([Status.OK, Status.REPAIRED, Status.VETOED, Status.FALLBACK, Status.LATE])
        found = []
        for context, status, decision in zip(contexts, statuses, self.rule.decide(contexts), strict=False):
            probs = np.where(context.legal, 1.0 / context.legal.sum(), 0.0)
            found.append(Decision(decision.action, probs, reason=f"answer {len(self.asked)}", status=status))
            self.asked.append((context, found[-1]))
        return found


def train(folder, provider=None, hands=None, **changes):
    trainer = training.start(load_config(None, SMALL | changes), folder, provider, hands)
    assert trainer.train()
    trainer.close()
    return trainer


def logged(folder):
    run = Run(folder)
    return LoggedEpisodes(run.guidance_log, "run", "lane-change", "engine", {})


def turns(folder):
    episodes = logged(folder)
    return [turn for k in range(len(episodes)) for turn in episodes[k].turns]


def queries(folder, columns="*"):
    with sqlite3.connect(Run(folder).guidance_log) as db:
        return db.execute(f"SELECT {columns} FROM queries ORDER BY id").fetchall()


def test_every_scene_that_a_slow_expert_saw_comes_back_to_the_bit(tmp_path):
    expert = Remembering()
    train(tmp_path / "run", expert, **ALWAYS)
    asked = sorted(expert.asked, key=lambda pair: (pair[0].episode, pair[0].step))
    found = turns(tmp_path / "run")
    assert len(found) == len(asked) == 320
    for turn, (context, decision) in zip(found, asked, strict=True):
        assert bits(turn.scene) == bits(context.scene)
        assert np.array_equal(turn.legal, context.legal)
        assert (turn.expert_action, turn.expert_reason) == (decision.action, decision.reason)
        assert turn.expert_status == decision.status.value
        assert np.array_equal(turn.expert_probs, decision.probs)


def test_the_log_knows_the_controller_what_was_proposed_and_what_came_of_it(tmp_path):
    trainer = train(
        tmp_path / "run", log_scenes=1, strategy_options=ALWAYS["strategy_options"] | {"arbiter": {"kind": "disagree"}}
    )
    rows = queries(tmp_path / "run", "learner, executed, controller, action, reward, outcome")
    replay = trainer.loop.model.replay
    count = replay.size()
    flat = lambda values: np.asarray(values)[:count].reshape(-1)  # noqa: E731
    assert [row[1] for row in rows] == flat(replay.actions).tolist()
    assert [row[4] for row in rows] == pytest.approx(flat(replay.rewards).tolist())
    assert sum(row[2] == "expert" for row in rows) == trainer.loop.interventions > 0
    assert all((row[2] == "expert") == (row[0] != row[3]) for row in rows)
    assert sum(row[5] is not None for row in rows) == int(replay.dones[:count].sum()) > 0
    found = turns(tmp_path / "run")
    assert all(turn.learner_probs[turn.learner_action] > 0 for turn in found)
    assert all(
        turn.action == (turn.expert_action if turn.controller == "expert" else turn.learner_action) for turn in found
    )


def test_of_the_queries_to_a_fast_expert_those_of_every_nth_episode_are_kept_with_scenes(tmp_path):
    for every in (3, 0):
        train(tmp_path / str(every), log_scenes=every, **ALWAYS)
    assert len(queries(tmp_path / "3")) == len(queries(tmp_path / "0")) == 320
    with sqlite3.connect(Run(tmp_path / "3").guidance_log) as db:
        kept = db.execute("SELECT episode, query IS NOT NULL FROM queries LEFT JOIN moments ON id = query").fetchall()
    assert all(bool(stored) == (episode % 3 == 0) for episode, stored in kept)
    with pytest.raises(UsageError, match="log_scenes was 0"):
        logged(tmp_path / "0")


def test_keeping_scenes_changes_nothing_in_the_training(tmp_path):
    models = [train(tmp_path / str(every), log_scenes=every).loop.model for every in (0, 1)]
    pairs = zip(*(model.policy.parameters() for model in models), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [row[:6] for row in queries(tmp_path / "0")] == [row[:6] for row in queries(tmp_path / "1")]


def test_a_killed_run_repeats_its_log_identically(tmp_path):
    train(tmp_path / "straight", log_scenes=1, **ALWAYS)
    lost = training.start(load_config(None, SMALL | {"log_scenes": 1} | ALWAYS), tmp_path / "lost")

    class Killed(Exception):
        pass

    def die(progress):
        if progress.done == 240:
            raise Killed  # the last checkpoint is that of 160

    with pytest.raises(Killed):
        lost.train(die)
    lost.loop.log.commit()  # the log got further than the checkpoint
    lost.close()
    resumed = training.resume(tmp_path / "lost")
    assert resumed.train()
    resumed.close()
    same = "id, episode, step, action, status, learner, executed, controller, reward, outcome"
    assert queries(tmp_path / "lost", same) == queries(tmp_path / "straight", same)
    one, other = turns(tmp_path / "lost"), turns(tmp_path / "straight")
    assert [bits(turn.scene) for turn in one] == [bits(turn.scene) for turn in other]


def test_a_persons_intervention_is_logged_beside_the_experts_label(tmp_path):
    hands = Hands()
    hands.press("key", HeldInput(MetaAction.SLOWER), 0.0)
    train(tmp_path / "run", hands=hands, num_envs=1, steps=60, log_scenes=1, **EARLY, **ALWAYS)
    found = turns(tmp_path / "run")
    assert {turn.controller for turn in found} == {"human"}
    assert {row[0] for row in queries(tmp_path / "run", "expert")} == {"rule", "human"}
    assert len(found) == 60  # one moment per decision, with the rule's advice
    assert not any(turn.expert_reason == "the person drives" for turn in found)


def test_a_person_without_an_expert_is_logged_too(tmp_path):
    hands = Hands()
    hands.press("key", HeldInput(MetaAction.SLOWER), 0.0)
    train(tmp_path / "run", hands=hands, num_envs=1, steps=30, **EARLY, strategy="sac", strategy_options={})
    assert [turn.expert_reason for turn in turns(tmp_path / "run")] == ["the person drives"] * 30


def test_an_episode_ends_as_it_did_where_the_expert_was_asked_at_its_end(tmp_path):
    train(tmp_path / "run", log_scenes=1, steps=640, **ALWAYS)
    episodes = logged(tmp_path / "run")
    ends = [episodes[k].summary["outcome"] for k in range(len(episodes))]
    assert set(ends) <= {"success", "crash", "missed", LAST}
    assert len(set(ends)) > 1


def test_the_log_knows_the_authority_and_the_reason_of_each_intervention(tmp_path):
    train(tmp_path / "run", **ALWAYS)
    rows = queries(tmp_path / "run", "controller, authority, control")
    assert set(rows) == {("learner", 0.0, "learner"), ("expert", 1.0, "unsafe")}


def test_what_is_no_log_is_one_line(tmp_path):
    train(tmp_path / "run", log_scenes=1, steps=160, **ALWAYS)
    path = Run(tmp_path / "run").guidance_log
    with sqlite3.connect(path) as db:
        db.execute("UPDATE chunks SET scenes = substr(scenes, 1, length(scenes) / 2)")
    with pytest.raises(UsageError, match="damaged") as caught:
        logged(tmp_path / "run")[0]
    assert "\n" not in str(caught.value)
    path.write_bytes(b"this is not a database, but it is long enough to be read as one" * 40)
    with pytest.raises(UsageError, match="damaged"):
        logged(tmp_path / "run")
    path.unlink()
    with pytest.raises(UsageError, match="no guidance log"):
        logged(tmp_path / "run")


def test_a_replay_holds_the_scene_where_decisions_were_made_without_the_expert(tmp_path):
    train(
        tmp_path / "run",
        log_scenes=1,
        strategy_options={**ALWAYS["strategy_options"], "label_share": 0.4, "arbiter": {"kind": "learner"}},
    )
    run = Run(tmp_path / "run")
    session = queried_in_training(run, load_config(run.config, {}))
    gaps = joined = 0
    for k in range(len(session.episodes)):
        session.begin(k)
        track = session.track
        for j, (a, b) in enumerate(itertools.pairwise(track.turns)):
            between = track.between(j, 0.5)
            if b.scene.time - a.scene.time > a.scene.decision_period * 1.01:
                gaps += 1
                assert between is a.scene
            else:
                joined += 1
                assert a.scene.ego.x < between.ego.x < b.scene.ego.x
    assert gaps > 0
    assert joined > 0
    names = dict(session.facts())
    assert names["Queries kept"] == f"{session.episodes.moments} of {session.episodes.queries}"
    assert session.expert_name == "rule"
