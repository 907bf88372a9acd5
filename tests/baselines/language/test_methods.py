"""Language-model methods are methods like the others: listed, trained, resumed, evaluated and compared."""

import subprocess
import sys

import pytest
import torch

from baselines.driving.task import DrivingTask
from baselines.language.chain import ChainConfig, ChainTask, ChainTeacher
from baselines.language.evaluation import greedy_episodes
from baselines.language.grpo import GRPOConfig
from baselines.language.method import language_method, make_task
from experts.language import gpt
from lgdrl import training
from lgdrl.cli import main
from lgdrl.config import RunConfig, load_config
from lgdrl.loops.online import load_policy
from lgdrl.methods import METHODS
from lgdrl.runs import MetricsTable, Run
from sim.config import resolve
from sim.errors import UsageError

NAMES = (
    "bread", "distillation", "fixed-prefix", "grpo", "mentor", "prefix-rft", "sft", "sft-grpo", "whole-trace",
)  # fmt: skip
TINY = {
    "task": "chain",
    "task_options": {"length": 2, "moves": 3, "train": 4},
    "model": {"layers": 1, "width": 16, "heads": 2, "context": 24},
    "sft": {"num_train_epochs": 2},
    "grpo": {"num_generations": 3, "prompts_per_update": 2, "max_completion_length": 6},
}
DRIVING = TINY | {"task": "driving", "task_options": {"steps": 1, "train": 8}}
DRIVING |= {"model": TINY["model"] | {"context": 96}, "grpo": TINY["grpo"] | {"max_completion_length": 24}}


def config(strategy, options=TINY, **changes):
    values = {"strategy": strategy, "strategy_options": options, "steps": 4, "log_every": 2, "evaluate_every": 0}
    return RunConfig(**values | changes)


def run(strategy, folder, **changes):
    trainer = training.start(config(strategy, **changes), folder)
    assert trainer.train()
    trainer.close()
    return trainer.run


def weights(run):
    return gpt.load(run.policy, ChainTask(ChainConfig(**TINY["task_options"])).vocabulary).state_dict()


def test_the_list_of_strategies_names_them(capsys):
    assert main(["list", "strategies"]) == 0
    printed = capsys.readouterr().out.split()
    assert set(NAMES) <= set(printed)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(strategy, tmp_path):
    whole = run(strategy, tmp_path / "whole")
    stopped = training.start(config(strategy), tmp_path / "stopped")
    stopped.advance(2)
    stopped.save()
    stopped.close()
    resumed = training.resume(tmp_path / "stopped")
    assert resumed.train()
    resumed.close()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed.run)[name])
    tables = [MetricsTable(each.metrics, "updates").rows for each in (whole, resumed.run)]
    drop = ("elapsed_s", "rate")
    assert [{k: v for k, v in row.items() if k not in drop} for row in tables[0]] == [
        {k: v for k, v in row.items() if k not in drop} for row in tables[1]
    ]
    assert {name.split("/")[0] for name in tables[0][-1]} >= {"updates", "train", "rollout", "expert"}


@pytest.mark.parametrize("strategy", ["sft", "bread", "mentor"])
def test_the_drivers_language_is_learned_on_the_scenario_of_the_run(strategy, tmp_path):
    finished = run(strategy, tmp_path / "run", options=DRIVING, steps=2)
    found = training.evaluate_run(finished, 6, 100).episodes
    assert [episode["seed"] for episode in found] == list(range(100, 106))
    assert {episode["outcome"] for episode in found} <= {"success", "failure"}
    assert {episode["backend"] for episode in found} == {"engine"}
    again = training.evaluate_run(finished, 2, 104).episodes
    assert again == found[4:]


def test_held_out_situations_are_those_of_the_runs_scenario_and_of_no_training_prompt():
    resolved = config("grpo", DRIVING, scenario_config={"density": [30, 30]}).resolved()
    options = resolve(language_method("grpo").defaults, resolved.strategy_options)
    task = make_task(options, resolved)
    assert isinstance(task, DrivingTask)
    held_out = {prompt.key for prompt in task.held_out(range(60))}
    assert len(held_out) == 60
    sources = [task.case(key).situation.source for key in held_out]
    assert {(source.scenario, tuple(source.config["density"])) for source in sources} == {("lane-change", (30, 30))}
    assert not held_out & {prompt.key for prompt in task.prompts("train")}


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path):
    finished = run("mentor", tmp_path / "run")
    state = torch.load(finished.checkpoint, weights_only=True)
    assert state["state"]["loop"]["update"] == 4


def test_a_budget_of_tokens_ends_a_run_early(tmp_path):
    finished = run("grpo", tmp_path / "run", options=TINY | {"tokens": 60}, steps=1000, log_every=1)
    last = MetricsTable(finished.metrics, "updates").rows[-1]
    assert int(last["updates"]) == 1000 > float(last["train/updates"])
    assert float(last["rollout/generated_tokens"]) >= 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy_options": {"task": "chian"}}, "did you mean 'chain'"),
        ({"strategy_options": {"task_options": {"stepps": 2}}}, "did you mean 'steps'"),
        ({"strategy_options": {"task_options": {"steps": 9}}}, "choose 1 to 4"),
        ({"strategy_options": {"method": {"lw": 0.1}}}, "did you mean 'low'"),
        ({"strategy_options": {"tokens": 0}}, "tokens = 0: choose 1 to"),
        ({"scenario": "lane-keeping-v0"}, "scenario 'lane-keeping-v0'"),
        ({"shield": True}, "has no use for it"),
        ({"label_budget": 5}, "has no use for it"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(changes, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        training.start(RunConfig(**{"strategy": "bread"} | changes), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_its_run_cannot_drive(tmp_path):
    finished = run("grpo", tmp_path / "run", options=TINY, steps=1)
    with pytest.raises(UsageError, match="trained a language model on a text task: it cannot drive"):
        load_policy(finished)


def test_an_unfinished_run_is_not_evaluated(tmp_path):
    training.start(config("bread"), tmp_path / "run").close()
    with pytest.raises(UsageError, match="is not finished"):
        training.evaluate_run(Run(tmp_path / "run"), 2, 0)


def test_a_missing_teacher_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot read model"):
        training.start(config("mentor", TINY | {"teacher": "nowhere"}), tmp_path / "run")


def test_the_chains_teacher_leads_to_the_right_answer():
    task = ChainTask(ChainConfig(length=3, moves=4, train=5))
    prompt = task.held_out([7])[0]
    answer = task.trace(prompt.key).tokens
    follow = ChainTeacher(task).follow([prompt.tokens])
    for said in range(len(answer)):
        assert int(follow([answer[:said]], 1)[0, 0].argmax()) == answer[said]
    assert follow([answer], 1).isnan().all()
    assert task.rewards([prompt], [answer])[0].success
    assert prompt.key not in {each.key for each in task.prompts("train")}


def test_greedy_answers_become_episodes():
    task = ChainTask(ChainConfig(length=2, moves=3, train=4))
    model = gpt.new(gpt.GPTConfig(len(task.vocabulary), 24, 1, 2, 16), 0)
    episodes = greedy_episodes(model, task, range(3, 6), GRPOConfig(max_completion_length=6))
    assert [episode["seed"] for episode in episodes] == [3, 4, 5]
    assert all(episode["episode_return"] == 0.9 * episode["success"] + 0.1 * episode["format"] for episode in episodes)


def test_no_method_imports_a_task_and_no_task_a_method():
    """Methods and tasks meet in the registries only."""
    code = "import sys, baselines.bread.strategy, baselines.mentor.strategy; print('baselines.driving' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert set(NAMES) <= set(METHODS.available())
    assert load_config(None, {"strategy": "bread"}).resolved().strategy_options["task"] == "driving"
