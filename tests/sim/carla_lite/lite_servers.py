"""A carla-lite process for tests, and a minimal client of its protocol beside CARLA's."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
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


class Clients:
    """Runs scripts of CARLA's client, each in a process of its own: a fork of one that has made the imports.

    With the imports in every process, half of the time of most scripts would be spent on them.
    """

    def __init__(self, program: str) -> None:
        """`program` is a file that calls `serve_forks` where its only argument is "fork"."""
        self.program = program
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, self.program, "fork"],
            cwd=Path(self.program).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()

    def _kill(self) -> None:
        """It and its forks."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def run(self, arguments: list[str], patience: float) -> tuple[int, str]:
        """Exit code and words of a script, stdout and stderr together.

        The client library aborts now and then while it closes its connections ("close: Bad file descriptor"), on a busy
        machine: a script that died of a signal is started once more.

        Args:
            arguments: Of the program.
            patience: Seconds within which it has to end.
        """
        code, words = self._run(arguments, patience)
        return self._run(arguments, patience) if code < 0 else (code, words)

    def _run(self, arguments: list[str], patience: float) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with tempfile.NamedTemporaryFile() as words:
            print(json.dumps([words.name, *arguments]), file=self.process.stdin, flush=True)
            ready, _, _ = select.select([self.process.stdout], [], [], patience)
            code = self.process.stdout.readline() if ready else ""
            said = words.read().decode()
        if not code:
            self._kill()
            self.process = self._start()  # for the next one
            raise RuntimeError(f"{arguments} did not end within {patience:g} s, or its process died: {said}")
        return int(code), said


def serve_forks(main: Callable[[], None]) -> None:
    """Call `main` in a fork for every line of stdin, `[FILE, ARGUMENT, ...]` as JSON; prints its exit code.

    What it writes goes to the file. There must be no client in this process yet: forks do not inherit its threads.
    """
    for line in sys.stdin:
        words, *arguments = json.loads(line)
        fork = os.fork()
        if not fork:
            file = os.open(words, os.O_WRONLY | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.argv[1:] = arguments
            main()
            os._exit(0)
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
