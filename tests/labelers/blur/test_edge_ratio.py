"""The edge ratio against slow plain code, against edges of known blur, and against what must hold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import ndtr
from skimage import data as photos

from data_manifests.tables.stages import Status
from labelers.blur import cpbd, edge_ratio
from labelers.blur.scores import BlurLabeler
from labelers.faces import FaceBatch, grey
from labelers.rules import LabelSettings


def slow_ratio(image):
    """One rule a line, in float64, by SciPy."""
    parts = []
    for sigma in (1.0, 2.0):
        smooth = ndimage.gaussian_filter(image.astype(float), sigma, mode="mirror", truncate=4.0)
        parts.append([ndimage.sobel(smooth, axis, mode="mirror") / 8 for axis in (1, 0)])
    (across, down), coarse = parts
    strength = np.hypot(across, down)
    weakest = max(np.sort(strength, axis=None)[int(0.75 * strength.size)], 1.0)
    found = []
    for direction in (0, 45, 90, 135):
        angles = np.degrees(np.arctan2(down, across)) % 180
        away = np.minimum(abs(angles - direction), 180 - abs(angles - direction))
        own = (strength >= weakest) & (away < 22.5)
        if own.sum() >= 40:
            found.append(np.sqrt((strength[own] ** 2).sum() / (np.hypot(*coarse)[own] ** 2).sum()))
    return min(found, default=np.nan)


def alike(found, slow, rel):
    """Whether both are the same, but for rounding; what is steeper than an edge can be is none."""
    if abs(slow - 1.7) < 1.7 * rel:
        return True
    return found == pytest.approx(np.nan if slow > 1.7 else slow, rel=rel, nan_ok=True)


def edge(sigma, contrast=100.0, *, low=60.0):
    """A vertical edge that a Gaussian has blurred, drawn in closed form, uint8 [112, 112]."""
    profile = low + contrast * ndtr((np.arange(112) - 55.5) / max(sigma, 1e-3))
    return np.rint(np.tile(profile, (112, 1))).astype(np.uint8)


def crop(name):
    image = getattr(photos, name)()
    return cv2.resize(image if image.ndim == 2 else grey(image), (112, 112), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", ["astronaut", "camera", "cat", "coffee", "rocket", "moon", "coins"])
@pytest.mark.parametrize("blur", [0.0, 1.0, 3.0])
def test_photos_equal_the_slow_code(name, blur):
    image = crop(name) if blur == 0 else cv2.GaussianBlur(crop(name), (0, 0), blur)
    assert alike(edge_ratio(image), slow_ratio(image), 2e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 3.0), st.sampled_from([(112, 112), (64, 90), (40, 40)]))
def test_made_images_equal_the_slow_code(seed, blur, shape):
    noise = np.random.default_rng(seed).normal(0, 60, shape)
    image = np.clip(128 + (ndimage.gaussian_filter(noise, blur) if blur > 0.2 else noise), 0, 255).astype(np.uint8)
    assert alike(edge_ratio(image), slow_ratio(image), 5e-3)  # a pixel at the limit of a direction may change sides


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.6, 2.5])
@pytest.mark.parametrize("turned", [False, True])
def test_an_edge_of_known_blur_has_the_ratio_of_the_formula(sigma, turned):
    image = edge(sigma).T if turned else edge(sigma)
    wanted = ((sigma**2 + 13 / 3) / (sigma**2 + 4 / 3)) ** 0.25
    assert edge_ratio(image) == pytest.approx(wanted, rel=0.01)


def test_the_thresholds_are_blurs_of_0_7_and_of_1_6_pixels():
    rules = LabelSettings.model_validate({"recipe": "robust"})
    assert edge_ratio(edge(0.0)) > edge_ratio(edge(0.65)) > rules.blur_clear > edge_ratio(edge(0.75))
    assert edge_ratio(edge(1.55)) > rules.blur_hazy > edge_ratio(edge(1.7))


def test_motion_in_any_direction_counts():
    """Motion leaves the edges sharp that lie along it; CPBD sees edges that run up and down, and no other."""
    face = crop("camera")
    for kernel in (np.eye(9), np.eye(9)[::-1], np.tile(np.eye(9)[4], (9, 1)).T, np.tile(np.eye(9)[4], (9, 1))):
        moved = cv2.filter2D(face, -1, kernel / kernel.sum())
        assert edge_ratio(moved) < 1.15
    assert edge_ratio(face) > 1.28


@pytest.mark.parametrize("blur", [0.5, 1.5, 3.0])
def test_contrast_light_and_noise_hardly_matter(blur):
    face = cv2.GaussianBlur(crop("camera"), (0, 0), blur)
    wanted = edge_ratio(face)
    assert edge_ratio(np.rint(face * 0.3).astype(np.uint8)) == pytest.approx(wanted, abs=0.01)
    assert edge_ratio(np.rint(face * 0.4 + 150).astype(np.uint8)) == pytest.approx(wanted, abs=0.01)
    noise = np.random.default_rng(0).normal(0, 3, face.shape)
    assert edge_ratio(np.clip(np.rint(face + noise), 0, 255).astype(np.uint8)) == pytest.approx(wanted, abs=0.02)


def test_the_mirror_image_has_the_same():
    face = crop("astronaut")
    assert edge_ratio(face[:, ::-1].copy()) == pytest.approx(edge_ratio(face), rel=1e-3)
    assert edge_ratio(face.T.copy()) == pytest.approx(edge_ratio(face), rel=1e-3)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_an_image_without_edges_has_none(level):
    assert np.isnan(edge_ratio(np.full((112, 112), level, np.uint8)))
    faint = np.full((112, 112), level, np.uint8)
    faint[:, 56:] ^= 1
    assert np.isnan(edge_ratio(faint))


@pytest.mark.parametrize(("level", "noise"), [(6, 5), (249, 5), (128, 30)])
def test_noise_alone_is_no_sharp_edge(level, noise):
    """What CPBD calls clear: a face that is black, or white, with the noise of the camera."""
    image = np.clip(np.rint(np.random.default_rng(1).normal(level, noise, (112, 112))), 0, 255).astype(np.uint8)
    assert cpbd(image) > 0.7
    assert np.isnan(edge_ratio(image))


@pytest.mark.parametrize("image", [np.zeros((112, 112), np.float32), np.zeros((112, 112, 3), np.uint8)])
def test_what_is_no_grey_image_is_refused(image):
    with pytest.raises(ValueError, match="needs a grey image, uint8"):
        edge_ratio(image)


def test_the_labeler_measures_it_where_it_is_asked_for():
    images = np.stack(
        [cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) for image in (crop("camera"), np.zeros((112, 112), np.uint8))]
    )
    batch = FaceBatch(keys=np.arange(2, dtype=np.int32), images=images, identities=np.zeros(2, np.int32))
    measures, without = BlurLabeler(edge_ratio=True)(batch), BlurLabeler()(batch)
    assert measures.columns["edge_ratio"].dtype == np.float32
    assert measures.columns["edge_ratio"][0] == np.float32(edge_ratio(crop("camera")))
    assert np.isnan(measures.columns["edge_ratio"][1])
    assert measures.status == [Status.OK, Status.NO_EDGES]
    assert set(without.columns) == {"cpbd", "sobel"}
    assert without.status == [Status.OK, Status.OK]
    for name, values in without.columns.items():
        np.testing.assert_array_equal(values, measures.columns[name])
