"""How processes of a group speak: frames of a kind and a content. Pure; anything else than a frame is an error.

A frame is four bytes that no other protocol begins with, a kind, the content's length, the content. Whoever can reach
the port can write to it, so a length is believed up to a bound only.
"""

from __future__ import annotations

import struct

HELLO, WELCOME, REFUSED, DATA, RESULT, FAILED, DONE, LINK = range(8)
KINDS = LINK + 1
MOST_BYTES = 1 << 22
_MAGIC = b"NcS1"
_HEADER = struct.Struct("<4sBI")
HEADER_BYTES = _HEADER.size


class FrameError(Exception):
    """What was read is no frame."""


def frame(kind: int, content: bytes) -> bytes:
    """The bytes of a frame."""
    return header(kind, len(content)) + content


def header(kind: int, length: int) -> bytes:
    """What a frame with so long a content begins with."""
    return _HEADER.pack(_MAGIC, kind, length)


class Reader:
    """Frames out of bytes that come in pieces."""

    __slots__ = ("_most", "_rest")

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._rest = bytearray()
        self._most = most

    def feed(self, data: bytes) -> None:
        """More bytes have come."""
        self._rest += data

    def next(self) -> tuple[int, bytes] | None:
        """The next frame, None while it is not whole. Raises FrameError."""
        given = min(len(self._rest), len(_MAGIC))
        if self._rest[:given] != _MAGIC[:given]:
            raise FrameError("this does not speak nccom-test's protocol")
        if len(self._rest) < _HEADER.size:
            return None
        _, kind, length = _HEADER.unpack_from(self._rest)
        if kind >= KINDS or length > self._most:
            raise FrameError(f"a frame of kind {kind} with {length} bytes: neither side sends such")
        end = _HEADER.size + length
        if len(self._rest) < end:
            return None
        content = bytes(self._rest[_HEADER.size : end])
        del self._rest[:end]
        return kind, content
