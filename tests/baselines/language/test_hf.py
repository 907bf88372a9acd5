"""A student of transformers says what the plain model says, cached or not, and learns through every loop."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from baselines.language import hf
from baselines.language.grpo import GRPOConfig
from baselines.language.hf import HFConfig, open_student
from baselines.language.sft import SFTConfig, imitate, loss_on
from experts.language.gpt import generate, log_policy
from experts.language.teacher import GPTTeacher
from experts.language.vocabulary import EOS
from sim.errors import UsageError
from tests.baselines.language import hf_models
from tests.baselines.text_task import KeyTask, through_a_file, token_loop, train

pytestmark = pytest.mark.skipif(not (find_spec("transformers") and find_spec("peft")), reason="needs the extra hf")

torch.set_num_threads(1)
TASK = KeyTask(keys=4, length=3, symbols=3)
WORDS = TASK.vocabulary.words
TEXT = " ".join(word for word in WORDS for _ in range(3))
CONFIG = GRPOConfig(num_generations=4, prompts_per_update=3, max_completion_length=8, learning_rate=2e-3)
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 3, 10]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hf_models.llama(tmp_path_factory.mktemp("llama"), TEXT)


@pytest.fixture(scope="module")
def config(folder):
    return HFConfig(str(folder), lora_rank=3, lora_alpha=6, context=32)


@pytest.fixture
def student(config):
    return open_student(config, TASK.vocabulary)


@pytest.fixture(scope="module")
def imitated(config):
    model = open_student(config, TASK.vocabulary)
    imitate(model, TASK, TASK.of_form(96), SFTConfig(num_train_epochs=4, batch_size=16, learning_rate=5e-3), 0)
    return model.copy()


def stirred(model, seed=0):
    """The same model with LoRA matrices that do something."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.lora.values():
            parameter.normal_(0.0, 0.2, generator=stream)
    return model


def extended(folder, lora=None, scale=2.0):
    """The reference: the plain model of transformers, the words added to its vocabulary, LoRA multiplied out."""
    import transformers  # here: collecting the tests takes seconds less

    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    old = plain.config.vocab_size
    pieces = [tokens(f" {word}", add_special_tokens=False).input_ids for word in WORDS]
    pieces[WORDS.index(EOS)] = [tokens.eos_token_id]
    plain.resize_token_embeddings(old + len(WORDS), mean_resizing=False)
    with torch.no_grad():
        for table in (plain.get_input_embeddings().weight, plain.get_output_embeddings().weight):
            for i, ids in enumerate(pieces):
                table[old + i] = sum(table[j] for j in ids) / len(ids)
        for name, a in (lora or {}).items():
            if "lora_A" in name:
                b, module = lora[name.replace("lora_A", "lora_B")], name.split("/lora_A")[0].replace("/", ".")
                plain.base_model.get_submodule(module).weight += scale * b @ a
    return lambda rows: plain(input_ids=torch.tensor(rows) + old).logits[..., old:]


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_log_probabilities_are_those_of_the_plain_model_with_the_words_added(tmp_path, tied):
    folder = hf_models.llama(tmp_path, TEXT, seed=1, tied=tied)
    model = open_student(HFConfig(str(folder), lora_rank=3, lora_alpha=6, context=32), TASK.vocabulary)
    rows = [[3, 4, 5, 6, 7, 8], [9, 3, 10, 2, 1, 0]]
    before = log_policy(model(torch.tensor(rows)))
    torch.testing.assert_close(before, log_policy(extended(folder)(rows)), atol=1e-5, rtol=1e-4)
    stirred(model)
    after = log_policy(model(torch.tensor(rows)))
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, log_policy(extended(folder, model.lora)(rows)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampled", [False, True])
def test_cached_generation_of_ragged_rows_is_the_full_forward_pass(student, sampled):
    model = stirred(student)
    uniforms = np.random.default_rng(0).random((6, 8)) if sampled else None
    allowed = torch.arange(len(WORDS)) != 4
    written = generate(model, PROMPTS, [8] * 3, 1, uniforms, 2, 0.7, allowed)
    for i in range(6):
        said = []
        for t in range(8):
            with torch.no_grad():
                policy = log_policy(model(torch.tensor([[*PROMPTS[i // 2], *said]]))[0, -1], 0.7, allowed)
            word = int(policy.argmax()) if not sampled else int(np.searchsorted(policy.exp().cumsum(0), uniforms[i, t]))
            said.append(word)
            assert float(written.log_probs[i, t]) == pytest.approx(float(policy[word]), abs=1e-4)
            if word == 1:
                break
        assert list(written.row(i)) == said


def test_training_changes_lora_and_rows_and_nothing_of_the_body(student):
    twin, learned = student.copy(), {id(p) for p in student.lora.values()}
    frozen = {name: p.clone() for name, p in student.body.named_parameters() if id(p) not in learned}
    before, rows = loss_on(student, TASK.prompts("train")), {n: t.clone() for n, t in student.state_dict().items()}
    imitate(student, TASK, TASK.prompts("train") * 8, SFTConfig(num_train_epochs=8, learning_rate=1e-2), 0)
    assert loss_on(student, TASK.prompts("train")) < 0.5 * before
    now = dict(student.body.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in frozen.items())
    assert not any(torch.equal(value, student.state_dict()[name]) for name, value in rows.items())
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in rows.items())
    assert loss_on(twin, TASK.prompts("train")) == before
    shared = dict(twin.body.named_parameters())
    assert all(shared[name] is now[name] for name in frozen)


@pytest.mark.parametrize("strategy", ["grpo", "sft-grpo", "bread", "whole-trace", "distillation", "mentor"])
def test_strategies_train_it_and_resume_to_the_bit(imitated, strategy):
    first, second, resumed = (
        token_loop(TASK, imitated, strategy, CONFIG, teacher=GPTTeacher(imitated, TASK.vocabulary.version))
        for _ in range(3)
    )
    rows = train(first, 2)
    train(second, 1)
    resumed.load_state_dict(through_a_file(second.state_dict()))
    assert train(resumed, 2) == rows[1:]
    weights = first.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in resumed.model.state_dict().items())
    if strategy != "distillation":  # a student that is its own teacher has nothing to learn from it
        assert any(not torch.equal(weights[name], value) for name, value in imitated.state_dict().items())


def test_a_reference_is_kept_and_steps_are_repeated(imitated):
    settings = dataclasses.replace(CONFIG, beta=0.1, num_iterations=2)
    run = token_loop(TASK, imitated, "grpo", settings)
    rows = train(run, 2)
    assert rows[0]["train/steps"] == 2
    assert rows[-1]["train/kl"] > 0


def test_what_was_learned_is_read_back_on_the_same_model_only(imitated, folder, tmp_path):
    path = tmp_path / "student.safetensors"
    hf.save(imitated, TASK.vocabulary, path)
    again = hf.load(path, TASK.vocabulary)
    tokens = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        assert torch.equal(again(tokens), imitated(tokens))
    other = hf_models.llama(tmp_path / "other", TEXT, seed=5)
    with pytest.raises(UsageError, match="was not learned on"):
        hf.load(path, TASK.vocabulary, str(other))
    with pytest.raises(UsageError, match="train it again"):
        hf.load(path)
    with pytest.raises(UsageError, match="cannot read"):
        hf.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no student"):
        hf.load(folder / "config.json")


def test_the_same_seed_gives_the_same_student_and_leaves_torchs_state_alone(config):
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first, second, third = (open_student(config, TASK.vocabulary, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_what_is_no_such_model_is_refused_in_one_line(folder, tmp_path, monkeypatch):
    for name in ("nowhere", str(tmp_path), str(tmp_path / "a.gguf")):
        with pytest.raises(UsageError, match="nothing is downloaded"):
            open_student(HFConfig(name))
    (tmp_path / "a.gguf").write_text("nonsense")
    with pytest.raises(UsageError, match="cannot be loaded as a GGUF"):
        open_student(HFConfig(str(tmp_path / "a.gguf")))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded as a causal language model"):
        open_student(HFConfig(str(tmp_path)))
    with pytest.raises(UsageError, match="choose at most that"):
        open_student(HFConfig(str(folder), context=193), TASK.vocabulary)
    monkeypatch.setattr(hf, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(UsageError, match=r"needs peft: pip install lgdrl\[hf\]"):
        open_student(HFConfig(str(folder)))


def test_models_that_our_cache_cannot_serve_are_refused(tmp_path):
    made = hf_models.convolving(tmp_path / "convolving", TEXT), hf_models.windowed(tmp_path / "windowed", TEXT, 24)
    for folder in made:
        with pytest.raises(UsageError, match="does not read through a cache"):
            open_student(HFConfig(str(folder), context=32), TASK.vocabulary)
    assert open_student(HFConfig(str(made[1]), context=24), TASK.vocabulary)


def test_smollm2_that_was_not_fetched_says_how(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="lgdrl llm fetch"):
        open_student(HFConfig())
