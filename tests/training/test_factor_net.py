"""The WIDER FACE classifier: data, loss, metrics, training from end to end, export."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from torchmetrics.functional.classification import binary_auroc

from data_manifests import sample
from data_manifests.alignment import align, similarity_transform
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from data_manifests.wider_face import Split, WiderFaceError, frame_face, read_split
from training.factor_net.__main__ import main
from training.factor_net.augmentation import Augmentation
from training.factor_net.calibration import find_threshold, fit_temperature
from training.factor_net.config import AugmentationConfig, FactorNetConfig, Head, Imbalance
from training.factor_net.crops import read_crops
from training.factor_net.export import ExportError, check_equal, to_onnx
from training.factor_net.loss import class_weights, head_loss
from training.factor_net.metrics import BINS, area_under_roc, calibration_error, measure_head, reliability
from training.factor_net.network import CalibratedNet, FactorNet, folded, normalise
from training.factor_net.trainer import rate_at, train

TINY = FactorNetConfig(align=False, widths=(8, 16), epochs=12, batch=16, dropout=0.0, learning_rate=1e-2, threads=1)
SIDE = 60


def draw_face(photo: np.ndarray, x: int, y: int, *, covered: bool, open_mouth: bool, dark: bool) -> None:
    """A disc with eyes and a mouth; a green bar where it is covered, everything darker in the dark."""
    middle = (x + SIDE // 2, y + SIDE // 2)
    cv2.circle(photo, middle, SIDE // 2, (224, 172, 140), -1)
    for side in (-12, 12):
        cv2.circle(photo, (middle[0] + side, middle[1] - 8), 4, (40, 30, 30), -1)
    cv2.ellipse(photo, (middle[0], middle[1] + 14), (10, 9 if open_mouth else 1), 0, 0, 360, (120, 20, 20), -1)
    if covered:
        cv2.rectangle(photo, (x + 8, y + 12), (x + 52, y + 32), (30, 200, 60), -1)
    if dark:
        box = photo[y : y + SIDE, x : x + SIDE]
        box[:] = box // 5


def draw_wider(root: Path, photos: dict[str, int], seed: int = 0) -> Path:
    """A data set in WIDER FACE's layout: two faces a photo, an invalid one, and a photo without faces."""
    random = np.random.default_rng(seed)
    for split, count in photos.items():
        folder = root / f"WIDER_{split}" / "images" / "0--Drawn"
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            photo = random.integers(90, 150, (100, 180, 3)).astype(np.uint8)
            lines += [f"0--Drawn/{number}.png", "3"]
            for x in (15, 105):
                covered, open_mouth, dark = (bool(v) for v in random.integers(0, 2, 3))
                draw_face(photo, x, 20, covered=covered, open_mouth=open_mouth, dark=dark)
                occlusion = int(random.integers(1, 3)) if covered else 0
                lines.append(f"{x} 20 {SIDE} {SIDE} 0 {int(open_mouth)} {int(dark)} 0 {occlusion} 0")
            lines.append("3 3 40 0 0 1 1 1 2 0")
            cv2.imwrite(str(folder / f"{number}.png"), photo[:, :, ::-1])
        cv2.imwrite(str(folder / "empty.png"), np.zeros((20, 20, 3), np.uint8))
        lines += ["0--Drawn/empty.png", "0", "0 0 0 0 0 0 0 0 0 0"]
        (root / "wider_face_split").mkdir(exist_ok=True)
        (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_wider(tmp_path_factory.mktemp("wider"), {"train": 40, "val": 20})


@pytest.fixture(scope="module")
def trained(drawn: Path):
    crops = {split: read_crops(drawn, split, TINY) for split in Split}
    return crops, train(crops[Split.TRAIN], crops[Split.VAL], TINY)


@pytest.fixture(scope="module")
def exported(trained) -> bytes:
    return to_onnx(trained[1].model)


# --- data -------------------------------------------------------------------------------------------------------------


def test_invalid_faces_and_empty_photos_give_no_crops(drawn: Path) -> None:
    crops = read_crops(drawn, Split.TRAIN, TINY)
    assert crops.images.shape == (80, 112, 112, 3)
    assert (crops.invalid, crops.small) == (40, 0)


def test_crops_stand_beside_their_own_attributes(drawn: Path) -> None:
    crops = read_crops(drawn, Split.VAL, FactorNetConfig(align=False, margin=0.0, threads=2))
    green = (crops.images[:, 25:55, 30:80].astype(int) @ [-1, 2, -1]).mean((1, 2)) > 20
    dark = crops.images[:, 70:80, 20:35].mean((1, 2, 3)) < 60
    assert (green == crops.truth[:, 0]).all()
    assert (dark == crops.truth[:, 2]).all()


def test_partial_and_heavy_occlusion_are_obstructed(tmp_path: Path) -> None:
    root = draw_wider(tmp_path, {"train": 2})
    faces = [(0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 2)]
    lines = ["0--Drawn/0.png", "3", *(f"15 20 60 60 {b} {e} {i} 0 {o} 0" for b, e, i, o in faces)]
    (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines))
    crops = read_crops(root, Split.TRAIN, TINY)
    assert crops.truth.tolist() == [[False, False, False], [True, True, False], [True, False, True]]


def test_small_faces_are_left_out_and_counted(drawn: Path) -> None:
    with pytest.raises(WiderFaceError, match="0 usable faces"):
        read_crops(drawn, Split.TRAIN, FactorNetConfig(align=False, smallest_px=SIDE + 1))
    assert read_crops(drawn, Split.TRAIN, FactorNetConfig(align=False, smallest_px=SIDE)).small == 0


def test_an_attribute_with_one_class_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = draw_wider(tmp_path, {"train": 4})
    path = root / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([*f[:6], "0", *f[7:]] if len(f) == 10 else f) for f in lines))
    with pytest.raises(WiderFaceError, match="p_extreme_lighting"):
        read_crops(root, Split.TRAIN, TINY)


def test_a_damaged_photo_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = draw_wider(tmp_path, {"train": 4})
    (root / "WIDER_train" / "images" / "0--Drawn" / "2.png").write_bytes(b"no picture")
    with pytest.raises(WiderFaceError, match=r"0--Drawn/2\.png"):
        read_crops(root, Split.TRAIN, TINY)


@pytest.fixture(scope="module")
def with_detector(request: pytest.FixtureRequest) -> Path:
    """The folder of YuNet's weights: where users have them, or with the test data."""
    try:
        return find(load_registry().get("yunet"))[0].parent
    except WeightsMissingError:
        return request.getfixturevalue("real_data") / "models"


def test_faces_of_a_photo_are_aligned_where_their_landmarks_are_found(
    with_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six people with annotated landmarks, and a box on a wall."""
    monkeypatch.setenv("FIQA_MODELS", str(with_detector))
    annotated = tomllib.loads((Path(sample.__file__).parent / "annotations" / "sample_faces.toml").read_text())
    described = annotated["photos"][0]
    photo = sample.read_photo(described["package"], described["path"], described["sha256"])
    lines = ["0--Real/0.png", "7", "600 20 60 80 0 1 1 0 1 0"]
    for number, landmarks in enumerate(np.array(described["faces"])):
        matrix = similarity_transform(landmarks)
        centre = np.linalg.solve(matrix[:, :2], (56.0, 65.0) - matrix[:, 2])
        width, height = np.array([80.0, 113.0]) / np.sqrt(np.linalg.det(matrix[:, :2]))  # as YuNet's and WIDER's boxes
        x, y = np.round(centre - (width / 2, height / 2)).astype(int)
        lines.append(f"{x} {y} {round(width)} {round(height)} 0 {number % 2} {number % 2} 0 {number % 2} 0")
    for split in Split:
        folder = tmp_path / f"WIDER_{split}" / "images" / "0--Real"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), photo[:, :, ::-1])
        (tmp_path / "wider_face_split").mkdir(exist_ok=True)
        (tmp_path / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    crops = read_crops(tmp_path, Split.VAL, FactorNetConfig())
    assert crops.aligned.tolist() == [False, *[True] * 6]
    frames = [frame_face(photo, face) for face in read_split(tmp_path, Split.VAL)[0].faces]
    assert np.array_equal(crops.images[0], frames[0])
    wanted = np.array([align(photo, landmarks) for landmarks in described["faces"]], int)
    # The boxes lie just so that an upright head's frame is right; four of the six heads are turned.
    assert np.abs(crops.images[1:] - wanted).mean() < 0.8 * np.abs(frames[1:] - wanted).mean()
    squares = read_crops(tmp_path, Split.VAL, FactorNetConfig(align=False))
    assert not squares.aligned.any()
    assert not np.array_equal(squares.images, crops.images)


# --- loss -------------------------------------------------------------------------------------------------------------


def test_class_weights_by_hand() -> None:
    truth = np.array([[True, True, False], [False, True, False], [False, False, True], [False, False, False]])
    weights = class_weights(truth)
    np.testing.assert_allclose(weights, [[4 / 6, 1, 4 / 6], [2, 1, 2]], rtol=1e-6)


def test_weighted_loss_counts_both_classes_the_same() -> None:
    truth = np.zeros((100, 3), bool)
    truth[:4] = True
    logits = torch.where(torch.from_numpy(truth), 1.0, -2.0)
    loss = head_loss(logits, torch.from_numpy(truth).float(), class_weights(truth), Imbalance.CLASS_WEIGHTS, 2.0)
    by_hand = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0))) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_focal_loss_by_hand_and_at_its_limits() -> None:
    logits = torch.tensor([[0.3, -1.2, 60.0]], requires_grad=True)
    truth = torch.tensor([[1.0, 1.0, 1.0]])
    loss = head_loss(logits, truth, torch.full((2, 3), torch.nan), Imbalance.FOCAL, 2.0)
    p = expit(np.array([0.3, -1.2]))
    assert loss.item() == pytest.approx(float(((1 - p) ** 2 * -np.log(p)).sum() / 3), rel=1e-5)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_focal_loss_with_gamma_0_is_cross_entropy() -> None:
    logits, truth = torch.randn(8, 3), torch.randint(0, 2, (8, 3)).float()
    focal = head_loss(logits, truth, torch.ones(2, 3), Imbalance.FOCAL, 0.0)
    plain = head_loss(logits, truth, torch.ones(2, 3), Imbalance.CLASS_WEIGHTS, 0.0)
    assert focal.item() == pytest.approx(plain.item(), rel=1e-6)


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    probability = np.array([0.9, 0.5, 0.4, 0.5, 0.1, 0.2, 0.05, 0.3])
    truth = np.array([True, True, True, False, False, False, False, False])
    found = measure_head(probability, truth)
    assert (found.faces, found.positives) == (8, 3)
    assert found.sensitivity == pytest.approx(2 / 3)  # 0.5 itself is the worse class
    assert found.specificity == pytest.approx(4 / 5)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.auc == pytest.approx((5 + 4.5 + 4) / 15)  # one tie
    # Bins: 0.05 | 0.1 | 0.2 | 0.3 | 0.4+ | 0.5+ 0.5- | 0.9+
    gaps = 0.05 + 0.1 + 0.2 + 0.3 + 0.6 + abs(1.0 - 1) + 0.1
    assert found.expected_calibration_error == pytest.approx(gaps / 8)
    positive, negative = 8 / 6, 8 / 10
    gaps = negative * (0.05 + 0.1 + 0.2 + 0.3) + positive * (0.6 + 0.1) + abs(negative * 0.5 - positive * 0.5)
    assert found.balanced_calibration_error == pytest.approx(gaps / 8)


def test_reliability_by_hand() -> None:
    rows = reliability(np.array([0.0, 0.1, 0.19, 0.95, 1.0]), np.array([False, False, True, True, True]))
    assert len(rows) == BINS
    assert [row.faces for row in rows] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert rows[1].mean_probability == pytest.approx(0.145)
    assert rows[1].positive_share == 0.5
    # A positive weighs 5/6, a negative 5/4.
    assert rows[1].balanced_share == pytest.approx((5 / 6) / (5 / 6 + 5 / 4))
    assert (rows[9].positive_share, rows[9].upper) == (1.0, 1.0)
    assert rows[5].mean_probability is None


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auc_with_ties_agrees_with_torchmetrics(faces: list[tuple[int, bool]]) -> None:
    probability = np.array([level / 8 for level, _ in faces])
    truth = np.array([positive for _, positive in faces])
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="both classes"):
            measure_head(probability, truth)
        return
    expected = float(binary_auroc(torch.from_numpy(probability), torch.from_numpy(truth).long()))
    assert area_under_roc(probability, truth) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_metrics_refuse_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        measure_head(np.array([0.2, bad]), np.array([True, False]))


def test_temperature_brings_overconfident_logits_back() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 20_000)
    truth = random.random(20_000) < expit(logits)
    ones = np.ones(len(truth))
    assert fit_temperature(3.0 * logits, truth, ones) == pytest.approx(3.0, rel=0.05)
    before = calibration_error(expit(3.0 * logits), truth, ones)
    assert calibration_error(expit(logits), truth, ones) < 0.02 < before


def test_thresholds_by_hand() -> None:
    truth = np.array([False, False, True, False, True, True])
    # Below 0.5 and below 2 the balanced accuracy is 5/6; the first gap is wider.
    assert find_threshold(np.array([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0]), truth) == -0.25
    assert find_threshold(np.array([-2.0, -1.0, 0.5, 1.0, 4.0, 5.0]), truth) == 2.5
    assert find_threshold(np.array([-2.0, -1.0, 0.5, 0.5, 3.0, 4.0]), truth) == 1.75  # equal logits stay together
    assert find_threshold(-np.array([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0]), truth) == 0.0  # none is better than chance
    assert find_threshold(np.ones(6), truth) == 0.0


@given(st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=2, max_size=40))
def test_no_other_threshold_parts_better(faces: list[tuple[int, bool]]) -> None:
    logits, truth = np.array([level for level, _ in faces], float), np.array([positive for _, positive in faces])
    if truth.all() or not truth.any():
        return
    found = find_threshold(logits, truth)
    others = [measure_head(expit(logits - other), truth).balanced_accuracy for other in np.arange(-7, 7) + 0.5]
    assert measure_head(expit(logits - found), truth).balanced_accuracy >= max(0.5, *others) - 1e-12 or found == 0.0


# --- network, changes, schedule ---------------------------------------------------------------------------------------


def warm_network() -> CalibratedNet:
    """A network whose normalisations have seen pictures."""
    torch.manual_seed(0)
    network = FactorNet((8, 16))
    for _ in range(5):
        network(2.0 * torch.randn(8, 3, 112, 112) + 0.3)
    return CalibratedNet(network, (0.3, 0.0, -0.2), (0.5, 1.0, 2.0)).eval()


def test_folding_keeps_the_output_and_the_network() -> None:
    model = warm_network()
    images = torch.randn(4, 3, 112, 112)
    plain = folded(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(plain(images), model(images), atol=1e-5, rtol=0)


def test_the_threshold_is_taken_off_the_logits_and_the_temperature_divides_them() -> None:
    model, images = warm_network(), torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        shifted = model.network(images) - torch.tensor([0.3, 0.0, -0.2])
        expected = torch.sigmoid(shifted * torch.tensor([2.0, 1.0, 0.5]))
        torch.testing.assert_close(model(images), expected)


def test_normalise_maps_levels_to_minus_1_and_1() -> None:
    assert normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_no_change_leaves_faces_as_they_are_but_mirrored() -> None:
    nothing = AugmentationConfig(
        scale=0, shift=0, rotation_deg=0, contrast=0, brightness=0, colour=0, soften=0, noise=0
    )
    images = torch.rand(32, 3, 112, 112) * 2 - 1
    changed = Augmentation(nothing, 0, "cpu")(images)
    same = (changed - images).abs().amax((1, 2, 3)) < 1e-3
    mirrored = (changed - images.flip(3)).abs().amax((1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all()
    assert 4 < same.sum() < 28


def test_changes_repeat_with_the_seed_and_stay_in_range() -> None:
    images = torch.rand(8, 3, 112, 112) * 2 - 1
    first, again, other = (Augmentation(AugmentationConfig(), seed, "cpu")(images) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.abs().max() <= 1.0


def test_changes_move_a_point_no_further_than_asked() -> None:
    config = AugmentationConfig(scale=0.1, shift=0.05, rotation_deg=10, soften=0, noise=0)
    images = torch.full((64, 3, 112, 112), -1.0)
    images[:, :, 53:59, 53:59] = 1.0  # in the middle, which neither scale nor rotation moves
    changed = Augmentation(config, 0, "cpu")(images)[:, 0] > 0
    rows, columns = (torch.stack([torch.nonzero(face)[:, axis].float().mean() for face in changed]) for axis in (0, 1))
    for places in (rows, columns):
        away = (places - 55.5).abs()
        assert away.max() <= 1.1 * 0.05 * 112 + 0.6
        assert away.max() > 3.0


def test_learning_rate_rises_then_falls_to_0() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[55] == pytest.approx(0.5)
    assert rate_at(100, 100, 0.1) == pytest.approx(0.0)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"widths": (8,)}, {"dropout": 1.0}])
def test_config_refuses_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        FactorNetConfig(**wrong)


# --- from end to end --------------------------------------------------------------------------------------------------


def test_training_learns_what_is_plain_to_see(trained) -> None:
    _, net = trained
    assert net.validation[Head.OBSTRUCTED].balanced_accuracy >= 0.95
    assert net.validation[Head.EXTREME_LIGHTING].balanced_accuracy >= 0.95
    assert net.validation[Head.OBSTRUCTED].faces == 40
    # 0.5 is where the validation faces part best.
    assert all(net.validation[head].balanced_accuracy >= net.before[head] for head in Head)


def test_training_follows_the_truth_it_is_given_and_not_the_validation(trained) -> None:
    crops, _ = trained
    reversed_truth = dataclasses.replace(crops[Split.TRAIN], truth=~crops[Split.TRAIN].truth)
    net = train(reversed_truth, crops[Split.VAL], TINY)
    assert net.before[Head.OBSTRUCTED] <= 0.05
    assert net.before[Head.EXTREME_LIGHTING] <= 0.05


def test_same_seed_same_file(trained, exported: bytes) -> None:
    crops, _ = trained
    state = torch.random.get_rng_state()
    again = train(crops[Split.TRAIN], crops[Split.VAL], TINY)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert to_onnx(again.model) == exported


def test_exported_file_equals_pytorch_at_any_batch(trained, exported: bytes) -> None:
    crops, net = trained
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1:], i.type) for i in session.get_inputs()] == [("images", [3, 112, 112], "tensor(float)")]
    for count in (1, 5, 40):
        images = normalise(torch.from_numpy(crops[Split.VAL].images[:count]).permute(0, 3, 1, 2))
        with torch.no_grad():
            wanted = net.model(images).numpy()
        (found,) = session.run(["probabilities"], {"images": images.numpy()})
        assert found.shape == (count, 3)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_exported_file_has_no_normalisation_and_no_trace_of_the_machine(exported: bytes) -> None:
    model = onnx.load_from_string(exported)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    for trace in (b"factor_net/", b".py", b"site-packages", sys.prefix.encode()):
        assert trace not in exported


def test_export_of_another_network_is_an_error(exported: bytes) -> None:
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        check_equal(exported, warm_network())


def test_command_line_makes_a_folder_that_models_can_be_taken_from(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nets" / "drawn"
    arguments = ["--root", str(drawn), "--output", str(folder), "--name", "drawn_net", "--epochs", "1", "--no-align"]
    assert main(arguments) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["card.md", "drawn_net.onnx", "metrics.json", "models.toml"]
    assert [p.name for p in folder.parent.iterdir()] == ["drawn"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data"]["train"]["left_out_invalid"] == 40
    assert str(drawn) not in (folder / "metrics.json").read_text()
    assert metrics["data"]["train"]["aligned_by_landmarks"] == 0
    card = (folder / "card.md").read_text()
    assert metrics["sha256"] in card
    assert f"{metrics['validation']['p_obstructed']['balanced_accuracy']:.3f}" in card

    monkeypatch.setenv("FIQA_MODELS", str(folder))
    entry = load_registry().get("drawn_net", Kind.FACTORS)
    assert find(entry) == (folder / "drawn_net.onnx",)
    assert (entry.files[0].sha256, entry.files[0].bytes) == (metrics["sha256"], metrics["bytes"])
    assert entry.input is not None
    assert list(entry.input.mean) == metrics["input"]["mean"]
    assert list(entry.output.columns) == list(Head)
    was = [metrics["thresholds"][head]["probability"] for head in Head]
    assert entry.output.thresholds == pytest.approx(was, abs=1e-4)
    assert all(f"| {head} | {probability:.3f} |" in card for head, probability in zip(Head, was, strict=True))


def test_command_line_starts_as_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.factor_net", "--root", str(tmp_path), "--output", str(tmp_path / "net")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot read")


def test_command_line_overwrites_nothing(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["--root", str(drawn), "--output", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_command_line_names_missing_data_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "net")]) == 1
    assert "wider_face_train_bbx_gt.txt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(drawn), "--output", str(tmp_path / "net"), "--device", "cuda"]) == 1
    assert "finds no GPU" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_training(drawn: Path) -> None:
    crops = read_crops(drawn, Split.VAL, TINY)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(crops, crops, dataclasses.replace(TINY, learning_rate=1e30))
