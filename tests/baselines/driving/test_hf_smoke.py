"""`lgdrl bench hf-smoke` measures what it says, on a tiny model here and on SmolLM2 in the slow test."""

import json
from importlib.util import find_spec

import pytest

from baselines.driving.hf_smoke import SmokeConfig, smoke
from baselines.language import hf
from experts.language.vocabulary import DRIVING
from lgdrl.cli import main
from sim.config import resolve
from tests.baselines.language import hf_models

pytestmark = pytest.mark.skipif(not (find_spec("transformers") and find_spec("peft")), reason="needs the extra hf")

SMALL = ["train=12", "test=6", "sft.num_train_epochs=2", "updates=1", "student.lora_rank=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hf_models.llama(tmp_path_factory.mktemp("llama"), " ".join(DRIVING.words))


def test_the_command_prints_every_stage_and_keeps_what_was_learned(folder, tmp_path, capsys):
    figures, student = tmp_path / "figures.json", tmp_path / "student.safetensors"
    words = ["bench", "hf-smoke", "--model", str(folder), "--json", str(figures), "--save", str(student), *SMALL]
    assert main(words) == 0
    printed = capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert [stage["name"] for stage in found["stages"]] == ["pretrained", "imitation", "sft-grpo", "bread"]
    assert all(stage["name"] in printed for stage in found["stages"])
    pretrained, imitation, *_ = found["stages"]
    assert imitation["loss"] < pretrained["loss"]
    assert min(stage["words_per_s"] for stage in found["stages"]) > 0
    assert found["training"]["bread"][0]["rollout/generated_tokens"] > 0
    again = hf.load(student)
    assert (again.parameter_count, again.frozen_count) == (found["trained_parameters"], found["frozen_parameters"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere"], "nothing is downloaded"),
        (["strategies=[mentor]"], "choose one without a teacher"),
        (["updates=-1"], "updates >= 0"),
        (["student.lora_rank=0"], "choose at least 1"),
        (["strategies=[grp]"], "did you mean"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys):
    assert main(["bench", "hf-smoke", *words]) == 2
    printed = capsys.readouterr().err.strip()
    assert said in printed
    assert "\n" not in printed


@pytest.mark.slow
def test_smollm2_learns_the_form_of_answers_from_a_few_traces():
    from experts.serving.fetch import cached_model

    if cached_model() is None:
        pytest.skip("SmolLM2 is not in the cache: run `lgdrl llm fetch`")
    # 64 traces, 24 steps: after half as many no answer is readable yet
    config = resolve(SmokeConfig(), {"test": 8, "updates": 1, "strategies": ["bread"]})
    pretrained, imitation, bread = smoke(config)["stages"]
    assert pretrained["readable"] == 0
    assert imitation["loss"] < 0.5 * pretrained["loss"]
    assert imitation["readable"] > 0.5
    assert bread["trained_words_per_s"] > 0
