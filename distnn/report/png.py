"""Small pictures of whole numbers: a palette PNG (ISO/IEC 15948), as text for an HTML page."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTH, PALETTE = 8, 3  # bits of a pixel; colour type


def data_uri(pixels: NDArray[np.uint8], palette: Sequence[str]) -> str:
    """The picture as the address of an image.

    Args:
        pixels: (height, width) numbers of colours.
        palette: the colours, as ``#0b63a8``.
    """
    return "data:image/png;base64," + base64.b64encode(png(pixels, palette)).decode()


def png(pixels: NDArray[np.uint8], palette: Sequence[str]) -> bytes:
    """The bytes of a PNG file; arguments as of `data_uri`."""
    height, width = pixels.shape
    lines = np.zeros((height, 1 + width), np.uint8)  # a filter of 0 (none) in front of each
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, DEPTH, PALETTE, 0, 0, 0)
    colours = bytes.fromhex("".join(colour.removeprefix("#") for colour in palette))
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
