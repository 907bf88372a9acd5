"""Where the server of an environment comes from: it runs already, or it is started here: carla-lite, or CarlaUE4.sh.

A backend's address is what follows the "@" in `backend="carla@..."`: HOST:PORT of a running server, or the path of a
CarlaUE4.sh, which is started without a screen, and again after a crash.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sim.carla.errors import SimCrashed
from sim.carla.session import LITE, Address, free_port
from sim.errors import UsageError

OFF_SCREEN = ("-RenderOffScreen", "-nosound", "-quality-level=Low")
START_PATIENCE = 30.0
"""Seconds within which a carla-lite that does not listen must have ended."""


class CarlaServer(Protocol):
    """A server to connect to."""

    label: str
    """Name in results until the server's version is known."""

    def start(self) -> Address:
        """Start the server, or start it again, where it belongs to this process.

        Returns:
            The address of a server that runs.

        Raises:
            SimCrashed: It did not start.
        """
        ...

    def alive(self) -> bool:
        """False where the server is known to have ended."""
        ...

    def stop(self) -> None:
        """End the server where it belongs to this process."""
        ...


@dataclass
class RunningServer:
    """A server that another program started."""

    address: Address
    label = "carla"

    def start(self) -> Address:
        return self.address

    def alive(self) -> bool:
        return True

    def stop(self) -> None:
        pass


class OwnServer:
    """A server process of this program, in a process group of its own."""

    label = "carla"

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._output: IO[bytes] | None = None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for stream in (process.stdout, self._output):
            if stream is not None:
                stream.close()

    def _launch(self, command: list[str], **streams: Any) -> subprocess.Popen:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (kept until `stop`, for `_last_line`)
        self._process = subprocess.Popen(command, stderr=self._output, start_new_session=True, **streams)
        return self._process

    def _last_line(self) -> str:
        assert self._output is not None
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


class LiteServer(OwnServer):
    """carla-lite on a free port, for one environment. It ends when this process ends, however that happens."""

    label = LITE

    def __init__(self, options: tuple[str, ...] = ()) -> None:
        """`options`: of the command `carla-lite`."""
        super().__init__()
        self.options = options

    def start(self) -> Address:
        self.stop()
        if importlib.util.find_spec("msgpack") is None:
            raise UsageError("carla-lite needs msgpack: pip install 'lgdrl[carla]'")
        command = [sys.executable, "-m", "sim.carla_lite", "--port", "0", "--until-stdin-closes", *self.options]
        process = self._launch(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if "listening on" not in line:
            process.wait(START_PATIENCE)
            raise SimCrashed(f"carla-lite did not start: {self._last_line()}")
        host, _, port = line.split("listening on ")[1].split()[0].rpartition(":")
        return Address(host, int(port))


class RealServer(OwnServer):
    """CarlaUE4.sh without a screen; `start` starts it again after a crash."""

    def __init__(self, executable: Path, options: tuple[str, ...] = OFF_SCREEN) -> None:
        super().__init__()
        self.executable, self.options = executable, options

    def start(self) -> Address:
        self.stop()
        port = _free_ports()
        self._launch(
            [str(self.executable), f"-carla-rpc-port={port}", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        if not self.alive():
            raise SimCrashed(f"{self.executable} ended at once: {self._last_line()}")
        return Address("127.0.0.1", port)


def _free_ports() -> int:
    """A port whose next one is free, too: CARLA streams on it."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port


def server_at(place: str | None) -> CarlaServer:
    """The server that a backend's address names.

    Args:
        place: HOST:PORT, or the path of a CarlaUE4.sh; None for 127.0.0.1:2000.

    Returns:
        The server; nothing is started yet.

    Raises:
        UsageError: The place is neither.
    """
    if place is None:
        return RunningServer(Address())
    if "/" in place:
        path = Path(place).expanduser()
        if not path.is_file():
            raise UsageError(f"backend 'carla@{place}': there is no such file; name CarlaUE4.sh, or HOST:PORT")
        return RealServer(path)
    host, _, port = place.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65535:
        raise UsageError(f"backend 'carla@{place}': write HOST:PORT, or the path of CarlaUE4.sh")
    return RunningServer(Address(host or "127.0.0.1", int(port)))
