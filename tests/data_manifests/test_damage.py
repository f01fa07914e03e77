"""Damage: pure, graded, and seen by measures that have nothing to do with how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.alignment import ARCFACE_TEMPLATE, align
from data_manifests.damage import Damage, apply
from data_manifests.sample import draw_images, read_photo
from labelers.blur.scores import cpbd
from labelers.faces import decode, grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLURS = [Damage.GAUSSIAN, Damage.MOTION, Damage.LOWRES]
COVERS = [Damage.BOX, Damage.MASK, Damage.GLASSES]
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


def random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def face() -> NDArray[np.uint8]:
    """The astronaut, aligned and undamaged: a sharp face in good light."""
    sha256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
    photo = read_photo("skimage", "data/astronaut.png", sha256)
    return align(photo, [[203.5, 101.1], [246.3, 103.2], [223.5, 126.8], [202.2, 139.3], [244.7, 140.7]])


@given(st.sampled_from(Damage), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_picture_and_severity_give_a_picture(kind: Damage, severity: float, noise: int, seed: int) -> None:
    image = random(noise).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    before = image.copy()
    damaged = apply(image, kind, severity, random(seed))
    assert damaged.shape == (112, 112, 3)
    assert damaged.dtype == np.uint8
    assert not np.shares_memory(damaged, image)
    assert np.array_equal(image, before)
    assert np.array_equal(damaged, apply(image, kind, severity, random(seed)))


@pytest.mark.parametrize("kind", Damage)
def test_no_severity_changes_nothing(kind: Damage, face: NDArray[np.uint8]) -> None:
    assert np.array_equal(apply(face, kind, 0.0, random(1)), face)


@pytest.mark.parametrize("kind", Damage)
def test_more_severity_leaves_less_of_the_face(kind: Damage, face: NDArray[np.uint8]) -> None:
    """Mean absolute difference over places and colours drawn by chance, never less with the next step."""
    changes = [
        np.mean([np.abs(apply(face, kind, s, random(seed)).astype(float) - face).mean() for seed in range(30)])
        for s in STEPS
    ]
    assert changes == sorted(changes)
    assert changes[1] > 0.3
    assert changes[-1] > 1.2 * changes[1]


@pytest.mark.parametrize("kind", BLURS)
def test_more_blur_has_less_detail(kind: Damage, face: NDArray[np.uint8]) -> None:
    details = [float(cv2.Laplacian(grey(apply(face, kind, s, random(3))), cv2.CV_64F).var()) for s in STEPS]
    assert details == sorted(details, reverse=True)
    assert details[-1] < 0.1 * details[0]  # motion keeps the edges along its line


@pytest.mark.parametrize("kind", BLURS)
def test_cpbd_sees_blur(kind: Damage, face: NDArray[np.uint8]) -> None:
    sharp = cpbd(grey(face))
    assert sharp > 0.2
    assert cpbd(grey(apply(face, kind, 0.5, random(4)))) < sharp
    assert cpbd(grey(apply(face, kind, 1.0, random(4)))) < 0.5 * sharp


def test_light_goes_the_way_it_is_said_to(face: NDArray[np.uint8]) -> None:
    light = {kind: [apply(face, kind, s, random(5)).mean() for s in STEPS] for kind in (Damage.DARK, Damage.OVER)}
    assert light[Damage.DARK] == sorted(light[Damage.DARK], reverse=True)
    assert light[Damage.OVER] == sorted(light[Damage.OVER])
    side = apply(face, Damage.SIDE, 1.0, random(5)).astype(float) / np.maximum(face, 1)
    left, right = side[:, :20].mean(), side[:, -20:].mean()
    assert max(left, right) > 3 * min(left, right)


def test_both_sides_can_be_dark(face: NDArray[np.uint8]) -> None:
    images = [apply(face, Damage.SIDE, 1.0, random(seed)) for seed in range(20)]
    assert len({bool(image[:, :20].mean() > image[:, -20:].mean()) for image in images}) == 2


def test_colours_keep_their_places() -> None:
    """Red stays red through every damage that has no colour of its own."""
    red = np.zeros((112, 112, 3), np.uint8)
    red[...] = (200, 30, 30)
    for kind in set(Damage) - set(COVERS):
        damaged = apply(red, kind, 0.3, random(6)).reshape(-1, 3).mean(axis=0)
        assert damaged[0] > 2 * damaged[1], kind
        assert damaged[0] > 2 * damaged[2], kind


def changed(face: NDArray[np.uint8], kind: Damage, severity: float) -> NDArray[np.bool_]:
    """Pixels that lie under the cover, [112, 112]."""
    return np.any(apply(face, kind, severity, random(7)) != face, axis=2)


def test_covers_lie_where_they_belong(face: NDArray[np.uint8]) -> None:
    left_eye, right_eye, nose, *mouth = ARCFACE_TEMPLATE.round().astype(int)
    glasses, mask = changed(face, Damage.GLASSES, 1.0), changed(face, Damage.MASK, 1.0)
    for x, y in (left_eye, right_eye):
        assert glasses[y, x]
        assert not mask[y, x]
    for x, y in mouth:
        assert mask[y, x]
        assert not glasses[y, x]
    assert mask[nose[1], nose[0]]
    assert not changed(face, Damage.MASK, 0.1)[nose[1], nose[0]]


@pytest.mark.parametrize("severity", [-0.01, 1.01, float("nan")])
def test_a_severity_out_of_range_is_refused(severity: float, face: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"severity .* is not in 0 to 1"):
        apply(face, Damage.DARK, severity, random(8))


@pytest.mark.parametrize("shape", [(112, 112), (112, 112, 4), (64, 112, 3)])
def test_another_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        apply(np.zeros(shape, np.uint8), Damage.DARK, 0.5, random(9))


def test_damage_of_the_sample_is_seen_in_its_stored_images() -> None:
    """CPBD of the undamaged images of a person is above that of the strongly blurred ones."""
    sharp, blurred = [], []
    for image in draw_images():
        kinds = dict(image.damages)
        if image.damages and not all(kind in BLURS and severity > 0.4 for kind, severity in kinds.items()):
            continue
        (blurred if image.damages else sharp).append(cpbd(grey(decode(image.encoded))))
    assert len(sharp) > 80
    assert len(blurred) > 15
    assert np.median(blurred) < 0.5 * np.median(sharp)
