"""MessagePack-RPC and the stream channel over asyncio. Knows no CARLA calls.

A request is [0, id, name, params], answered by [1, id, nil, result]; params[0] is call metadata. There is no framing:
a streaming unpacker splits the bytes; garbage ends that connection and no other. A stream client connects, sends the
number of a stream (u32), and is sent [u32 length][payload] for ever.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

log = logging.getLogger("carla-lite")
Dispatch = Callable[[str, Sequence[Any]], Any]
"""(name, arguments) -> the wire form of the result."""
REQUEST, ANSWER, NOTICE = 0, 1, 2
MAX_REQUEST = 64 << 20
"""Bytes of one request: OpenDRIVE texts are large, nothing else is."""
MAX_BACKLOG = 32 << 20
"""Bytes that wait for a reader before it is dropped."""
PATIENCE = 2.0
"""Seconds within which who asks for a stream begins to read it."""


class Calls(asyncio.Protocol):
    """One client's call channel."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=MAX_REQUEST)
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _without_delay(transport)

    def data_received(self, data: bytes) -> None:
        """Answers of requests that came together leave together: sending costs more than most calls."""
        answers = []
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                answers.append(self._answer(message))
            if self._transport.get_write_buffer_size() > MAX_BACKLOG:
                raise ValueError("its answers are not read")
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            log.warning("a client sent what is no request (%s): connection closed", error)
            self._transport.abort()
        if any(answers) and not self._transport.is_closing():
            self._transport.write(b"".join(answers))

    def _answer(self, message: Any) -> bytes:
        """What goes back for a request; nothing for a notice. ValueError for what is neither."""
        kind, *rest = message if isinstance(message, list) and message else [None]
        if (kind, len(rest)) not in ((REQUEST, 3), (NOTICE, 2)):
            raise ValueError(f"unexpected message of type {type(message).__name__}")
        name, params = rest[-2:]
        if not isinstance(name, str) or not isinstance(params, list):
            raise ValueError("a call without a name or without a list of arguments")
        result = self._dispatch(name, params[1:])
        return msgpack.packb([ANSWER, rest[0], None, result]) if kind == REQUEST else b""


class Streams:
    """Who reads which stream, and sending to them."""

    def __init__(self, on_reader: Callable[[int], None]) -> None:
        """`on_reader(stream)` is called when somebody begins to read it."""
        self._readers: dict[int, set[StreamReader]] = defaultdict(set)
        self._expected: dict[int, tuple[float, list[bytes]]] = {}
        """Until when, and what was said to readers that have not come yet."""
        self._on_reader = on_reader

    def protocol(self) -> StreamReader:
        return StreamReader(self)

    def expect(self, stream: int) -> None:
        """Somebody asked where a stream is, and will read it: frames from now on are kept until then, for a while."""
        self._expected[stream] = time.monotonic() + PATIENCE, []

    def add(self, stream: int, reader: StreamReader) -> None:
        for data in self._expected.pop(stream, (0.0, []))[1]:
            reader.send(data)
        self._readers[stream].add(reader)
        self._on_reader(stream)

    def remove(self, stream: int, reader: StreamReader) -> None:
        self._readers[stream].discard(reader)
        if not self._readers[stream]:
            del self._readers[stream]

    def read(self, stream: int) -> bool:
        """Does anybody read it, or is about to?"""
        if stream in self._expected and time.monotonic() > self._expected[stream][0]:
            del self._expected[stream]
        return stream in self._readers or stream in self._expected

    def send(self, stream: int, payload: bytes) -> None:
        """To all readers of a stream. One that has stopped reading is dropped."""
        data = struct.pack("<I", len(payload)) + payload
        if stream in self._expected:
            self._expected[stream][1].append(data)
        for reader in list(self._readers.get(stream, ())):
            reader.send(data)

    def close(self, stream: int) -> None:
        """Of a sensor that is gone."""
        self._expected.pop(stream, None)
        for reader in list(self._readers.get(stream, ())):
            reader.close()


class StreamReader(asyncio.Protocol):
    """One client's connection for one stream."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._head = b""
        self._stream: int | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _without_delay(transport)

    def data_received(self, data: bytes) -> None:
        if self._stream is not None:
            return
        self._head += data
        if len(self._head) >= 4:
            self._stream = struct.unpack("<I", self._head[:4])[0]
            self._streams.add(self._stream, self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._stream is not None:
            self._streams.remove(self._stream, self)

    def send(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > MAX_BACKLOG:
            log.warning("a client does not read stream %s: dropped", self._stream)
            self._transport.abort()
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


def _without_delay(transport: Any) -> None:
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
