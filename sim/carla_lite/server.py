"""carla-lite: a headless server for the real CARLA client. `lgdrl carla-lite --map highway --port 2000`.

`Calls` below is the list of what a client can ask; a call that is not there is answered with an error that names it.
Physics are kinematic, cameras are drawings: nothing here says anything about Unreal's physics or images.
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
from sim.carla_lite.calls import Calls
from sim.carla_lite.faults import HELP as FAULTS_HELP
from sim.carla_lite.faults import Faults, Trouble
from sim.carla_lite.rpc import Calls as CallChannel
from sim.carla_lite.rpc import Streams
from sim.carla_lite.world import World
from sim.errors import UsageError

DEFAULT_MAP = "highway"
DEFAULT_PORT = 2000
LONGEST_JITTER = 10.0
"""Seconds."""
log = logging.getLogger("carla-lite")


@dataclass(frozen=True)
class Options:
    map: str = DEFAULT_MAP
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    seed: int = 0
    delay: bool = False
    jitter: float = 0.0
    fault: Sequence[str] = ()
    until_stdin_closes: bool = False


class Server:
    """The world on two ports: calls on P, streams on P + 1."""

    def __init__(self, options: Options) -> None:
        """UsageError for a client version without a table, and for a map that cannot be read."""
        self.options = options
        if not 0 <= options.jitter <= LONGEST_JITTER:
            raise UsageError(f"--jitter {options.jitter:g}: choose 0 to {LONGEST_JITTER:g} s")
        if not 0 <= options.port < 65535:
            raise UsageError(f"--port {options.port}: choose 0 (any free one) to 65534; streams use the next one")
        if options.seed < 0:
            raise UsageError(f"--seed {options.seed}: choose 0 or more")
        self.version = codec.check_client()
        self.trouble = Trouble(Faults.read(options.fault))
        name, text = read_map(options.map)
        self.world = World(self.version, name, text, options.seed, options.delay)
        self.streams = Streams(self._greet)
        self.calls = Calls(self.world, self.streams, self.trouble, options.jitter)
        self.port = 0

    def _greet(self, stream: int) -> None:
        """A new reader of the world gets the present frame at once: a synchronous client waits for it."""
        if stream == codec.WORLD_STREAM and not self.trouble.stalled:
            self.streams.send(stream, self.world.state_frame())

    async def serve(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Listen until `stop`. UsageError where a port is taken."""
        loop = asyncio.get_running_loop()
        calls, streams, self.port = await self._listen(loop)
        self.calls.port = self.port + 1
        ready()
        tasks = [asyncio.create_task(work) for work in (self._run_free(), self._wake_managers())]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            for listener in (calls, streams):
                listener.close()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> tuple[Any, Any, int]:
        wanted = self.options.port
        for _ in range(20):
            try:
                calls = await loop.create_server(
                    lambda: CallChannel(self.calls.dispatch), self.options.host, wanted, backlog=64
                )
            except OSError as error:
                raise UsageError(f"port {wanted} of {self.options.host}: {_reason(error)}: choose another") from None
            port = calls.sockets[0].getsockname()[1]
            try:
                streams = await loop.create_server(self.streams.protocol, self.options.host, port + 1, backlog=64)
                return calls, streams, port
            except OSError as error:
                calls.close()
                if wanted != 0:
                    raise UsageError(
                        f"port {port + 1} of {self.options.host} (the streams' port): {_reason(error)}: choose another"
                    ) from None
        raise UsageError("no two free ports in a row were found: name one with --port")

    async def _wake_managers(self) -> None:
        await self.calls.nudge.watch(self.calls.managers.values())

    async def _run_free(self) -> None:
        """In asynchronous mode the world runs by itself, in real time."""
        while True:
            await asyncio.sleep(self.world.step_seconds)
            if not self.world.settings.synchronous_mode:
                self.calls.advance()


def read_map(name: str) -> tuple[str, str]:
    """Name and OpenDRIVE text of a shipped map or of a file. UsageError where there is neither."""
    path = Path(name)
    if path.suffix == ".xodr":
        try:
            return path.stem, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UsageError(f"cannot read map {name!r}: {reason}") from None
    return name, maps.read(name)


def _reason(error: OSError) -> str:
    """asyncio puts the address into an error's text; names that cannot be found have numbers of their own."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--map", default=DEFAULT_MAP, help=f"{', '.join(maps.available())}, or an .xodr file")
    parser.add_argument("--host", default="127.0.0.1", help="default: loopback only")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="calls; streams use the next one; 0: any free")
    parser.add_argument("--seed", type=int, default=0, help="of the sensors' noise")
    parser.add_argument("--delay", action="store_true", help="apply control one frame late, as a real server may")
    parser.add_argument(
        "--jitter", type=float, default=0.0, metavar="SECONDS", help="sensors' frames come up to so much late"
    )
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help=FAULTS_HELP)
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started it")


def run(options: Options) -> int:
    """Serve until Ctrl-C (130), SIGTERM, or the end of stdin where that was asked for (0)."""
    server = Server(options)
    code = 0

    async def life() -> None:
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

    asyncio.run(life())
    return code


def _announce(server: Server) -> None:
    place = f"{server.options.host}:{server.port}"
    print(f"carla-lite {server.version.name} listening on {place} (map {server.world.map_name})", flush=True)


def _watch_stdin(loop: asyncio.AbstractEventLoop, end: Callable[[int], None]) -> None:
    """Unbuffered: a thread that waits in a buffered read would end the interpreter with a complaint."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end, 0)


def main(argv: Sequence[str] | None = None, program: str = "carla-lite") -> int:
    """The command, alone (`python -m sim.carla_lite`) or as a part of another program."""
    parser = argparse.ArgumentParser(prog=program, description="Serve a CARLA world without Unreal and without a GPU.")
    add_arguments(parser)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    try:
        return run(Options(**vars(parser.parse_args(argv))))
    except UsageError as error:
        print(f"carla-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
