"""WIDER FACE's annotation and the faces cut out of its photos."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.wider_face import (
    AnnotatedImage,
    Blur,
    Expression,
    Face,
    Illumination,
    Occlusion,
    Pose,
    Split,
    WiderFaceError,
    crop_face,
    frame_face,
    read_annotation,
    read_split,
)

NO_FACE = "0 0 0 0 0 0 0 0 0 0 "
CLEAN = Face(
    x=10, y=20, width=30, height=40,
    blur=Blur.CLEAR, expression=Expression.TYPICAL, illumination=Illumination.NORMAL, invalid=False,
    occlusion=Occlusion.NONE, pose=Pose.TYPICAL,
)  # fmt: skip


def box(x: int, y: int, width: int, height: int) -> Face:
    return dataclasses.replace(CLEAN, x=x, y=y, width=width, height=height)


def parse(text: str) -> list[AnnotatedImage]:
    return list(read_annotation(text, Path("photos"), "boxes.txt"))


def face_line(face: Face) -> str:
    fields = (face.x, face.y, face.width, face.height, face.blur, face.expression, face.illumination, face.invalid,
              face.occlusion, face.pose)  # fmt: skip
    return " ".join(str(int(field)) for field in fields) + " "


def annotation_text(images: list[AnnotatedImage], end: str = "\n") -> str:
    """The text as WIDER FACE's authors wrote it."""
    lines = []
    for image in images:
        lines += [image.path.relative_to("photos").as_posix(), str(len(image.faces))]
        lines += [face_line(face) for face in image.faces] or [NO_FACE]
    return end.join(lines) + end


def make_wider(root: Path, text: str | bytes, photos: tuple[str, ...] = ()) -> Path:
    (root / "wider_face_split").mkdir()
    data = text.encode() if isinstance(text, str) else text
    (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_bytes(data)
    for photo in photos:
        place = root / "WIDER_val" / "images" / photo
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return root


@pytest.mark.parametrize(("split", "images", "faces"), [(Split.TRAIN, 601, 2400), ("val", 121, 480)])
def test_the_counts_of_real_annotation(real_data: Path, split: str, images: int, faces: int) -> None:
    root = real_data / "data" / "wider_mini"
    found = read_split(root, split)
    assert (len(found), sum(len(image.faces) for image in found)) == (images, faces)
    assert all(image.path.is_file() for image in found)
    empty = [image.path.name for image in found if not image.faces]
    assert empty == [f"0_Mosaic_{split}_noface.jpg"]
    every = [face for image in found for face in image.faces]
    # counted from the text by column, without the reader
    text = (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").read_text()
    rows = np.array([line.split() for line in text.splitlines() if line.count(" ") >= 9], dtype=int)[:-1]  # [F, 10]
    assert rows.shape == (faces, 10)
    for name, column in zip(
        ("blur", "expression", "illumination", "invalid", "occlusion", "pose"), rows.T[4:], strict=True
    ):
        assert Counter(int(getattr(face, name)) for face in every) == Counter(column.tolist())
    assert [(face.x, face.y, face.width, face.height) for face in every] == [tuple(row) for row in rows[:, :4].tolist()]
    assert sum(face.usable for face in every) == int(((rows[:, 7] == 0) & (rows[:, 2:4] > 0).all(axis=1)).sum())
    assert any(face.invalid for face in every)


def test_a_real_face_is_cut_out_whole(real_data: Path) -> None:
    images = read_split(real_data / "data" / "wider_mini", "val")
    for image in images[:3]:
        photo = cv2.cvtColor(cv2.imread(str(image.path)), cv2.COLOR_BGR2RGB)
        for face in image.faces:
            crop = crop_face(photo, face, margin=0.0)
            side = max(face.width, face.height)
            shift_x, shift_y = (side - face.width) / 2, (side - face.height) / 2
            matrix = np.array(
                [[112 / side, 0, (shift_x - face.x) * 112 / side], [0, 112 / side, (shift_y - face.y) * 112 / side]]
            )
            matrix[:, 2] += 0.5 * 112 / side - 0.5  # centres of pixels, not corners
            other = cv2.warpAffine(photo, matrix, (112, 112), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            assert np.abs(crop.astype(int) - other).mean() < 4


def test_a_photo_without_faces_in_the_odd_form_and_without() -> None:
    one = f"a/b.jpg\n1\n{face_line(CLEAN)}\n"
    for text in (f"a/none.jpg\n0\n{NO_FACE}\n{one}", f"a/none.jpg\n0\n{one}"):
        empty, full = parse(text)
        assert (empty.path, empty.faces) == (Path("photos/a/none.jpg"), ())
        assert full.faces == (CLEAN,)
    assert [image.faces for image in parse(f"a.jpg\n0\n{NO_FACE}\n")] == [()]
    # ten zeros are a face where the count says so, one that cannot be used
    (image,) = parse(f"a.jpg\n1\n{NO_FACE}\n")
    assert [face.usable for face in image.faces] == [False]


def test_what_can_be_used() -> None:
    faces = [CLEAN, dataclasses.replace(CLEAN, invalid=True), box(1, 2, 0, 5), box(1, 2, 5, 0)]
    (image,) = parse("a.jpg\n4\n" + "\n".join(map(face_line, faces)))
    assert image.faces == tuple(faces)  # none is left out
    assert [face.usable for face in image.faces] == [True, False, False, False]


paths = st.from_regex(r"[a-zA-Z0-9_é-]{1,12}(/[a-zA-Z0-9 _é.-]{1,12}){0,2}\.(jpg|JPG|jpeg|png)", fullmatch=True)
coordinates = st.integers(-9999, 99_999)
faces_ = st.builds(
    Face, x=coordinates, y=coordinates, width=st.integers(0, 99_999), height=st.integers(0, 99_999),
    blur=st.sampled_from(Blur), expression=st.sampled_from(Expression), illumination=st.sampled_from(Illumination),
    invalid=st.booleans(), occlusion=st.sampled_from(Occlusion), pose=st.sampled_from(Pose),
)  # fmt: skip
images_ = st.builds(
    AnnotatedImage, path=paths.map(lambda path: Path("photos") / path), faces=st.lists(faces_, max_size=4).map(tuple)
)


@settings(max_examples=200, deadline=None)
@given(images=st.lists(images_, max_size=5), end=st.sampled_from(["\n", "\r\n", " \n"]))
def test_generated_annotation_comes_back(images: list[AnnotatedImage], end: str) -> None:
    images = [image for image in images if ".." not in image.path.parts]
    assert parse(annotation_text(images, end)) == images


fragments = st.sampled_from(
    [
        "a.jpg",
        "b/c.png",
        "0",
        "1",
        "2",
        "-1",
        "999999999",
        NO_FACE,
        face_line(CLEAN),
        "\n",
        " ",
        "\r",
        "\x00",
        "..",
        "/",
    ]
)
texts = st.one_of(
    st.text(max_size=200), st.lists(fragments, max_size=30).map("\n".join), st.lists(fragments).map("".join)
)


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_any_text_gives_photos_or_an_error_with_its_line(text: str) -> None:
    try:
        images = parse(text)
    except WiderFaceError as error:
        assert str(error).startswith("boxes.txt, line ")  # noqa: PT017 (either outcome is right)
    else:
        assert parse(annotation_text(images)) == images


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=100), texts.map(lambda text: text.encode("utf-8", "ignore"))))
def test_any_file_gives_photos_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = make_wider(tmp_path_factory.mktemp("wider"), data)
    with pytest.raises(WiderFaceError, match=r"wider_face_val_bbx_gt\.txt"):
        read_split(root, "val")  # there are no photos, so that a whole text is an error too


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n2\n" + face_line(CLEAN) + "\nb.jpg\n", "line 4: expected ten integers .* above it is too large"),
        ("a.jpg\n1\n" + (face_line(CLEAN) + "\n") * 2, "line 4: expected the path .* above it is too small"),
        ("a.jpg\n2\n" + face_line(CLEAN), "line 4: expected ten integers .*, found nothing"),
        (f"a.jpg\n1\n{face_line(CLEAN)}\n{NO_FACE}\n", "line 4: expected the path .*, found '0 0 0"),
        ("a.jpg\n", "line 2: expected the number of faces, found nothing"),
        ("a.jpg\nb.jpg\n", "line 2: expected the number of faces, found 'b.jpg'"),
        ("a.jpg\n-1\n", "line 2: expected the number of faces, found '-1'"),
        ("a.jpg\n1.5\n", "line 2: expected the number of faces, found '1.5'"),
        ("a.jpg\n999999999\n", "line 3: expected ten integers"),
        ("a.jpg\n٣\n", "line 2: expected the number of faces"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0\n", "line 3: expected ten integers"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0 0 0\n", "line 3: expected ten integers"),
        ("a.jpg\n1\n1 2 3 4.0 0 0 0 0 0 0\n", "line 3: expected ten integers"),
        ("a.jpg\n1\n1 2 3 9999999999 0 0 0 0 0 0\n", "line 3: expected ten integers"),
        ("a.jpg\n1\n1 2 -3 4 0 0 0 0 0 0\n", "line 3: width -3 and height 4 must not be negative"),
        ("a.jpg\n1\n1 2 3 -4 0 0 0 0 0 0\n", "line 3: width 3 and height -4 must not be negative"),
        ("a.jpg\n1\n1 2 3 4 3 0 0 0 0 0\n", r"line 3: an attribute .* is out of its range \(3 is not a valid Blur\)"),
        ("a.jpg\n1\n1 2 3 4 0 2 0 0 0 0\n", "2 is not a valid Expression"),
        ("a.jpg\n1\n1 2 3 4 0 0 2 0 0 0\n", "2 is not a valid Illumination"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 2 0 0\n", "line 3: an attribute .* invalid and pose 0 or 1"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 3 0\n", "3 is not a valid Occlusion"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0 -1\n", "-1 is not a valid Pose"),
        ("/etc/a.jpg\n0\n", "line 1: the path '/etc/a.jpg' must be relative"),
        ("a/../../b.jpg\n0\n", "line 1: the path 'a/../../b.jpg' must be relative"),
        ("a\x00b.jpg\n0\n", "line 1: the path .* printable"),
        ("\ufeffa.jpg\n0\n", "line 1: the path .* printable"),
        ("\na.jpg\n0\n", "line 1: expected the path of a photo .*, found nothing"),
        ("a.txt\n0\n", "line 1: expected the path of a photo"),
        ("x" * 5000 + "\n0\n", "found '" + "x" * 80 + "';"),
    ],
)  # fmt: skip
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(WiderFaceError, match=rf"^boxes\.txt, .*{message}"):
        parse(text)


def test_errors_of_a_whole_folder(tmp_path: Path) -> None:
    with pytest.raises(WiderFaceError, match=r"no annotated part 'test'; use one of: train, val"):
        read_split(tmp_path, "test")
    with pytest.raises(
        WiderFaceError, match=r"cannot read .*wider_face_val_bbx_gt\.txt .*unpack wider_face_split\.zip"
    ):
        read_split(tmp_path, "val")
    text = f"a/b.jpg\n1\n{face_line(CLEAN)}\na/{'long' * 100}.jpg\n0\n"
    root = make_wider(tmp_path, text, ("a/b.jpg",))
    with pytest.raises(WiderFaceError, match=r"names .*longlong.*\.jpg, which is missing: unpack WIDER_val\.zip in"):
        read_split(root, "val")
    annotation = root / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    annotation.write_text(f"a/b.jpg\n1\n{face_line(CLEAN)}\n")
    assert [image.faces for image in read_split(root, "val")] == [(CLEAN,)]
    annotation.write_bytes(b"a/\xff.jpg\n0\n")
    with pytest.raises(WiderFaceError, match="is not UTF-8 text"):
        read_split(root, "val")
    for nothing in ("", "\n \n"):
        annotation.write_text(nothing)
        with pytest.raises(WiderFaceError, match="names no photo"):
            read_split(root, "val")


def coded_photo(height: int, width: int) -> np.ndarray:
    """A photo whose red is the column, green the row, and blue both."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, (columns + rows) % 256], axis=2).astype(np.uint8)


def test_a_square_by_hand() -> None:
    # box 60 x 20 with upper left corner (50, 100), so its centre is (80, 110); with a margin of 0.2 the side is
    # 60 + 2 * 12 = 84, and the square starts at (80 - 42, 110 - 42) = (38, 68)
    photo = coded_photo(200, 200)
    crop = crop_face(photo, box(50, 100, 60, 20), margin=0.2)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    expected = cv2.resize(photo[68:152, 38:122], (112, 112), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(crop, expected)
    assert crop[0, 0].tolist() == [38, 68, 106]
    assert crop[-1, -1].tolist() == [121, 151, 16]


def test_the_frame_of_the_template_by_hand() -> None:
    # box 40 x 100 with upper left corner (70, 60): the square's side is 0.99 * 100, its centre 0.08 * 100 above the
    # box's, which is (90, 110), so that it starts at (90 - 49.5, 110 - 8 - 49.5) = (40.5, 52.5)
    photo = coded_photo(200, 200)
    crop = frame_face(photo, box(70, 60, 40, 100))
    expected = cv2.resize(photo[52:151, 40:139], (112, 112), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(crop, expected)
    with pytest.raises(WiderFaceError, match="check that they belong together"):
        frame_face(photo, box(300, 60, 40, 100))


def test_a_square_of_112_pixels_is_copied() -> None:
    photo = coded_photo(250, 250)
    assert np.array_equal(crop_face(photo, box(20, 30, 112, 80), margin=0.0), photo[14:126, 20:132])
    assert np.array_equal(crop_face(photo, box(30, 40, 56, 56), margin=0.5), photo[12:124, 2:114])


def test_shrinking_averages() -> None:
    photo = np.zeros((224, 224, 3), np.uint8)
    photo[::2, ::2] = 200  # one pixel of every four
    crop = crop_face(photo, box(0, 0, 224, 224), margin=0.0)
    assert (crop == 50).all()


def test_beyond_the_border_the_border_is_repeated() -> None:
    photo = coded_photo(120, 120)
    crop = crop_face(photo, box(-56, -56, 112, 112), margin=0.0)
    assert np.array_equal(crop[56:, 56:], photo[:56, :56])
    assert (crop[:56, :56] == photo[0, 0]).all()
    assert np.array_equal(crop[:56, 56:], np.broadcast_to(photo[0, :56], (56, 56, 3)))
    crop = crop_face(photo, box(64, 64, 112, 112), margin=0.0)
    assert np.array_equal(crop[:56, :56], photo[64:, 64:])
    assert (crop[56:, 56:] == photo[-1, -1]).all()


def test_tiny_boxes() -> None:
    photo = coded_photo(50, 50)
    for x, y in ((0, 0), (7, 31), (49, 49), (0, 49)):
        assert (crop_face(photo, box(x, y, 1, 1), margin=0.0) == photo[y, x]).all()
    # 1 x 2 pixels: the square of 2 x 2 holds the box
    assert {tuple(colour) for colour in crop_face(photo, box(7, 30, 1, 2), 0.0)[[0, -1], 0].tolist()} <= {
        (column, row, column + row) for column in (6, 7) for row in (30, 31)
    }


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corner=st.tuples(st.integers(-130, 70), st.integers(-130, 70)),
    sides=st.tuples(st.integers(0, 130), st.integers(0, 130)),
    margin=st.floats(0, 2),
)
def test_any_box_gives_a_square_of_the_photo_or_an_error(
    size: tuple[int, int], corner: tuple[int, int], sides: tuple[int, int], margin: float
) -> None:
    photo = coded_photo(*size)
    face = box(*corner, *sides)
    rows = range(max(face.y, 0), min(face.y + face.height, size[0]))
    columns = range(max(face.x, 0), min(face.x + face.width, size[1]))
    if not (rows and columns) or max(sides) > 2 * max(size):
        with pytest.raises(WiderFaceError, match=f"the box x={face.x} y={face.y} .*: (leave out|check that)"):
            crop_face(photo, face, margin)
        return
    crop = crop_face(photo, face, margin)
    assert (crop.shape, crop.dtype) == ((112, 112, 3), np.uint8)
    assert crop[:, :, 0].max() < size[1]  # nothing but colours of the photo: no black bars, no wrap-around
    assert crop[:, :, 1].max() < size[0]
    if margin == 0 and max(sides) <= 112:
        assert crop[:, :, 0].min() <= columns.start
        assert crop[:, :, 0].max() >= columns[-1]
        assert crop[:, :, 1].min() <= rows.start
        assert crop[:, :, 1].max() >= rows[-1]


def test_the_photo_and_the_margin_are_checked() -> None:
    photo = coded_photo(50, 50)
    for margin in (-0.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match="the margin must be 0 to 2"):
            crop_face(photo, CLEAN, margin)
    for wrong in (photo[:, :, 0], photo.astype(np.float32), np.zeros((5, 5, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"the photo must be uint8 \[H, W, 3\]"):
            crop_face(wrong, CLEAN, 0.0)
    with pytest.raises(WiderFaceError, match="does not fit the photo of 0 x 0 pixels"):
        crop_face(photo[:0, :0], CLEAN, 0.0)
    assert photo.flags.writeable
    before = photo.copy()
    crop_face(photo, box(0, 0, 50, 50), 0.5)[:] = 0
    assert np.array_equal(photo, before)  # the crop is no view
