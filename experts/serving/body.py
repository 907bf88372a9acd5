"""The body of an HTTP/1.x request, by its length or in chunks, within limits of size and time."""

from __future__ import annotations

import time
from email.message import Message
from typing import Protocol

from experts.serving.api import ApiError

MAX_BODY = 2_000_000
"""Bytes of a request."""
MAX_REFUSED = 16_000_000
"""Bytes of a request that is too large which are read nevertheless, so that its sender gets to read why."""
MAX_LINE = 256
"""Bytes of a line between chunks."""
MAX_TRAILERS = 32
"""Lines after the last chunk."""


class ByteStream(Protocol):
    """What bytes are read from."""

    def read1(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class BodyReader:
    """Reads one body. All of it has to come in time; ConnectionError when the client leaves."""

    def __init__(self, stream: ByteStream, patience_s: float) -> None:
        """Start the clock.

        Args:
            stream: Of the connection, behind the headers.
            patience_s: Seconds for all of the body.
        """
        self._stream, self._patience_s = stream, patience_s
        self._until = time.monotonic() + patience_s

    def read(self, command: str, version: str, headers: Message) -> bytes:
        """The body; empty where there is none.

        Args:
            command: Method of the request.
            version: `HTTP/1.1` or the like.
            headers: Of the request.

        Raises:
            ApiError: It cannot be read; the connection is of no use afterwards.
        """
        coding, lengths = headers.get("Transfer-Encoding"), headers.get_all("Content-Length") or []
        if coding is not None:
            return self._coded(coding.strip().lower(), bool(lengths), version)
        if not lengths:
            if command == "POST":
                raise ApiError(411, "a body is needed, with a Content-Length or in chunks")
            return b""
        text = lengths[0].strip()
        if len(set(lengths)) > 1 or not (text.isascii() and text.isdigit()):
            raise ApiError(400, f"Content-Length {', '.join(lengths)[:40]!r} is not a number of bytes")
        length = int(text[:20])
        if length > MAX_BODY:
            if length <= MAX_REFUSED:
                self._take(length, keep=False)
            raise ApiError(413, f"a body of {length} bytes: at most {MAX_BODY} are read")
        return self._take(length)

    def _coded(self, coding: str, has_length: bool, version: str) -> bytes:
        if has_length:
            raise ApiError(400, "a request has a Content-Length or a Transfer-Encoding, not both")
        if version != "HTTP/1.1":
            raise ApiError(400, f"{version} knows no Transfer-Encoding")
        if coding != "chunked":
            raise ApiError(501, f"transfer coding {coding[:40]!r} is not supported: send chunked or a Content-Length")
        return self._chunks()

    def _chunks(self) -> bytes:
        parts, total = [], 0
        while size := self._chunk_size():
            total += size
            if total > MAX_REFUSED:
                raise ApiError(413, f"a body of more than {MAX_REFUSED} bytes: at most {MAX_BODY} are read")
            parts.append(self._take(size, keep=total <= MAX_BODY))
            if self._line():
                raise ApiError(400, "a chunk is longer than it says")
        for _ in range(MAX_TRAILERS):
            if not self._line():
                break
        else:
            raise ApiError(400, f"more than {MAX_TRAILERS} lines after the last chunk")
        if total > MAX_BODY:
            raise ApiError(413, f"a body of {total} bytes: at most {MAX_BODY} are read")
        return b"".join(parts)

    def _chunk_size(self) -> int:
        digits = self._line().split(b";")[0].strip()
        if not 0 < len(digits) <= 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise ApiError(400, f"{digits[:20].decode('latin-1')!r} is not the size of a chunk")
        return int(digits, 16)

    def _line(self) -> bytes:
        """The next line without its end."""
        line = b""
        while not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise ApiError(400, "a line between chunks is too long")
            line += self._some(1)
        return line.rstrip(b"\r\n")

    def _take(self, length: int, keep: bool = True) -> bytes:
        """So many bytes, or none where they are not kept."""
        parts = []
        while length:
            part = self._some(min(length, 65536))
            length -= len(part)
            parts += [part] if keep else []
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        """One byte or more."""
        try:
            part = self._stream.read1(size)
        except TimeoutError:
            part = None
        if part is None or time.monotonic() > self._until:
            raise ApiError(408, f"the body did not arrive within {self._patience_s:g} s")
        if not part:
            raise ConnectionResetError
        return part
