"""The block test against scikit-image: whole edge maps, and the decision for single blocks."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import canny

from labelers.blur.canny import GAUSSIAN, HIGH, Canny, find_edge_blocks, is_edge_block, trace_canny
from labelers.faces import grey


@st.composite
def textures(draw):
    """Grey images that decide a block differently: noise, soft noise, near-flat ones with a few specks or steps."""
    height, width = draw(st.integers(64, 130)), draw(st.integers(64, 130))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "soft", "specks", "steps"]))
    if kind == "noise":
        return seed.integers(0, draw(st.integers(1, 256)), (height, width)).astype(np.uint8)
    if kind == "soft":
        noise = seed.integers(0, 256, (height, width)).astype(np.uint8)
        return cv2.GaussianBlur(noise, (0, 0), draw(st.floats(0.5, 25)))
    image = np.full((height, width), draw(st.integers(30, 220)), np.int64)
    for _ in range(draw(st.integers(0, 5))):
        r, c = seed.integers(0, height), seed.integers(0, width)
        size = seed.integers(1, 4, 2) if kind == "specks" else (height, width)
        image[r : r + size[0], c : c + size[1]] += seed.integers(-5, 6)
    return image.astype(np.uint8)


def scratch(shape):
    """Canny's scratch space, full of NaN, so that reading a row before it is filled shows."""
    return Canny(*(np.full(shape, np.nan) for _ in range(4)), np.zeros((2, shape[0]), np.uint8))


def assert_canny_agrees(image, top, left):
    reference = canny(image.astype(np.float64))
    np.testing.assert_array_equal(trace_canny(image, GAUSSIAN, scratch(image.shape)), reference)
    wanted = np.count_nonzero(reference[top : top + 64, left : left + 64]) > 64 * 64 * 0.002
    assert is_edge_block(image, GAUSSIAN, scratch(image.shape), (top, left)) == wanted
    return wanted


@settings(max_examples=250, deadline=None)
@given(textures(), st.data())
def test_block_test_is_scikit_images(image, data):
    top, left = (data.draw(st.integers(0, side - 64)) for side in image.shape)
    assert_canny_agrees(image, top, left)


def test_block_test_is_scikit_images_on_real_faces(real_faces):
    for face in real_faces:
        assert_canny_agrees(grey(face), 0, 0)
        dim = (grey(face) // 40).astype(np.uint8)
        assert_canny_agrees(dim, 48, 48)


def test_block_test_near_its_limit():
    """A few faint specks: blocks on both sides of 8.192 pixels."""
    seed = np.random.default_rng(5)
    decisions = []
    for _ in range(1500):
        image = np.full((72, 70), 100, np.uint8)
        many = seed.integers(1, 5)
        image[seed.integers(0, 72, many), seed.integers(0, 70, many)] += seed.integers(1, 4, many).astype(np.uint8)
        decisions.append(assert_canny_agrees(image, int(seed.integers(0, 9)), int(seed.integers(0, 7))))
    assert 0.05 < np.mean(decisions) < 0.95


def test_weak_edges_count_when_they_hang_on_strong_ones():
    seed = np.random.default_rng(1)
    linked = 0
    for _ in range(300):
        noise = seed.integers(0, 256, (72, 70)).astype(np.uint8)
        image = cv2.GaussianBlur(noise, (0, 0), seed.uniform(3, 12))
        assert_canny_agrees(image, 4, 3)
        space = scratch(image.shape)
        edges = trace_canny(image, GAUSSIAN, space)
        linked += np.any(space.strength[edges] < HIGH)
    assert linked > 5


def test_a_block_decided_by_a_weak_edge():
    """One of 9,000 noise images: 8 strong edge pixels in the block, and weak ones whose link may lie outside it."""
    image = np.full((130, 130), 100, np.uint8)
    image[:66, :66] += (np.random.default_rng(2084).random((66, 66)) < 0.5).astype(np.uint8)
    space = scratch(image.shape)
    edges = trace_canny(image, GAUSSIAN, space)[62:126, 61:125]
    assert np.count_nonzero(edges & (space.strength[62:126, 61:125] >= HIGH)) <= 8 < np.count_nonzero(edges)
    assert assert_canny_agrees(image, 62, 61)


def test_blocks_share_one_scratch_space(real_faces):
    image = grey(real_faces[3])
    dim = image // 60
    starts = np.array([0, 48, 30])
    edges = canny(dim.astype(np.float64))
    counts = [[edges[r : r + 64, c : c + 64].sum() for c in starts] for r in starts]
    np.testing.assert_array_equal(find_edge_blocks(dim, starts, starts, GAUSSIAN), np.array(counts) > 8.192)


def test_canny_map_is_scikit_images(real_data):
    matlab = np.load(real_data / "oracles/cpbd/matlab_reference_img1.npz")
    image = matlab["image"].astype(np.uint8)
    np.testing.assert_array_equal(trace_canny(image, GAUSSIAN, scratch(image.shape)), matlab["python_canny"])
