"""One-token labels for discrete actions: A-E, in a fixed mapping to `MetaAction`.

Letters are single tokens in every tokenizer in use, so that one forward pass scores them all without length bias.
The letter of a manoeuvre never changes: D is FASTER whether the environment has five actions or only the three
longitudinal ones (highway-env's SLOWER, IDLE, FASTER with ids 0, 1, 2). Only the scene tells which ones there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sim.actions import MetaAction
from sim.scene import Scene

LETTERS = "ABCDE"


@dataclass(frozen=True, slots=True)
class ActionSet:
    """The actions of one kind of environment: `manoeuvres[id]` says what action `id` does."""

    manoeuvres: tuple[MetaAction, ...]

    @classmethod
    def of(cls, scene: Scene) -> ActionSet:
        """What the actions of a scene do. ValueError where they are not meta-actions."""
        if not scene.meanings:
            raise ValueError(f"no labels for {len(scene.legal)} actions: they are not meta-actions")
        return cls(scene.meanings)

    def __len__(self) -> int:
        return len(self.manoeuvres)

    def label(self, action: int) -> str:
        """The letter of action `action`."""
        return LETTERS[self.manoeuvres[action]]

    def name(self, action: int) -> str:
        """The name of action `action`, for example "LANE_LEFT"."""
        return self.manoeuvres[action].name

    def labels(self, actions: Iterable[int]) -> list[str]:
        """Letters of several actions, in their order."""
        return [self.label(action) for action in actions]

    def from_label(self, label: str) -> int | None:
        """The id behind a letter, None for a letter that means nothing here."""
        return next((i for i in range(len(self)) if self.label(i) == label), None)

    def from_name(self, name: str) -> int | None:
        """The id behind a name, None for an unknown one."""
        return next((i for i in range(len(self)) if self.name(i) == name), None)

    def find(self, manoeuvre: MetaAction) -> int | None:
        """The id that does `manoeuvre`, None where there is no such action."""
        return self.manoeuvres.index(manoeuvre) if manoeuvre in self.manoeuvres else None
