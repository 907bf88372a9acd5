"""carla-lite: a headless server for the real CARLA client. `lgdrl carla-lite --map highway --port 2000`.

`handlers` holds one function per call that it supports; any other call receives an error that names it. Physics are
kinematic and cameras are drawings: results say nothing about Unreal's physics or images.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.carla_lite import codec, maps
from sim.carla_lite.faults import HELP as FAULTS_HELP
from sim.carla_lite.faults import FaultInjector, Faults
from sim.carla_lite.handlers.dispatcher import Dispatcher
from sim.carla_lite.rpc import CallConnection, Streams
from sim.carla_lite.world import LiteWorld
from sim.errors import UsageError

DEFAULT_MAP = "highway"
DEFAULT_PORT = 2000
LONGEST_JITTER = 10.0
"""Seconds."""
PORT_ATTEMPTS = 20
"""Attempts to find two adjacent free ports."""
NO_MESH = "no navigation mesh: get_random_location_from_navigation() gives None, place walkers yourself"
log = logging.getLogger("carla-lite")


@dataclass(frozen=True)
class ServerOptions:
    """Options of the command."""

    map: str = DEFAULT_MAP  # a shipped map, or the path of an .xodr file
    host: str = "127.0.0.1"  # loopback only, because the protocol has no authentication
    port: int = DEFAULT_PORT  # of the calls; streams use the next one; 0: any free port
    seed: int = 0  # of the sensors' noise
    delay: bool = False  # apply vehicle control one frame late
    jitter: float = 0.0  # sensors' frames arrive up to this much late, s
    fault: Sequence[str] = ()  # faults to inject, see `faults.HELP`
    until_stdin_closes: bool = False  # end with the process that started the server


class WorldServer:
    """A world on two ports: calls on P, streams on P + 1."""

    def __init__(self, options: ServerOptions) -> None:
        """Load the map; nothing listens yet.

        Args:
            options: Options of the command.

        Raises:
            UsageError: An option is out of range, the map cannot be read, or the client's version is not supported.
        """
        self.options = options
        if not 0 <= options.jitter <= LONGEST_JITTER:
            raise UsageError(f"--jitter {options.jitter:g}: choose 0 to {LONGEST_JITTER:g} s")
        if not 0 <= options.port < 65535:
            raise UsageError(f"--port {options.port}: choose 0 (any free one) to 65534; streams use the next one")
        if options.seed < 0:
            raise UsageError(f"--seed {options.seed}: choose 0 or more")
        self.version = codec.check_client()
        self._faults = FaultInjector(Faults.read(options.fault))
        name, text = read_map(options.map)
        self.world = LiteWorld(self.version, name, text, options.seed, options.delay)
        self._streams = Streams(self._send_present_frame)
        self._calls = Dispatcher(self.world, self._streams, self._faults, options.jitter)
        self.port = 0
        """Port of the calls while the server listens."""

    def _send_present_frame(self, stream: int) -> None:
        """A new reader of the world receives the present frame at once, because a synchronous client waits for it."""
        if stream == codec.WORLD_STREAM and not self._faults.stalled:
            self._streams.send(stream, self.world.state_frame())

    async def serve(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Listen until told to stop.

        Args:
            ready: Called when both ports listen.
            stop: Set it to end.

        Raises:
            UsageError: A port is taken, or the host is unknown.
        """
        loop = asyncio.get_running_loop()
        calls, streams, self.port = await self._listen(loop)
        self._calls.server.port = self.port + 1
        ready()
        tasks = [asyncio.create_task(work) for work in (self._run_in_real_time(), self._watch_managers())]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            for listener in (calls, streams):
                listener.close()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> tuple[Any, Any, int]:
        """The listeners for calls and streams, and the port of the former."""
        wanted = self.options.port
        for _ in range(PORT_ATTEMPTS):
            try:
                calls = await loop.create_server(
                    lambda: CallConnection(self._calls.dispatch), self.options.host, wanted, backlog=64
                )
            except OSError as error:
                raise UsageError(f"port {wanted} of {self.options.host}: {_reason(error)}: choose another") from None
            port = calls.sockets[0].getsockname()[1]
            try:
                streams = await loop.create_server(self._streams.protocol, self.options.host, port + 1, backlog=64)
                return calls, streams, port
            except OSError as error:
                calls.close()
                if wanted != 0:
                    raise UsageError(
                        f"port {port + 1} of {self.options.host} (the streams' port): {_reason(error)}: choose another"
                    ) from None
        raise UsageError("no two adjacent free ports were found: name one with --port")

    async def _watch_managers(self) -> None:
        await self._calls.server.watchdog.watch(self._calls.server.managers.values())

    async def _run_in_real_time(self) -> None:
        """In asynchronous mode frames are computed in real time."""
        while True:
            await asyncio.sleep(self.world.step_seconds)
            if not self.world.settings.synchronous_mode:
                self._calls.server.advance()


def read_map(name: str) -> tuple[str, str]:
    """A shipped map, or one from a file.

    Args:
        name: Name of a shipped map, or the path of an .xodr file.

    Returns:
        The map's name and its OpenDRIVE text.

    Raises:
        UsageError: There is no such map, or the file cannot be read.
    """
    path = Path(name)
    if path.suffix == ".xodr":
        try:
            return path.stem, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"cannot read map {name!r}: it is not UTF-8 text") from None
        except OSError as error:
            raise UsageError(f"cannot read map {name!r}: {error.strerror}") from None
    return name, maps.read(name)


def _reason(error: OSError) -> str:
    """asyncio adds the address to an error's text, and host names that cannot be resolved have negative numbers."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: Receives them.
    """
    parser.add_argument("--map", default=DEFAULT_MAP, help=f"{', '.join(maps.available())}, or an .xodr file")
    parser.add_argument("--host", default="127.0.0.1", help="default: loopback only")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="of the calls; streams use the next one; 0: any free port"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sensors' noise")
    parser.add_argument("--delay", action="store_true", help="apply control one frame late, as a real server may")
    parser.add_argument(
        "--jitter", type=float, default=0.0, metavar="SECONDS", help="delay sensors' frames by up to this much"
    )
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help=FAULTS_HELP)
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input closes, with the parent process"
    )


def run(options: ServerOptions) -> int:
    """Serve until Ctrl-C, SIGTERM, or the end of standard input where that was asked for.

    Args:
        options: Options of the command.

    Returns:
        The exit code: 130 after Ctrl-C, else 0.

    Raises:
        UsageError: The server cannot start.
    """
    server = WorldServer(options)
    code = 0

    async def serve() -> None:
        nonlocal code
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def end(with_code: int) -> None:
            nonlocal code
            code = with_code
            stop.set()

        loop.add_signal_handler(signal.SIGINT, end, 130)
        loop.add_signal_handler(signal.SIGTERM, end, 0)
        if options.until_stdin_closes:
            threading.Thread(target=_watch_stdin, args=(loop, end), daemon=True).start()
        await server.serve(lambda: _announce(server), stop)

    asyncio.run(serve())
    return code


def _announce(server: WorldServer) -> None:
    place = f"{server.options.host}:{server.port}"
    print(f"carla-lite {server.version.name} listening on {place} (map {server.world.map_name}; {NO_MESH})", flush=True)


def _watch_stdin(loop: asyncio.AbstractEventLoop, end: Callable[[int], None]) -> None:
    """Unbuffered: a thread that waits in a buffered read makes the interpreter print an error at exit."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end, 0)


def main(argv: Sequence[str] | None = None, program: str = "carla-lite") -> int:
    """The command, alone (`python -m sim.carla_lite`) or as a part of another program.

    Args:
        argv: Its arguments; those of the process where None.
        program: Name shown in the help text.

    Returns:
        The exit code: 0, 2 for bad input, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog=program, description="Serve a CARLA world without Unreal and without a GPU.")
    add_arguments(parser)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    try:
        return run(ServerOptions(**vars(parser.parse_args(argv))))
    except UsageError as error:
        print(f"carla-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
