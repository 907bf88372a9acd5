"""What trainers, teachers and drivers need of a language model, whatever it is made of, and the cache it reads with.

`experts.language.gpt` is one in plain torch; `baselines.language.hf` puts transformers models behind the same members.

Shapes: B rows, T tokens, V words, S slots of a cache.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class Cache:
    """Keys and values of B rows. Writing at an index replaces what was there; what lies beyond is never attended to."""

    def __init__(self, layers: int, heads: int, size: int, rows: int, slots: int) -> None:
        """Reserve memory.

        Args:
            layers: Of the model.
            heads: Of keys and values.
            size: Width of one head.
            rows: B.
            slots: S.
        """
        shape = (layers, rows, heads, slots, size)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
        self._rows = torch.arange(rows)[:, None]
        self._at = torch.zeros(rows, 0, dtype=torch.long)
        self.visible = torch.zeros(0)
        """bool (B, 1, T, S): what each of the tokens that are being read may attend to."""

    @property
    def slots(self) -> int:
        return self.keys.shape[3]

    def place(self, starts: Tensor, length: int) -> Tensor:
        """Say that `length` tokens per row come next, the first at index starts (B,). Returns their indices (B, T)."""
        self._at = starts[:, None] + torch.arange(length)
        used = int(self._at.max()) + 1
        if used > self.slots:
            raise ValueError(f"a cache of {self.slots} slots cannot hold {used} tokens")
        self.visible = (torch.arange(used) <= self._at[:, :, None])[:, None]
        return self._at

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, heads, T, size) at the placed indices; returns all keys and values that may be attended to."""
        used = self.visible.shape[-1]
        self.keys[layer][self._rows, :, self._at] = keys.transpose(1, 2)
        self.values[layer][self._rows, :, self._at] = values.transpose(1, 2)
        return self.keys[layer][:, :, :used], self.values[layer][:, :, :used]

    def repeat(self, times: int) -> Cache:
        """Every row `times` times in succession."""
        copy = object.__new__(Cache)
        copy.keys, copy.values = (x.repeat_interleave(times, dim=1) for x in (self.keys, self.values))
        copy._rows = torch.arange(copy.keys.shape[1])[:, None]
        copy._at, copy.visible = torch.zeros(len(copy._rows), 0, dtype=torch.long), torch.zeros(0)
        return copy


class ModelConfig(Protocol):
    """What is asked of a model's config, a frozen dataclass; checkpoints remember all of its fields."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int:
        """Most tokens that a prompt and its answer may have together."""
        ...


class LanguageModel(nn.Module):
    """Next-word logits over a closed vocabulary. Its registered parameters are what training changes, `state_dict` and
    checkpoints hold nothing else."""

    config: Any
    """A `ModelConfig`."""

    @abstractmethod
    def forward(self, tokens: Tensor, cache: Cache | None = None, starts: Tensor | None = None) -> Tensor:
        """Logits (B, T, V): row b, index t is about the token that follows tokens[b, t].

        Args:
            tokens: int (B, T), padded on the right with anything.
            cache: The tokens continue it; None: they begin a text.
            starts: With a cache, the index (B,) of each row's first token. Indices beyond the context may only be
                padding.
        """

    @abstractmethod
    def new_cache(self, rows: int, slots: int) -> Cache:
        """An empty cache of that many rows and tokens."""

    @abstractmethod
    def copy(self) -> Self:
        """The same model, not to be trained; training this one does not change it."""

    @property
    def parameter_count(self) -> int:
        """Of the parameters that training changes."""
        return sum(p.numel() for p in self.parameters())
