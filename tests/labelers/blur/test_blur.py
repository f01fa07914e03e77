"""CPBD against the reference programs, against slow plain code, and against what must hold."""

from __future__ import annotations

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data as photos
from skimage.feature import canny

from data_manifests.tables.stages import BLUR, Status
from labelers.blur.cpbd_kernels import find_edges, measure_width, score
from labelers.blur.scores import Blocks, BlurLabeler, Edges, cpbd, sobel, tile
from labelers.faces import FaceBatch, grey

# ---- slow plain code, one rule of design/fidelity a line, no line shared with the package -------------------------


def slow_edges(image, edges):
    bx = ndimage.convolve(image, np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8, mode="nearest")
    by = ndimage.convolve(image, np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]) / 8, mode="nearest")
    b = bx**2
    left, right, up, down = (np.roll(b, shift, axis) for shift, axis in ((1, 1), (-1, 1), (1, 0), (-1, 0)))
    if edges == "matlab":
        thin = ((abs(bx) >= abs(by)) & (left <= b) & (b > right)) | ((up <= b) & (b > down))
        return (b > 4) & thin
    thin = ((left < b) & (b > right)) | ((up < b) & (b > down))
    return (b > 2 * np.sqrt(np.mean(b))) & thin


def slow_widths(image, edges):
    gy, gx = np.gradient(image)
    angles = np.where(gx != 0, np.degrees(np.arctan2(gy, gx)), 0.0)
    widths = np.zeros(image.shape, int)
    if not angles.any():
        return widths
    direction = 45 * np.round(angles / 45)
    for r, c in np.argwhere(edges):
        if 0 < r < image.shape[0] - 1 and 0 < c < image.shape[1] - 1 and direction[r, c] in (0, 180, -180):
            sign = 1 if direction[r, c] == 0 else -1
            widths[r, c] = slow_run(sign * image[r, :c][::-1], -1) + slow_run(sign * image[r, c + 1 :], 1)
    return widths


def slow_run(values, sign):
    steps = sign * np.diff(values) > 0
    return min(1 + (len(steps) if steps.all() else int(np.argmin(steps))), 101)


def slow_axis(pixels, blocks):
    if blocks == "reference":
        return [(64 * i, 64 * i, 64 * i + 64) for i in range(pixels // 64)]
    count = int(np.ceil(pixels / 64)) if pixels >= 64 else 0
    starts = [i * (pixels - 64) // max(count - 1, 1) for i in range(count)]
    bounds = [0, *((a + 64 + b) // 2 for a, b in pairwise(starts)), pixels]
    return [(start, bounds[i], bounds[i + 1]) for i, start in enumerate(starts)]


def slow_cpbd(gray, edges, blocks="reference"):
    image = gray.astype(float)
    strong = canny(image)
    widths = slow_widths(image, slow_edges(image, edges))
    blur = []
    for top, r0, r1 in slow_axis(image.shape[0], blocks):
        for left, c0, c1 in slow_axis(image.shape[1], blocks):
            block = image[top : top + 64, left : left + 64]
            if np.count_nonzero(strong[top : top + 64, left : left + 64]) > 64 * 64 * 0.002:
                own = widths[r0:r1, c0:c1]
                jnb = 5 if int(block.max() - block.min()) <= 50 else 3
                blur.append(np.round(100 * (1 - np.exp(-((own[own > 0] / jnb) ** 3.6)))))  # 2011, Eq. for P_BLUR
    blur = np.concatenate(blur) if blur else np.zeros(0)
    return np.count_nonzero(blur <= 63) / len(blur) if len(blur) else 0.0


# ---- images ---------------------------------------------------------------------------------------------------


def astronaut():
    return np.ascontiguousarray(
        cv2.resize(photos.astronaut()[0:224, 112:336], (112, 112), interpolation=cv2.INTER_AREA)
    )


@st.composite
def made_images(draw):
    """Grey images of every kind that decides a block differently: noise, soft noise, near-flat with a few specks."""
    height, width = draw(st.integers(64, 130)), draw(st.integers(64, 130))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "soft", "specks", "steps", "ramp"]))
    if kind == "noise":
        return seed.integers(0, draw(st.integers(1, 256)), (height, width)).astype(np.uint8)
    if kind == "soft":
        noise = seed.integers(0, 256, (height, width)).astype(np.uint8)
        return cv2.GaussianBlur(noise, (0, 0), draw(st.floats(0.5, 25)))
    rows, columns = np.mgrid[:height, :width]
    if kind == "ramp":
        slopes = draw(st.tuples(st.floats(-2, 2), st.floats(-2, 2)))
        return (100 + rows * slopes[0] + columns * slopes[1]).clip(0, 255).astype(np.uint8)
    image = np.full((height, width), draw(st.integers(5, 250)), np.int64)
    for _ in range(draw(st.integers(0, 5))):
        r, c = seed.integers(0, height), seed.integers(0, width)
        size = seed.integers(1, 4, 2) if kind == "specks" else (height, seed.integers(1, width + 1))
        image[r : r + size[0], c : c + size[1]] += seed.integers(-5, 6)
    return image.clip(0, 255).astype(np.uint8)


# ---- the reference programs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle(real_data):
    folder = real_data / "oracles/cpbd"
    items = json.loads((folder / "cpbd.json").read_text())["items"]
    arrays = np.load(folder / "cpbd_gray.npz")
    return [(item, arrays[item["name"]]) for item in items]


@pytest.fixture(scope="module")
def matlab(real_data):
    return dict(np.load(real_data / "oracles/cpbd/matlab_reference_img1.npz"))


@pytest.mark.parametrize(("edges", "column"), [("python", "cpbd"), ("matlab", "cpbd_matlab_sobel")])
def test_cpbd_equals_the_reference_programs(oracle, edges, column):
    assert len(oracle) == 48
    for item, gray in oracle:
        assert cpbd(gray, edges) == pytest.approx(item[column], abs=1e-12), item["name"]


def test_matlab_reference_picture(matlab):
    image = matlab["image"].astype(np.uint8)
    assert cpbd(image) == pytest.approx(0.136881, abs=5e-7)
    assert cpbd(image, "python") == pytest.approx(float(matlab["cpbd_python"]), abs=1e-12)


def test_matlab_reference_picture_with_matlabs_own_canny_map(matlab):
    image = matlab["image"].astype(np.uint8)
    blocks = matlab["canny"].reshape(8, 64, 12, 64).sum(axis=(1, 3)) > 64 * 64 * 0.002  # [8, 12]
    value = score(image, tile(512, 768, Blocks.REFERENCE), blocks, False)
    assert value == pytest.approx(float(matlab["cpbd_matlab_edges"]), abs=1e-12)
    assert value == pytest.approx(0.134895, abs=5e-7)


@pytest.mark.parametrize(("python_rule", "stored"), [(False, "sobel"), (True, "python_sobel")])
def test_edge_map_is_matlabs_and_pythons_inside_the_frame(matlab, python_rule, stored):
    edges = find_edges(matlab["image"].astype(np.uint8), python_rule)
    np.testing.assert_array_equal(edges[1:-1, 1:-1], matlab[stored][1:-1, 1:-1].astype(bool))
    assert edges.sum() > 5000
    assert edges[1:-1, 1:-1].sum() == edges.sum()


@pytest.mark.parametrize(("edges", "stored"), [("sobel", "marziliano"), ("python_sobel", "python_marziliano")])
def test_width_map_is_matlabs_and_pythons(matlab, edges, stored):
    image = matlab["image"].astype(np.uint8)
    widths = np.zeros(image.shape)
    for r, c in np.argwhere(matlab[edges][1:-1, 1:-1]) + 1:
        widths[r, c] = measure_width(image, r, c, 202)
        short = measure_width(image, r, c, 5)
        assert short == min(widths[r, c], 6)
    np.testing.assert_array_equal(widths, matlab[stored])


# ---- slow plain code ------------------------------------------------------------------------------------------


def test_slow_code_is_the_reference(oracle):
    """The judge of the tests below stands before the same oracle."""
    for item, gray in oracle:
        if gray.size <= 130 * 130 and min(gray.shape) >= 64:
            assert slow_cpbd(gray, "python") == pytest.approx(item["cpbd"], abs=1e-12), item["name"]
            assert slow_cpbd(gray, "matlab") == pytest.approx(item["cpbd_matlab_sobel"], abs=1e-12), item["name"]


@pytest.mark.parametrize("edges", Edges)
def test_real_faces_equal_the_slow_code(real_faces, edges):
    faces = [grey(face) for face in real_faces]
    assert len(faces) > 200
    values = [cpbd(face, edges) for face in faces]
    assert values == pytest.approx([slow_cpbd(face, edges) for face in faces], abs=1e-12)
    assert len(set(values)) > 100


def test_real_faces_equal_the_slow_code_when_covered(real_faces):
    faces = [grey(face) for face in real_faces[::3]]
    values = [cpbd(face, "matlab", "cover") for face in faces]
    assert values == pytest.approx([slow_cpbd(face, "matlab", "cover") for face in faces], abs=1e-12)
    assert values != pytest.approx([cpbd(face) for face in faces], abs=0.01)


@settings(max_examples=120, deadline=None)
@given(made_images(), st.sampled_from(Edges), st.sampled_from(Blocks))
@example(np.tile(np.arange(0, 112, dtype=np.uint8), (112, 1)), Edges.MATLAB, Blocks.REFERENCE)
@example(np.tile(np.arange(0, 112, dtype=np.uint8)[:, None], (1, 112)), Edges.MATLAB, Blocks.COVER)
@example(np.zeros((64, 64), np.uint8), Edges.PYTHON, Blocks.COVER)
def test_made_images_equal_the_slow_code(image, edges, blocks):
    assert cpbd(image, edges, blocks) == pytest.approx(slow_cpbd(image, edges, blocks), abs=1e-12)


# ---- what must hold ---------------------------------------------------------------------------------------------


def test_more_blur_never_makes_a_clear_image_clearly_sharper():
    image = grey(astronaut())
    scores = [cpbd(cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image) for sigma in (0, 0.5, 1, 1.5, 2, 3, 4)]
    assert scores[0] > 0.3
    assert scores[-1] < 0.05
    assert all(after <= before + 0.02 for before, after in pairwise(scores)), scores


@pytest.mark.parametrize("edges", Edges)
@pytest.mark.parametrize("blocks", Blocks)
def test_brightness_does_not_matter(edges, blocks):
    """Only differences of grey levels enter, as long as none is clipped."""
    image = (grey(astronaut()) // 2).astype(np.uint8)
    values = {cpbd(image + np.uint8(shift), edges, blocks) for shift in (0, 1, 50, 128)}
    assert len(values) == 1
    assert values.pop() > 0


@pytest.mark.parametrize("blocks", Blocks)
def test_upside_down_is_the_same_with_strict_thinning(blocks):
    """PyPI's rules treat up and down alike; MATLAB's thinning does not, and a pixel flat along its row is 'rising'."""
    image = grey(astronaut())
    image = image if blocks is Blocks.COVER else image[:64]
    assert cpbd(image[::-1], "python", blocks) == cpbd(image, "python", blocks) > 0


def test_only_the_upper_left_block_of_a_face_is_scored_by_default():
    image = grey(astronaut())
    other = image.copy()
    other[72:, :] = np.random.default_rng(0).integers(0, 256, (40, 112))
    other[:, 72:] = 128
    assert cpbd(other) == cpbd(image)
    assert cpbd(other, blocks="cover") != cpbd(image, blocks="cover")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1), st.sampled_from(Edges))
def test_cover_is_reference_where_whole_blocks_fit(rows, columns, seed, edges):
    noise = np.random.default_rng(seed).integers(0, 256, (64 * rows, 64 * columns)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.0)
    assert cpbd(image, edges, "cover") == cpbd(image, edges, "reference")


@given(st.integers(64, 2000))
def test_cover_tiles_an_axis_without_gap_or_overlap(pixels):
    _, _, starts, bounds = tile(64, pixels, Blocks.COVER)
    assert (starts[0], starts[-1], bounds[0], bounds[-1]) == (0, pixels - 64, 0, pixels)
    assert len(starts) == int(np.ceil(pixels / 64))
    assert np.all(np.diff(starts) <= 64)
    assert np.all((starts <= bounds[:-1]) & (bounds[:-1] < bounds[1:]) & (bounds[1:] <= starts + 64))


def test_a_face_of_112_pixels_has_four_blocks_at_0_and_48():
    starts, bounds, *_ = tile(112, 112, Blocks.COVER)
    assert (starts.tolist(), bounds.tolist()) == ([0, 48], [0, 56, 112])
    starts, bounds, *_ = tile(112, 112, Blocks.REFERENCE)
    assert (starts.tolist(), bounds.tolist()) == ([0], [0, 64])


@pytest.mark.parametrize("edges", Edges)
@pytest.mark.parametrize("blocks", Blocks)
@pytest.mark.parametrize("shape", [(63, 112), (112, 63), (1, 1), (0, 0), (112, 112)])
def test_flat_or_small_images_are_zero(edges, blocks, shape):
    assert cpbd(np.full(shape, 77, np.uint8), edges, blocks) == 0.0
    if min(shape) < 64:
        noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert cpbd(noise, edges, blocks) == 0.0


def test_views_and_read_only_images_are_measured_like_copies():
    rgb = astronaut()
    image = grey(rgb)
    frozen = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    wide = np.zeros((112, 224), np.uint8)
    wide[:, ::2] = image
    assert cpbd(frozen) == cpbd(wide[:, ::2]) == cpbd(np.asfortranarray(image)) == cpbd(image)
    assert (
        sobel(np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)) == sobel(rgb[:, ::-1][:, ::-1]) == sobel(rgb)
    )


@pytest.mark.parametrize(
    "image", [np.zeros((112, 112), np.float64), np.zeros((112, 112, 3), np.uint8), np.zeros(9, np.uint8)]
)
def test_cpbd_wants_a_grey_image(image):
    with pytest.raises(ValueError, match=r"uint8 \[H, W\], not"):
        cpbd(image)


def test_unknown_choices_are_errors():
    with pytest.raises(ValueError, match="octave"):
        cpbd(np.zeros((112, 112), np.uint8), edges="octave")
    with pytest.raises(ValueError, match="all"):
        BlurLabeler(blocks="all")


# ---- the labeler ------------------------------------------------------------------------------------------------


def batch(images):
    count = len(images)
    return FaceBatch(
        keys=np.arange(1, count + 1, dtype=np.int32),
        images=np.array(images, np.uint8).reshape(count, 112, 112, 3),
        identities=np.zeros(count, np.int32),
    )


@pytest.mark.parametrize("edges", Edges)
@pytest.mark.parametrize("blocks", Blocks)
def test_labeler_gives_the_columns_of_the_table(edges, blocks):
    images = [astronaut(), np.zeros((112, 112, 3), np.uint8), astronaut()[::-1]]
    measures = BlurLabeler(edges=edges, blocks=blocks)(batch(images))
    assert tuple(measures.columns) == BLUR.names[1:-1]
    assert measures.status == [Status.OK] * 3
    for name, values in measures.columns.items():
        low, high = BLUR.column(name).limits
        assert values.dtype == np.float32
        assert np.all((low <= values) & (values <= high))
    wanted = [cpbd(grey(image), edges, blocks) for image in images]
    np.testing.assert_array_equal(measures.columns["cpbd"], np.array(wanted, np.float32))
    np.testing.assert_array_equal(measures.columns["sobel"], np.array([sobel(i) for i in images], np.float32))
    assert measures.columns["cpbd"][1] == measures.columns["sobel"][1] == 0.0


def test_labeler_measures_nothing_of_nothing():
    measures = BlurLabeler()(batch([]))
    assert measures.status == []
    assert all(values.shape == (0,) and values.dtype == np.float32 for values in measures.columns.values())
