"""Plug-ins of third parties work by name. The packages in `tests/plugins` are the examples of the documentation.

Each is put on the path of a fresh interpreter as an installed package is: its module, and a `.dist-info` folder with
the entry points of its `pyproject.toml`.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces

from lgdrl.guidance.records import LearnerInfo, Reason
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.plugins import Registry
from sim.errors import UsageError
from tests.experts.expert_scenes import decide, make_scene
from tests.lgdrl.steps import BOX, Expert, labels_of, samples_of, step_of, transitions_of

torch.set_num_threads(1)

PACKAGES = sorted((Path(__file__).parents[1] / "plugins").glob("third-*"))
KINDS = {"strategy": "strategies", "learner": "learners", "arbiter": "arbiters", "gate": "gates"}
KINDS |= {"expert": "experts", "scenario": "scenarios"}
SMALL = ["num_envs=8", "evaluate_every=0", "label_spread=0.1"]
SMALL += ["learner_options.hidden=[8]", "learner_options.learning_starts=16", "learner_options.batch_size=8"]
ALWAYS = ["strategy_options.episodes.kind=always", "strategy_options.episodes.until=1.0"]
TRAIN = {
    "strategy": ["--strategy", "third-strategy", *ALWAYS],
    "learner": ["learner=third-learner", *ALWAYS],
    "arbiter": ["strategy_options.arbiter.kind=third-arbiter", *ALWAYS],
    "gate": ["strategy_options.episodes.kind=third-gate", "strategy_options.episodes.until=1.0"],
    "expert": ["--expert", "third-expert", "expert_options.distance=25", *ALWAYS],
    "scenario": ["--scenario", "third-scenario", *ALWAYS],
}
RUN_ALL = """
import json, sys
from lgdrl.cli import main
print(json.dumps([main(arguments) for arguments in json.load(sys.stdin)]), file=sys.stderr)
"""


def install(package: Path, site: Path) -> None:
    """Write what an installer writes for entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(header)
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


def environment(packages: list[Path], site: Path) -> dict[str, str]:
    """With the packages installed."""
    for package in packages:
        install(package, site)
    paths = [str(site), *map(str, packages), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run with each plug-in on its own, one after the other in one interpreter, and `lists.json`."""
    folder = tmp_path_factory.mktemp("plugins")
    commands = [["train", "--steps", "64", "--out", str(folder / kind), *TRAIN[kind], *SMALL] for kind in TRAIN]
    commands.append(["list", "--json", str(folder / "lists.json")])
    mistake = ["strategy_options.arbiter.options.belw=0.4"]
    commands.append(["train", "--out", str(folder / "mistake"), *TRAIN["arbiter"], *mistake])
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(commands),
        env=environment(PACKAGES, folder / "site"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *errors, codes = done.stderr.splitlines()
    assert json.loads(codes) == [0] * (len(commands) - 1) + [2], done.stderr
    (folder / "mistake.txt").write_text("\n".join(errors))
    return folder


def config_of(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def last_row(run: Path) -> dict[str, float]:
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {name: float(value) for name, value in rows[-1].items() if value}


def test_there_is_a_package_for_each_kind_of_plug_in_and_it_names_nothing_else():
    assert [package.name for package in PACKAGES] == sorted(f"third-{kind}" for kind in KINDS)
    for package in PACKAGES:
        kind = package.name.removeprefix("third-")
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        assert project["name"] == package.name
        ((group, entries),) = project["entry-points"].items()
        assert group == f"lgdrl.{KINDS[kind]}"
        assert list(entries) == [package.name]
        assert [file.name for file in package.glob("*.py")] == [f"third_{kind}.py"]


@pytest.mark.parametrize("kind", list(TRAIN))
def test_a_run_with_it_is_trained_to_the_end(runs, kind):
    assert (runs / kind / "policy.zip").stat().st_size > 1000
    assert last_row(runs / kind)["decisions"] == 64


def test_the_run_is_that_of_the_plug_in(runs):
    assert config_of(runs / "strategy")["strategy_options"]["margin"] == 0.8  # options are its own, written in full
    assert last_row(runs / "strategy")["guidance/margin_loss"] > 0
    assert config_of(runs / "learner")["learner_options"]["temperature"] == 0.2
    assert {"train/td_error", "guidance/divergence", "guidance/dual"} <= set(last_row(runs / "learner"))
    assert config_of(runs / "arbiter")["strategy_options"]["arbiter"]["kind"] == "third-arbiter"
    assert last_row(runs / "arbiter")["guidance/interventions"] > 0
    assert config_of(runs / "gate")["strategy_options"]["episodes"]["kind"] == "third-gate"
    assert 16 <= last_row(runs / "gate")["expert/labels"] <= 48  # some of the first 8 episodes, not all
    assert config_of(runs / "expert")["expert_options"] == {"distance": 25}
    assert last_row(runs / "expert")["expert/labels"] == 64
    assert config_of(runs / "scenario")["scenario_config"]["start_speed"] == 12.0


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_list_shows_it(runs, kind):
    rows = json.loads((runs / "lists.json").read_text())[KINDS[kind]]
    (row,) = [row for row in rows if row["name"] == f"third-{kind}"]
    assert row.get("summary") or row["from"] == f"third_{kind}"


def test_a_mistake_in_its_options_is_one_line(runs):
    (line,) = (runs / "mistake.txt").read_text().splitlines()
    assert "did you mean 'below'" in line
    assert not (runs / "mistake").exists()


def test_without_its_package_a_name_is_unknown_and_the_known_ones_are_listed():
    with pytest.raises(UsageError, match=r"unknown arbiter 'third-arbiter'.*known: .*unsafe") as error:
        Registry("lgdrl.arbiters", "arbiter").get("third-arbiter")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------- the examples compute what they say they do


@pytest.fixture
def example(monkeypatch):
    """Import the module of a package."""

    def load(kind: str):
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugins" / f"third-{kind}"))
        return importlib.import_module(f"third_{kind}")

    return load


def test_the_margin_loss_is_zero_once_the_label_leads_by_the_margin(example):
    q = torch.tensor([[2.0, 1.0, 0.0], [1.5, 1.0, 0.0], [0.0, 1.0, 3.0]])
    loss = example("strategy").margin_loss(q, torch.tensor([0, 0, 0]), 0.8)
    assert loss.tolist() == pytest.approx([0.0, 0.3, 3.8])


def test_the_margin_loss_takes_the_smaller_critic_of_labelled_states(example):
    module, samples = example("strategy"), samples_of([[1.0, 0.0]], [[0.0, 1.0]])
    strategy = module.MarginStrategy(module.MarginConfig(weight=2.0), None)

    class Critics:
        def q_values(self, samples):
            return torch.stack([samples.logits, samples.logits - 1])

    terms = strategy.critic_terms({module.LABELLED: samples}, Critics())
    assert terms.loss.item() == pytest.approx(2.0 * ((1.0 - 1 + 0.8) - (0.0 - 1)))
    assert strategy.critic_terms({}, Critics()).loss is None


def test_the_arbiter_takes_over_where_no_action_is_likelier_than_the_threshold(example):
    module = example("arbiter")
    probs, expert = [[0.4, 0.3, 0.3], [0.9, 0.1, 0.0], [0.4, 0.3, 0.3]], Expert(labels_of([1, 1, 1]))
    arbiter, context = module.Undecided(module.UndecidedConfig()), step_of([0, 0, 0], probs=probs, ask=expert)
    allowed = np.array([True, True, False])
    assert arbiter.requires(context, np.zeros(3, bool), allowed).tolist() == [True, False, False]
    execution = arbiter.decide(context, labels_of([1, 1, 1]), allowed)
    assert execution.actions.tolist() == [1, 0, 0]
    assert execution.reason.tolist() == [Reason.OTHER, Reason.LEARNER, Reason.LEARNER]
    with pytest.raises(UsageError, match="discrete actions"):
        arbiter.attach(LearnerInfo("any", BOX, BOX))


def test_the_gate_is_even_in_every_stretch_of_episodes(example):
    module = example("gate")
    gate = module.EvenGate(module.EvenConfig(0.3), np.random.SeedSequence(1))
    guided = gate.guided(np.arange(1000))
    stretches = np.lib.stride_tricks.sliding_window_view(guided, 50).sum(axis=1)
    assert stretches.min() >= 13
    assert stretches.max() <= 17
    assert guided.mean() == pytest.approx(gate.share, abs=0.005)


def test_the_expert_brakes_for_a_near_car(example):
    module = example("expert")
    expert = module.make({"distance": 30}, "lane-change", 0)
    assert [decide(expert, make_scene([(0, gap, 20.0)])).action for gap in (29.0, 31.0)] == [4, 1]
    with pytest.raises(UsageError, match="did you mean 'distance'"):
        module.make({"distnce": 30}, "lane-change", 0)


class Nothing(gym.Env):
    """Only spaces."""

    observation_space = spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = spaces.Discrete(3)


def test_the_learner_minimises_the_written_error(example):
    module, rng = example("learner"), np.random.default_rng(0)
    model = module.SoftQ(Nothing(), module.SoftQConfig(hidden=(8,), temperature=0.5), seed=0, device="cpu")
    legal = rng.random((30, 3)) < 0.6
    legal[:, 0] = True
    context = step_of(rng.integers(3, size=30), obs=rng.normal(size=(30, 2)).astype(np.float32), legal=legal)
    model.replay.add_transitions(
        transitions_of(
            context,
            next_obs=rng.normal(size=(30, 2)).astype(np.float32),
            rewards=rng.normal(size=30).astype(np.float32),
            terminated=rng.random(30) < 0.3,
        )
    )
    assert isinstance(model.replay, GuidedReplayBuffer)
    batch = model.replay.take(np.arange(30))
    with torch.no_grad():
        q, following = (model.q_net(x).double().numpy() for x in (batch.observations, batch.next_observations))
    exponentials = np.where(legal, np.exp(following / 0.5), 0.0)  # the target is a copy at first
    target = batch.rewards.numpy() + 0.99 * ~batch.terminated.numpy() * 0.5 * np.log(exponentials.sum(axis=1))
    expected = (q[np.arange(30), batch.actions.numpy()] - target) ** 2
    assert model.squared_errors(batch).detach().numpy() == pytest.approx(expected, rel=1e-4)
    policy = np.where(legal, np.exp(q / 0.5), 0.0)
    policy /= policy.sum(axis=1, keepdims=True)
    assert model.log_probs(batch).exp().detach().numpy() == pytest.approx(policy, rel=1e-4, abs=1e-7)


def test_a_trained_learner_is_loaded_from_its_run_and_drives(runs, example):
    model = example("learner").SoftQ.load(runs / "learner" / "policy.zip", device="cpu")
    obs, masks = np.zeros((20, 29), np.float32), np.tile([False, True, False, True, False], (20, 1))
    for deterministic in (True, False):
        actions, _ = model.predict(obs, deterministic=deterministic, action_masks=masks)
        assert set(actions.tolist()) <= {1, 3}
    assert model.config.hidden == (8,)
