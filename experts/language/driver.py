"""The driving language model as a driver: it reads pictures of scenes, reasons in words, and names meta-actions.

Answers keep to their grammar whatever the weights say (`experts.language.driving_language`): where only one word can
follow it is taken, and read together with the next; elsewhere the words that cannot follow have probability 0.
Reasoning is greedy. The first meta-action comes as a distribution over the legal ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experts.language import gpt
from experts.language.driving_language import MAX_PLAN, Picture, in_english
from experts.language.gpt import GPT, padded
from experts.language.vocabulary import ACTIONS, ANSWERED, DRIVING, EOS, SPEED, TTC
from sim import assets
from sim.actions import NUM_ACTIONS
from sim.errors import UsageError

NAME = "lgdrl-driver"
WEIGHTS = "driver/model.safetensors"
"""Of the shipped model, in the assets."""
BATCH = 64
"""Pictures of one batch."""
LONGEST_REASONING = 16
"""Words of reasoning, `</think>` included."""

_VERDICT = ("safe", "unsafe", "wait", "blocked")
_STAGES: tuple[tuple[str, ...], ...] = (
    ("own",),
    ("free", "F"),
    TTC.words,
    ("limit",),
    SPEED.words,
    (";",),
    ("left",),
    _VERDICT,
    ("F", "R"),
    (";",),
    ("right",),
    _VERDICT,
    ("F", "R"),
    (";",),
    (ANSWERED,),
    ACTIONS,
    (";",),
    (EOS,),
)
"""What may be said at each stage of an answer."""
_ACTION, _NEXT, _END = 15, 16, 17
_DONE = len(_STAGES)
_IDS = tuple(tuple(DRIVING.id(word) for word in words) for words in _STAGES)
_ALLOWED = torch.stack([torch.isin(torch.arange(len(DRIVING)), torch.tensor(ids)) for ids in _IDS])
_FREE, _UNSAFE = DRIVING.id("free"), DRIVING.id("unsafe")


def _follows(stage: int, token: int, missing: int) -> int:
    """The stage after saying a token at one; `missing` meta-actions are still to come after it."""
    if stage == 1 and token == _FREE:
        return 5
    if stage in (7, 11) and token != _UNSAFE:
        return stage + 2
    if stage == _ACTION:
        return _NEXT if missing else _END
    return _ACTION if stage == _NEXT else stage + 1


@dataclass(frozen=True, slots=True)
class DriverOutput:
    """What the model says about one picture."""

    reasoning: str
    """Its words, up to `</think>`."""
    log_probs: np.ndarray
    """float64 (5,) of the first meta-action, by id; minus infinity where it is not legal."""
    plan: tuple[int, ...]
    """Its meta-actions; the first is the likeliest of `log_probs`."""
    words: tuple[tuple[str, float], ...]
    """Everything it said, with log-probabilities under the grammar."""
    prompt_tokens: int

    @property
    def reason(self) -> str:
        """Its reasoning as people read it."""
        return in_english(self.reasoning)

    @property
    def completion_tokens(self) -> int:
        return len(self.words)


class Driver:
    """A driving language model in this process. It keeps no state between calls: threads may share it."""

    def __init__(self, model: GPT, name: str = NAME) -> None:
        """UsageError where the model does not speak the driving language."""
        if model.config.vocab_size != len(DRIVING):
            raise UsageError(f"a model of {model.config.vocab_size} words does not speak {DRIVING.version!r}")
        self.name = name
        self._model = model.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | str | None = None) -> Driver:
        """The model of a file (default: the one that the package ships). UsageError where there is none.

        Other models than the shipped one are named after their weights, so that no cache takes one for another."""
        if path is not None:
            driver = cls(gpt.load(Path(path), DRIVING))
            driver.name = f"{NAME}-{driver.fingerprint[:8]}"
            return driver
        return cls(gpt.load(assets.path(WEIGHTS), DRIVING))

    @property
    def model(self) -> GPT:
        """The model, without gradients."""
        return self._model

    @property
    def parameter_count(self) -> int:
        return self._model.parameter_count

    @property
    def fingerprint(self) -> str:
        """12 hex digits of a hash of the weights."""
        digest = hashlib.sha256()
        for name, weights in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(weights.shape)}".encode() + weights.numpy().tobytes())
        return digest.hexdigest()[:12]

    def think(self, pictures: Sequence[Picture], plan: int | Sequence[int] = 1) -> list[DriverOutput]:
        """Reason about pictures, `BATCH` at a time.

        Args:
            pictures: R scenes.
            plan: Meta-actions per plan, for all of them or for each.

        Returns:
            R outputs, in order.

        Raises:
            UsageError: Prompts cannot ask for a plan of that length.
        """
        plans = [plan] * len(pictures) if isinstance(plan, int) else list(plan)
        for steps in plans:
            if not 1 <= steps <= MAX_PLAN:
                raise UsageError(f"plan = {steps}: choose 1 to {MAX_PLAN}")
        thoughts: list[DriverOutput] = []
        for start in range(0, len(pictures), BATCH):
            thoughts += self._think(pictures[start : start + BATCH], plans[start : start + BATCH])
        return thoughts

    @torch.inference_mode()
    def _think(self, pictures: Sequence[Picture], plans: Sequence[int]) -> list[DriverOutput]:
        answers = [_Answer(picture, steps) for picture, steps in zip(pictures, plans, strict=True)]
        unread = [list(answer.prompt) for answer in answers]
        room = LONGEST_REASONING + 2 * max(plans)
        longest = max(len(tokens) for tokens in unread)
        if longest + room > self._model.config.context:
            raise UsageError(
                f"prompt and plan of {longest + room} words exceed the model's context of {self._model.config.context}"
            )
        cache = self._model.new_cache(len(answers), 2 * longest + room)  # a short row's padding needs slots too
        read = [0] * len(answers)
        while not all(answer.done for answer in answers):
            for answer, tokens in zip(answers, unread, strict=True):
                tokens += answer.forced()
            fresh, lengths = padded(unread)
            logits = self._model(fresh, cache, torch.tensor(read))
            last = logits[torch.arange(len(answers)), lengths - 1]
            allowed = torch.stack([answer.allowed() for answer in answers])
            policies = torch.log_softmax(last.double().masked_fill(~allowed, -torch.inf), dim=-1)
            best = policies.argmax(dim=-1).tolist()
            for row, answer in enumerate(answers):
                if answer.done:
                    continue  # its last words are read again, at the same place
                read[row] += len(unread[row])
                answer.say(best[row], policies[row])
                unread[row] = [best[row]]
        return [answer.thought() for answer in answers]


class _Answer:
    """One answer in the making."""

    def __init__(self, picture: Picture, plan: int) -> None:
        self.prompt = DRIVING.encode(picture.prompt(plan))
        self._legal = torch.isin(torch.arange(len(DRIVING)), torch.tensor([DRIVING.id(a.name) for a in picture.legal]))
        self._stage, self._missing, self._plan_length = 0, plan, plan
        self._said: list[tuple[int, float]] = []
        self._first = np.full(NUM_ACTIONS, -np.inf)

    @property
    def done(self) -> bool:
        return self._stage == _DONE

    def forced(self) -> list[int]:
        """The words that have to follow now, taken as said."""
        words: list[int] = []
        while not self.done and len(_IDS[self._stage]) == 1:
            token = _IDS[self._stage][0]
            words.append(token)
            self._said.append((token, 0.0))
            self._stage = _DONE if self._stage == _END else _follows(self._stage, token, self._missing)
        return words

    def allowed(self) -> torch.Tensor:
        """bool (V,): what may be said next; anything when nothing is to be said any more."""
        if self.done:
            return _ALLOWED[0]
        return self._legal if self._choosing else _ALLOWED[self._stage]

    @property
    def _choosing(self) -> bool:
        """Whether the first meta-action comes next."""
        return self._stage == _ACTION and self._missing == self._plan_length

    def say(self, token: int, policy: torch.Tensor) -> None:
        """Go on with a token of a policy, log-probabilities (V,)."""
        if self._choosing:
            self._first = policy[[DRIVING.id(name) for name in ACTIONS]].numpy()
        if self._stage == _ACTION:
            self._missing -= 1
        self._said.append((token, float(policy[token])))
        self._stage = _follows(self._stage, token, self._missing)

    def thought(self) -> DriverOutput:
        words = tuple((DRIVING.words[token], value) for token, value in self._said)
        names = [word for word, _ in words]
        end = names.index(ANSWERED) + 1
        plan = tuple(ACTIONS.index(name) for name in names[end:] if name in ACTIONS)
        return DriverOutput(" ".join(names[:end]), self._first, plan, words, len(self.prompt))
