"""Which images are compared: pairs of a .bin, LFW's list, lists of paths, and what is wrong with lists."""

from __future__ import annotations

import csv
import logging
import pickle
import random
from typing import TYPE_CHECKING, TypeVar
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.benchmarks.pair_lists import PairsError, parse_pairs
from data_manifests.benchmarks.pairs import PairList, contiguous_folds, read_pairs
from data_manifests.manifest import Manifest, ManifestError, load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Result = TypeVar("Result")

PEOPLE = ("Ann_Lee", "Bo", "Cy_de_Vries")
PHOTOS = tuple(sorted(f"{who}/{who}_{number:04d}.jpg" for who in PEOPLE for number in (1, 2, 3)))
LFW_LIST = "2\t2\nBo\t1\t2\nBo\t2\t3\nBo\t1\tAnn_Lee\t2\nBo\t2\tAnn_Lee\t3\nAnn_Lee\t1\t2\nAnn_Lee\t1\t3\n"
LFW_LIST += "Bo\t3\tCy_de_Vries\t1\nAnn_Lee\t1\tCy_de_Vries\t3\n"


def write_set(folder: Path, text: str | bytes, name: str = "pairs.txt", more: str = "") -> Manifest:
    """A verification set of empty photos with a list of pairs."""
    for photo in PHOTOS:
        (folder / "photos" / photo).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / photo).touch()
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    words = f'name = "mine"\nformat = "verification"\nroot = "."\npairs_file = "{name}"\nimages_folder = "photos"\n'
    (folder / "mine.toml").write_text(words + more)
    return load_manifest(folder / "mine.toml")


def names_of(pairs: PairList) -> list[tuple[str, str, bool]]:
    return [(PHOTOS[a - 1], PHOTOS[b - 1], bool(same)) for a, b, same in zip(pairs.a, pairs.b, pairs.same, strict=True)]


def complaint(folder: Path, text: str | bytes, name: str = "pairs.txt") -> str:
    manifest = write_set(folder, text, name)
    with pytest.raises(PairsError) as caught:
        read_pairs(manifest)
    assert str(folder / name) in str(caught.value)
    return str(caught.value)


def read_or_explain(read: Callable[[], Result]) -> tuple[Result | None, str]:
    """What was read, or why it was not."""
    try:
        return read(), ""
    except PairsError as error:
        return None, str(error)


# --- the forms --------------------------------------------------------------------------------------------------------


def test_lfw_form(tmp_path: Path) -> None:
    pairs = read_pairs(write_set(tmp_path, LFW_LIST))
    assert names_of(pairs)[:3] == [
        ("Bo/Bo_0001.jpg", "Bo/Bo_0002.jpg", True),
        ("Bo/Bo_0002.jpg", "Bo/Bo_0003.jpg", True),
        ("Bo/Bo_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", False),
    ]
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (pairs.a.dtype, pairs.b.dtype, pairs.same.dtype, pairs.fold.dtype) == (np.int32, np.int32, bool, np.int16)
    assert len(pairs) == 8


@pytest.mark.parametrize(
    "text",
    [
        LFW_LIST.replace("\t", " "),
        LFW_LIST.replace("\n", "\r\n"),
        "\ufeff" + LFW_LIST,
        LFW_LIST.replace("\n", "\n\n") + "\n \n",
        LFW_LIST.rstrip("\n"),
    ],
    ids=["blanks", "windows", "byte order mark", "blank lines", "no last line end"],
)
def test_lfw_form_as_people_save_it(tmp_path: Path, text: str) -> None:
    expected = read_pairs(write_set(tmp_path, LFW_LIST))
    found = read_pairs(write_set(tmp_path, text))
    assert names_of(found) == names_of(expected)
    assert found.fold.tolist() == expected.fold.tolist()


def test_lfw_form_with_one_number_first_says_nothing_of_folds(tmp_path: Path) -> None:
    pairs = read_pairs(write_set(tmp_path, "4\n" + LFW_LIST.split("\n", 1)[1]))
    assert pairs.fold.tolist() == list(range(8))


def test_a_name_with_blanks_where_tabs_divide(tmp_path: Path) -> None:
    other = tmp_path / "photos" / "per son" / "per son_0001.PNG"
    other.parent.mkdir(parents=True)
    other.touch()
    pairs = read_pairs(write_set(tmp_path, "1\t1\nBo\t1\t2\nBo\t1\tper son\t1\n"))
    assert pairs.b.tolist() == [PHOTOS.index("Bo/Bo_0002.jpg") + 1, len(PHOTOS) + 1]


PATHS = [(PHOTOS[0], PHOTOS[1], 1), (PHOTOS[3], PHOTOS[0], 0), (PHOTOS[5], PHOTOS[4], 1)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "\n".join(f"{a},{b},{same}" for a, b, same in PATHS)),
        ("p.csv", "left,right,same\n" + "\n".join(f'"{a}", {b} ,{same}' for a, b, same in PATHS)),
        ("p.tsv", "left\tright\tsame\r\n" + "\r\n".join(f"{a}\t{b}\t{same}" for a, b, same in PATHS)),
        ("p.TSV", "\n\n".join(f"./{a}\t{b}\t{same}" for a, b, same in PATHS)),
        ("p.txt", "\n".join(f"{a} {b}   {same}" for a, b, same in PATHS)),
        ("pair.list", "\n".join(f"{a}\t{b}\t{same}" for a, b, same in PATHS)),
    ],
)
def test_lists_of_paths(tmp_path: Path, name: str, text: str) -> None:
    pairs = read_pairs(write_set(tmp_path, text, name))
    assert names_of(pairs) == [(a, b, bool(same)) for a, b, same in PATHS]
    assert pairs.fold.tolist() == [0, 1, 2]


@pytest.mark.parametrize("before", ["/data/photos/", "photos/", "./", "../x/photos/", "D:\\my photos\\"])
def test_paths_may_have_folders_before_them(tmp_path: Path, before: str) -> None:
    text = "".join(f"{before}{a},{before}{b},{same}\n" for a, b, same in PATHS)
    if "\\" in before:
        text = text.replace("/", "\\")
    assert names_of(read_pairs(write_set(tmp_path, text, "p.csv"))) == [(a, b, bool(s)) for a, b, s in PATHS]


@pytest.mark.parametrize(("written", "stored"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_may_be_in_another_form_of_unicode(tmp_path: Path, written: str, stored: str) -> None:
    listed, there = (normalize(form, "Zoë/é.jpg") for form in (written, stored))  # type: ignore[arg-type]
    manifest = write_set(tmp_path, f"{listed},{PHOTOS[0]},0\n", "p.csv")
    pairs = read_pairs(manifest, (*PHOTOS, there))
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([len(PHOTOS) + 1], [1])


def test_two_names_of_one_image_are_refused(tmp_path: Path) -> None:
    text = f"lfw/{PHOTOS[0]},{PHOTOS[1]},1\ncfp/{PHOTOS[0]},{PHOTOS[4]},0\n"
    said = complaint(tmp_path, text, "p.csv")
    assert f"line 2: 'cfp/{PHOTOS[0]}' and 'lfw/{PHOTOS[0]}' would both be the image '{PHOTOS[0]}'" in said
    assert "images are called like 'Ann_Lee/Ann_Lee_0001.jpg'" in complaint(tmp_path, "x/1.jpg,x/2.jpg,1\n", "p.csv")


def test_paths_that_were_listed_already(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, LFW_LIST)
    assert names_of(read_pairs(manifest, PHOTOS)) == names_of(read_pairs(manifest))
    with pytest.raises(PairsError, match="are missing"):
        read_pairs(manifest, PHOTOS[:3])


def test_pairs_of_a_bin(tmp_path: Path) -> None:
    flags = [True, False, False, True]
    (tmp_path / "p.bin").write_bytes(pickle.dumps(([b"x"] * 8, flags), 2))
    text = 'name = "mine"\nformat = "verification"\nroot = "."\nrecord_file = "p.bin"\n'
    (tmp_path / "mine.toml").write_text(text)
    pairs = read_pairs(load_manifest(tmp_path / "mine.toml"))
    assert (pairs.a.tolist(), pairs.b.tolist(), pairs.same.tolist()) == ([1, 3, 5, 7], [2, 4, 6, 8], flags)
    (tmp_path / "mine.toml").write_text(text + "pairs = 5\n")
    with pytest.raises(ManifestError, match=r"expected 5 pairs, found 4.*get it again"):
        read_pairs(load_manifest(tmp_path / "mine.toml"))


def test_pairs_of_real_photos(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "data" / "verification"
    (tmp_path / "hard.toml").write_text(
        f'name = "hard"\nformat = "verification"\nroot = "{folder}"\nrecord_file = "lfw_hard.bin"\npairs = 4000\n'
    )
    pairs = read_pairs(load_manifest(tmp_path / "hard.toml"))
    with (folder / "lfw_hard.tsv").open(newline="") as file:
        same = [row["same"] == "1" for row in csv.DictReader(file, delimiter="\t")]
    assert pairs.same.tolist() == same
    assert (pairs.a[-1], pairs.b[-1]) == (7999, 8000)
    assert np.bincount(pairs.fold).tolist() == [400] * 10
    assert np.bincount(pairs.fold, pairs.same).tolist() == [200] * 10  # so the folds are the publisher's


# --- folds ------------------------------------------------------------------------------------------------------------


def test_folds_worked_by_hand() -> None:
    assert contiguous_folds(13, 5).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert contiguous_folds(3).tolist() == [0, 1, 2]
    assert contiguous_folds(0).tolist() == []


@given(st.integers(0, 500), st.integers(1, 12))
def test_folds_are_those_of_numpys_split(pairs: int, folds: int) -> None:
    found = contiguous_folds(pairs, folds)
    parts = np.array_split(np.arange(pairs), min(folds, pairs) or 1)
    assert found.tolist() == [fold for fold, part in enumerate(parts) for _ in part]


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line; get the list again"),
        ("\n \n", "no line"),
        (b"\x80\x02]q\x00(U\x01ae.\xff", "line 1: not a text in UTF-8"),
        (b"1 1\nBo 1 2\n\xff\n", "line 3: not a text in UTF-8"),
        ("\x00\x01\x02", "line 1: not the number of folds"),
        ("ten 300\n", "line 1: not the number of folds and of genuine pairs a fold: 'ten 300'"),
        ("10\t-3\n", "line 1: not the number of folds"),
        ("2 2\nBo 1 2\n", "promises 2 x 2 genuine pairs and as many impostors, which are 8 lines, but 1 follow"),
        ("0 0\n", "but 0 follow"),
        (LFW_LIST + "Bo\t1\t3\n", "8 lines, but 9 follow"),
        (
            LFW_LIST[: LFW_LIST.rindex("\t")],
            r"line 9: neither `NAME i j` nor `NAME i OTHER j`: 'Ann_Lee 1 Cy_de_Vries'",
        ),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1"), "line 2: neither"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\t2\t"), "line 2: neither"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\tx"), "line 2: neither"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\t\u0662"), "line 2: neither"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\t9999999999"), "line 2: neither"),
        (LFW_LIST.replace("Bo\t1\tAnn_Lee\t2", "Bo\t1\tBo\t2"), "line 4: an impostor pair of one person"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\t4"), "line 2: the image 'Bo/Bo_0004' is not in"),
        (LFW_LIST.replace("Bo\t1\t2", "Eve\t1\t2"), r"'Eve/Eve_0001' is not in .*photos (2 of 16 sides of pairs"),
        (LFW_LIST.replace("Bo\t1\t2", "../photos/Bo\t1\t2"), "'../photos/Bo/../photos/Bo_0001' is not in"),
        (LFW_LIST.replace("Bo\t1\t2", "Bo\t1\t1"), "line 2: a pair of an image with itself"),
        ("Bo 1 2\n", "line 1: not two paths of images (.jpg, .jpeg, .png, .bmp, .webp) and 0 or 1, nor the first line"),
    ],
)
def test_what_is_wrong_with_a_list_of_lfws_form(tmp_path: Path, text: str | bytes, said: str) -> None:
    message = complaint(tmp_path, text).replace(str(tmp_path), "")
    assert said.replace(".*photos", "/photos") in message
    assert any(remedy in message for remedy in ("get the list again", "get it again", "get the images again"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "left,right,same\n", "no pair"),
        ("p.csv", f"{PHOTOS[0]},{PHOTOS[1]}\n", "line 1: not two paths"),
        ("p.csv", f"{PHOTOS[0]},{PHOTOS[1]},1,0\n", "line 1: not two paths"),
        ("p.csv", f"{PHOTOS[0]},{PHOTOS[1]},2\n", "line 1: not two paths"),
        ("p.csv", f"{PHOTOS[0]},{PHOTOS[1]},True\n", "line 1: not two paths"),
        ("p.csv", f"a,b,same\n{PHOTOS[0]},{PHOTOS[1]},1\n{PHOTOS[0]},{PHOTOS[2][:-4]},1\n", "line 3: not two paths"),
        ("p.csv", "a.jp,b.jp,1\n", "line 1: not two paths"),
        ("p.csv", f'{PHOTOS[0]},"{PHOTOS[1]},1\n', "line 1: unexpected end of data"),
        ("p.csv", f"{PHOTOS[0]}\t{PHOTOS[1]}\t1\n", "line 1: not two paths"),
        ("p.tsv", f"{PHOTOS[0]},{PHOTOS[1]},1\n", "line 1: not two paths"),
        ("p.tsv", f"{PHOTOS[0]}\tnone.jpg\t1\n", "the image 'none.jpg' is not in"),
        ("p.txt", f"{PHOTOS[0]} {PHOTOS[1]} 1\n{PHOTOS[1]} {PHOTOS[0]} 0\n", "lines 1 and 2: the same two images are"),
        ("p.txt", f"{PHOTOS[0]} {PHOTOS[0]} 1\n", "line 1: a pair of an image with itself"),
    ],
)
def test_what_is_wrong_with_a_list_of_paths(tmp_path: Path, name: str, text: str, said: str) -> None:
    message = complaint(tmp_path, text, name)
    assert said in message
    assert "again" in message


def test_two_photos_of_one_name(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, LFW_LIST)
    (tmp_path / "photos" / "Bo" / "Bo_0002.png").touch()
    with pytest.raises(PairsError, match=r"line 2: several images in .*photos are called 'Bo/Bo_0002'"):
        read_pairs(manifest)


def test_repeated_pairs_count_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = f"{PHOTOS[0]} {PHOTOS[1]} 1\n"
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs(write_set(tmp_path, line + f"{PHOTOS[0]} {PHOTOS[2]} 0\n" + line, "p.txt"))
    assert pairs.same.tolist() == [True, False, True]
    assert "1 pairs stand more than once" in caplog.text


def test_sets_without_a_list_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nformat = "image_folder"\nroot = "."\n')
    with pytest.raises(ManifestError, match=r"mine\.toml\) has the format image_folder, which has no list of pairs"):
        read_pairs(load_manifest(tmp_path / "mine.toml"))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, LFW_LIST, more="pairs = 9\n")
    with pytest.raises(ManifestError, match="expected 9 pairs, found 8"):
        read_pairs(manifest)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match=r"is not at .*photos: put it there"):
        read_pairs(manifest)
    (tmp_path / "pairs.txt").unlink()
    with pytest.raises(ManifestError, match=r"is not at .*pairs\.txt"):
        read_pairs(manifest)


# --- any content ------------------------------------------------------------------------------------------------------

who = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)
number = st.integers(0, 99_999)


@settings(deadline=None)
@given(
    st.lists(st.tuples(who, number, number), min_size=2, max_size=6),
    st.lists(st.tuples(who, number, who, number).filter(lambda pair: pair[0] != pair[2]), min_size=2, max_size=6),
    st.sampled_from("\t "),
)
def test_any_list_of_lfws_form_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    genuine: list[tuple[str, int, int]],
    impostor: list[tuple[str, int, str, int]],
    gap: str,
) -> None:
    each = min(len(genuine), len(impostor))
    rows = [row for both in zip(genuine[:each], impostor[:each], strict=True) for row in both]
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text("\n".join([f"{each}{gap}1", *(gap.join(map(str, row)) for row in rows)]), encoding="utf-8")
    found = parse_pairs(path)
    assert (found.folds, found.bare, len(found.pairs)) == (each, True, 2 * each)
    for row, pair in zip(rows, found.pairs, strict=True):
        first, i, second, j = row if len(row) == 4 else (row[0], row[1], row[0], row[2])
        assert (pair.first, pair.second) == (f"{first}/{first}_{i:04d}", f"{second}/{second}_{j:04d}")
        assert pair.same == (len(row) == 3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(who, min_size=1, max_size=3), st.lists(who, min_size=1, max_size=3), st.booleans()),
             min_size=1, max_size=6),
    st.sampled_from([".csv", ".tsv", ".txt"]),
)  # fmt: skip
def test_any_list_of_paths_comes_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[str], list[str], bool]], suffix: str
) -> None:
    clean = [tuple("/".join(p.replace("/", "_").replace(".", "_") for p in side) + ".jpg" for side in row[:2])
             for row in pairs]  # fmt: skip
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
        if suffix == ".txt":
            file.writelines(f"{a} {b} {int(row[2])}\n" for (a, b), row in zip(clean, pairs, strict=True))
        else:
            writer.writerows((a, b, int(row[2])) for (a, b), row in zip(clean, pairs, strict=True))
    found = parse_pairs(path)
    assert [(pair.first, pair.second) for pair in found.pairs] == clean
    assert [pair.same for pair in found.pairs] == [row[2] for row in pairs]


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=80) | st.text("0129 \t\n\r,.\"'#/_jpgBo\x00\u0661", max_size=80).map(str.encode),
    st.sampled_from(["a.csv", "a.tsv", "a.txt"]),
)
def test_any_bytes_are_read_or_explained(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    found, message = read_or_explain(lambda: parse_pairs(path))
    if found is None:
        assert str(path) in message
    else:
        assert found.pairs
        assert all(pair.first and pair.second for pair in found.pairs)


def test_a_list_cut_anywhere_is_never_taken_for_a_shorter_one(tmp_path: Path) -> None:
    data = LFW_LIST.encode()
    path = tmp_path / "pairs.txt"
    for end in range(len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(PairsError):
            parse_pairs(path)


def test_damaged_lists_are_read_or_explained(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, LFW_LIST)
    path, chance = tmp_path / "pairs.txt", random.Random(3)
    for _ in range(400):
        data = bytearray(LFW_LIST.encode())
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 3)] = bytes(
                chance.randrange(256) for _ in range(chance.randint(0, 2))
            )
        path.write_bytes(data)
        pairs, message = read_or_explain(lambda: read_pairs(manifest, PHOTOS))
        if pairs is None:
            assert str(path) in message
        else:
            assert len(pairs) in (2, 4, 6, 8)  # only another first line makes it shorter
            assert pairs.a.min() >= 1
            assert max(pairs.a.max(), pairs.b.max()) <= len(PHOTOS)
