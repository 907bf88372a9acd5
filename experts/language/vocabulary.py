"""Closed word-level vocabularies: every word that a driving language model can read or write, and its id.

Text is words separated by single spaces. Numbers do not occur as digits: they are bins, one word each (`g3` is a gap of
7.5 to 10 m), so that a model of a million parameters need not learn to count. `DRIVING` is the vocabulary of this
project. A vocabulary is known by its version, a name and a hash of its words: models keep it, and refuse another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sim.actions import MetaAction
from sim.config import fingerprint
from sim.errors import UsageError, unknown

PAD, EOS, THINK, ANSWERED, HINT, HINTED = SPECIALS = ("<pad>", "<eos>", "<think>", "</think>", "<hint>", "</hint>")
"""Filling; the end of an answer; where an answer begins and where its reasoning ends; around a hint in a prompt."""


@dataclass(frozen=True, slots=True)
class Bins:
    """A quantity as words: bin i holds the values from i x width up to (i + 1) x width, or, where `centred`, those
    nearest to i x width. The outermost bins hold everything beyond."""

    prefix: str
    width: float
    lowest: int
    highest: int
    centred: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}{i}" for i in range(self.lowest, self.highest + 1))

    def word(self, value: float) -> str:
        """The word for a value (infinities are the outermost bins). ValueError for NaN."""
        if math.isnan(value):
            raise ValueError(f"no bin of {self.prefix!r} holds NaN")
        index = value / self.width + (0.5 if self.centred else 0.0)
        return f"{self.prefix}{math.floor(min(max(index, self.lowest), self.highest))}"

    def value(self, word: str) -> float:
        """The middle of a word's bin. ValueError for a word that is none of these bins'."""
        if word not in self.words:
            raise ValueError(f"{word!r} is not a bin of {self.prefix!r}")
        index = int(word.removeprefix(self.prefix))
        return (index if self.centred else index + 0.5) * self.width


GAP = Bins("g", 2.5, 0, 31)
"""Bumper to bumper, m."""
CLOSING = Bins("c", 1.0, -14, 14, centred=True)
"""Speed at which a gap shrinks, m/s."""
TTC = Bins("t", 1.0, 0, 7)
"""Seconds until two cars meet; `t7` also when they never do."""
SPEED = Bins("v", 1.0, 0, 39, centred=True)
"""m/s."""
REMAINING = Bins("r", 25.0, 0, 20)
"""Metres left to a goal."""
LANE = Bins("l", 1.0, 0, 7, centred=True)
"""Lane index, 0 being the leftmost."""
COUNT = Bins("", 1.0, 0, 9, centred=True)
"""Small whole numbers: of lanes, of steps."""
BINS = (GAP, CLOSING, TTC, SPEED, REMAINING, LANE, COUNT)

PUNCTUATION = (";",)
ACTIONS = tuple(action.name for action in MetaAction)
PLACES = ("own", "left", "right", "F", "R", "none")
"""Lanes seen from the ego, the car ahead (F) and behind (R), no car."""
VERDICTS = ("safe", "unsafe", "blocked", "wait", "free")
WORDS = ("lanes", "ego", "to", "goal", "legal", "plan", "limit")


class Vocabulary:
    """Words and their ids. Immutable; safe to share."""

    def __init__(self, name: str, words: Iterable[str]) -> None:
        """`words` must contain `<pad>` and `<eos>`. UsageError for a duplicate or a word that text cannot hold."""
        self.name = name
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        broken = [word for word in self.words if word.split() != [word]]
        if broken or len(self._ids) != len(self.words):
            twice = broken or [word for word in self._ids if self.words.count(word) > 1]
            raise UsageError(f"vocabulary {name!r}: {twice[0]!r} is empty, holds a space or occurs twice")
        if PAD not in self._ids or EOS not in self._ids:
            raise UsageError(f"vocabulary {name!r} has no {PAD} or no {EOS}: add both")
        self.pad, self.eos = self._ids[PAD], self._ids[EOS]
        self.version = f"{name}-{fingerprint({'words': self.words})}"

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def id(self, word: str) -> int:
        """UsageError for a word that is not in the vocabulary."""
        if word not in self._ids:
            raise unknown(f"word for vocabulary {self.name!r}", word, self._ids)
        return self._ids[word]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the words of a text. UsageError for a word that is not in the vocabulary."""
        return tuple(self.id(word) for word in text.split())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; `encode` of it gives them back. UsageError for an id that does not exist."""
        wrong = [int(i) for i in ids if not 0 <= i < len(self.words)]
        if wrong:
            raise UsageError(f"token {wrong[0]}: vocabulary {self.name!r} has ids 0 to {len(self.words) - 1}")
        return " ".join(self.words[i] for i in ids)


DRIVING = Vocabulary(
    "driving-1",
    [*SPECIALS, *PUNCTUATION, *ACTIONS, *PLACES, *VERDICTS, *(word for bins in BINS for word in bins.words), *WORDS],
)
"""What the driving task is written in. A changed word list changes the version; rename it when it does."""
