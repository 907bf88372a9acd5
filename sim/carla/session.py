"""A connection to one CARLA server: synchronous, with fixed steps, and left as it was found.

A client that dies in synchronous mode leaves a frozen server and its actors behind; both are the most reported problems
of CARLA's users. A session therefore restores the settings and destroys its actors on every way out. On the way in it
removes what an earlier session left: vehicles whose role name begins with `ROLE`, and all sensors without a parent.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import socket
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.carla.config import STEP
from sim.carla.errors import (
    SimCrashed,
    SimError,
    SimTimeout,
    SimUnreachable,
    SimVersionMismatch,
    SpawnRefused,
)
from sim.errors import UsageError

log = logging.getLogger("sim.carla")
ROLE = "carla-env"
"""Prefix of the role names of this adapter's vehicles."""
LITE = "carla-lite kinematic"
"""The simulator that results name: it must not be confused with Unreal's physics."""
LITE_MAPS = "CarlaLite/"
"""Prefix of the names of carla-lite's maps, by which such a server is recognised."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
"""Seconds between attempts to connect, doubling."""
FRAME_PATIENCE = 2.0
"""Seconds for a frame before the session checks whether the server is alive."""
SENSOR_THREADS = 4
"""Worker threads of the client: sensors + 2. With as many threads as cores it can deadlock on two cores."""
MESH = {
    "vertex_distance": 2.0,
    "max_road_length": 50.0,
    "wall_height": 0.0,
    "additional_width": 0.6,
    "smooth_junctions": True,
    "enable_mesh_visibility": True,
}
"""How a real server builds the ground of an OpenDRIVE map: no walls beside the road."""


@dataclass(frozen=True)
class Address:
    """Where a server listens for calls."""

    host: str = "127.0.0.1"
    port: int = 2000

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Patience:
    """Time limits, s."""

    connect: float = 30.0  # until the first response
    load: float = 120.0  # for a map
    response: float = 20.0  # for any other call, and for a frame


def client_module() -> Any:
    """The `carla` package.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import carla
    except ImportError:
        raise UsageError(
            "the CARLA client is not installed: pip install 'lgdrl[carla]' (CPython 3.10 to 3.12, Linux x86-64)"
        ) from None
    return carla


@dataclass
class CarlaSession:
    """See the module's docstring. `alive()` returns False where the server process is known to have ended."""

    address: Address
    patience: Patience = field(default_factory=Patience)
    alive: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        self.carla = client_module()
        self.client: Any = None
        self.world: Any = None
        self.map: Any = None
        self.frame = 0
        self._found_settings: Any = None
        self._managers: list[Any] = []
        self._sensors: list[Any] = []
        """Sensors of this session."""
        self._ids: list[int] = []
        """Its other actors."""
        self._close_at_exit = _close_later(self)

    # -- connecting ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, check versions, remove what earlier sessions left, and make the world synchronous.

        Raises:
            SimUnreachable: No server responded in time.
            SimVersionMismatch: The server has another version than the client.
            SimError: The server failed.
        """
        self.client = self._first_response()
        mine, theirs = self.client.get_client_version(), self.client.get_server_version()
        if _release(mine) != _release(theirs):
            raise SimVersionMismatch(
                f"the CARLA server at {self.address} is version {theirs}, the client {mine}: use the same version"
            )
        self.client.set_timeout(self.patience.response)
        with self._guarded("describe its world"):
            self._adopt(self.client.get_world())
            self._found_settings = self.world.get_settings()
            self._synchronise()
            self.sweep()

    def _first_response(self) -> Any:
        """A client whose server has responded once; the delay between attempts doubles."""
        deadline, delay = time.monotonic() + self.patience.connect, FIRST_DELAY
        while True:
            if not self.alive():
                raise SimCrashed(f"the CARLA server for {self.address} ended before its first response: see its output")
            left = deadline - time.monotonic()
            if left <= 0:
                raise SimUnreachable(
                    f"no CARLA server responds at {self.address} within {self.patience.connect:g} s: start one "
                    "(`lgdrl carla-lite`, or CarlaUE4.sh), or name another address"
                )
            if _listens(self.address):
                client = self.carla.Client(self.address.host, self.address.port, SENSOR_THREADS)
                client.set_timeout(min(max(left, 0.1), self.patience.response))
                try:
                    client.get_server_version()
                    return client
                except RuntimeError:
                    pass
            if delay == FIRST_DELAY:
                log.warning("waiting for a CARLA server at %s, up to %g s", self.address, left)
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _adopt(self, world: Any) -> None:
        self.world, self.map = world, world.get_map()

    def _synchronise(self) -> None:
        settings = self.world.get_settings()
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = STEP
        self.world.apply_settings(settings)

    @property
    def lite(self) -> bool:
        """Whether the server is carla-lite."""
        return self.map.name.startswith(LITE_MAPS)

    @property
    def backend(self) -> str:
        """The simulator that results name."""
        return LITE if self.lite else f"carla {self.client.get_server_version()}"

    # -- maps ----------------------------------------------------------------------------------------------------------

    def load_opendrive(self, text: str, afresh: bool = False) -> None:
        """Load an OpenDRIVE map.

        Args:
            text: OpenDRIVE text.
            afresh: Load it even where it is loaded already.

        Raises:
            SimError: The server failed.
        """
        if not afresh and self.map.to_opendrive() == text:
            return
        parameters = self.carla.OpendriveGenerationParameters(**MESH)
        self._load("an OpenDRIVE map", lambda: self.client.generate_opendrive_world(text, parameters))

    def load_town(self, name: str, afresh: bool = False) -> None:
        """Load one of the server's own maps.

        Args:
            name: Name without path.
            afresh: Load it even where it is loaded already.

        Raises:
            UsageError: The server does not have this map.
            SimError: The server failed.
        """
        if not afresh and self.map.name.rpartition("/")[2] == name:
            return
        with self._guarded("list its maps"):
            names = sorted(path.rpartition("/")[2] for path in self.client.get_available_maps())
        if name not in names:
            raise UsageError(f"the server at {self.address} has no map {name!r} (it has: {', '.join(names)})")
        self._load(f"map {name}", lambda: self.client.load_world(name))

    def _load(self, what: str, load: Callable[[], Any]) -> None:
        self.clear()
        self.client.set_timeout(self.patience.load)
        with self._guarded(f"load {what}", self.patience.load):
            self._adopt(load())
            self._synchronise()
        self.client.set_timeout(self.patience.response)

    # -- actors --------------------------------------------------------------------------------------------------------

    def spawn(self, blueprint: Any, transform: Any, parent: Any = None) -> Any:
        """Spawn an actor, which this session will destroy.

        Args:
            blueprint: A `carla.ActorBlueprint`.
            transform: Its pose, relative to the parent where there is one.
            parent: The actor to attach to.

        Returns:
            The new actor.

        Raises:
            SpawnRefused: The server refused it.
            SimError: The server failed.
        """
        try:
            actor = self.world.spawn_actor(blueprint, transform, attach_to=parent)
        except RuntimeError as error:
            self._raise_if_lost(error, "spawn an actor")
            place = transform.location
            raise SpawnRefused(
                f"the CARLA server at {self.address} refuses {blueprint.id} at ({place.x:.1f}, {place.y:.1f}): {error}"
            ) from None
        if blueprint.id.startswith("sensor."):
            self._sensors.append(actor)
        else:
            self._ids.append(actor.id)
        return actor

    def spawn_all(self, requests: Sequence[tuple[Any, Any]]) -> list[int | None]:
        """Spawn vehicles in one batch.

        Args:
            requests: (blueprint, transform) pairs.

        Returns:
            Their ids; None where there was no room.

        Raises:
            SimError: The server failed.
        """
        commands = [self.carla.command.SpawnActor(blueprint, transform) for blueprint, transform in requests]
        with self._guarded("spawn traffic"):
            responses = self.client.apply_batch_sync(commands, False)
        ids = [None if response.error else response.actor_id for response in responses]
        self._ids.extend(number for number in ids if number is not None)
        return ids

    def blueprint(self, name: str, role: str | None = None, **attributes: str) -> Any:
        """A blueprint of the server.

        Args:
            name: Its id.
            role: What its actor is for; part of its role name.
            attributes: Further attributes to set.

        Returns:
            The `carla.ActorBlueprint`.

        Raises:
            UsageError: The server does not have it.
        """
        library = self.world.get_blueprint_library()
        try:
            found = library.find(name)
        except (IndexError, RuntimeError):
            raise UsageError(f"the server at {self.address} has no blueprint {name!r}: see its library") from None
        if role is not None:
            found.set_attribute("role_name", f"{ROLE}.{role}")
        for attribute, value in attributes.items():
            found.set_attribute(attribute, value)
        return found

    def clear(self) -> None:
        """Destroy all actors of this session: sensors one by one, because the client warns otherwise; the rest at once.

        Raises:
            SimError: The server failed.
        """
        sensors, ids = self._sensors, self._ids
        self._sensors, self._ids = [], []
        for sensor in sensors:
            with self._guarded("destroy a sensor"):
                sensor.stop()
                sensor.destroy()
        self._destroy(ids)

    def sweep(self) -> None:
        """Destroy what an earlier session left behind."""
        self._destroy(
            [
                actor.id
                for actor in self.world.get_actors()
                if actor.attributes.get("role_name", "").startswith(f"{ROLE}.")
                or (actor.type_id.startswith("sensor.") and actor.parent is None)
            ]
        )

    def _destroy(self, ids: Sequence[int]) -> None:
        if ids:
            with self._guarded("destroy actors"):
                self.client.apply_batch_sync([self.carla.command.DestroyActor(number) for number in ids], False)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> Any:
        """Compute one frame of `STEP` seconds.

        Returns:
            Its `carla.WorldSnapshot`.

        Raises:
            SimTimeout: The frame did not arrive in time.
            SimCrashed: The server has ended.
        """
        with self._guarded("compute a frame"):
            try:
                self.frame = self.world.tick(FRAME_PATIENCE)
            except RuntimeError:
                self.frame += 1
                self._wait_for_frame()
            snapshot = self.world.get_snapshot()
        if snapshot.frame != self.frame:
            raise SimTimeout(
                f"the CARLA server at {self.address} shows frame {snapshot.frame} after frame {self.frame}: "
                "does another client tick it, too?"
            )
        return snapshot

    def _wait_for_frame(self) -> None:
        """Wait for a slow frame. RuntimeError where the server has ended, or `patience.response` is over."""
        deadline = time.monotonic() + self.patience.response
        while self.world.get_snapshot().frame < self.frame:
            if not self.alive() or time.monotonic() > deadline:
                raise RuntimeError("time-out")
            time.sleep(0.05)

    def apply(self, commands: Sequence[Any]) -> None:
        """Send commands that take effect in the next frame.

        Args:
            commands: `carla.command`s.

        Raises:
            SimError: The server failed.
        """
        with self._guarded("take commands"):
            self.client.apply_batch(list(commands))

    # -- traffic manager -----------------------------------------------------------------------------------------------

    def traffic_manager(self, seed: int) -> Any:
        """A synchronous Traffic Manager on a port of its own.

        Args:
            seed: Of its draws.

        Returns:
            The `carla.TrafficManager`; the same one for every call of this session.

        Raises:
            SimError: The server failed.
        """
        with self._guarded("start its Traffic Manager"):
            manager = self._managers[0] if self._managers else self.client.get_trafficmanager(free_port())
            manager.set_synchronous_mode(True)
            manager.set_random_device_seed(seed % 2**31)
        if not self._managers:
            self._managers.append(manager)
        return manager

    # -- leaving -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the server as it was found. Never raises, because the server may have ended."""
        atexit.unregister(self._close_at_exit)
        client, self.client = self.client, None
        if client is None or not self.alive():
            return
        client.set_timeout(min(self.patience.response, 5.0))
        self.client = client
        with contextlib.suppress(RuntimeError):
            self._stop_managers()
        with contextlib.suppress(RuntimeError):
            self.clear()
        if self._found_settings is not None:
            with contextlib.suppress(RuntimeError):
                self.world.apply_settings(self._found_settings)
        self.client = self.world = self.map = None

    def _stop_managers(self) -> None:
        """Synchronous mode is ended first: a manager that waits for ticks keeps the process alive."""
        managers, self._managers = self._managers, []
        for manager in managers:
            manager.set_synchronous_mode(False)
            manager.shut_down()

    # -- inside --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self, what: str, patience: float | None = None) -> Iterator[None]:
        try:
            yield
        except SimError:
            raise
        except RuntimeError as error:
            self._raise_if_lost(error, what, patience)
            raise SimError(f"the CARLA server at {self.address} cannot {what}: {error}") from error

    def _raise_if_lost(self, error: RuntimeError, what: str, patience: float | None = None) -> None:
        if not self.alive():
            raise SimCrashed(f"the CARLA server at {self.address} died when asked to {what}") from error
        if "time-out" in str(error):
            seconds = patience or self.patience.response
            raise SimTimeout(
                f"the CARLA server at {self.address} did not {what} within {seconds:g} s: is it overloaded or gone?"
            ) from error


def _close_later(session: CarlaSession) -> Callable[[], None]:
    """Close a session at interpreter exit, without keeping it alive until then."""
    reference = weakref.ref(session)

    def close() -> None:
        found = reference()
        if found is not None:
            found.close()

    atexit.register(close)
    return close


def _release(version: str) -> str:
    """The part of a version that decides the protocol: "0.9.16" of "0.9.16-3-gabcdef"."""
    return version.partition("-")[0]


def _listens(address: Address) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=1.0):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
