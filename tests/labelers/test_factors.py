"""Occlusion, expression and lighting: the labeler, and the network that comes with the project."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from data_manifests.recordio.record_file import RecordFile
from data_manifests.storage.atomic import sha256_of
from data_manifests.tables.stages import FACTORS, Status
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import ROOT
from data_manifests.weights.registry import load_registry
from data_manifests.wider_face import Split
from labelers.faces import FaceBatch, decode_batch
from labelers.factors import COLUMNS, FactorsLabeler
from labelers.runtime.onnx import Colour, Device, InputSpec, Network, NetworkError, open_network
from training.factor_net.config import FactorNetConfig, Head
from training.factor_net.crops import read_crops
from training.factor_net.metrics import measure_head

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = ROOT / "data_manifests" / "weights"
SPEC = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(0.0,) * 3, std=(255.0,) * 3)
DAMAGE = {"p_obstructed": ("box", "mask", "glasses"), "p_extreme_lighting": ("dark", "over", "side")}


def faces_of(images: np.ndarray) -> FaceBatch:
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, images=images, identities=np.zeros(len(images), np.int32))


def plain_faces(*colours: tuple[int, int, int]) -> FaceBatch:
    return faces_of(np.array([np.full((112, 112, 3), colour, np.uint8) for colour in colours]))


def channel_network(path: Path, shift: float = 0.0, channels: int = 3, last: str = "Identity") -> Network:
    """A network that gives `last` of the mean of every channel, from 0 to 1, plus `shift`."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "shift"], ["all"]),
        helper.make_node("Slice", ["all", "start", "end", "axis"], ["some"]),
        helper.make_node(last, ["some"], ["probabilities"]),
    ]
    constants = {
        "axes": np.array([2, 3]), "start": np.array([0]), "end": np.array([channels]), "axis": np.array([1]),
        "shift": np.array([shift], np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", channels])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return open_network(path, input=SPEC, batch=4, device=Device.CPU)


def test_columns_are_those_of_the_table_and_of_the_training() -> None:
    assert ("key", *COLUMNS, "status") == FACTORS.names
    assert tuple(Head) == COLUMNS


def test_every_column_holds_its_output(tmp_path: Path) -> None:
    labeler = FactorsLabeler(channel_network(tmp_path / "n.onnx"))
    measures = labeler(plain_faces((255, 0, 51), (0, 102, 255), (0, 0, 0), (51, 51, 51), (0, 255, 0)))
    assert list(measures.columns) == list(COLUMNS)
    np.testing.assert_allclose(measures.columns["p_obstructed"], [1, 0, 0, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(measures.columns["p_exaggerated"], [0, 0.4, 0, 0.2, 1], atol=1e-6)
    np.testing.assert_allclose(measures.columns["p_extreme_lighting"], [0.2, 1, 0, 0.2, 0], atol=1e-6)
    assert {column.dtype for column in measures.columns.values()} == {np.dtype(np.float32)}
    assert measures.status == [Status.OK] * 5


def test_a_network_with_another_order_of_columns(tmp_path: Path) -> None:
    order = ("p_extreme_lighting", "p_obstructed", "p_exaggerated")
    labeler = FactorsLabeler(channel_network(tmp_path / "n.onnx"), columns=order)
    measures = labeler(plain_faces((255, 51, 102)))
    assert list(measures.columns) == list(COLUMNS)
    assert [float(measures.columns[name][0]) for name in order] == pytest.approx([1.0, 0.2, 0.4], abs=1e-5)


def test_no_faces_give_no_rows(tmp_path: Path) -> None:
    measures = FactorsLabeler(channel_network(tmp_path / "n.onnx"))(faces_of(np.zeros((0, 112, 112, 3), np.uint8)))
    assert [len(column) for column in measures.columns.values()] == [0, 0, 0]
    assert measures.status == []


@pytest.mark.parametrize(("shift", "sound", "wrong"), [(0.5, 120, 220), (-0.5, 140, 20)])
def test_values_that_are_no_probabilities_name_the_face(tmp_path: Path, shift: float, sound: int, wrong: int) -> None:
    labeler = FactorsLabeler(channel_network(tmp_path / "n.onnx", shift))
    with pytest.raises(NetworkError, match=r"for the image with key 2, which are not probabilities"):
        labeler(plain_faces((sound,) * 3, (sound, wrong, sound), (wrong,) * 3))


def test_nan_is_no_probability(tmp_path: Path) -> None:
    labeler = FactorsLabeler(channel_network(tmp_path / "n.onnx", shift=-0.2, last="Sqrt"))
    assert labeler(plain_faces((255, 100, 60))).status == [Status.OK]
    with pytest.raises(NetworkError, match=r"nan.*key 2, which are not probabilities"):
        labeler(plain_faces((255, 100, 60), (255, 0, 100)))


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="expected 3 probabilities"):
        FactorsLabeler(channel_network(tmp_path / "n.onnx", channels=2))
    with pytest.raises(NetworkError, match="smiling"):
        FactorsLabeler(channel_network(tmp_path / "n.onnx"), columns=("p_obstructed", "smiling", "p_exaggerated"))


# --- the network that comes with the project --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metrics() -> dict:
    return json.loads((WEIGHTS / "factors_mini.json").read_text())


@pytest.fixture(scope="module")
def shipped() -> FactorsLabeler:
    entry = load_registry().get("factors_mini", Kind.FACTORS)
    given = entry.input
    assert given is not None
    spec = InputSpec(
        width=given.width, height=given.height, colour=Colour(given.colour), mean=given.mean, std=given.std
    )
    network = open_network(WEIGHTS / entry.files[0].name, input=spec, batch=entry.batch, device=Device.CPU)
    return FactorsLabeler(network, columns=entry.output.columns)


def test_shipped_file_is_the_one_that_card_and_metrics_describe(metrics: dict) -> None:
    path = WEIGHTS / "factors_mini.onnx"
    card = (WEIGHTS / "factors_mini.md").read_text()
    assert sha256_of(path) == metrics["sha256"]
    assert path.stat().st_size == metrics["bytes"] < 4_000_000
    assert metrics["sha256"] in card
    for found in metrics["validation"].values():
        assert f"| {found['balanced_accuracy']:.3f} |" in card
    for found in metrics["transfer"]["by_damage"].values():
        assert f"| {found['sensitivity']:.3f} |" in card


def test_shipped_entry_fits_the_file(metrics: dict) -> None:
    entry = load_registry().get("factors_mini", Kind.FACTORS)
    assert entry.input is not None
    assert (list(entry.input.mean), list(entry.input.std)) == (metrics["input"]["mean"], metrics["input"]["std"])
    assert list(entry.output.columns) == metrics["output"]["columns"]
    assert (entry.files[0].sha256, entry.files[0].bytes) == (metrics["sha256"], metrics["bytes"])


def test_shipped_network_is_as_good_as_its_card_says(shipped: FactorsLabeler, metrics: dict, real_data: Path) -> None:
    config = FactorNetConfig(align=False, margin=metrics["config"]["margin"])
    crops = read_crops(real_data / "data" / "wider_mini", Split.VAL, config)
    measures = shipped(faces_of(crops.images))
    for name, truth in zip(COLUMNS, crops.truth.T, strict=True):
        found, claimed = measure_head(measures.columns[name].astype(float), truth), metrics["validation"][name]
        assert (found.faces, found.positives) == (claimed["faces"], claimed["positives"])
        assert found.balanced_accuracy == pytest.approx(claimed["balanced_accuracy"], abs=0.01)
        assert found.auc == pytest.approx(claimed["auc"], abs=0.01)
        assert found.balanced_calibration_error == pytest.approx(claimed["balanced_calibration_error"], abs=0.01)


def measure_transfer(labeler: FactorsLabeler, folder: Path) -> dict:
    """What the network says of aligned faces whose damage is known: none, or one kind alone."""
    with (folder / "sources.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        damage = {int(row["key"]): json.loads(row["degradations"]) for row in rows}
    keys = np.array(sorted(key for key, kinds in damage.items() if len(kinds) < 2), np.int32)
    with RecordFile(folder / "train.rec") as file:
        faces, status = decode_batch(keys, np.zeros(len(keys), np.int32), [file.read(int(key))[1] for key in keys])
    assert set(status) == {Status.OK}
    worse = {name: column >= 0.5 for name, column in labeler(faces).columns.items()}
    kinds = np.array([damage[int(key)][0][0] if damage[int(key)] else "" for key in keys])
    severity = np.array([damage[int(key)][0][1] if damage[int(key)] else 0.0 for key in keys])
    result: dict = {
        "undamaged": int((kinds == "").sum()),
        "named_worse_undamaged": {name: float(column[kinds == ""].mean()) for name, column in worse.items()},
        "by_damage": {},
    }
    for head, own in DAMAGE.items():
        specificity = 1.0 - result["named_worse_undamaged"][head]
        for kind in own:
            hit, how = worse[head][kinds == kind], severity[kinds == kind]
            result["by_damage"][kind] = {
                "head": head,
                "images": len(hit),
                "sensitivity": float(hit.mean()),
                "balanced_accuracy": float((hit.mean() + specificity) / 2),
                "sensitivity_by_severity": {
                    f"{low} to {high}": float(hit[(how >= low) & (how < high + (high == 1.0))].mean())
                    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0))
                },
            }
    return result


def test_shipped_network_does_on_aligned_faces_what_its_card_says(
    shipped: FactorsLabeler, metrics: dict, real_data: Path
) -> None:
    found, claimed = measure_transfer(shipped, real_data / "data" / "lfw112_mixed"), metrics["transfer"]
    assert found["undamaged"] == claimed["undamaged"]
    assert found["named_worse_undamaged"] == pytest.approx(claimed["named_worse_undamaged"], abs=0.01)
    assert found["by_damage"].keys() == claimed["by_damage"].keys()
    for kind, said in claimed["by_damage"].items():
        measured = found["by_damage"][kind]
        assert measured["images"] == said["images"]
        assert measured["balanced_accuracy"] == pytest.approx(said["balanced_accuracy"], abs=0.01)
        assert measured["sensitivity_by_severity"] == pytest.approx(said["sensitivity_by_severity"], abs=0.02)
