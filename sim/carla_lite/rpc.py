"""MessagePack-RPC and the stream channel over asyncio. Knows no CARLA calls.

A request is [0, id, name, params]; its response is [1, id, nil, result]; params[0] is call metadata. There is no
framing: a streaming unpacker splits the bytes; garbage ends that connection and no other. A stream client connects,
sends the number of a stream (u32), and receives [u32 length][payload] until either side closes.
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
REQUEST, RESPONSE, NOTICE = 0, 1, 2
MAX_REQUEST = 64 << 20
"""Bytes of one request: OpenDRIVE texts are large, nothing else is."""
MAX_BACKLOG = 32 << 20
"""Bytes that may wait for a reader before it is dropped."""
PATIENCE = 2.0
"""Seconds within which a client that asked for a stream must begin to read it."""


class CallConnection(asyncio.Protocol):
    """One client's call channel."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=MAX_REQUEST)
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _send_without_delay(transport)

    def data_received(self, data: bytes) -> None:
        """Responses to requests that arrive together are sent together: sending costs more than most calls."""
        responses = []
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                responses.append(self._respond(message))
            if self._transport.get_write_buffer_size() > MAX_BACKLOG:
                raise ValueError("it does not read its responses")
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            log.warning("a client sent an invalid request (%s): connection closed", error)
            self._transport.abort()
        if any(responses) and not self._transport.is_closing():
            self._transport.write(b"".join(responses))

    def _respond(self, message: Any) -> bytes:
        """The response to a request; empty for a notice. ValueError for what is neither."""
        kind, *rest = message if isinstance(message, list) and message else [None]
        if (kind, len(rest)) not in ((REQUEST, 3), (NOTICE, 2)):
            raise ValueError(f"unexpected message of type {type(message).__name__}")
        name, params = rest[-2:]
        if not isinstance(name, str) or not isinstance(params, list):
            raise ValueError("a call without a name or without a list of arguments")
        result = self._dispatch(name, params[1:])
        return msgpack.packb([RESPONSE, rest[0], None, result]) if kind == REQUEST else b""


class Streams:
    """The readers of all streams, and sending to them."""

    def __init__(self, on_reader: Callable[[int], None]) -> None:
        """No stream has a reader yet.

        Args:
            on_reader: Called with the number of a stream when a client begins to read it.
        """
        self._readers: dict[int, set[StreamReader]] = defaultdict(set)
        self._expected: dict[int, tuple[float, list[bytes]]] = {}
        """Deadline of readers that are expected, and the frames kept for them."""
        self._on_reader = on_reader

    def protocol(self) -> StreamReader:
        """A new connection for one reader."""
        return StreamReader(self)

    def expect(self, stream: int) -> None:
        """Keep frames until a client that asked for a stream reads it, at most `PATIENCE` seconds.

        Args:
            stream: Its number.
        """
        self._expected[stream] = time.monotonic() + PATIENCE, []

    def add(self, stream: int, reader: StreamReader) -> None:
        """Register a reader and send it the frames that were kept.

        Args:
            stream: Number of the stream.
            reader: The connection.
        """
        for data in self._expected.pop(stream, (0.0, []))[1]:
            reader.send(data)
        self._readers[stream].add(reader)
        self._on_reader(stream)

    def remove(self, stream: int, reader: StreamReader) -> None:
        """Deregister a reader.

        Args:
            stream: Number of the stream.
            reader: The connection.
        """
        self._readers[stream].discard(reader)
        if not self._readers[stream]:
            del self._readers[stream]

    def is_read(self, stream: int) -> bool:
        """Whether a stream has a reader, or a reader is expected.

        Args:
            stream: Its number.
        """
        if stream in self._expected and time.monotonic() > self._expected[stream][0]:
            del self._expected[stream]
        return stream in self._readers or stream in self._expected

    def send(self, stream: int, payload: bytes) -> None:
        """Send a frame to all readers of a stream. A reader that has stopped reading is dropped.

        Args:
            stream: Its number.
            payload: The frame.
        """
        data = struct.pack("<I", len(payload)) + payload
        if stream in self._expected:
            self._expected[stream][1].append(data)
        for reader in list(self._readers.get(stream, ())):
            reader.send(data)

    def close(self, stream: int) -> None:
        """Close all readers of a stream.

        Args:
            stream: Its number.
        """
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
        _send_without_delay(transport)

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
        """Send bytes, or drop the connection where too many wait already."""
        if self._transport.get_write_buffer_size() > MAX_BACKLOG:
            log.warning("a client does not read stream %s: dropped", self._stream)
            self._transport.abort()
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after what was sent."""
        self._transport.close()


def _send_without_delay(transport: Any) -> None:
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
