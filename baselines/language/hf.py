"""A pretrained causal language model of transformers as a student: the same loops, LoRA instead of all weights.

The model keeps its body (attention, networks, norms), frozen, and learns LoRA matrices inside it (`peft`). Its own
tokens are not used: every word of the closed vocabulary has a row of its own at the input and another at the output.
Both start as the mean of the model's rows for the pieces that its tokenizer makes of the word, and are trained. This is
what adding the words as tokens to tokenizer and model would give, restricted to these words. It is the simplest bridge
that trains: one word stays one token, so that tasks, rewards, traces, hints, teachers and token counts are those of the
small models; answers cannot leave the vocabulary; texts are three to five times shorter than in the model's own tokens,
and there is no table of 50,000 logits to compute. What it gives up: the model does not read or write its own language.

The cache is that of the small models (`experts.language.model.Cache`), written to from inside the model's attention,
so rows advance at their own pace here too. That takes decoders that attend to everything before, with keys and values
(Llama, SmolLM, Qwen, Mistral, GPT-2, ...); `open_student` checks it on the model itself and refuses others, sliding
windows shorter than the context too.

float32 on the CPU. For GPUs, TRL does the training: `baselines.driving.trl_export`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experts.language.model import Cache, LanguageModel
from experts.language.vocabulary import DRIVING, EOS, Vocabulary
from sim.config import resolve, to_dict
from sim.errors import UsageError
from sim.files import write_atomically

INSTALL = "pip install lgdrl[hf]"
SMOLLM2 = "smollm2"
FORMAT = "lgdrl-hf-1"


@dataclass(frozen=True)
class HFConfig:
    """Which model, and how much of it learns."""

    model: str = SMOLLM2  # smollm2 (what `lgdrl llm fetch` brought), a folder of transformers' files, or FILE.gguf
    lora_rank: int = 8  # of the matrices added to every linear layer
    lora_alpha: int = 16  # what they add counts alpha / rank times
    context: int = 192  # most words that a prompt and its answer may have together
    vocab_size: int = len(DRIVING)

    def __post_init__(self) -> None:
        for name, least in (("lora_rank", 1), ("lora_alpha", 1), ("context", 2), ("vocab_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: choose at least {least}")


class HFStudent(LanguageModel):
    """Made by `open_student` or `load`. Frozen weights are no parameters of it: a checkpoint holds what learned."""

    def __init__(self, body: nn.Module, inputs: Tensor, outputs: Tensor, config: HFConfig) -> None:
        """Args: a decoder of transformers, LoRA inside; rows (V, width) at the input and the output; config."""
        super().__init__()
        self.config: HFConfig = config
        self.base = _digest(inputs, outputs)
        """12 hex digits that tell models and tokenizers apart."""
        self.words, self.answers = (nn.Parameter(rows.clone()) for rows in (inputs, outputs))
        self.lora = nn.ParameterDict(
            {name.replace(".", "/"): p for name, p in body.named_parameters() if p.requires_grad}
        )
        self._frozen = [body]  # in a list, lest it be registered

    @property
    def body(self) -> nn.Module:
        return self._frozen[0]

    @property
    def frozen_count(self) -> int:
        """Parameters of the body that never change."""
        return sum(p.numel() for p in self.body.parameters()) - sum(p.numel() for p in self.lora.values())

    def forward(self, tokens: Tensor, cache: Cache | None = None, starts: Tensor | None = None) -> Tensor:
        arguments: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            assert starts is not None
            at = cache.place(starts, tokens.shape[1]).clamp(max=self.config.context - 1)
            arguments = {
                "use_cache": True,
                "position_ids": at,
                "attention_mask": cache.visible,
                "past_key_values": _past(cache),
            }
        elif tokens.shape[1] > self.config.context:
            raise ValueError(f"{tokens.shape[1]} tokens exceed a context of {self.config.context}")
        hidden = self.body(inputs_embeds=F.embedding(tokens, self.words), **arguments).last_hidden_state
        return F.linear(hidden, self.answers)

    def new_cache(self, rows: int, slots: int) -> Cache:
        return Cache(*_cache_shape(self.body), rows, slots)

    def copy(self) -> HFStudent:
        """Frozen weights are shared."""
        learned = {id(p) for p in self.lora.values()}
        shared = {id(p): p for p in self.body.parameters() if id(p) not in learned}
        return copy.deepcopy(self, shared).requires_grad_(False).eval()


def open_student(config: HFConfig, vocabulary: Vocabulary = DRIVING, seed: int = 0) -> HFStudent:
    """A pretrained model that has learned nothing yet, the same for the same seed.

    Args:
        config: Which model, and how much of it learns.
        vocabulary: Words that the student reads and writes.
        seed: Of the LoRA matrices.
    Raises:
        UsageError: The model or the extra `hf` is missing, the files are no such model, or its attention is none that
            the cache can serve.
    """
    if config.vocab_size != len(vocabulary):
        config = dataclasses.replace(config, vocab_size=len(vocabulary))
    _require_extra()
    causal, tokenizer = _pretrained(_folder(config.model), config)
    pieces = [_pieces(tokenizer, word) for word in vocabulary.words]
    with torch.no_grad():
        given = causal.get_input_embeddings()
        inputs = torch.stack([given(ids).mean(dim=0) for ids in pieces])
        outputs = torch.stack([causal.get_output_embeddings().weight[ids].mean(dim=0) for ids in pieces])
    model = HFStudent(_with_lora(causal.base_model, config, seed), inputs, outputs, config)
    _check_cache(model)
    return model


def save(model: HFStudent, vocabulary: Vocabulary, path: Path) -> None:
    """What was learned as one safetensors file, whole or not at all; the header names the pretrained model."""
    from safetensors.torch import save as serialise

    about = {"format": FORMAT, "vocabulary": vocabulary.version, "words": vocabulary.words, "base": model.base}
    header = {"about": json.dumps(about), "config": json.dumps(to_dict(model.config))}
    data = serialise({name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}, header)
    write_atomically(path, lambda file: file.write(data))


def load(path: Path, vocabulary: Vocabulary = DRIVING, model: str | None = None) -> HFStudent:
    """The student that `save` wrote.

    Args:
        path: The file.
        vocabulary: The vocabulary of the student.
        model: Where the pretrained model is now; None: where it was.
    Raises:
        UsageError: The file holds no student, or one of another vocabulary or pretrained model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        about = json.loads(header["about"])
        spoken, base = about["vocabulary"], about["base"]
        config = resolve(HFConfig(), json.loads(header["config"]), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, json.JSONDecodeError):
        raise UsageError(
            f"{str(path)!r} holds no student of a Hugging Face model: give a file that `save` wrote"
        ) from None
    if spoken != vocabulary.version:
        raise UsageError(f"{str(path)!r} speaks {spoken!r}, not {vocabulary.version!r}: train it again")
    student = open_student(dataclasses.replace(config, model=model or config.model), vocabulary)
    if base != student.base:
        raise UsageError(f"{str(path)!r} was not learned on {student.config.model!r}: name the model that it was")
    try:
        student.load_state_dict(weights)
    except RuntimeError:
        raise UsageError(f"{str(path)!r}: its weights do not fit its config; the file is damaged") from None
    return student


# --- transformers ----------------------------------------------------------------------------------------------------


def _past(cache: Cache) -> Any:
    """Our cache as transformers' models write to theirs: each layer of attention calls `update`."""
    import transformers

    class Past(transformers.Cache):
        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
            return cache.extend(layer_idx, key_states, value_states)

    return Past(layers=[])


def _cache_shape(body: nn.Module) -> tuple[int, int, int]:
    """Layers, heads of keys and values, width of one head."""
    config: Any = body.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size


def _folder(name: str) -> Path:
    """The folder of transformers' files that a config's `model` means."""
    from experts.serving import local_model
    from experts.serving.fetch import cached_model

    if name == SMOLLM2:
        found = cached_model()
        if found is None:
            raise UsageError("no SmolLM2 here: run `lgdrl llm fetch`, or name a folder or a GGUF file")
        return local_model.converted(found)
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return local_model.converted(path)
    if not (path / "config.json").is_file():
        raise UsageError(
            f"model {name!r}: expected {SMOLLM2!r}, a folder with transformers' config.json, or FILE.gguf; nothing is "
            "downloaded"
        )
    return path


def _pretrained(folder: Path, config: HFConfig) -> tuple[Any, Any]:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        causal: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        )
        longest = causal.config.max_position_embeddings
    except Exception as error:  # whatever a damaged file makes of the parsers
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"model {str(folder)!r} cannot be loaded as a causal language model: {line}") from None
    if config.context > longest:
        raise UsageError(f"context = {config.context}: the model has {longest}; choose at most that")
    return causal.eval().requires_grad_(False), tokenizer


def _pieces(tokenizer: Any, word: str) -> Tensor:
    """The model's tokens for a word within a text; for the end of an answer, its own end of text where it has one."""
    if word == EOS and tokenizer.eos_token_id is not None:
        return torch.tensor([tokenizer.eos_token_id])
    ids: Sequence[int] = tokenizer.encode(f" {word}", add_special_tokens=False)
    if not ids:
        raise UsageError(f"the model's tokenizer makes nothing of the word {word!r}: choose another model")
    return torch.tensor(list(ids))


def _with_lora(body: nn.Module, config: HFConfig, seed: int) -> nn.Module:
    """The body with LoRA in every linear layer, adding nothing yet; torch's global random state is left alone."""
    import peft

    settings = peft.LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.inject_adapter_in_model(settings, body).eval()


@torch.no_grad()
def _check_cache(model: HFStudent) -> None:
    """UsageError unless reading a text that fills the context in two parts gives what reading it at once gives."""
    length = model.config.context
    tokens = torch.arange(length)[None] % model.config.vocab_size
    try:
        cache = model.new_cache(1, length)
        parts = [model(tokens[:, :1], cache, torch.tensor([0])), model(tokens[:, 1:], cache, torch.tensor([1]))]
        whole = model(tokens)
        agree = torch.allclose(torch.cat(parts, dim=1), whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
    except Exception:  # whatever a model of another kind makes of our cache
        agree = False
    if not agree:
        kind = type(model.body).__name__
        raise UsageError(f"a {kind} does not read through a cache of keys and values: choose a Llama-like model")


def _require_extra() -> None:
    missing = [name for name in ("transformers", "gguf", "peft") if find_spec(name) is None]
    if missing:
        raise UsageError(f"a Hugging Face student needs {' and '.join(missing)}: {INSTALL}")


def _digest(*tables: Tensor) -> str:
    digest = hashlib.sha256()
    for table in tables:
        digest.update(table.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
