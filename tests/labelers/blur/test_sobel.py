"""The Sobel score against the released code and against OpenCV, by which it is defined."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photos

from labelers.blur.scores import _LIGHTNESS, _LUMINANCE, sobel


def slow_sobel(rgb):
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0]
    dx, dy = cv2.Sobel(light, cv2.CV_64F, 1, 0, ksize=3), cv2.Sobel(light, cv2.CV_64F, 0, 1, ksize=3)
    return float(np.mean(np.sqrt(dx * dx + dy * dy)) * 0.01)


def test_sobel_equals_the_released_code_where_the_source_was_grey(real_data):
    folder = real_data / "oracles/cpbd"
    items = json.loads((folder / "cpbd.json").read_text())["items"]
    arrays = np.load(folder / "cpbd_gray.npz")
    oracle = [(item, arrays[item["name"]]) for item in items]
    names = [(item, gray) for item, gray in oracle if "camera" in item["name"] or item["kind"] == "degenerate"]
    assert len(names) >= 9
    for item, gray in names:
        assert sobel(np.dstack([gray] * 3)) == pytest.approx(item["clib_score"], abs=1e-12), item["name"]


def test_lightness_is_opencvs_for_every_colour():
    green, blue = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    for red in range(256):
        image = np.dstack([np.full_like(green, red), green, blue]).astype(np.uint8)
        mine = _LIGHTNESS[(_LUMINANCE[0, red] + _LUMINANCE[1, green] + _LUMINANCE[2, blue]) >> 12]
        assert np.array_equal(mine, cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]), red


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_sobel_is_its_definition(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert sobel(image) == pytest.approx(slow_sobel(image), rel=1e-12)


def test_sobel_is_its_definition_on_real_faces(real_faces):
    for face in real_faces:
        assert sobel(face) == pytest.approx(slow_sobel(face), rel=1e-12)


def test_more_blur_is_a_lower_score():
    photo = np.ascontiguousarray(photos.astronaut()[0:112, 168:280])
    scores = [sobel(cv2.GaussianBlur(photo, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "image", [np.zeros((112, 112), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((1, 9, 3), np.uint8)]
)
def test_sobel_wants_a_colour_image(image):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], not"):
        sobel(image)
