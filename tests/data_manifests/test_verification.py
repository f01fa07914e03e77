"""Verification files of every form, and of other contents."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.recordio.record_file import RecordFile
from data_manifests.verification import VerificationError, read_bin
from labelers.faces import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROTOCOLS = range(6)
IMAGES = [b"\xff\xd8 one \x00\n'\\", b"\x89PNG two \r\n", b"three\xff", b"4" * 300]
ITEM_FORMS: dict[str, Callable[[bytes], object]] = {
    "bytes": bytes,
    "str": lambda image: image.decode("latin-1"),
    "bytearray": bytearray,
    "array": lambda image: np.frombuffer(image, np.uint8),
    "writable array": lambda image: np.array(list(image), np.uint8),
    "column": lambda image: np.array(list(image), np.uint8).reshape(-1, 1),
    "every second byte of an array": lambda image: np.repeat(np.frombuffer(image, np.uint8), 2)[::2],
}
FLAG_FORMS: dict[str, Callable[[list[bool]], object]] = {
    "bool": list,
    "tuple": tuple,
    "int": lambda flags: [int(flag) for flag in flags],
    "numpy bool": lambda flags: [np.bool_(flag) for flag in flags],
    "numpy int": lambda flags: [np.int64(flag) for flag in flags],
    "bool array": np.array,
    "int array": lambda flags: np.array(flags, np.int64),
    "big-endian array": lambda flags: np.array(flags, ">i4"),
    "float-free small array": lambda flags: np.array(flags, np.uint8),
}


def write(folder: Path, data: bytes) -> Path:
    path = folder / "pairs.bin"
    path.write_bytes(data)
    return path


def read_back(folder: Path, data: bytes) -> tuple[list[bytes], list[bool]]:
    images, flags = read_bin(write(folder, data))
    assert flags.dtype == np.bool_
    assert flags.ndim == 1
    assert all(type(image) is bytes for image in images)
    return images, flags.tolist()


def test_pairs_of_python_2_with_every_hash(real_data: Path) -> None:
    folder = real_data / "oracles" / "recordio"
    expected = json.loads((folder / "lfw_expected.json").read_text())
    images, flags = read_bin(folder / "lfw_py2.bin")
    assert [hashlib.sha256(image).hexdigest() for image in images] == expected["sha256"]
    assert flags.tolist() == expected["issame"]
    assert (len(images), flags.shape, flags.dtype) == (40, (20,), np.bool_)


@pytest.mark.parametrize(("name", "genuine", "impostor"), [("lfw_clean", 500, 500), ("lfw_hard", 2000, 2000)])
def test_real_pairs_with_their_list(real_data: Path, name: str, genuine: int, impostor: int) -> None:
    folder = real_data / "data"
    with (folder / "verification" / f"{name}.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    with (folder / "lfw112_natural" / "sources.tsv").open(newline="") as file:
        keys = {row["source"]: int(row["key"]) for row in csv.DictReader(file, delimiter="\t")}
    images, flags = read_bin(folder / "verification" / f"{name}.bin")
    assert flags.tolist() == [row["same"] == "1" for row in rows]
    assert (flags.sum(), (~flags).sum(), len(images)) == (genuine, impostor, 2 * len(rows))
    compared = 0
    with RecordFile(folder / "lfw112_natural" / "train.rec") as records:
        for pair in range(0, len(rows), 20):
            for image, side in zip(images[2 * pair : 2 * pair + 2], "ab", strict=True):
                if rows[pair][f"degradations_{side}"] == "[]":
                    photo = records.read(keys[rows[pair][side]])[1]
                    assert np.abs(decode(image).astype(int) - decode(photo)).mean() < 4  # encoded anew in lfw_hard
                    assert image == photo or name == "lfw_hard"
                    compared += 1
    assert compared > 40


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", ITEM_FORMS)
def test_every_form_of_an_image(tmp_path: Path, form: str, protocol: int) -> None:
    data = pickle.dumps(([ITEM_FORMS[form](image) for image in IMAGES], [True, False]), protocol)
    assert read_back(tmp_path, data) == (IMAGES, [True, False])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FLAG_FORMS)
def test_every_form_of_the_flags(tmp_path: Path, form: str, protocol: int) -> None:
    flags = [True, False, False]
    data = pickle.dumps([tuple(IMAGES[:3] + IMAGES[:3]), FLAG_FORMS[form](flags)], protocol)
    assert read_back(tmp_path, data) == (IMAGES[:3] + IMAGES[:3], flags)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300), st.booleans()), min_size=1, max_size=6),
    form=st.sampled_from(sorted(ITEM_FORMS)),
    flag_form=st.sampled_from(sorted(FLAG_FORMS)),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_pairs_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[bytes, bytes, bool]],
    form: str,
    flag_form: str,
    protocol: int,
) -> None:
    images = [image for first, second, _ in pairs for image in (first, second)]
    flags = [flag for *_, flag in pairs]
    content = ([ITEM_FORMS[form](image) for image in images], FLAG_FORMS[flag_form](flags))
    for fix_imports in (True, False):
        data = pickle.dumps(content, protocol, fix_imports=fix_imports)
        assert read_back(tmp_path_factory.getbasetemp(), data) == (images, flags)


def test_old_names_of_numpy(tmp_path: Path) -> None:
    content = ([np.frombuffer(image, np.uint8) for image in IMAGES], [np.True_, np.False_])
    for protocol in PROTOCOLS:
        new = pickle.dumps(content, protocol)
        if protocol >= 4:
            new = new[:2] + new[11:]  # without the frame, whose length would not fit
        old = new
        for module in (b"multiarray", b"numeric"):
            name = b"numpy._core." + module
            old = old.replace(
                b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(name) - 1]) + b"numpy.core." + module
            )
            old = old.replace(b"c" + name + b"\n", b"cnumpy.core." + module + b"\n")
        assert new != old
        assert b"_core" not in old
        assert read_back(tmp_path, old) == (IMAGES, [True, False])


def python2_array(data: bytes, code: bytes, order: bytes = b"|", count: int | None = None) -> bytes:
    """An array as NumPy under Python 2 writes it in protocol 2: texts are bytes, truth values numbers."""
    count = len(data) if count is None else count
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01\x8a\x02" + count.to_bytes(2, "little") + b"\x85" + python2_type(code, order)
        + b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"
    )  # fmt: skip


def python2_type(code: bytes, order: bytes) -> bytes:
    return (
        b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R"
        b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def python2_bool(value: bool) -> bytes:
    return b"cnumpy.core.multiarray\nscalar\n" + python2_type(b"b1", b"|") + b"U\x01" + bytes([value]) + b"\x86R"


PYTHON_2_FORMS = {
    "arrays and a list of numpy bools": (
        b"\x80\x02](" + b"".join(python2_array(image, b"u1") for image in IMAGES) + b"e"
        b"](" + python2_bool(True) + python2_bool(False) + b"e\x86."
    ),
    "arrays and an array of flags": (
        b"\x80\x02](" + b"".join(python2_array(image, b"u1") for image in IMAGES) + b"e"
        + python2_array(b"\x01\x00", b"b1") + b"\x86."
    ),
    "arrays and an array of long numbers": (
        b"\x80\x02](" + b"".join(python2_array(image, b"u1") for image in IMAGES) + b"e"
        + python2_array(b"\x01" + bytes(15), b"i8", b"<", 2) + b"\x86."
    ),
    "bytearrays": (
        b"\x80\x02]("
        + b"".join(
            b"c__builtin__\nbytearray\nX" + len(text := image.decode("latin-1").encode()).to_bytes(4, "little") + text
            + b"U\x07latin-1\x86R" for image in IMAGES
        )
        + b"e](\x88\x89e\x86."
    ),
    "protocol 0": b"((lp0\nS'\\xff\\xd8 one \\x00\\n\\'\\\\'\np1\naS'\\x89PNG two \\r\\n'\np2\naS\"three\\xff\"\np3\na"
    + b"S'" + b"4" * 300 + b"'\np4\na(lp5\nI01\naI00\natp6\n.",
    "long numbers": (
        b"\x80\x02](" + b"".join(b"T" + len(image).to_bytes(4, "little") + image for image in IMAGES)
        + b"e](L1L\nL0L\ne\x86."
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", PYTHON_2_FORMS)
def test_forms_of_python_2_written_by_hand(tmp_path: Path, form: str) -> None:
    data = PYTHON_2_FORMS[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy begins to leave its own old form
        images, flags = pickle.loads(data, encoding="latin-1")  # what Python itself makes of the same opcodes
    assert [item.encode("latin-1") if isinstance(item, str) else bytes(item) for item in images] == IMAGES
    assert [bool(flag) for flag in flags] == [True, False]
    assert read_back(tmp_path, data) == (IMAGES, [True, False])


def test_an_image_that_is_referred_to_often_is_one_object(tmp_path: Path) -> None:
    for shared in (b"image" * 1000, "image" * 1000, bytearray(b"image" * 1000)):
        images, _ = read_bin(write(tmp_path, pickle.dumps(([shared] * 2000, [True] * 1000), 4)))
        assert len(images) == 2000
        assert {id(image) for image in images} == {id(images[0])}
        assert images[0] == b"image" * 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (([b"a", b"b", b"c"], [True]), "3 images and 1 flags, not two images for every flag"),
        (([b"a", b"b"], [True, False]), "2 images and 2 flags"),
        (([b"a", b"b"], np.array([True, False])), "2 images and 2 flags"),
        (([], []), "0 images and 0 flags"),
        (([b"a", 7], [True]), "image 1 a value of type int instead of encoded bytes"),
        (([None, b"a"], [True]), "image 0 nothing instead of encoded bytes"),
        ((["a", "\u1234"], [True]), "image 1 a text that does not hold bytes"),
        (([np.zeros((4, 4, 3), np.uint8)] * 2, [True]), r"image 0 an array \[4, 4, 3\], which is a picture"),
        (([np.uint8(3)] * 2, [True]), "image 0 a value of type int"),
        (([np.zeros((), np.uint8)] * 2, [True]), r"image 0 an array \[\], which"),
        (([np.zeros(4, np.int32)] * 2, [True]), "image 0 an array of i4, not of uint8"),
        (([b"a", b"b"], [2]), "flag 0 the number 2, not 0 or 1"),
        (([b"a", b"b"], [None]), "flag 0 nothing instead of True or False"),
        (([b"a", b"b"], ["True"]), "flag 0 a value of type str"),
        (([b"a", b"b"], np.array([3])), "flag 0 the number 3"),
        (([b"a", b"b"], np.array([[True]])), r"an array \[1, 1\] of flags"),
        (([b"a", b"b"], True), "does not hold two lists"),
        (np.zeros(4, np.uint8), "does not hold two lists"),
        (([b"a", b"b"],), "does not hold two lists"),
        (b"ab", "does not hold two lists"),
        ("ab", "does not hold two lists"),
        (None, "does not hold two lists"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    for protocol in PROTOCOLS:
        path = write(tmp_path, pickle.dumps(content, protocol))
        with pytest.raises(VerificationError, match=message) as caught:
            read_bin(path)
        assert str(path) in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    for name, message in (("none.bin", "No such file"), (".", "is not a file"), ("pipe.bin", "is not a file")):
        with pytest.raises(VerificationError, match=message):
            read_bin(tmp_path / name)
    huge = tmp_path / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(5 << 30)  # a hole, which takes no room on the disk
    with pytest.raises(VerificationError, match="holds 5368709120 bytes"):
        read_bin(huge)


def test_a_path_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, pickle.dumps((IMAGES, [True, True])))
    assert read_bin(str(path))[0] == IMAGES
