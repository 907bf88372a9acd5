"""What a run says about itself: whose labels it learned from, whether it learned, and why it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experts.provider import Decision, PolicyProvider
from experts.serving.fault_server import FaultServer, read_mix
from lgdrl import training
from lgdrl.cli import main
from lgdrl.comparison import Row, columns_of, markdown
from lgdrl.config import load_config
from lgdrl.display import decided_by
from lgdrl.runs import Run, RunFailed
from sim.config import load_yaml
from sim.errors import UsageError

SMALL = {
    "steps": 400,
    "num_envs": 4,
    "log_every": 100,
    "evaluate_every": 0,
    "checkpoint_every": 100,
    "learner_options": {"learning_starts": 100, "hidden": [8], "batch_size": 16},
    "strategy_options": {"episodes": {"kind": "always", "until": 1.0}},
}


def options_of(url: str) -> dict:
    client = {"base_url": url, "total_s": 2.0, "backoff_s": 0.001, "retries": 0, "breaker_failures": 1_000_000}
    return {"expert": "llm", "expert_options": {"model": "scripted", "client": client}}


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_run_stops_when_the_fallback_decides_and_goes_on_once_the_endpoint_answers(tmp_path):
    folder = tmp_path / "run"
    with FaultServer(mix=read_mix("empty=1,delay=0"), seed=5) as broken:
        config = load_config(None, SMALL | options_of(broken.url) | {"steps": 200})
        trainer = training.start(config, folder)
        with pytest.raises(RunFailed, match=r"fallback of expert 'llm' decided 100% .* .fallback_limit = 0.5."):
            trainer.train()
        stopped = trainer.loop.progress
        assert 50 <= stopped < 100
        assert trainer.loop.statuses["fallback"] == stopped
        trainer.close()
        port = broken.url.removesuffix("/v1").rpartition(":")[2]
    with FaultServer(mix=read_mix("none,delay=0"), seed=5, port=int(port)):
        trainer = training.resume(folder)
        assert trainer.loop.progress == stopped
        assert trainer.train()
        assert trainer.loop.statuses["ok"] > 100
        trainer.close()


def test_the_limit_can_be_lifted(tmp_path):
    with FaultServer(mix=read_mix("empty=1,delay=0"), seed=5) as broken:
        config = load_config(None, SMALL | options_of(broken.url) | {"fallback_limit": None, "steps": 104})
        trainer = training.start(config, tmp_path / "run")
        assert trainer.train()
        trainer.close()


def test_the_closing_line_and_the_evaluation_say_what_decided(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FaultServer(mix=read_mix("empty=1,delay=0"), seed=5) as broken:
        llm = options_of(broken.url)
        words = [f"{key}={json.dumps(value)}" for key, value in llm["expert_options"].items()]
        expert = [f"expert_options.{word}" for word in words]
        small = [
            "num_envs=4",
            "evaluate_every=0",
            "learner_options.hidden=[8]",
            "strategy_options.episodes.kind=always",
        ]
        command = ["train", "--expert", "llm", "--steps", "48", "--out", "run", *small, *expert]
        assert main(command) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "decided by llm 0 (0 %), its fallback 24 (100 %)" in said
        assert "Nothing was learned" in said
        command = ["evaluate", "--expert", "llm", "--episodes", "2", "--json", "found.json", *expert]
        assert main(command) == 0
        assert "llm 0 (0 %), its fallback" in " ".join(capsys.readouterr().out.split())
    statuses = json.loads((tmp_path / "found.json").read_text())["statuses"]
    assert statuses.keys() == {"fallback"}


def test_a_rule_decides_all_of_its_own(capsys):
    assert main(["evaluate", "--expert", "rule", "--episodes", "2"]) == 0
    assert "(100 %)" in capsys.readouterr().out


def test_words_for_who_decided():
    found = decided_by("llm", {"ok": 5, "repaired": 1, "vetoed": 2, "fallback": 1, "failed": 1})
    assert found == "llm 6 (60 %), its fallback 1 (10 %), its fallback after a veto 2 (20 %), no decision 1 (10 %)"
    assert decided_by("rule", {}) == "no decision"


def test_comparison_tables_show_the_share_of_the_fallback():
    rate = {"count": 1, "total": 2, "value": 0.5, "low": 0.1, "high": 0.9}
    result = {"success": rate, "return_mean": 1.0, "return_iqm": 1.0, "episodes": 2, "labels": 7, "interventions": 0}
    honest = Row("rule", "expert", [result | {"statuses": {"ok": 10}}])
    relying = Row("llm", "expert", [result | {"statuses": {"ok": 5, "fallback": 4, "vetoed": 1}}])
    assert "By fallback %" not in columns_of([honest])
    assert "| 50.0 |" in markdown([honest, relying])
    assert relying.to_dict()["statuses"] == {"ok": 5, "fallback": 4, "vetoed": 1}


# --- numbers that are not finite -------------------------------------------------------------------------------------


class Confused(PolicyProvider):
    """Answers with probabilities that are not finite from the 100th decision on."""

    name = "confused"

    def __init__(self) -> None:
        self.count = 0

    def decide(self, contexts):
        self.count += len(contexts)
        value = np.nan if self.count > 100 else 0.2
        return [Decision(int(np.argmax(c.legal)), np.where(c.legal, value, 0.0)) for c in contexts]


def broken_run(tmp_path, trainer, words):
    with pytest.raises(RunFailed) as error:
        trainer.train()
    trainer.close()
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
    metrics = Run(tmp_path / "run").metrics
    assert not metrics.exists() or "nan" not in metrics.read_text()


def test_probabilities_of_an_expert_that_are_not_finite_stop_the_run(tmp_path):
    trainer = training.start(load_config(None, SMALL), tmp_path / "run", provider=Confused())
    words = ["probabilities of expert 'confused'", "nan", "the last good checkpoint is", "at 100 decisions"]
    broken_run(tmp_path, trainer, words)


def test_a_reward_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    trainer = training.start(load_config(None, SMALL), tmp_path / "run")
    step = trainer.loop.envs.step_wait

    def faulty():
        obs, rewards, dones, infos = step()
        return (
            obs,
            np.where(np.arange(4) == 2, np.inf, rewards) if trainer.loop.progress > 250 else rewards,
            dones,
            infos,
        )

    monkeypatch.setattr(trainer.loop.envs, "step_wait", faulty)
    broken_run(tmp_path, trainer, ["the reward of environment 2 is inf at decision 25", "at 200 decisions"])


def test_an_observation_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    trainer = training.start(load_config(None, SMALL), tmp_path / "run")
    step = trainer.loop.envs.step_wait

    def faulty():
        obs, *rest = step()
        return (obs * np.nan, *rest) if trainer.loop.progress > 50 else (obs, *rest)

    monkeypatch.setattr(trainer.loop.envs, "step_wait", faulty)
    broken_run(tmp_path, trainer, ["the observation of environment 0 is nan", "there is no checkpoint yet"])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    import torch

    trainer = training.start(load_config(None, SMALL), tmp_path / "run")
    trainer.advance(100)
    trainer.advance(100)
    with torch.no_grad():
        next(iter(trainer.loop.model.policy.critic.parameters())).fill_(torch.inf)
    broken_run(tmp_path, trainer, ["the critic loss is", "update", "at 200 decisions"])


# --- one config, another scenario ------------------------------------------------------------------------------------


def saved(tmp_path, **changes):
    from sim.config import dump_yaml, to_dict

    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(to_dict(load_config(None, changes).resolved())))
    return path


@pytest.mark.parametrize("scenario", ["dense-3.0", "highway-v0", "merge-v1", "lane-change", "gym:CartPole-v1"])
def test_a_saved_config_under_another_scenario_has_that_scenarios_defaults(tmp_path, scenario):
    path = saved(tmp_path, scenario="highway-fast-v0", strategy="sac")
    moved = load_config(path, {"scenario": scenario}).resolved()
    assert moved == load_config(None, {"scenario": scenario, "strategy": "sac"}).resolved()


def test_what_a_person_set_stays(tmp_path):
    changes = {"scenario": "highway-fast-v0", "scenario_config": {"vehicles_count": 7}, "num_envs": 3}
    path = saved(tmp_path, **changes, learner_options={"gamma": 0.9})
    moved = load_config(path, {"scenario": "highway-v0"}).resolved()
    assert moved.scenario_config["vehicles_count"] == 7
    assert moved.scenario_config["lanes_count"] == 4
    assert (moved.num_envs, moved.learner_options["gamma"]) == (3, 0.9)
    with pytest.raises(UsageError, match=r"scenario_config.*'vehicles_count'"):
        load_config(path, {"scenario": "lane-change"}).resolved()


def test_options_of_another_strategy_learner_or_expert_fall_too(tmp_path):
    path = saved(tmp_path, strategy="lgdrl")
    assert load_config(path, {"strategy": "dagger"}).resolved() == load_config(None, {"strategy": "dagger"}).resolved()
    path = saved(tmp_path, scenario="gym:CartPole-v1", strategy="sac")  # with the tuned options of that scenario
    moved = load_config(path, {"scenario": "lane-change"}).resolved()
    assert moved.learner_options == load_config(None, {"strategy": "sac"}).resolved().learner_options


def test_a_config_that_fits_only_with_what_the_command_line_names_is_read(tmp_path):
    (tmp_path / "part.yaml").write_text("scenario: parking-v0\nscenario_config: {duration: 7}\n")
    config = load_config(tmp_path / "part.yaml", {"scenario": "highway-v0"})
    assert config.resolved().scenario_config["duration"] == 7


def test_the_same_scenario_by_name_changes_nothing(tmp_path):
    path = saved(tmp_path, scenario="highway-fast-v0", strategy="sac")
    assert load_config(path, {"scenario": "highway-fast-v0"}) == load_config(path, {})


def test_a_run_is_evaluated_where_it_is_asked_to_be(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--scenario", "highway-fast-v0", "--strategy", "sac", "--steps", "32", "--out", "a"]
    assert main([*command, "num_envs=2", "evaluate_every=0"]) == 0
    returns = {}
    for scenario in ("highway-fast-v0", "dense-3.0", "highway-v0", "merge-v1"):
        options = ["--scenario", scenario, "--episodes", "3", "--json", "found.json"]
        assert main(["evaluate", "a", *options]) == 0
        returns[scenario] = json.loads((tmp_path / "found.json").read_text())["return_mean"]
    assert len(set(returns.values())) == 4
    capsys.readouterr()
    refused = [
        ["--scenario", "exit-v1"],
        ["--scenario", "lane-change"],
        ["scenario_config.observation.vehicles_count=8"],
        ["scenario_config.action.lateral=false"],
    ]
    for words in refused:
        assert main(["evaluate", "a", "--episodes", "1", *words]) == 2
        said = capsys.readouterr()
        assert "the policy of 'a'" in said.err
        assert said.err.count("\n") == 1
        assert not said.out
    assert load_yaml("a/config.yaml")["scenario"] == "highway-fast-v0"


def test_a_start_of_learning_beyond_the_run_is_refused(tmp_path):
    changes = SMALL | {"learner_options": {"learning_starts": 401}}
    with pytest.raises(UsageError, match=r"learning_starts = 401: the run has 400 decisions"):
        training.start(load_config(None, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
