"""A GGUF chat model in this process, through transformers on the torch that the learner needs anyway.

The GGUF is dequantised once (slow) and kept beside it as float16 safetensors for fast reloads. The keys and values of
the last prompt stay in memory, so that a prompt which begins alike pays only for its new end. float32 or bfloat16 is
chosen by timing both: bfloat16 is twice as fast on CPUs that have instructions for it and slower on others.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experts.serving.fetch import GGUF_NAME, cached_model
from sim.errors import UsageError

INSTALL = "pip install lgdrl[embedded]"


class LocalChat:
    """One chat prompt in progress: its tokens are in the model's key-value cache. Only one is alive at a time."""

    def __init__(self, model: LocalModel, tokens: Sequence[int], logits: np.ndarray, cached_tokens: int) -> None:
        self._model, self._tokens = model, list(tokens)
        self._logprobs = _log_softmax(logits)
        self.prompt_tokens = len(tokens)
        self.cached_tokens = cached_tokens

    def distribution(self) -> np.ndarray:
        """Log-probabilities (V,) of the next token."""
        return self._logprobs

    def push(self, tokens: Sequence[int]) -> None:
        """Continue the answer with `tokens`."""
        if tokens:
            self._tokens += tokens
            self._logprobs = _log_softmax(self._model.forward(tokens)[-1])

    def score(self, choices: Sequence[str]) -> np.ndarray:
        """Log-probability (C,) that the answer continues with each of `choices`, summed over a choice's tokens."""
        before = len(self._tokens)
        scores = np.zeros(len(choices))
        for i, choice in enumerate(choices):
            tokens = self._model.encode(choice)
            scores[i] = self._logprobs[tokens[0]]
            if len(tokens) > 1:
                following = _log_softmax(self._model.forward(tokens[:-1]))
                scores[i] += sum(following[k, token] for k, token in enumerate(tokens[1:]))
                self._model.rewind(before)
        return scores


class LocalModel:
    """`experts.serving.token_model.ChatModel` over a causal model of transformers. One chat at a time."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.name = name
        self._model, self._tokenizer = model, tokenizer
        self._past: Any = None
        self._past_tokens: list[int] = []
        ends = model.generation_config.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or []) | {tokenizer.eos_token_id}

    def start(self, messages: Sequence[Mapping[str, str]]) -> LocalChat:
        """Read a chat, reusing what it shares with the one before."""
        encoded = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_dict=True
        )
        tokens = [int(token) for token in encoded["input_ids"]]
        shared = _shared_length(tokens, self._past_tokens, len(tokens) - 1)
        self.rewind(shared)
        logits = self.forward(tokens[shared:])[-1]
        return LocalChat(self, tokens, logits, shared)

    def forward(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits (T, V) after each of `tokens`, which are appended to the key-value cache."""
        import torch

        with torch.inference_mode():
            out = self._model(input_ids=torch.tensor([list(tokens)]), past_key_values=self._past, use_cache=True)
        self._past = out.past_key_values
        self._past_tokens += tokens
        return out.logits[0].float().numpy()

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of the key-value cache."""
        if length == 0:
            self._past = None
        elif self._past is not None and length < len(self._past_tokens):
            self._past.crop(length - len(self._past_tokens))
        del self._past_tokens[length:]

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of an answer, without special tokens."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def is_end(self, token: int) -> bool:
        """Whether `token` ends an answer."""
        return token in self._ends


def load(gguf: Path | str | None = None, threads: int = 1, dtype: str = "auto") -> LocalModel:
    """A chat model from a GGUF file (default: the fetched SmolLM2).

    Args:
        gguf: Path of the file.
        threads: Of torch; 1 beside a running simulator, as more are slower on a busy machine.
        dtype: "float32", "bfloat16", or "auto": the faster one on this machine.

    Raises:
        UsageError: The file or the extra `embedded` is missing, or the file is not a GGUF chat model.
    """
    path = _resolve(gguf)
    _require_extra()
    import torch
    import transformers

    torch.set_num_threads(threads)
    folder = converted(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise UsageError(f"{path.name} has no chat template: use an instruction-tuned model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if dtype == "auto":
        dtype = faster_dtype(model)
    return LocalModel(model.to(getattr(torch, dtype)), tokenizer, path.stem)


def faster_dtype(model: Any, tokens: int = 64) -> str:
    """ "float32" or "bfloat16", whichever reads a prompt of `tokens` tokens faster on this machine (best of two)."""
    import torch

    times = {}
    for name in ("float32", "bfloat16"):
        trial = model.to(getattr(torch, name))
        taken = []
        for _ in range(3):  # the first one warms up
            begin = time.perf_counter()
            with torch.inference_mode():
                trial(input_ids=torch.ones((1, tokens), dtype=torch.long))
            taken.append(time.perf_counter() - begin)
        times[name] = min(taken[1:])
    model.to(torch.float32)
    return min(times, key=lambda name: times[name])


def converted(gguf: Path) -> Path:
    """The folder beside a GGUF file that holds it for transformers; made where it is missing. UsageError for a file
    that cannot be loaded."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = gguf.with_name(f"{gguf.stem}-hf-float16")
    if not (folder / "config.json").is_file():
        _convert(gguf, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    """Dequantise the GGUF into a folder of float16 safetensors: 11 bits hold a 4-bit weight times a scale well."""
    import torch
    import transformers

    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=".convert-"))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model: Any = _dequantised(path)
        model.to(torch.float16).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if not folder.exists():
            scratch.replace(folder)
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"{path.name} cannot be loaded as a GGUF chat model: {line}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dequantised(path: Path) -> Any:
    """The model with the file's weights. `from_pretrained(gguf_file=...)` would do it too, but asks for accelerate."""
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    lost = [key for key in missing if not (config.tie_word_embeddings and key == "lm_head.weight")]
    if lost or unexpected:
        raise ValueError(f"weights do not fit the architecture: {[*lost, *unexpected][:3]}")
    return model


def _resolve(gguf: Path | str | None) -> Path:
    if gguf is None:
        found = cached_model()
        if found is None:
            raise UsageError(f"no local model: run `lgdrl llm fetch` ({GGUF_NAME}), or name a GGUF file")
        return found
    path = Path(gguf)
    if not path.is_file():
        raise UsageError(f"model file {str(path)!r} does not exist")
    return path


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "gguf") if find_spec(name) is None]
    if missing:
        raise UsageError(f"a local model needs {' and '.join(missing)}: {INSTALL}")


def _shared_length(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """Length of the common beginning of two token lists, at most `limit`."""
    for i, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right or i == limit:
            return i
    return min(len(a), len(b), limit)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
