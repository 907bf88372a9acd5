"""The driving-language study: equal budgets, equal starts, honest references; small enough for every day."""

import json

import numpy as np
import pytest

from baselines.driving.embedded import EmbeddedConfig, train
from baselines.driving.report import markdown
from baselines.driving.scenes import SituationSource
from baselines.driving.study import StudyConfig, collect, material, run_config, study, train_arm, trivial_plans
from lgdrl import training
from lgdrl.cli import main
from lgdrl.runs import write_json
from sim.config import resolve
from sim.errors import UsageError

TINY = {
    "steps": 2,
    "sources": [{"scenario": "lane-change"}],
    "held_out": [{"scenario": "lane-change", "config": {"density": [35, 35]}}],
    "train": 24,
    "test": 10,
    "student": {"layers": 1, "width": 16, "heads": 2},
    "sft": {"num_train_epochs": 1},
    "grpo": {"prompts_per_update": 4, "num_generations": 4},
    "tokens": 1500,
    "arms": {"sft": {}, "bread": {}},
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def config():
    return resolve(StudyConfig(), TINY, "study")


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Both arms and seeds, as the jobs of a study write them."""
    out = tmp_path_factory.mktemp("study")
    for arm in config.arms:
        for seed in config.seeds:
            (out / arm).mkdir(exist_ok=True)
            write_json(out / arm / f"seed{seed}.json", train_arm(config, arm, seed, out))
    return out


def test_budgets_count_searches_and_end_with_the_update_that_exceeds_them(config, finished):
    run = json.loads((finished / "bread" / "seed0.json").read_text())
    spent = [row["rollout/generated_tokens"] for row in run["training"]]
    assert spent[-1] >= config.tokens
    assert all(count < config.tokens for count in spent[:-1])
    ledger = run["ledger"]
    assert ledger["generated_tokens"] == ledger["student_tokens"] + ledger["search_tokens"] + ledger["teacher_tokens"]
    assert json.loads((finished / "sft" / "seed0.json").read_text())["ledger"]["generated_tokens"] == 0


def test_an_arm_and_seed_repeats_itself(config, finished, tmp_path):
    again = train_arm(config, "bread", 1, tmp_path)
    before = json.loads((finished / "bread" / "seed1.json").read_text())
    assert again["test"]["by_prompt"] == before["test"]["by_prompt"]
    assert again["training"] == before["training"]


def test_all_arms_are_evaluated_on_the_same_prompts_and_stand_beside_trivial_plans(config, finished):
    figures = collect(config, finished)
    assert set(figures["references"]["test"]) == {
        "LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER", "rule", "random",
    }  # fmt: skip
    assert figures["arms"]["sft"]["test"]["gain"] == (0.0, 0.0, 0.0)
    table = markdown(figures)
    assert "| bread | " in table
    assert "always IDLE" in table
    assert f"{figures['prompts']['held_out']} of held-out densities" in table


def test_guessing_is_worth_the_share_of_good_plans(config):
    shared = material(config)
    chance = np.mean([shared.task.case(prompt.key).outcomes.good.mean() for prompt in shared.test])
    assert trivial_plans(shared.task, shared.test)["random"]["success"] == pytest.approx(chance)


def test_held_out_densities_are_other_environments(config):
    shared = material(config)
    source = shared.task.case(shared.held_out[0].key).situation.source
    assert source == SituationSource("lane-change", {"density": [35, 35]})
    train = {prompt.key for prompt in shared.task.prompts("train")}
    assert not train & {prompt.key for prompt in [*shared.test, *shared.held_out]}


def test_another_study_in_the_folder_and_bad_arms_are_refused(config, tmp_path):
    (tmp_path / "study.yaml").write_text("other: study\n")
    with pytest.raises(UsageError, match="holds another study"):
        study(config, tmp_path)
    with pytest.raises(UsageError, match="unknown strategy 'breed': did you mean 'bread'"):
        resolve(StudyConfig(), {"arms": {"breed": {}}}, "study")
    with pytest.raises(UsageError, match=r"did you mean 'horizon'"):
        resolve(StudyConfig(), {"arms": {"long": {"strategy": "mentor", "horizn": 5}}}, "study")


def test_a_study_that_was_stopped_goes_on_where_its_run_was_saved(config, finished, tmp_path):
    trainer = training.start(run_config(config, "bread", 0, tmp_path), tmp_path / "bread" / "seed0")
    trainer.advance(1)
    trainer.save()
    trainer.close()
    found = train_arm(config, "bread", 0, tmp_path)
    before = json.loads((finished / "bread" / "seed0.json").read_text())
    assert found["training"] == before["training"]
    assert found["test"] == before["test"]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main(["bench", "driving-language", "--out", str(tmp_path / "x"), "tokens=-1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lgdrl bench driving-language: config")
    assert error.count("\n") == 1


def test_the_shipped_models_training_repeats_itself():
    changes = {
        "situations": 16,
        "model": {"layers": 1, "width": 16, "heads": 2},
        "sft": {"num_train_epochs": 1},
        "rl": {"updates": 1, "situations": 8, "grpo": {"prompts_per_update": 2, "num_generations": 2}},
    }
    config = resolve(EmbeddedConfig(), changes, "config")
    (first, about), (second, _) = (train(config, lambda line: None) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.equal(b)
    assert about["traces"] <= about["situations"] == 16
    assert len(about["reinforcement"]) == 1
