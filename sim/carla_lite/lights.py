"""Traffic lights that change with time, junction by junction, as CARLA's do.

A group is a junction. Its controllers are its phases: one after the other they turn green, then yellow, then red. All
stay red until that phase's red time is over and the next phase turns green. Times belong to phases, as in CARLA:
setting them for one light sets them for all lights of its phase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.carla_lite.roads import RoadMap
from sim.carla_lite.signals import Signal
from sim.errors import UsageError

RED, YELLOW, GREEN, OFF = 0, 1, 2, 3
"""As in `carla.TrafficLightState`."""
SEQUENCE = (GREEN, YELLOW, RED)
ROUNDING = 1e-9
"""Seconds that a sum of steps may be short of a time."""


@dataclass
class Times:
    """Seconds of a phase. `red` is the clearance after its yellow, in which all lights of the group are red."""

    green: float = 10.0
    yellow: float = 3.0
    red: float = 2.0

    def of(self, state: int) -> float:
        """Seconds of a state."""
        return {GREEN: self.green, YELLOW: self.yellow, RED: self.red}[state]


@dataclass
class Light:
    """One traffic light."""

    signal: str
    group: int
    phase: int
    pole: int
    """Its number in the group."""
    times: Times
    """Shared with its phase."""
    state: int = RED
    elapsed: float = 0.0
    """Seconds in its state."""
    frozen: bool = False


@dataclass
class LightGroup:
    """The lights of a junction. `frozen` stops its clock."""

    junction: str | None
    phases: list[list[Light]]
    times: list[Times]
    current: int = 0
    """The phase whose turn it is."""
    state: int = GREEN
    """State of that phase."""
    elapsed: float = 0.0
    """Seconds in that state."""
    frozen: bool = False
    lights: list[Light] = field(init=False)

    def __post_init__(self) -> None:
        self.lights = [light for phase in self.phases for light in phase]
        self._show(range(len(self.phases)))

    def step(self, dt: float) -> None:
        """Advance the cycle by dt seconds."""
        if self.frozen:
            return
        for light in self.lights:
            light.elapsed += dt
        self.elapsed += dt
        cycle = sum(times.green + times.yellow + times.red for times in self.times)
        if cycle <= len(SEQUENCE) * len(self.phases) * ROUNDING:
            return
        self.elapsed %= cycle
        while (left := self.elapsed - self.times[self.current].of(self.state)) >= -ROUNDING:
            self._advance(max(left, 0.0))

    def freeze(self, frozen: bool) -> None:
        """Stop or start the clock."""
        self.frozen = frozen
        for light in self.lights:
            light.frozen = frozen

    def reset(self) -> None:
        """Back to the first phase's green. Times stay as they were set; frozen groups stay frozen."""
        self.current, self.state, self.elapsed = 0, GREEN, 0.0
        self._show(range(len(self.phases)))
        for light in self.lights:
            light.elapsed = 0.0

    def _advance(self, elapsed: float) -> None:
        """To the next state, which began `elapsed` seconds ago."""
        before, self.elapsed = self.current, elapsed
        if self.state == RED:
            self.current = (self.current + 1) % len(self.phases)
        self.state = SEQUENCE[(SEQUENCE.index(self.state) + 1) % len(SEQUENCE)]
        self._show({before, self.current})

    def _show(self, phases: Iterable[int]) -> None:
        """Set the lights of phases to their state in the cycle."""
        for k in phases:
            state = self.state if k == self.current else RED
            for light in self.phases[k]:
                if light.state != state:
                    light.state, light.elapsed = state, self.elapsed


class TrafficLights:
    """All traffic lights of a map. Times in seconds."""

    def __init__(self, road_map: RoadMap, times: Times | None = None) -> None:
        """Begin all cycles.

        Args:
            road_map: Its signals and controllers.
            times: Of every phase at the start; CARLA's defaults where None.

        Raises:
            UsageError: A time is negative or not finite.
        """
        start = times or Times()
        check_times(start.green, start.yellow, start.red)
        self.groups = [
            _group(number, junction, phases, start) for number, (junction, phases) in enumerate(_phases(road_map))
        ]
        self._by_signal = {light.signal: light for group in self.groups for light in group.lights}

    @property
    def lights(self) -> list[Light]:
        return list(self._by_signal.values())

    def light(self, signal: str) -> Light:
        """A light by its OpenDRIVE id.

        Raises:
            UsageError: There is no such traffic light.
        """
        light = self._by_signal.get(signal)
        if light is None:
            raise UsageError(f"there is no traffic light {signal!r} (known: {', '.join(sorted(self._by_signal))})")
        return light

    def group_of(self, signal: str) -> LightGroup:
        """The group of a light.

        Raises:
            UsageError: There is no such traffic light.
        """
        return self.groups[self.light(signal).group]

    def step(self, dt: float) -> None:
        """Advance all cycles by dt seconds."""
        for group in self.groups:
            group.step(dt)

    def set_state(self, signal: str, state: int) -> None:
        """Override one light until the next change of its phase.

        Args:
            signal: OpenDRIVE id.
            state: `RED`, `YELLOW`, `GREEN` or `OFF`.

        Raises:
            UsageError: There is no such light or state.
        """
        if state not in (RED, YELLOW, GREEN, OFF):
            raise UsageError(f"state {state} of light {signal!r}: choose 0 (red), 1 (yellow), 2 (green), 3 (off)")
        light = self.light(signal)
        light.state, light.elapsed = state, 0.0

    def set_times(
        self, signal: str, green: float | None = None, yellow: float | None = None, red: float | None = None
    ) -> None:
        """Set the times of a light's phase; None leaves a time as it is.

        Args:
            signal: OpenDRIVE id.
            green: s.
            yellow: s.
            red: s.

        Raises:
            UsageError: There is no such light, or a time is negative or not finite.
        """
        times = self.light(signal).times
        green = times.green if green is None else green
        yellow = times.yellow if yellow is None else yellow
        red = times.red if red is None else red
        check_times(green, yellow, red)
        times.green, times.yellow, times.red = green, yellow, red

    def freeze(self, signal: str, frozen: bool = True) -> None:
        """Stop or start the clock of a light's group, as CARLA's `TrafficLight.freeze` does."""
        self.group_of(signal).freeze(frozen)

    def freeze_all(self, frozen: bool = True) -> None:
        """Stop or start all clocks."""
        for group in self.groups:
            group.freeze(frozen)

    def reset(self) -> None:
        """Begin all cycles again; times and frozen clocks stay as they are."""
        for group in self.groups:
            group.reset()


def check_times(green: float, yellow: float, red: float) -> None:
    """UsageError for a time that is negative or not finite."""
    for name, value in (("green", green), ("yellow", yellow), ("red", red)):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name} time {value:g} s of a traffic light: choose 0 or more")


def _group(number: int, junction: str | None, phases: list[list[Signal]], times: Times) -> LightGroup:
    own = [Times(times.green, times.yellow, times.red) for _ in phases]
    poles = iter(range(sum(map(len, phases))))
    lights = [
        [Light(signal.id, number, k, next(poles), own[k]) for signal in signals] for k, signals in enumerate(phases)
    ]
    return LightGroup(junction, lights, own)


def _phases(road_map: RoadMap) -> list[tuple[str | None, list[list[Signal]]]]:
    """Each junction with its signals by phase. Without a controller, the lights of one road form a phase.

    Lights that belong to no junction form a group per controller, or one each.
    """
    sequence = {controller.id: controller.sequence for controller in road_map.drive.controllers.values()}
    groups: dict[tuple[str | None, str], dict[tuple[int, str], list[Signal]]] = {}
    for signal in road_map.signals:
        if signal.controller is not None:
            phase = sequence[signal.controller], signal.controller
        else:
            phase = len(sequence), signal.stops[0].road if signal.stops else signal.id
        group = signal.junction, "" if signal.junction is not None else (signal.controller or signal.id)
        groups.setdefault(group, {}).setdefault(phase, []).append(signal)
    return [(junction, [phases[key] for key in sorted(phases)]) for (junction, _), phases in groups.items()]
