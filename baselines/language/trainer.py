"""The one training loop of all arms: prompts, groups, advantages, gradient; rows of metrics; checkpoints.

Deterministic by seed on one machine: random numbers come from separate streams for the order of prompts, the words of
bare groups, and the strategy, so that arms which agree up to some point have equal bits up to there. A checkpoint is
one safetensors file (weights, optimiser, streams, books); a run that is resumed from it continues to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.language.grpo import Batch, GRPOConfig, grpo_loss, token_log_probs
from baselines.language.rollout import Desk, Group, Ledger, Rollout, Source
from baselines.language.strategy import Setting, Strategy, mean
from baselines.language.task import Prompt, Task
from experts.language.gpt import log_policy, padded
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider
from sim.config import to_dict
from sim.errors import UsageError
from sim.files import write_atomically

PART = 48
"""Completions per backward pass: bounds memory; the gradient of a step is the sum over its parts."""

Row = dict[str, Any]
Weighed = list[tuple[Rollout, float]]


class Trainer:
    """A run of reinforcement learning in memory. `model` is trained in place."""

    def __init__(
        self,
        task: Task,
        model: LanguageModel,
        build: Callable[[Setting], Strategy],
        config: GRPOConfig,
        seed: int,
        teacher: TokenProvider | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """`build` makes the strategy; `ledger` holds what was spent before (on imitation). UsageError where the task
        has no prompts, or task, model and teacher do not speak one vocabulary."""
        torch.set_num_threads(1)
        _check_vocabulary(task, model, teacher)
        order, words, own = np.random.SeedSequence(seed).spawn(3)
        self.task, self.model, self.config, self.seed = task, model.requires_grad_(True), config, seed
        self.strategy = build(Setting(own, teacher))
        self.desk = Desk(task, model, config, np.random.default_rng(words), ledger or Ledger())
        self.reference = model.copy() if config.beta > 0 else None
        self.rows: list[Row] = []
        self.rollouts: list[Rollout] = []
        """What the last update learned from."""
        self.optimiser = torch.optim.AdamW(
            model.parameters(),
            config.learning_rate,
            (config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
        )
        self._prompts = task.prompts("train")
        if not self._prompts:
            raise UsageError(f"task {task.name!r} has no training prompts: give it some")
        self._order = np.random.default_rng(order)
        self._waiting: list[int] = []

    @property
    def updates(self) -> int:
        return self.desk.update

    def train(
        self, max_steps: int, max_tokens: int | None = None, observer: Callable[[Row], None] | None = None
    ) -> list[Row]:
        """Update until `max_steps` updates were made, or `max_tokens` tokens generated, over the whole run."""
        while self.updates < max_steps and (max_tokens is None or self.desk.ledger.generated < max_tokens):
            row = self.step()
            if observer:
                observer(row)
        return self.rows

    def step(self) -> Row:
        """One update; returns its row."""
        desk, strategy = self.desk, self.strategy
        desk.update += 1
        desk.bare = []
        groups = strategy.collect(self._next_prompts(), desk)
        advantages = strategy.advantages(groups, self.config)
        learned = self._learn(groups, advantages)
        self.rollouts = [rollout for group in groups for rollout in group.rollouts]
        own = [r for r in self.rollouts if r.source is Source.STUDENT]
        row: Row = {
            "update": desk.update,
            **desk.ledger.to_dict(),
            "success": mean([r.reward.success for r in desk.bare]),
            "reward": mean([r.reward.total for r in desk.bare]),
            "format": mean([r.reward.format for r in desk.bare]),
            "entropy": mean(np.concatenate([r.entropies for r in desk.bare]) if desk.bare else []),
            "length": mean([len(r.answer) for r in desk.bare]),
            "trained_success": mean([r.reward.success for r in own]),
            "groups": len(groups),
            "zero_advantage_share": mean([not np.any(a) for a in advantages]),
            **learned,
            **strategy.metrics(),
        }
        self.rows.append(row)
        return row

    def _next_prompts(self) -> list[Prompt]:
        """Every prompt once before any comes again, in an order of its own each time."""
        while len(self._waiting) < self.config.prompts_per_update:
            self._waiting += self._order.permutation(len(self._prompts)).tolist()
        now = [self._waiting.pop(0) for _ in range(self.config.prompts_per_update)]
        return [self._prompts[i] for i in now]

    # --- the gradient --------------------------------------------------------------------------------------------

    def _learn(self, groups: Sequence[Group], advantages: Sequence[np.ndarray]) -> Row:
        """Passes and steps over what was generated. A step without any advantage is not taken."""
        config = self.config
        steps = []
        for share in np.array_split(np.arange(len(groups)), config.steps_per_generation):
            steps.append([pair for g in share for pair in zip(groups[g].rollouts, advantages[g], strict=True)])
        moves = config.num_iterations * config.steps_per_generation > 1
        prepared = [self._prepare(step, moves) for step in steps]
        logged = [self._optimise(parts) for _ in range(config.num_iterations) for parts in prepared if parts]
        columns = ("loss", "grad_norm", "clip_share", *(["kl"] if self.reference is not None else []))
        return {name: mean([values[name] for values in logged]) for name in columns} | {"steps": len(logged)}

    def _prepare(self, step: Weighed, moves: bool) -> list[_Part]:
        """The parts of one optimiser step; old log-probabilities where the policy will have moved by then."""
        ties_matter = self.config.beta > 0 or self.strategy.learns_from_ties
        kept = [(rollout, a) for rollout, a in step if a != 0 or ties_matter]
        totals = len(step), sum(_learned_tokens(rollout) for rollout, _ in step)
        parts = []
        for start in range(0, len(kept), PART):
            pairs = kept[start : start + PART]
            batch = pack(pairs, *totals)
            part = _Part([rollout for rollout, _ in pairs], batch)
            with torch.no_grad():
                if moves:
                    part.old = token_log_probs(self._policies(self.model, batch), batch)
                if self.reference is not None:
                    part.reference = token_log_probs(self._policies(self.reference, batch), batch)
            parts.append(part)
        return parts

    def _optimise(self, parts: Sequence[_Part]) -> dict[str, float]:
        sums: dict[str, float] = {"loss": 0.0}
        for part in parts:
            policies = self._policies(self.model, part.batch)
            log_probs = token_log_probs(policies, part.batch)
            loss, logged = grpo_loss(log_probs, part.batch, self.config, part.old, part.reference)
            extra = self.strategy.extra_loss(part.rollouts, part.batch, policies)
            if extra is not None:
                loss = loss + extra
            loss.backward()
            logged["loss"] = float(loss.detach())
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {**sums, "grad_norm": float(norm)}

    def _policies(self, model: LanguageModel, batch: Batch) -> Tensor:
        """Log-probabilities (R, T - 1, V) of the policy that is trained."""
        return log_policy(model(batch.tokens[:, :-1]), self.config.temperature, self.desk.allowed)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that decides the rest of the run."""
        from safetensors.torch import save as serialise

        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.reference is not None:
            tensors |= {f"reference.{name}": tensor for name, tensor in self.reference.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}.{key}"] = value
        about = {
            "identity": self._identity(),
            "update": self.updates,
            "ledger": {name: getattr(self.desk.ledger, name) for name in ("student", "search", "teacher", "trace")},
            "order": self._order.bit_generator.state,
            "waiting": self._waiting,
            "words": self.desk.stream.bit_generator.state,
            "strategy": self.strategy.state_dict(),
            "rows": self.rows,
        }
        data = serialise({n: t.detach().contiguous().clone() for n, t in tensors.items()}, {"run": json.dumps(about)})
        write_atomically(path, lambda file: file.write(data))

    def restore(self, path: Path) -> None:
        """Continue where `save` was called, in a trainer made with the same arguments. UsageError otherwise."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except OSError as error:
            raise UsageError(f"cannot read checkpoint {str(path)!r}: {error.strerror or error}") from None
        except (SafetensorError, KeyError, json.JSONDecodeError):
            raise UsageError(f"{str(path)!r} is not a checkpoint of this trainer") from None
        for key, here in self._identity().items():
            there = about["identity"].get(key)
            if there != here:
                raise UsageError(
                    f"checkpoint {str(path)!r} is of another run: its {key} is {there!r}, here {here!r}; "
                    "resume with what it was started with"
                )
        self.model.load_state_dict(_under("model.", tensors))
        if self.reference is not None:
            self.reference.load_state_dict(_under("reference.", tensors))
        for name, parameter in self.model.named_parameters():
            state = _under(f"optimiser.{name}.", tensors)
            if state:
                self.optimiser.state[parameter] = state
        self.desk.update = about["update"]
        for name, value in about["ledger"].items():
            setattr(self.desk.ledger, name, value)
        self._order.bit_generator.state = about["order"]
        self._waiting = about["waiting"]
        self.desk.stream.bit_generator.state = about["words"]
        self.strategy.load_state_dict(about["strategy"])
        self.rows = about["rows"]

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        arm = self.strategy.config
        parts = {"grpo": self.config, "model": self.model.config} | ({} if arm is None else {"options": arm})
        named = {f"{part}.{name}": value for part, config in parts.items() for name, value in to_dict(config).items()}
        return {"task": self.task.name, "arm": self.strategy.name, "seed": self.seed, **named}


class _Part:
    """What goes through the model at once."""

    def __init__(self, rollouts: list[Rollout], batch: Batch) -> None:
        self.rollouts, self.batch = rollouts, batch
        self.old: Tensor | None = None
        self.reference: Tensor | None = None


def pack(pairs: Weighed, completions: int, total_tokens: int) -> Batch:
    """Rollouts and their advantages as one batch of a step that has so many completions and learned tokens in all."""
    tokens, _ = padded([[*rollout.context, *rollout.tokens] for rollout, _ in pairs])
    learned = np.zeros((len(pairs), tokens.shape[1] - 1), bool)
    for row, (rollout, _) in zip(learned, pairs, strict=True):
        begin = len(rollout.context)
        row[begin - 1 : begin + len(rollout.tokens) - 1] = True
        if rollout.learned_opening is not None:
            row[begin - len(rollout.opening) - 1 : begin - 1] = rollout.learned_opening
    return Batch(
        tokens,
        torch.from_numpy(learned),
        torch.tensor([a for _, a in pairs], dtype=torch.float32),
        torch.tensor([rollout.shaping for rollout, _ in pairs], dtype=torch.float32),
        completions,
        total_tokens,
    )


def _learned_tokens(rollout: Rollout) -> int:
    opening = 0 if rollout.learned_opening is None else int(rollout.learned_opening.sum())
    return len(rollout.tokens) + opening


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_vocabulary(task: Task, model: LanguageModel, teacher: TokenProvider | None) -> None:
    words = len(task.vocabulary)
    if model.config.vocab_size != words:
        raise UsageError(
            f"the model has {model.config.vocab_size} words, task {task.name!r} has {words}: "
            f"make one with vocab_size = {words}"
        )
    if teacher is not None and teacher.vocabulary != task.vocabulary.version:
        raise UsageError(
            f"teacher {teacher.name!r} speaks {teacher.vocabulary!r}, task {task.name!r} speaks "
            f"{task.vocabulary.version!r}: only a teacher of the same vocabulary can be mixed in"
        )
