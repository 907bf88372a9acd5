"""The colours of every picture, named by what they mean, in a light and a dark theme.

Hues are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind people can distinguish: the ego
is orange and the traffic blue. Nothing is shown by hue alone: a crash is also crossed, a brake light also grows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

Colour = tuple[int, int, int]


def rgb(code: str) -> Colour:
    """ "#e69f00" -> (230, 159, 0)."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


@functools.lru_cache(4096)
def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` in [0, 1] of `b`."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Theme:
    """The colours of a picture."""

    name: str
    ground: Colour  # beside the road
    shoulder: Colour
    asphalt: Colour
    marking: Colour
    tick: Colour  # distance marks beside the road
    panel: Colour  # strips of text
    hairline: Colour  # borders of strips, empty bars
    ink: Colour  # text
    muted: Colour  # labels
    shadow: Colour  # under vehicles
    ego: Colour  # the accent
    slow: Colour  # traffic at the lowest speed
    fast: Colour  # traffic at the highest speed
    glass: Colour
    headlight: Colour
    brake: Colour
    crash: Colour
    obstacle: Colour
    goal: Colour
    learner: Colour
    expert: Colour
    human: Colour

    def traffic(self, share: float) -> Colour:
        """Body colour at a speed.

        Args:
            share: Of the speed range, clipped to [0, 1].
        """
        return mix(self.slow, self.fast, min(max(share, 0.0), 1.0))

    def controller(self, name: str) -> Colour:
        """Colour of learner, expert or human; muted for other names."""
        return {"learner": self.learner, "expert": self.expert, "human": self.human}.get(name, self.muted)


LIGHT = Theme(
    name="light",
    ground=rgb("#f1f3ef"),
    shoulder=rgb("#d5d9dc"),
    asphalt=rgb("#bfc5cb"),
    marking=rgb("#ffffff"),
    tick=rgb("#b4bbc0"),
    panel=rgb("#ffffff"),
    hairline=rgb("#dfe3e6"),
    ink=rgb("#1d2733"),
    muted=rgb("#717c88"),
    shadow=rgb("#a3abb4"),
    ego=rgb("#f08a00"),
    slow=rgb("#1d3b66"),
    fast=rgb("#6fb4e6"),
    glass=rgb("#16202c"),
    headlight=rgb("#fff6d6"),
    brake=rgb("#e5262b"),
    crash=rgb("#b3142b"),
    obstacle=rgb("#59636e"),
    goal=rgb("#009e73"),
    learner=rgb("#f08a00"),
    expert=rgb("#a3438a"),
    human=rgb("#0072b2"),
)

DARK = Theme(
    name="dark",
    ground=rgb("#10151b"),
    shoulder=rgb("#1c232c"),
    asphalt=rgb("#29323d"),
    marking=rgb("#8f9ba8"),
    tick=rgb("#3a4552"),
    panel=rgb("#171d25"),
    hairline=rgb("#2b3541"),
    ink=rgb("#eef2f6"),
    muted=rgb("#8794a3"),
    shadow=rgb("#1c232b"),
    ego=rgb("#ffa62b"),
    slow=rgb("#3f6ca3"),
    fast=rgb("#b3dcf8"),
    glass=rgb("#0e141b"),
    headlight=rgb("#fff3c4"),
    brake=rgb("#ff4b4b"),
    crash=rgb("#ff5a6e"),
    obstacle=rgb("#7a8694"),
    goal=rgb("#2ec79b"),
    learner=rgb("#ffa62b"),
    expert=rgb("#dd7fc2"),
    human=rgb("#56b4e9"),
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}
