"""A connection to one CARLA server: synchronous, with fixed steps, and left as it was found.

Whoever dies in synchronous mode leaves a frozen server and its actors behind; both are the most reported pains of
CARLA's users. A session therefore restores the settings and destroys its actors on every way out, and on the way in
it removes what an earlier session of ours left (vehicles whose role name begins with `ROLE`, and all loose sensors).
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
ROLE = "lgdrl"
LITE = "carla-lite kinematic"
"""What results name as their simulator: nobody shall take it for Unreal's physics."""
LITE_MAPS = "CarlaLite/"
"""How the maps of a carla-lite server are named: the way to know one."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
"""Seconds between attempts to connect, doubling."""
FRAME_PATIENCE = 2.0
"""Seconds for a frame before it is asked whether the server lives at all."""
SENSOR_THREADS = 4
"""Sensors + 2: with as many threads as cores, a client with sensors can deadlock on two cores."""
MESH = {
    "vertex_distance": 2.0,
    "max_road_length": 50.0,
    "wall_height": 0.0,
    "additional_width": 0.6,
    "smooth_junctions": True,
    "enable_mesh_visibility": True,
}
"""How a real server turns OpenDRIVE into ground: no walls beside the road."""


@dataclass(frozen=True)
class Address:
    host: str = "127.0.0.1"
    port: int = 2000

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    connect: float = 30.0  # until a server must have answered at all
    load: float = 120.0  # for a map
    answer: float = 20.0  # for any other call, and for a frame


def client_module() -> Any:
    """The `carla` package; UsageError where it is not installed."""
    try:
        import carla
    except ImportError:
        raise UsageError(
            "the CARLA client is not installed: pip install 'lgdrl[carla]' (CPython 3.10 to 3.12, Linux x86-64)"
        ) from None
    return carla


@dataclass
class CarlaSession:
    """See the module's text. `alive()` says whether the server process is known to live (True where unknown)."""

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
        self._mine: list[Any] = []
        self._close_at_exit = _close_later(self)

    # -- connecting ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, check versions, sweep, and make the world synchronous.

        Raises: SimUnreachable without an answer in time, SimVersionMismatch for another version.
        """
        self.client = self._first_answer()
        mine, theirs = self.client.get_client_version(), self.client.get_server_version()
        if _release(mine) != _release(theirs):
            raise SimVersionMismatch(
                f"the CARLA server at {self.address} is version {theirs}, the client {mine}: use the same version"
            )
        self.client.set_timeout(self.patience.answer)
        with self._guarded("describe its world"):
            self._adopt(self.client.get_world())
            self._found_settings = self.world.get_settings()
            self._synchronise()
            self.sweep()

    def _first_answer(self) -> Any:
        """A client whose server has answered once; attempts back off."""
        deadline, delay = time.monotonic() + self.patience.connect, FIRST_DELAY
        while True:
            if not self.alive():
                raise SimCrashed(f"the CARLA server for {self.address} ended before it answered: see its output")
            left = deadline - time.monotonic()
            if left <= 0:
                raise SimUnreachable(
                    f"no CARLA server answers at {self.address} within {self.patience.connect:g} s: start one "
                    "(`lgdrl carla-lite`, or CarlaUE4.sh), or name another address"
                )
            if _listens(self.address):
                client = self.carla.Client(self.address.host, self.address.port, SENSOR_THREADS)
                client.set_timeout(min(max(left, 0.1), self.patience.answer))
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
        """Is this carla-lite?"""
        return self.map.name.startswith(LITE_MAPS)

    @property
    def backend(self) -> str:
        """What results name as their simulator."""
        return LITE if self.lite else f"carla {self.client.get_server_version()}"

    # -- maps ----------------------------------------------------------------------------------------------------------

    def load_opendrive(self, text: str, afresh: bool = False) -> None:
        """Make the server's world this OpenDRIVE map; `afresh` reloads it even where it is there already."""
        if not afresh and self.map.to_opendrive() == text:
            return
        parameters = self.carla.OpendriveGenerationParameters(**MESH)
        self._load("an OpenDRIVE map", lambda: self.client.generate_opendrive_world(text, parameters))

    def load_town(self, name: str, afresh: bool = False) -> None:
        """Make the server's world one of its own maps. UsageError for a map that it does not have."""
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
        self.client.set_timeout(self.patience.answer)

    # -- actors --------------------------------------------------------------------------------------------------------

    def spawn(self, blueprint: Any, transform: Any, parent: Any = None) -> Any:
        """A new actor that this session will destroy. SpawnRefused where the server does not take it."""
        try:
            actor = self.world.spawn_actor(blueprint, transform, attach_to=parent)
        except RuntimeError as error:
            self._raise_if_lost(error, "spawn an actor")
            place = transform.location
            raise SpawnRefused(
                f"the CARLA server at {self.address} refuses {blueprint.id} at ({place.x:.1f}, {place.y:.1f}): {error}"
            ) from None
        self._mine.append(actor)
        return actor

    def spawn_all(self, requests: Sequence[tuple[Any, Any]]) -> list[int | None]:
        """Ids of new vehicles for (blueprint, transform) pairs, in one batch; None where there was no room."""
        commands = [self.carla.command.SpawnActor(blueprint, transform) for blueprint, transform in requests]
        with self._guarded("spawn traffic"):
            answers = self.client.apply_batch_sync(commands, False)
        ids = [None if answer.error else answer.actor_id for answer in answers]
        self._mine.extend(number for number in ids if number is not None)
        return ids

    def blueprint(self, name: str, role: str | None = None, **attributes: str) -> Any:
        """A blueprint with attributes set. UsageError for one that the server does not have."""
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
        """Stop and destroy all actors of this session, sensors first, in one batch."""
        mine, self._mine = self._mine, []
        for actor in mine:
            if hasattr(actor, "stop"):  # a sensor; the client grumbles about those that go in a batch
                with self._guarded("destroy a sensor"):
                    actor.stop()
                    actor.destroy()
        self._destroy([actor if isinstance(actor, int) else actor.id for actor in mine if not hasattr(actor, "stop")])

    def sweep(self) -> int:
        """Destroy what an earlier session of ours left behind; returns how many actors that were."""
        left = [
            actor.id
            for actor in self.world.get_actors()
            if actor.attributes.get("role_name", "").startswith(f"{ROLE}.")
            or (actor.type_id.startswith("sensor.") and actor.parent is None)
        ]
        self._destroy(left)
        return len(left)

    def _destroy(self, ids: Sequence[int]) -> None:
        if ids:
            with self._guarded("destroy actors"):
                self.client.apply_batch_sync([self.carla.command.DestroyActor(number) for number in ids], False)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> Any:
        """One frame of `STEP` seconds; returns its snapshot. SimTimeout or SimCrashed where it does not come."""
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
                "does another client tick it too?"
            )
        return snapshot

    def _wait_for_frame(self) -> None:
        """A frame that takes long. Raises RuntimeError when the server is gone, or `patience.answer` is over."""
        deadline = time.monotonic() + self.patience.answer
        while self.world.get_snapshot().frame < self.frame:
            if not self.alive() or time.monotonic() > deadline:
                raise RuntimeError("time-out")
            time.sleep(0.05)

    def apply(self, commands: Sequence[Any]) -> None:
        """Commands that take effect in the next frame."""
        with self._guarded("take commands"):
            self.client.apply_batch(list(commands))

    # -- traffic manager -----------------------------------------------------------------------------------------------

    def traffic_manager(self, seed: int) -> Any:
        """A synchronous Traffic Manager on a port of its own, with this seed."""
        with self._guarded("start its Traffic Manager"):
            manager = self._managers[0] if self._managers else self.client.get_trafficmanager(free_port())
            manager.set_synchronous_mode(True)
            manager.set_random_device_seed(seed % 2**31)
        if not self._managers:
            self._managers.append(manager)
        return manager

    # -- leaving -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the server as it was found. Never raises: there may be nobody left to talk to."""
        atexit.unregister(self._close_at_exit)
        client, self.client = self.client, None
        if client is None or not self.alive():
            return
        client.set_timeout(min(self.patience.answer, 5.0))
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
        """Synchronous mode off first: a manager that waits for ticks keeps the process."""
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
            seconds = patience or self.patience.answer
            raise SimTimeout(
                f"the CARLA server at {self.address} did not {what} within {seconds:g} s: is it overloaded or gone?"
            ) from error


def _close_later(session: CarlaSession) -> Callable[[], None]:
    """Close at interpreter exit, without keeping the session alive until then."""
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
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
