"""What hostile verification files may not do: run code, fill the memory, end the process."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from data_manifests.verification import VerificationError, read_bin

if TYPE_CHECKING:
    from pathlib import Path


def write_attack(folder: Path, data: bytes) -> Path:
    path = folder / "pairs.bin"
    path.write_bytes(data)
    return path


def plain_type(code: bytes, order: bytes) -> bytes:
    return (
        b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R"
        b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


class Attack:
    """Pickles to a call of a function, which leaves a trace if it is run."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    for function, name in ((os.system, "posix.system"), (eval, r"(builtins|__builtin__).eval"), (open, r"_?io.open")):
        argument = {os.system: f"touch {trace}", eval: f"open({str(trace)!r}, 'w')", open: str(trace)}[function]
        arguments = (argument, "w") if function is open else (argument,)
        attack = Attack(function, *arguments)
        for content in (attack, ([attack, b""], [True]), ([b"", b""], attack), ([b"", b""], [attack])):
            path = write_attack(tmp_path, pickle.dumps(content, protocol))
            with pytest.raises(
                VerificationError, match=rf"^{name} is not allowed in {path}, up to byte .* nothing of it was run"
            ):
                read_bin(path)
            assert not trace.exists()
        pickle.loads(pickle.dumps(attack, protocol))
        assert trace.exists()  # so the attack is a real one
        trace.unlink()


def pair_of(first: bytes) -> bytes:
    """A pickle of one pair whose first image is made by the given opcodes."""
    return b"\x80\x05](" + first + b"C\x01ae](\x88e\x86."


EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def array_state(
    *, shape: bytes = b"K\x03\x85", kind: bytes = b"u1", order: bytes = b"|", data: bytes = b"C\x03abc",
    version: bytes = b"K\x01", fortran: bytes = b"\x89",
) -> bytes:  # fmt: skip
    return b"(" + version + shape + plain_type(kind, order) + fortran + data + b"tb"


def array_with(**parts: bytes) -> bytes:
    """A pickle of one pair whose first image is an array of three bytes, but for the given parts of its state."""
    return pair_of(EMPTY_ARRAY + array_state(**parts))


HOSTILE = {
    "a name by STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"^os\.system is not allowed in"),
    "a name by INST": (b"(S'true'\nios\nsystem\n.", "the opcode INST is not allowed"),
    "an allowed name by INST": (b"(S'u1'\ninumpy\ndtype\n.", "the opcode INST is not allowed"),
    "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", r"^numpy\.ndarray\.dump is not allowed"),
    "numpy's loader": (b"cnumpy\nload\n.", r"^numpy\.load is not allowed"),
    "getattr": (b"c__builtin__\ngetattr\n.", r"^__builtin__\.getattr is not allowed"),
    "a name that breaks a terminal": (b"cos\x1b[2J\nx\n.", r"^'os\\x1b\[2J\.x' is not allowed"),
    "a name of a megabyte": (b"c" + b"m" * 1_000_000 + b"\nx\n.", r"^'m{100}' is not allowed"),
    "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", r"a damaged pickle \(.*requires str"),
    "an extension": (b"\x82\x01.", "the opcode EXT1 is not allowed"),
    "a persistent name": (b"Pos.system\n.", "the opcode PERSID is not allowed"),
    "a new object": (b"cnumpy\nndarray\n)\x81.", "the opcode NEWOBJ is not allowed"),
    "a buffer from outside": (b"\x80\x05\x97.", "the opcode NEXT_BUFFER is not allowed"),
    "a dictionary": (b"}.", "the opcode EMPTY_DICT is not allowed"),
    "a hash of deep tuples": (b"}" + b")" + b"\x85" * 500_000 + b"Ns.", "the opcode EMPTY_DICT is not allowed"),
    "an unknown opcode": (b"\xff.", "the opcode ff is not allowed"),
    "a protocol of the future": (b"\x80\x06N.", r"a damaged pickle \(unsupported pickle protocol: 6"),
    "a call of a list": (b"])R.", "object is not callable"),
    "a call of a class": (b"cnumpy\nndarray\n)R.", "object is not callable"),
    "a state for a list": (b"])b.", "state is not a dictionary"),
    "a state for a name": (b"cnumpy\ndtype\n)b.", "state is not a dictionary"),
    "bytes of a size": (b"cbuiltins\nbytes\n\x8a\x06" + b"\xff" * 5 + b"\x00\x85R.", "bytes of anything but bytes"),
    "bytearray of a size": (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytes of anything but bytes"),
    "encode with another codec": (b"c_codecs\nencode\nVa\nVhex\n\x86R.", "bytes of anything but bytes, or text"),
    "encode of what is no byte": (
        pair_of(b"c_codecs\nencode\nV\\u1234\nVlatin1\n\x86R"), "image 0 a text that does not hold bytes"
    ),
    "bytes of 2**62": (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x", "the end is missing"),
    "bytearray of 2**40": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x", "the end is missing"),
    "a text of 2**32 - 1": (b"T\xff\xff\xff\xffx.", "the end is missing"),
    "a frame of 2**64 - 1": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "the end of a frame is missing"),
    "a frame within a frame": (b"\x80\x04\x95\x0a" + bytes(7) + b"\x95" + bytes(8) + b"N.", "a frame within a frame"),
    "a frame that hides a memo number": (
        b"\x80\x04\x95\x03" + bytes(7) + b"U\x02abUr\xff\xff\xff\x7f" + bytes(110) + b".", "ends within a step"
    ),
    "a memo number of 2**28": (b"Nr\x00\x00\x00\x10.", "the memo number 268435456 in step 1 is not allowed"),
    "a memo number of 19 digits": (b"Np" + b"9" * 19 + b"\n.", "the memo number 9{19} in step 1 is not allowed"),
    "a memo number of many digits": (b"Np" + b"9" * 100_000 + b"\n.", "a number of 100001 bytes is not allowed"),
    "a number of many digits": (b"I" + b"9" * 100_000 + b"\n.", "a number of 100001 bytes is not allowed"),
    "a long number of 255 bytes": (b"\x8a\xff" + b"9" * 255 + b".", "a number of 255 bytes is not allowed"),
    "a long number of megabytes": (b"\x8b\x00\x00\x10\x00" + b"9" * 2**20 + b".", "the opcode LONG4 is not allowed"),
    "deep tuples": (b")" + b"\x85" * 100_000 + b".", "does not hold two lists"),
    "deep lists": (b"]" * 100_000 + b"a" * 99_999 + b".", "does not hold two lists"),
    "tuples that double": (b")" + b"q\x00h\x00\x86" * 1000 + b".", "image 0 a value of type tuple"),
    "a list that holds itself": (b"]q\x00h\x00ah\x00a](\x88e\x86.", "image 0 a value of type list"),
    "a pair of one list that holds itself": (b"]q\x00h\x00ah\x00a.", "image 0 a value of type list"),
    "an array of objects": (array_with(kind=b"O8"), "numpy.dtype of 'O8' is not allowed"),
    "an array of records": (array_with(kind=b"V9"), "numpy.dtype of 'V9' is not allowed"),
    "an array of floats": (array_with(kind=b"f4", order=b"<"), "numpy.dtype of 'f4' is not allowed"),
    "a type of a long name": (b"cnumpy\ndtype\nV" + b"x" * 9999 + b"\n\x89\x88\x87R.", "numpy.dtype of 'x{16}' is not"),
    "a type with fields": (
        b"cnumpy\ndtype\nC\x02u1\x89\x88\x87R(K\x03C\x01|NC\x01aNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        "other than that of a plain u1",
    ),
    "a byte order that is none": (array_with(order=b"O"), "other than that of a plain u1"),
    "a shape beyond the bytes": (array_with(shape=b"J\x00\x00\x00\x70\x85"), r"3 bytes .* u1 \[1879048192\]"),
    "a shape within the bytes": (array_with(shape=b"K\x02\x85"), r"3 bytes for an array of u1 \[2\]"),
    "a negative shape": (array_with(shape=b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86"), "a shape of numpy.ndarray"),
    "a shape of truth values": (array_with(shape=b"\x88K\x03\x86"), "a shape of numpy.ndarray"),
    "an array state with another order": (array_with(fortran=b"N"), "a state of numpy.ndarray that"),
    "a buffer in an unknown order": (
        b"cnumpy.core.numeric\n_frombuffer\n(C\x01a" + plain_type(b"u1", b"|") + b"K\x01\x85K\x01tR.",
        "_frombuffer of anything but",
    ),
    "a shape of 40 dimensions": (array_with(shape=b"(" + b"K\x01" * 40 + b"K\x03t"), "a shape of numpy.ndarray"),
    "an array whose bytes are a list": (array_with(data=b"]"), "not numbers as bytes"),
    "an array state of another version": (array_with(version=b"K\x02"), "a state of numpy.ndarray that"),
    "an array that is filled twice": (pair_of(EMPTY_ARRAY + 2 * array_state()), "filled twice"),
    "an array that is not filled": (pair_of(EMPTY_ARRAY), "image 0 an array of nothing"),
    "another class to reconstruct": (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R.",
        "_reconstruct of anything but",
    ),
    "a subclass's size to reconstruct": (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85C\x01b\x87R.",
        "_reconstruct of anything but",
    ),
    "a scalar of many numbers": (
        b"cnumpy.core.multiarray\nscalar\n" + plain_type(b"i8", b"<") + b"C\x02ab\x86R.",
        "scalar of anything but one number",
    ),
    "a buffer as text": (
        b"cnumpy.core.numeric\n_frombuffer\n(X\x01\x00\x00\x00a" + plain_type(b"u1", b"|") + b"K\x01\x85C\x01CtR.",
        "_frombuffer of anything but numbers as bytes",
    ),
    "no value above a mark": (b"]N(a.", r"a damaged pickle \(unexpected MARK"),
    "no mark": (b"Nt.", r"a damaged pickle \(could not find MARK"),
    "no list": (b"NNa.", r"a damaged pickle \(.* has no attribute 'append'"),
    "no memo": (b"h\x07.", r"a damaged pickle \(Memo value not found at index 7"),
    "two values": (b"NN.", "does not hold two lists"),
    "an open mark": (b"(N.", "does not hold two lists"),
    "more behind the end": (b"N.N.", "2 bytes left"),
    "no line's end": (b"I1", "the end of a line is missing"),
    "a text without quotes": (b"Sabc\n.", r"a damaged pickle \(.* must be quoted"),
    "a text with an open escape": (b"S'abc\\'\n.", r"a damaged pickle \(Trailing"),
    "a text that is not UTF-8": (b"X\x01\x00\x00\x00\xff.", r"a damaged pickle \('utf-8' codec"),
    "nothing": (b"", "the end is missing"),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_files_are_refused_in_little_memory(tmp_path: Path, attack: str) -> None:
    data, message = HOSTILE[attack]
    path = write_attack(tmp_path, data)
    tracemalloc.start()
    try:
        with pytest.raises(VerificationError, match=message) as caught:
            read_bin(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert "pickle.dump(" in str(caught.value)
    assert peak < 80 * len(data) + 100_000


def test_one_text_cannot_be_encoded_over_and_over(tmp_path: Path) -> None:
    call = b"c_codecs\nencode\nh\x01Vlatin1\n\x86R"
    bomb = b"](" + b"V" + b"x" * 100_000 + b"\nq\x01" + call * 3000 + b"e](\x88e\x86."
    tracemalloc.start()
    try:
        with pytest.raises(VerificationError, match="holds 3001 images and 1 flags"):
            read_bin(write_attack(tmp_path, bomb))
        assert tracemalloc.get_traced_memory()[1] < 5 * len(bomb)  # and not 300 MB
    finally:
        tracemalloc.stop()


def test_steps_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="more than 4000000 steps are not allowed"):
        read_bin(write_attack(tmp_path, b"N\x94" * 2_000_001))
