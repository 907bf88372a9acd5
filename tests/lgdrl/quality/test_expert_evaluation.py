"""The honest table, on an environment small enough to know the right numbers."""

import json
from collections import Counter
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats

import sim
from experts import registry
from experts.llm.prompt import example_scene
from experts.provider import Context, Decision, PolicyProvider
from experts.simple import ConstantExpert, RandomExpert
from lgdrl.quality.evaluation import EvaluationConfig, evaluate, trivial_baselines
from lgdrl.quality.report import print_table, to_json
from lgdrl.quality.scenes import label, labelled_scenes
from lgdrl.quality.scores import auc, mean_auc, share
from sim.actions import MetaAction
from sim.env import Branches, DrivingEnv
from sim.errors import UsageError


class TinyWorld(DrivingEnv):
    """A car `gap` m ahead stands still; speed counts 0-4, each step costs its speed in metres, crash at gap < 0."""

    scenario, backend, scenario_config = "tiny", "toy", None
    action_space = gym.spaces.Discrete(5)
    observation_space = gym.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        rng = np.random.default_rng(seed)
        self.gap, self.speed = float(rng.integers(6, 16)), int(rng.integers(1, 4))
        return self._obs(), {}

    def _obs(self):
        return np.array([self.gap, self.speed], np.float32)

    def step(self, action):
        self.gap, self.speed = self._move(self.gap, self.speed, action)
        return self._obs(), 0.0, self.gap < 0, False, {}

    @staticmethod
    def _move(gap, speed, action):
        if action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT):
            return 1e6, speed
        speed = int(np.clip(speed + {3: 1, 4: -1}.get(int(action), 0), 0, 4))
        return gap - speed, speed

    def scene(self):
        cars = [[0, self.gap + 5.0, 0.0]]
        return example_scene({"lanes": 1, "lane": 0, "speed": 6.0 + self.speed, "goal": None, "cars": cars})

    def action_masks(self):
        return np.array([False, True, False, True, True])

    def branch(self, plans):
        crashed = []
        for plan in plans:
            gap, speed = self.gap, self.speed
            for action in plan:
                if gap >= 0:
                    gap, speed = self._move(gap, speed, action)
            crashed.append(gap < 0)
        zero = np.zeros(len(plans))
        return Branches(zero, zero, np.array(crashed), zero.astype(bool), zero.astype(bool))


CONFIG = EvaluationConfig(scenes=20, resamples=20, seed=1)


def test_labels_are_the_roll_outs():
    env = TinyWorld()
    env.reset(seed=0)
    env.gap, env.speed = 9.0, 2
    found = label(env, env._obs())
    assert found.strict.tolist() == [False, False, False, False, True]  # 2*5 > 9, 3*5 > 9, 1*5 <= 9
    assert found.recov.tolist() == [False, True, False, True, True]  # 2+1+0, 3+2+1+0
    assert (env.gap, env.speed) == (9.0, 2)


def test_kept_scenes_have_a_safe_and_an_unsafe_action():
    tally = Counter()
    scenes = list(labelled_scenes(TinyWorld(), CONFIG, tally))
    assert len(scenes) == 20
    for scene in scenes:
        legal = scene.strict[scene.context.legal]
        assert legal.any()
        assert not legal.all()
    assert tally["all_safe"] + tally["nothing_safe"] > 0


class Oracle(PolicyProvider):
    """Rolls its choice out: allowed to, the context says how."""

    name = "oracle"

    def decide(self, contexts):
        return [self._one(context) for context in contexts]

    def _one(self, context):
        legal = np.flatnonzero(context.legal)
        plans = np.array([[a, 1, 1, 1, 1] for a in legal])
        safe = ~context.branch(plans).crashed
        probs = np.zeros(5)
        probs[legal[safe]] = 1 / safe.sum()
        return Decision(action=int(legal[safe][0]), probs=probs)


class Silent(PolicyProvider):
    name = "silent"

    def decide(self, contexts):
        return [Decision(action=None) for _ in contexts]


def test_the_table_tells_understanding_from_braking():
    result = evaluate([Oracle(), Silent(), *trivial_baselines(0)], TinyWorld(), CONFIG)
    rows = {row.name: row for row in result.scores}
    assert rows["oracle"].strict.value == 1.0
    assert rows["oracle"].auc.value == 1.0
    slower = rows["always SLOWER"]
    assert slower.strict.value > rows["random"].strict.value
    assert slower.auc.value == 0.5  # a constant answer understands nothing, however safe
    assert slower.histogram["SLOWER"] == 20
    assert rows["silent"].undecided == 20
    assert rows["silent"].strict.value == 0.0
    assert slower.strict.low < slower.strict.value <= slower.strict.high + 1e-12


def test_same_seed_same_table_and_json_without_nan(capsys):
    first = evaluate([RandomExpert(3, report_probs=False)], TinyWorld(), CONFIG)
    second = evaluate([RandomExpert(3, report_probs=False)], TinyWorld(), CONFIG)
    assert first.scores[0].strict == second.scores[0].strict
    assert first.scores[0].auc == second.scores[0].auc
    data = json.loads(to_json(first), parse_constant=lambda name: pytest.fail(name))
    assert data["schema"] == "lgdrl.expert-evaluation/1"
    print_table(first)
    assert "random" in capsys.readouterr().out


def test_auc_counts_ties_half_and_a_share_has_wilsons_interval():
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auc(np.ones(4), np.array([True, False, True, False])) == 0.5
    assert np.isnan(auc(np.ones(2), np.array([True, True])))
    found = share([True] * 9 + [False])
    z, n, p = 1.959964, 10, 0.9
    centre, half = (p + z**2 / 2 / n) / (1 + z**2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2) / (1 + z**2 / n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-5)


def test_the_interval_of_the_mean_auc_is_scipys_bootstrap_over_scenes():
    rng = np.random.default_rng(0)
    scores, strict, legal = rng.random((30, 3)), rng.random((30, 3)) < 0.5, np.ones((30, 3), bool)

    def statistic(rows):
        return float(np.mean([auc(scores[rows, a], strict[rows, a]) for a in range(3)]))

    expected = scipy.stats.bootstrap(
        (np.arange(30),), statistic, n_resamples=50, vectorized=False, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    found = mean_auc(scores, strict, legal, resamples=50, seed=3)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.value == statistic(np.arange(30))


def test_a_constant_falls_back_to_idle():
    legal = np.array([False, True, True, False, True])
    scene = example_scene({"lanes": 1, "lane": 0, "speed": 20.0, "goal": None, "cars": []})
    context = Context(np.zeros(2), gym.spaces.Discrete(5), scene, legal)
    assert ConstantExpert("faster", MetaAction.FASTER).decide([context])[0].action == MetaAction.IDLE


def test_environments_without_discrete_actions_or_scenes_are_refused():
    env = TinyWorld()
    env.action_space = gym.spaces.Box(-1, 1, (2,))
    with pytest.raises(UsageError, match="no discrete actions"):
        evaluate([RandomExpert()], env, CONFIG)
    safe = TinyWorld()
    safe.branch = lambda plans: SimpleNamespace(crashed=np.zeros(len(plans), bool))
    with pytest.raises(UsageError, match="both a safe and an unsafe"):
        evaluate([RandomExpert()], safe, EvaluationConfig(scenes=2, max_seeds=5))


def test_the_command_prints_the_table_and_writes_json(monkeypatch, tmp_path, capsys):
    from experts import registry
    from lgdrl.llm_commands import eval_command

    monkeypatch.setattr(sim, "make_driving", lambda name: TinyWorld())
    monkeypatch.setattr(registry, "available", lambda: {})
    monkeypatch.setattr(registry, "make", lambda name, scenario, options, seed: Oracle())
    path = tmp_path / "out.json"
    result = eval_command(["oracle"], "tiny", scenes=5, seed=2, json_path=str(path))
    assert [row.name for row in result.scores] == ["oracle", "always SLOWER", "always IDLE", "random"]
    assert json.loads(path.read_text())["scenes"] == 5
    assert "oracle" in capsys.readouterr().out
    with pytest.raises(UsageError, match="cannot write"):
        eval_command(["oracle"], "tiny", scenes=2, json_path=str(tmp_path))
    with pytest.raises(UsageError, match="unknown expert in options 'oracel'"):
        eval_command(["oracle"], "tiny", options={"oracel": {}})


def test_experts_that_drive_alone_are_counted_and_shown():
    config = EvaluationConfig(scenes=2, episodes=4)
    envs = sim.make_vec("lane-change", 4)
    result = evaluate(
        [registry.make("rule", "lane-change"), *trivial_baselines(0)], sim.make("lane-change"), config, envs
    )
    rule, slower, _, _ = result.scores
    assert rule.success.value == 1.0
    assert slower.success.value == 0.0
    assert slower.crash == 0.0
    shown = []
    print_table(result, shown.append)
    assert [table.row_count for table in shown] == [4, 4]
