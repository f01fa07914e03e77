"""Faces as a page shows them: small pictures inside the page, with what is known of each."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from labelers.faces import SIDE, decode

THUMBNAIL = 84
"""Height and width of a picture that is made small, in pixels."""
JPEG_QUALITY = 80

FAIR = 6_000
"""Bytes up to which a stored JPEG goes into the page as it is."""

_METADATA = (b"Exif\x00", b"http://ns.adobe.com/", b"Photoshop")
"""What a JPEG may carry beside its picture; one that does is encoded anew."""

_SPOKEN = 3
"""Facts that stand in a picture's alternative text; all of them stand in its card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A face in a page.

    Attributes:
        source: data URI of a JPEG; nothing where there is no picture to show.
        caption: what stands below it.
        facts: name and value of all that is known of it, the most important first.
        missing: why there is no picture.
    """

    source: str
    caption: str
    facts: tuple[tuple[str, str], ...]
    missing: str = "does not decode"

    @property
    def text(self) -> str:
        """All that is known, in one line."""
        return ", ".join(f"{name} {value}" for name, value in self.facts)

    @property
    def lines(self) -> str:
        """All that is known, a line each: name, a tab, value. A value never breaks a line."""
        return "\n".join(f"{_one_line(name)}\t{_one_line(value)}" for name, value in self.facts)

    @property
    def name(self) -> str:
        """The picture in a few words."""
        return ", ".join(f"{name} {value}" for name, value in self.facts[:_SPOKEN])


def embed(encoded: bytes, *, small: bool) -> str:
    """A stored image as a JPEG in a data URI: as it is where that is small enough, and without its metadata.

    Args:
        encoded: JPEG, PNG, BMP or WebP.
        small: make it THUMBNAIL pixels high and wide, and not SIDE.

    Raises:
        DecodeError: if it is not an image that decodes.
    """
    image = decode(encoded)
    side = THUMBNAIL if small else SIDE
    keep = not small and len(encoded) <= FAIR and not any(mark in encoded for mark in _METADATA)
    if image.shape != (side, side, 3):
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    elif keep and simplejpeg.is_jpeg(encoded):
        return _to_uri(encoded)
    return _to_uri(simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorspace="RGB"))


def _to_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _one_line(text: str) -> str:
    """A text without control characters, so that a name from a disk cannot pose as a line of its own."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
