"""A decoder-only transformer in plain torch: pre-norm blocks, learned positions, tied embeddings, a key-value cache.

Rows of different length are padded on the right, and a token's position is its index. Causality then hides all padding:
a query at index t attends to indices up to t, which by then hold the row's own tokens. So neither training nor cached
generation needs a padding mask, and rows of one cache may advance at their own pace. Randomness comes in as tables of
uniform numbers, one per row and position: what a row says depends on its batch only through rounding.

Shapes: B rows, T tokens, V words, N new tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experts.language.model import Cache, LanguageModel
from experts.language.vocabulary import Vocabulary
from sim.bounds import Bounds, config_dataclass
from sim.config import resolve, to_dict
from sim.errors import UsageError
from sim.files import write_atomically

FORMAT = "lgdrl-gpt-1"


@config_dataclass
class GPTConfig:
    """Size of a model. 4 layers of width 128 and 200 words are 0.84 million parameters."""

    vocab_size: Annotated[int, Bounds(1, 1_000_000)] = 192
    context: Annotated[int, Bounds(1, 1_000_000)] = 192  # most tokens that a prompt and its answer may have together
    layers: Annotated[int, Bounds(1, 1000)] = 4
    heads: Annotated[int, Bounds(1, 1000)] = 4
    # of the residual stream; the hidden layer of a block is four times as wide
    width: Annotated[int, Bounds(1, 65_536)] = 128

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}")


class Block(nn.Module):
    """Attention, then a two-layer network, both added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_attention, self.norm_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """(B, T, width) -> (B, T, width); with a cache, the T tokens continue what is in it."""
        rows, length, width = x.shape
        projected = self.queries_keys_values(self.norm_attention(x))
        q, k, v = projected.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if cache is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = F.scaled_dot_product_attention(q, *cache.extend(layer, k, v), attn_mask=cache.visible)
        x = x + self.attended(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.narrow(F.gelu(self.widen(self.norm_network(x)), approximate="tanh"))


class GPT(LanguageModel):
    """Next-word logits. Make one with `new` or `load`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, cache: Cache | None = None, starts: Tensor | None = None) -> Tensor:
        if cache is None:
            at = torch.arange(tokens.shape[1])
            if len(at) > self.config.context:
                raise ValueError(f"{len(at)} tokens exceed a context of {self.config.context}")
        else:
            assert starts is not None
            at = cache.place(starts, tokens.shape[1]).clamp(max=self.config.context - 1)
        x = self.words(tokens) + self.positions(at)
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        return F.linear(self.norm(x), self.words.weight)

    def new_cache(self, rows: int, slots: int) -> Cache:
        config = self.config
        return Cache(config.layers, config.heads, config.width // config.heads, rows, slots)

    def copy(self) -> GPT:
        with torch.device("meta"):
            twin = GPT(self.config)
        twin.load_state_dict({name: tensor.clone() for name, tensor in self.state_dict().items()}, assign=True)
        return twin.requires_grad_(False).eval()


def new(config: GPTConfig, seed: int) -> GPT:
    """A fresh model, the same for the same seed; torch's global random state is neither read nor changed.

    Matrices start with a spread of 1 / sqrt(inputs), those that write to the residual stream smaller by the number of
    their kind, and embeddings with 1 / sqrt(width): at this size that learns several times faster than a fixed 0.02.
    """
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            else:
                writes = 2 * config.layers if "attended" in name or "narrow" in name else 1
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1] * writes), generator=stream)
    return model


def to_bytes(model: GPT, vocabulary: Vocabulary) -> bytes:
    """The content of a safetensors file, whose header holds size and vocabulary as JSON. Nothing is pickled."""
    from safetensors.torch import save as serialise

    about = {"format": FORMAT, "vocabulary": vocabulary.version, "words": vocabulary.words}
    header = {"about": json.dumps(about), "config": json.dumps(to_dict(model.config))}
    return serialise({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, header)


def save(model: GPT, vocabulary: Vocabulary, path: Path) -> None:
    """Write `to_bytes` to a file, whole or not at all."""
    data = to_bytes(model, vocabulary)
    write_atomically(path, lambda file: file.write(data))


def load(path: Path, vocabulary: Vocabulary) -> GPT:
    """The model that `save` wrote. UsageError where it is none, or speaks another vocabulary."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        about = json.loads(header["about"])
        spoken = about["vocabulary"]
        config = resolve(GPTConfig(), json.loads(header["config"]), str(path))
    except OSError as error:
        raise UsageError(f"cannot read model {str(path)!r}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, json.JSONDecodeError):
        raise UsageError(f"{str(path)!r} is not a driving language model: give a file that training wrote") from None
    if spoken != vocabulary.version:
        raise UsageError(f"model {str(path)!r} speaks {spoken!r}, not {vocabulary.version!r}: train it again")
    with torch.device("meta"):
        model = GPT(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError:
        raise UsageError(f"model {str(path)!r}: its weights do not fit its config; the file is damaged") from None
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


# --- distributions and draws -----------------------------------------------------------------------------------------


def log_policy(logits: Tensor, temperature: float = 1.0, allowed: Tensor | None = None) -> Tensor:
    """Log-probabilities (..., V) of the policy that is sampled from and trained: logits over temperature, words that
    are not allowed (bool, broadcast to the logits) at minus infinity."""
    scaled = logits if temperature == 1.0 else logits / temperature
    if allowed is not None:
        scaled = scaled.masked_fill(~allowed, -torch.inf)
    return torch.log_softmax(scaled, dim=-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Nats (...) of log-probabilities (..., V), which may be minus infinity."""
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(dim=-1)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The word (...) of distributions (..., V) that uniform numbers (...) in [0, 1) pick, by inverting the cumulated
    probabilities in double precision. The distributions need not be normalised, only not all zero."""
    cumulated = probs.double().cumsum(dim=-1)
    picked = torch.searchsorted(cumulated, (uniforms.double() * cumulated[..., -1])[..., None], right=True)[..., 0]
    last = (probs > 0).long().cumsum(dim=-1).argmax(dim=-1)
    return torch.minimum(picked, last)


@dataclass(slots=True)
class Completions:
    """What B rows said, padded on the right; `lengths` counts the end-of-text token where there is one."""

    tokens: Tensor
    """int64 (B, N)"""
    lengths: Tensor
    """int64 (B,)"""
    log_probs: Tensor
    """float32 (B, N), under the policy that was sampled from."""
    entropies: Tensor
    """float32 (B, N), of the distributions that the tokens were drawn from."""

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, b: int) -> tuple[int, ...]:
        """The tokens of one row, end-of-text included."""
        return tuple(self.tokens[b, : int(self.lengths[b])].tolist())


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Ragged token rows as int64 (B, longest) and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    table = np.full((len(rows), max(int(lengths.max()), 1)), fill, np.int64)
    for filled, row in zip(table, rows, strict=True):
        filled[: len(row)] = row
    return torch.from_numpy(table), lengths


class Reader:
    """Rows in progress: one model, its cache, and how far each row has come.

    The last token of a row is always still unread, so that it can be replaced until the next `read`.
    """

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], repeats: int, room: int) -> None:
        """Every prompt `repeats` times in succession, each to be continued by up to `room` tokens. The prompts are
        read once. UsageError for an empty prompt."""
        tokens, lengths = padded(prompts)
        longest = tokens.shape[1]
        if int(lengths.min()) < 1:
            raise UsageError("a prompt is empty: it needs at least one token")
        self.model = model
        cache = model.new_cache(len(prompts), longest + room)
        if longest > 1:
            model(tokens[:, : longest - 1], cache, torch.zeros(len(prompts), dtype=torch.long))
        self.cache = cache.repeat(repeats) if repeats > 1 else cache
        self.prompt_lengths = lengths.repeat_interleave(repeats)
        self.last = tokens.gather(1, lengths[:, None] - 1)[:, 0].repeat_interleave(repeats)

    def read(self, said: Tensor) -> Tensor:
        """Logits (B, V) of the token after the next, having read the unread ones; `said` (B,) tokens came before."""
        return self.model(self.last[:, None], self.cache, self.prompt_lengths + said - 1)[:, 0]


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    eos: int,
    uniforms: np.ndarray | None = None,
    repeats: int = 1,
    temperature: float = 1.0,
    allowed: Tensor | None = None,
) -> Completions:
    """Continue every prompt `repeats` times in succession (B = prompts x repeats) until `eos` or its limit.

    Args:
        model: Any.
        prompts: Token ids.
        limits: Most new tokens per prompt.
        eos: Id that ends an answer.
        uniforms: Random numbers (B, at least max(limits)) in [0, 1), one per token; None: greedy.
        repeats: Answers per prompt.
        temperature: Of the policy.
        allowed: bool, broadcast to (B, V); None: every token.

    Raises:
        UsageError: Prompt and answer exceed the model's context.
    """
    check_room(model, prompts, limits)
    most = max(limits)
    reader = Reader(model, prompts, repeats, most)
    rows = len(prompts) * repeats
    tokens = torch.zeros(rows, most, dtype=torch.long)
    log_probs, entropies = torch.zeros(rows, most), torch.zeros(rows, most)
    lengths = torch.tensor(limits).repeat_interleave(repeats)
    table = None if uniforms is None else torch.from_numpy(uniforms)
    for t in range(most):
        policy = log_policy(reader.read(torch.full((rows,), t)), temperature, allowed)
        token = policy.argmax(dim=-1) if table is None else draw(policy.exp(), table[:, t])
        tokens[:, t] = reader.last = token
        log_probs[:, t] = policy.gather(1, token[:, None])[:, 0]
        entropies[:, t] = entropy(policy)
        lengths[(token == eos) & (lengths > t)] = t + 1
        if int(lengths.max()) <= t + 1:
            break
    return Completions(tokens, lengths, log_probs, entropies)


def check_room(model: LanguageModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
    """UsageError where a prompt with its longest answer exceeds the model's context."""
    longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
    if longest > model.config.context:
        raise UsageError(
            f"prompt and answer of up to {longest} tokens exceed the model's context of {model.config.context}: "
            "allow shorter answers or make a model with a larger context"
        )
