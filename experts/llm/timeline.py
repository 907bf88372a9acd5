"""The moments of one query: what a latency is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

PARTS = ("build", "queue", "retries", "first_byte", "first_token", "decode", "close", "parse")
"""In order of time; see `RequestTimeline.parts`."""


@dataclass(slots=True)
class RequestTimeline:
    """Moments as `time.monotonic()` values; None where nothing of the kind happened (a cached answer sends nothing).

    Where a query needed a repair or a retry, the moments from `sent` on are those of the last attempt.
    """

    begin: float
    """The expert was asked."""
    built: float | None = None
    """The prompt was finished."""
    started: float | None = None
    """One of the client's slots was free for it."""
    sent: float | None = None
    """The request went out."""
    first_byte: float | None = None
    """The first byte of the body came."""
    heard: list[tuple[float, int]] = field(default_factory=list)
    """Whenever the text of a streamed answer had grown: the moment, and its length in characters then."""
    done: float | None = None
    """The answer was complete."""
    end: float | None = None
    """The answer was read and checked."""
    acted: int | None = None
    """Characters of the answer after which its action was certain; None where it names none."""
    output_tokens: int | None = None
    """Tokens of the answer, where the endpoint counts them."""

    def send(self, now: float) -> None:
        """A new attempt begins."""
        self.sent, self.first_byte, self.done, self.heard = now, None, None, []

    @property
    def first_token(self) -> float | None:
        """When the first text that is not empty came; only known of streams."""
        return self.heard[0][0] if self.heard else None

    @property
    def first_action(self) -> float | None:
        """When so much text had come that the action was certain."""
        if self.acted is None:
            return None
        return next((moment for moment, length in self.heard if length >= self.acted), None)

    @property
    def gaps(self) -> list[float]:
        """Seconds between the pieces of a stream."""
        return [late[0] - early[0] for early, late in zip(self.heard, self.heard[1:], strict=False)]

    def parts(self) -> dict[str, float]:
        """The latency in seconds by `PARTS`, as far as the moments are known; they add up to `end - begin`.

        build: scene to prompt, answer cache included. queue: for a free slot. retries: lost in attempts before the
        last and in the pauses between them. first_byte: the network both ways, and whatever the endpoint does before it
        begins its answer. first_token: from there to the first text. decode: to the last text. close: to the end of the
        body. parse: to the checked action.
        """
        marks = (
            ("build", self.built),
            ("queue", self.started),
            ("retries", self.sent),
            ("first_byte", self.first_byte),
            ("first_token", self.first_token),
            ("decode", self.heard[-1][0] if self.heard else None),
            ("close", self.done),
            ("parse", self.end),
        )
        found, before = {}, self.begin
        for name, moment in marks:
            if moment is not None:
                found[name] = moment - before
                before = moment
        return found
