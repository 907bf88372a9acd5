"""A carla-lite process for tests, and a minimal client of its protocol beside CARLA's."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgpack

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 30.0


class ServerProcess:
    """`with ServerProcess("--map", "straight") as server:` on a free port; ends with the test in any case."""

    def __init__(self, *options: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (kept until `__exit__`)
        command = [sys.executable, "-m", "sim.carla_lite", "--port", "0", "--until-stdin-closes", *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline().decode()
        if "listening on" not in self.greeting:
            self.process.wait(PATIENCE)
            raise RuntimeError(self.errors())
        self.port = int(self.greeting.split("listening on ")[1].split()[0].rpartition(":")[2])

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._log.close()

    def running(self) -> bool:
        return self.process.poll() is None

    def errors(self) -> str:
        """Its stderr so far."""
        self._log.seek(0)
        return self._log.read().decode()

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


class Caller:
    """Calls without CARLA: `Caller(port).call("version")`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._unpacker = msgpack.Unpacker(raw=False)
        self._count = 0

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def call(self, name: str, *arguments: Any) -> Any:
        """The result in wire form."""
        self._count += 1
        self.socket.sendall(msgpack.packb([0, self._count, name, [[False], *arguments]]))
        while True:
            for response in self._unpacker:
                assert response[:3] == [1, self._count, None]
                return response[3]
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._unpacker.feed(data)


def read_token(data: bytes) -> tuple[int, int]:
    """Stream and port of a token, as `codec.token` packs it."""
    stream, port, _, _ = struct.unpack("<IHBB16x", data)
    return stream, port


class RawStreamReader:
    """A reader of one stream."""

    def __init__(self, port: int, stream: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port + 1), timeout=PATIENCE)
        self.socket.sendall(struct.pack("<I", stream))

    def __enter__(self) -> RawStreamReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def frame(self) -> bytes:
        """The next payload."""
        return self._exactly(struct.unpack("<I", self._exactly(4))[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the server closed the stream")
            data += more
        return data


def run_client(command: list[str], folder: Path, patience: float) -> subprocess.CompletedProcess:
    """Run a program of CARLA's client to its end.

    The client library aborts now and then while it closes its connections ("close: Bad file descriptor"), on a busy
    machine: a program that died of a signal is started once more.

    Args:
        command: Of the program.
        folder: Where it runs.
        patience: Seconds within which it has to end.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=patience, check=False)
    if done.returncode < 0:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=patience, check=False)
    return done
