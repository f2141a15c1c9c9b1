"""What an encoding may be wrapped in: hex, base64, zlib and Qt's qCompress."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from pfstore.sources.encodings.values import MAX_BYTES, Undecodable, as_bytes, as_text

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def unhex(value: Any) -> bytes:
    r"""Return the bytes of hexadecimal text, also after 0x or \x. Raises Undecodable."""
    text = as_text(value)
    try:
        return bytes.fromhex(text[2:] if text.startswith(("0x", "0X", "\\x")) else text)
    except ValueError:
        raise Undecodable("not hexadecimal") from None


def unbase64(value: Any) -> bytes:
    """Return the bytes of base64 text of either alphabet, also in lines. Raises Undecodable."""
    try:
        return base64.b64decode(as_text(value).encode().translate(_TO_STANDARD, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        raise Undecodable("not base64") from None


def inflate(value: Any) -> bytes:
    """Return what zlib compressed, of at most MAX_BYTES bytes. Raises Undecodable."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(as_bytes(value), MAX_BYTES + 1)
    except zlib.error:
        raise Undecodable("not zlib data") from None
    if len(data) > MAX_BYTES:
        raise Undecodable(f"unpacks to more than {MAX_BYTES} bytes")
    if not stream.eof:
        raise Undecodable("compressed data are cut off")
    if stream.unused_data:
        raise Undecodable(f"{len(stream.unused_data)} bytes after the compressed data")
    return data


def uncompress_qt(value: Any) -> bytes:
    """Return what qCompress compressed: a 4-byte big-endian length, then zlib. Raises Undecodable."""
    packed = as_bytes(value)
    data = inflate(packed[4:])
    length = int.from_bytes(packed[:4], "big")
    if length != len(data):
        raise Undecodable(f"unpacks to {len(data)} bytes, not to the {length} that it announces")
    return data


WRAPPERS: Mapping[str, Callable[[Any], bytes]] = {
    "hex": unhex,
    "base64": unbase64,
    "zlib": inflate,
    "qcompress": uncompress_qt,
}
