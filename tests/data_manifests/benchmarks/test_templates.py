"""Benchmarks of templates: the three lists, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.benchmarks.templates import TemplateError, locate_images, read_template_images, read_templates
from data_manifests.manifest import Manifest, ManifestError, load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Result = TypeVar("Result")

OWNERS = "1.jpg 7 100\n2.jpg 7 100\n3.jpg 7 101\n4.jpg 30 102\n5.jpg 8 100\n"
POINTS = " ".join(f"{value}.5" for value in range(10))
FACES = "".join(f"{number}.jpg {POINTS} 0.9{number}\n" for number in range(1, 6))
PAIRS = "7 30 1\n7 8 0\n30 8 0\n"


def write_lists(
    folder: Path, owners: str | bytes = OWNERS, faces: str = FACES, pairs: str = PAIRS, more: str = ""
) -> Manifest:
    """A benchmark of templates of the given lists."""
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "aligned_112").mkdir(exist_ok=True)
    for name, text in (("face_tid_mid", owners), ("name_5pts_score", faces), ("template_pair_label", pairs)):
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "meta" / f"ijbx_{name}.txt").write_bytes(data)
    (folder / "mine.toml").write_text(f'name = "mine"\nformat = "templates"\nroot = "."\n{more}')
    return load_manifest(folder / "mine.toml")


def test_all_lists(tmp_path: Path) -> None:
    found = read_templates(write_lists(tmp_path, more="images = 5\ntemplates = 3\npairs = 3\n"))
    images = found.images
    assert images.name == ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg")
    assert images.key.tolist() == [1, 2, 3, 4, 5]
    assert images.template.tolist() == [7, 7, 7, 30, 8]
    assert images.medium.tolist() == [100, 100, 101, 102, 100]
    assert images.landmarks.shape == (5, 5, 2)
    assert images.landmarks[3].tolist() == [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5], [6.5, 7.5], [8.5, 9.5]]
    assert images.score == pytest.approx([0.91, 0.92, 0.93, 0.94, 0.95])
    assert (found.a.tolist(), found.b.tolist(), found.same.tolist()) == ([7, 7, 30], [30, 8, 8], [True, False, False])
    types = {images.key.dtype, images.template.dtype, images.medium.dtype, found.a.dtype, found.b.dtype}
    assert types == {np.dtype(np.int32)}
    assert (images.landmarks.dtype, images.score.dtype, found.same.dtype) == (np.float32, np.float32, np.bool_)


@pytest.mark.parametrize("text", [OWNERS.replace("\n", "\r\n"), "\n" + OWNERS + "\n\n", OWNERS.rstrip("\n")])
def test_lines_as_people_save_them(tmp_path: Path, text: str) -> None:
    assert read_template_images(write_lists(tmp_path, owners=text)).template.tolist() == [7, 7, 7, 30, 8]


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"owners": ""}, "ijbx_face_tid_mid.txt: not name template medium with single spaces in every row: Empty"),
        ({"owners": "\n\n"}, "ijbx_face_tid_mid.txt: no row"),
        ({"owners": b"\x80\x02]q\x00."}, "Row #1: Expected 3 columns, got 1"),
        ({"owners": OWNERS.encode() + b"\xff.jpg 1 2\n"}, "Row #6: CSV conversion error to string: invalid UTF8"),
        ({"owners": OWNERS[:-5]}, "Row #5: Expected 3 columns, got 2"),
        ({"owners": OWNERS[:-4]}, "Row #5: CSV conversion error to int32: invalid value ''"),
        ({"owners": OWNERS.replace(" ", "\t")}, "Row #1: Expected 3 columns, got 1"),
        ({"owners": OWNERS.replace("30", "x")}, "Row #4: CSV conversion error to int32: invalid value 'x'"),
        ({"owners": OWNERS.replace("30", "9999999999")}, "Row #4"),
        ({"owners": OWNERS.replace("30", "-30")}, "row 4 has a negative template (1 such rows)"),
        ({"owners": OWNERS + "6.jpg 8 1\n"}, "has 6 rows, "),
        ({"owners": OWNERS.replace("3.jpg", "9.jpg")}, "row 3 is of '9.jpg', but that of "),
        ({"faces": FACES.replace("0.93", "nan")}, "ijbx_name_5pts_score.txt: row 3 has a number that is not finite"),
        ({"faces": FACES.replace("0.93", "1e99")}, "row 3 has a number that is not finite"),
        ({"faces": FACES.replace(" 0.93", "")}, "Row #3: Expected 12 columns, got 11"),
        ({"pairs": PAIRS + "7 30"}, "ijbx_template_pair_label.txt: not a b c with single spaces in every row: CSV"),
        ({"pairs": PAIRS + "7 30 2\n"}, "row 4 has a label other than 0 and 1"),
        ({"pairs": PAIRS + "7 31 0\n"}, "row 4 names a template that has no image"),
        ({"pairs": ""}, "Empty CSV file"),
    ],
)
def test_what_is_wrong_with_a_list(tmp_path: Path, lists: dict[str, str], said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read_templates(write_lists(tmp_path, **lists))
    assert said in str(caught.value)
    assert "again" in str(caught.value)


def test_counts_and_missing_files(tmp_path: Path) -> None:
    for more in ("images = 6\n", "templates = 2\n", "pairs = 4\n"):
        with pytest.raises(ManifestError, match=f"expected {more.split()[-1]} {more.split()[0]}, found"):
            read_templates(write_lists(tmp_path, more=more))
    manifest = write_lists(tmp_path)
    (tmp_path / "meta" / "ijby_face_tid_mid.txt").write_text(OWNERS)
    with pytest.raises(ManifestError, match=r"several meta/\*_face_tid_mid\.txt in .*: leave one of ijbx_.*, ijby_"):
        read_templates(manifest)
    for path in (tmp_path / "meta").glob("*tid_mid.txt"):
        path.unlink()
    with pytest.raises(ManifestError, match=r"has no meta/\*_face_tid_mid\.txt in .*: put it there"):
        read_templates(manifest)
    (tmp_path / "aligned_112").rmdir()
    with pytest.raises(ManifestError, match=r"is not at .*aligned_112"):
        read_templates(manifest)
    (tmp_path / "mine.toml").write_text('name = "mine"\nformat = "image_folder"\nroot = "."\n')
    with pytest.raises(ManifestError, match="has the format image_folder"):
        read_templates(load_manifest(tmp_path / "mine.toml"))


name = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)
number = st.integers(0, 2**31 - 1)


@settings(deadline=None)
@given(st.data(), st.lists(st.tuples(name, number, st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=6))
def test_any_lists_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: list[tuple[str, int, int]]
) -> None:
    template = st.sampled_from([row[1] for row in rows])
    pairs = data.draw(st.lists(st.tuples(template, template, st.integers(0, 1)), min_size=1, max_size=6))
    value = st.floats(width=32, allow_nan=False, allow_infinity=False)
    numbers = data.draw(st.lists(st.lists(value, min_size=11, max_size=11), min_size=len(rows), max_size=len(rows)))
    manifest = write_lists(
        tmp_path_factory.getbasetemp(),
        "".join(f"{row[0]} {row[1]} {row[2]}\n" for row in rows),
        "".join(f"{row[0]} {' '.join(map(repr, mine))}\n" for row, mine in zip(rows, numbers, strict=True)),
        "".join(f"{a} {b} {label}\n" for a, b, label in pairs),
    )
    found = read_templates(manifest)
    images = found.images
    assert list(zip(images.name, images.template.tolist(), images.medium.tolist(), strict=True)) == rows
    together = np.column_stack([images.landmarks.reshape(-1, 10), images.score])
    assert together.tolist() == np.array(numbers, np.float32).tolist()
    assert list(zip(found.a.tolist(), found.b.tolist(), found.same.tolist(), strict=True)) == pairs


def read_or_explain(read: Callable[[], Result]) -> tuple[Result | None, str]:
    """What was read, or why it was not."""
    try:
        return read(), ""
    except TemplateError as error:
        return None, str(error)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=60) | st.text("0123 \n\r.\"'-+eE,\tjpg", max_size=60).map(str.encode),
    st.sampled_from(["face_tid_mid", "name_5pts_score", "template_pair_label"]),
)
def test_any_bytes_are_read_or_explained(tmp_path_factory: pytest.TempPathFactory, content: bytes, which: str) -> None:
    manifest = write_lists(tmp_path_factory.getbasetemp())
    path = manifest.root / "meta" / f"ijbx_{which}.txt"
    path.write_bytes(content)
    found, message = read_or_explain(lambda: read_templates(manifest))
    if found is None:
        assert str(path) in message
    else:
        assert set(found.a.tolist() + found.b.tolist()) <= set(found.images.template.tolist())


def test_a_list_cut_anywhere_is_refused_unless_its_last_number_is_shorter(tmp_path: Path) -> None:
    manifest = write_lists(tmp_path)
    path, data = tmp_path / "meta" / "ijbx_face_tid_mid.txt", OWNERS.encode()
    for end in range(len(data) - 1):
        path.write_bytes(data[:end])
        found, message = read_or_explain(lambda: read_templates(manifest))
        if found is None:
            assert str(path) in message
        else:
            assert (len(found.images.name), found.images.medium[-1]) in ((5, 1), (5, 10))


def test_a_list_longer_than_the_blocks_it_is_read_in(tmp_path: Path) -> None:
    pairs = np.random.default_rng(0).integers(1, 6, (400_000, 2))
    owners = "".join(f"{number}.jpg {number} {number}\n" for number in range(1, 6))
    lines = "".join(f"{a} {b} {int(a == b)}\n" for a, b in pairs.tolist())
    found = read_templates(write_lists(tmp_path, owners=owners, pairs=lines))
    assert np.array_equal(found.a, pairs[:, 0])
    assert np.array_equal(found.same, pairs[:, 0] == pairs[:, 1])
    with pytest.raises(TemplateError, match="Row #400001"):
        read_templates(write_lists(tmp_path, owners=owners, pairs=lines + "1 2\n"))


def test_names_are_understood_as_people_write_them(tmp_path: Path) -> None:
    manifest = write_lists(tmp_path)
    paths = ["a/1.jpg", "a/jos\u00e9.jpg", "b/1.jpg", "b/2.jpg"]
    names = ["/data/faces/a/1.jpg", "faces\\a\\jose\u0301.jpg", "b/1.jpg", "2.jpg", "c/1.jpg", "b/1.jpg"]
    assert locate_images(manifest, names, paths) == (
        "a/1.jpg",
        "a/jos\u00e9.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "c/1.jpg",
        "b/1.jpg",
    )
    with pytest.raises(TemplateError, match=r"mine name '/b/c/1.jpg' and 'a/c/1.jpg', which would both be one image"):
        locate_images(manifest, ["a/c/1.jpg", "/b/c/1.jpg"], ["c/1.jpg"])
