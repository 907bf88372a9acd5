"""The loop contract: what a run is made of, whatever it does between two rows of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

if TYPE_CHECKING:
    from experts.provider import PolicyProvider
    from lgdrl.evaluation import Evaluation
    from lgdrl.runs import Run

Callback = Callable[[dict[str, Any], dict[str, Any]], bool]
"""(local, global) variables of the loop that collects decisions, after each step -> whether to go on."""


class Loop(ABC):
    """A run in memory. `lgdrl.training.Trainer` advances it, writes its rows and saves it.

    Between two calls of `advance` the state is consistent, and `state_dict` holds everything that decides the rest.
    """

    unit: ClassVar[str] = "decisions"
    """What progress counts (plural): the first column of metrics.csv."""

    @property
    @abstractmethod
    def progress(self) -> int:
        """Units done so far."""

    @abstractmethod
    def advance(self, amount: int, callback: Callback | None = None) -> None:
        """Go on by about `amount` units.

        Args:
            amount: Units, at least 1.
            callback: Of Stable-Baselines3's kind, called after each step where the loop has steps.
        """

    @abstractmethod
    def row(self) -> dict[str, Any]:
        """What happened since the last row: names with a group (`train/...`, `guidance/...`, `expert/...`)."""

    def evaluate(self, episodes: int) -> Evaluation | None:
        """A point of the learning curve: the learner alone, expert off; None where the loop has none."""
        return None

    def settle(self) -> None:
        """Finish what is still pending, before the policy of a complete run is written."""

    @abstractmethod
    def write_policy(self, file: BinaryIO) -> None:
        """Write the learned policy: tensors and JSON, nothing that runs when it is read."""

    def write_exports(self, run: Run) -> None:
        """Write the policy in formats of others, beside it; none by default."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the rest of the run."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `state_dict` of a loop with the same config."""

    def begin(self) -> None:
        """Called once in the life of a run, before its first unit."""

    @abstractmethod
    def close(self) -> None:
        """Release environments, experts and files."""

    @property
    def provider(self) -> PolicyProvider | None:
        """The expert; None where the run asks none."""
        return None

    @property
    def trouble(self) -> str:
        """Why the run cannot sensibly go on, in one line; empty: it can. It is saved, and can be resumed."""
        return ""

    @property
    def learns(self) -> bool:
        """Whether a learner has been updated so far."""
        return self.progress > 0

    @property
    def statuses(self) -> Mapping[str, int]:
        """Queries to the expert so far, by the status of its decisions."""
        return {}

    @property
    def notes(self) -> list[str]:
        """What the user should know about a resumed run, one line each (logs that were lost)."""
        return []

    @property
    def labels(self) -> int:
        """Labels that the expert has given so far."""
        return 0

    @property
    def interventions(self) -> int:
        """Steps so far in which the expert had control."""
        return 0
