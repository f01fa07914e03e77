"""Photos as cameras and people leave them: turned, grey, deep, transparent, broken, and larger than memory."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelers.faces import DecodeError
from labelers.photos import MAX_PIXELS, MAX_SIDE, decode_photo, read_orientation


def draw_photo(height: int = 60, width: int = 90) -> np.ndarray:
    """A smooth photo without any symmetry, uint8 [height, width, 3] RGB."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4) // 2 + np.linspace(0, 120, width).astype(np.uint8)[:, None]


PHOTO = draw_photo()


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def little_endian(orientation: int, kind: int = 3) -> bytes:
    """EXIF as a little-endian camera writes it, with a tag before the orientation."""
    entries = struct.pack("<HHIHH", 0x010F, 2, 2, 0x41, 0) + struct.pack("<HHIHH", 0x0112, kind, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", [exif, little_endian])
def test_a_turned_jpeg_is_upright_as_opencv_and_pillow_turn_it(orientation, write):
    stored = encode(Image.fromarray(PHOTO), "JPEG", quality=95, exif=write(orientation))
    assert read_orientation(stored) == orientation
    found = decode_photo(stored)
    assert found.shape == ((60, 90, 3) if orientation < 5 else (90, 60, 3))
    assert found.flags.c_contiguous
    assert np.array_equal(found, cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR_RGB))
    transpositions = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # as in Pillow's exif_transpose
    upright = Image.fromarray(PHOTO)
    if orientation > 1:
        upright = upright.transpose(Image.Transpose(transpositions[orientation]))
    assert np.abs(found.astype(int) - np.asarray(upright)).max() < 40  # JPEG's loss; another turn differs by more
    assert np.corrcoef(found.ravel(), np.asarray(upright).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_turned_too(kind):
    stored = encode(Image.fromarray(PHOTO), kind, exif=exif(6), lossless=True)
    assert np.array_equal(decode_photo(stored), np.rot90(PHOTO, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientations_mean_upright(orientation):
    assert read_orientation(encode(Image.fromarray(PHOTO), "JPEG", exif=little_endian(orientation))) == 1
    assert read_orientation(encode(Image.fromarray(PHOTO), "JPEG", exif=little_endian(6, kind=7))) == 1


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=80), place=st.integers(0, 120), cut=st.integers(0, 200))
def test_damaged_exif_never_stops_a_run(noise, place, cut):
    stored = b"\xff\xd8\xff\xff\xe1" + struct.pack(">H", 2 + len(little_endian(6))) + little_endian(6)
    damaged = (stored[:place] + noise + stored[place + len(noise) :])[: max(cut, 4)]
    assert read_orientation(damaged) in range(1, 9)
    assert read_orientation(stored) == 6


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]),
)
def test_any_bytes_are_a_photo_or_a_decode_error(content, start):
    try:
        photo = decode_photo(start + content)
    except DecodeError:
        return
    assert photo.dtype == np.uint8
    assert photo.shape[2] == 3


def test_grey_deep_transparent_and_other_colours():
    grey = PHOTO[:, :, 0]
    for image, expected in [
        (Image.fromarray(grey), np.dstack([grey] * 3)),
        (Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)),
        (Image.fromarray(np.dstack([PHOTO, grey])), PHOTO),
        (Image.fromarray(np.dstack([grey, grey])), np.dstack([grey] * 3)),
        (Image.fromarray(grey > 60), np.dstack([(grey > 60) * 255] * 3)),
    ]:
        assert np.array_equal(decode_photo(encode(image, "PNG")), expected), image.mode
    deep = cv2.imencode(".png", PHOTO[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(decode_photo(deep), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(32)
    assert np.array_equal(decode_photo(encode(palette, "PNG")), np.asarray(palette.convert("RGB")))
    for mode in ("L", "CMYK"):
        stored = encode(Image.fromarray(PHOTO).convert(mode), "JPEG", quality=95)
        assert np.array_equal(decode_photo(stored), cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR_RGB))
    assert np.array_equal(decode_photo(encode(Image.fromarray(PHOTO), "BMP")), PHOTO)


def test_what_cameras_do_wrong_is_forgiven_and_damage_is_not():
    jpeg = encode(Image.fromarray(draw_photo(300, 400)), "JPEG", quality=95)
    whole = simplejpeg.decode_jpeg(jpeg)
    end, scan = jpeg.rfind(b"\xff\xd9"), jpeg.find(b"\xff\xda")
    spectral_end = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big") - 2
    for forgiven in (
        jpeg + b"\0" * 1000,
        jpeg[:end] + b"\0\1\2" + jpeg[end:],
        jpeg[:spectral_end] + b"\0" + jpeg[spectral_end + 1 :],
    ):
        assert forgiven != jpeg
        assert np.array_equal(decode_photo(forgiven), whole)
    middle = len(jpeg) // 2
    for damaged in (jpeg[:middle], jpeg[:-2], jpeg[:middle] + b"\xff\xd5" * 20 + jpeg[middle + 40 :]):
        with pytest.raises(DecodeError):
            decode_photo(damaged)
    png = encode(Image.fromarray(PHOTO), "PNG")
    for broken in (b"", b"no photo", jpeg[:3], jpeg[:200], png[: len(png) // 2], png[:20]):
        with pytest.raises(DecodeError):
            decode_photo(broken)


def png_of(width: int, height: int) -> bytes:
    """A sound PNG of one colour, some bytes long whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + -(-width // 8)) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_photo_that_would_fill_the_memory_is_refused():
    assert decode_photo(png_of(2000, 10)).shape == (10, 2000, 3)
    with pytest.raises(DecodeError, match="30000 x 9000 pixels: at most 268,435,456"):
        decode_photo(png_of(30000, 9000))
    assert MAX_PIXELS < 30000 * 9000
    with pytest.raises(DecodeError, match="32,766 on a side"):
        decode_photo(png_of(MAX_SIDE + 1, 2))
    assert decode_photo(png_of(MAX_SIDE, 2)).shape == (2, MAX_SIDE, 3)
    # the widest that OpenCV turns
    cv2.warpAffine(np.zeros((2, MAX_SIDE, 3), np.uint8), np.eye(2, 3), (112, 112))
    wide = bytearray(encode(Image.fromarray(PHOTO), "JPEG"))
    frame = wide.find(b"\xff\xc0")
    wide[frame + 5 : frame + 9] = struct.pack(">HH", 60, 65000)
    with pytest.raises(DecodeError, match="65000 x 60"):
        decode_photo(bytes(wide))


def test_libpng_says_nothing_on_the_terminal(capfd):
    png = encode(Image.fromarray(PHOTO), "PNG", icc_profile=b"no profile")
    assert np.array_equal(decode_photo(png), PHOTO)
    with pytest.raises(DecodeError):
        decode_photo(png[: len(png) // 2])
    assert "libpng" not in capfd.readouterr().err
