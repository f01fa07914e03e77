"""What an evaluation compares: how methods are named, lists of scores, baselines, and networks that give a quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import kstest

from data_manifests.storage.atomic import sha256_of
from data_manifests.weights.files import WeightsError
from labelers.faces import FaceBatch
from labelers.runtime.device import Device
from pipeline.evaluation.methods import MethodError, parse_methods
from pipeline.evaluation.quality_factory import QualityLabelerFactory
from training.evaluation.evaluate import FLOOR
from training.evaluation.methods import networks
from training.evaluation.methods.baselines import random_quality
from training.evaluation.methods.kinds import FLOOR as FORBIDDEN
from training.evaluation.methods.kinds import MethodKind
from training.evaluation.methods.networks import NetworkKind, QualityNetworkError, find_network
from training.evaluation.methods.quality_labeler import BATCH, open_labeler
from training.quality import scorer
from training.quality.model_file import save_model
from training.scoring import onnx_file
from training.trainer import run_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.quality.model import QualityModel

SLOW_FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- names ---------------------------------------------------------------------------------------------------------


def names_of(text: str) -> list[str]:
    return [method.name for method in parse_methods(text)]


def test_methods_are_read_with_their_names() -> None:
    found = parse_methods("clib=model:runs/a, onnx:nets/crfiqa.onnx ,table:s=1:2.csv,norm,sharpness=cpbd")
    assert [(m.name, m.kind) for m in found] == [
        ("clib", MethodKind.MODEL),
        ("crfiqa", MethodKind.ONNX),
        ("s=1:2", MethodKind.TABLE),
        ("norm", MethodKind.NORM),
        ("sharpness", MethodKind.CPBD),
    ]
    assert found[0].path == Path("runs/a").absolute()
    assert found[3].path is None
    assert FORBIDDEN == FLOOR


def test_anchors_may_be_of_another_recogniser_than_the_judge() -> None:
    found = parse_methods("ccs,nnccs:w600k_r50,mine=certainty_ratio:glintr100,certainty_ratio")
    assert [(m.name, m.kind.value, m.recogniser, m.path) for m in found] == [
        ("ccs", "ccs", "", None),
        ("nnccs (w600k_r50)", "nnccs", "w600k_r50", None),
        ("certainty_ratio (mine)", "certainty_ratio", "glintr100", None),  # it says that it knows the people
        ("certainty_ratio", "certainty_ratio", "", None),
    ]


def test_default_names_are_short_and_differ() -> None:
    assert names_of("model:/w/ms1mv2/quality_model/current,model:/w/casia/quality_model/current") == ["ms1mv2", "casia"]
    assert names_of("model:/w/a/run/model.safetensors,model:/w/b/run/model.safetensors") == ["a/run", "b/run"]
    assert names_of("table:/x/norm.csv,norm") == ["x/norm", "norm"]
    assert names_of("a=table:/x/b.csv,table:/x/a.csv") == ["a", "x/a"]
    assert names_of("model:/runs/v1.2") == ["v1.2"]


def test_a_file_is_not_called_as_what_is_evaluated_beside_all_methods() -> None:
    assert [method.name for method in parse_methods("table:x/floor.csv,table:x/mean.csv")] == ["x/floor", "x/mean"]


def test_a_run_of_the_workspace_is_named_by_its_data_set_and_its_folder(tmp_path: Path) -> None:
    runs = tmp_path / "ms1mv2" / "quality_model"
    for run in ("8c1f02b4d6e7", "92918ee10122"):
        (runs / run).mkdir(parents=True)
    (runs / "current").symlink_to("92918ee10122", target_is_directory=True)
    other = runs / "8c1f02b4d6e7" / "model.safetensors"
    assert names_of(f"model:{runs}/current,model:{other}") == ["ms1mv2/92918ee10122", "ms1mv2/8c1f02b4d6e7"]
    assert names_of(f"model:{runs}/current/model.safetensors,ms1mv2=norm") == ["ms1mv2/92918ee10122", "ms1mv2"]
    assert names_of(f"ours=model:{runs}/current") == ["ours"]
    with pytest.raises(MethodError, match="is named twice"):
        names_of(f"model:{runs}/current,model:{runs}/92918ee10122")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no method is named"),
        (" , ", "no method is named"),
        ("clib", "'clib' is no method: there are model:PATH, onnx:PATH, on_top:PATH, table:PATH, cpbd,"),
        ("model:", "write model:PATH"),
        ("table", "write table:PATH"),
        ("norm:x", "write norm alone"),
        ("norm:", "write norm alone"),
        ("ccs:", "write ccs:RECOGNISER"),
        ("ccs:w600k_r50,ccs:w600k_r50", "two methods are called ccs (w600k_r50)"),
        ("=norm", "a name has 1 to 60"),
        ("a/b=norm", "a name has 1 to 60"),
        ("floor=norm", "floor stands for something else"),
        ("mean=norm", "mean stands for something else"),
        ("random=table:x.csv", "random stands for something else"),
        ("norm,norm", "two methods are called norm"),
        ("a=norm,a=cpbd", "two methods are called a"),
        ("table:/x/a.csv,table:/x/a.csv", "is named twice"),
        ("floor", "'floor' is no method"),
    ],
)
def test_what_is_no_method_is_refused(text: str, said: str) -> None:
    with pytest.raises(MethodError) as caught:
        parse_methods(text)
    assert said in str(caught.value)


@given(st.text(alphabet="abtm:=,/. \nodel#", max_size=40))
def test_any_text_is_methods_or_one_error(text: str) -> None:
    try:
        found = parse_methods(text)
    except MethodError:
        return
    assert len({method.name for method in found}) == len(found) > 0
    assert all((method.path is None) == (method.kind in {"cpbd", "sobel"}) for method in found)


# --- chance --------------------------------------------------------------------------------------------------------


def test_chance_is_uniform_stable_and_of_the_key_alone() -> None:
    keys = np.arange(1, 20_001, dtype=np.int32)
    drawn = random_quality(keys)
    assert kstest(drawn, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.03
    np.testing.assert_array_equal(random_quality(keys[5:7]), drawn[5:7])
    other = random_quality(keys, seed=1)
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03
    assert not np.isin(other, drawn).any()
    # Recorded values: another machine has to draw the same.
    np.testing.assert_allclose(drawn[:3], RECORDED, rtol=0, atol=0)


RECORDED = [0.46696631092582586, 0.09139235830587256, 0.3654910610708988]
"""SplitMix64 of the keys 1, 2 and 3."""


# --- networks ------------------------------------------------------------------------------------------------------


def write_network(
    path: Path,
    kind: int = TensorProto.FLOAT,
    shape: tuple[Any, ...] = ("N", 3, 112, 112),
    *,
    axes: tuple[int, ...] = (1, 2, 3),
    names: tuple[str, str] = ("input", "score"),
    keep: int = 0,
) -> Path:
    """A network that gives the mean of a face; along `axes`."""
    nodes = [
        helper.make_node("Cast", [names[0]], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast", "axes"], [names[1]], keepdims=keep),
    ]
    value = numpy_helper.from_array(np.array(axes, np.int64), "axes")
    given_ = helper.make_tensor_value_info(names[0], kind, shape)
    gives = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "mean", [given_], [gives], [value])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def draw_faces(count: int) -> FaceBatch:
    images = np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)
    images[0] = 0
    return FaceBatch(keys=np.arange(count, dtype=np.int32), images=images, identities=np.full(count, -1, np.int32))


def test_names_are_those_that_training_writes() -> None:
    assert networks.EXPORTED_INPUT == onnx_file.INPUT
    assert scorer.OUTPUTS[0] == networks.EXPORTED_OUTPUT
    assert networks.MODEL == run_folder.MODEL
    assert networks.CHECKPOINTS == run_folder.CHECKPOINTS


@pytest.mark.parametrize("batch", ["N", 1, 5])
def test_a_foreign_network_sees_faces_as_cr_fiqa_does(batch: str | int, tmp_path: Path) -> None:
    network = find_network(write_network(tmp_path / "n.onnx", shape=(batch, 3, 112, 112)))
    assert network.kind is NetworkKind.FOREIGN
    faces = draw_faces(BATCH + 3)
    found = open_labeler(network, Device.CPU)(faces).columns["quality"]
    assert found.dtype == np.float32
    assert found.shape == (BATCH + 3,)
    wanted = (faces.images.astype(np.float64).mean(axis=(1, 2, 3)) - 127.5) / 127.5
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found[0] == -1


def test_colours_come_as_red_green_blue(tmp_path: Path) -> None:
    """The mean over everything but the channels has three values: not a quality, and told so."""
    network = find_network(write_network(tmp_path / "n.onnx", axes=(2, 3)))
    with pytest.raises(QualityNetworkError, match=r"gives \[N, 3\]: one output has to be of one number a face"):
        open_labeler(network, Device.CPU)


def test_a_foreign_network_that_does_not_run_is_named(tmp_path: Path) -> None:
    model = onnx.load(write_network(tmp_path / "n.onnx", shape=("N", 3, "H", "W")))
    model.graph.node.insert(1, helper.make_node("Expand", ["cast", "wide"], ["wider"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 5, 5]), "wide"))  # 112 is not 5
    model.graph.node[2].input[0] = "wider"
    onnx.save(model, tmp_path / "n.onnx")
    with pytest.raises(QualityNetworkError, match=r"n\.onnx does not run on faces of float32 \[N, 3, 112, 112\]"):
        open_labeler(find_network(tmp_path / "n.onnx"), Device.CPU)


def test_an_exported_network_sees_bytes(tmp_path: Path) -> None:
    path = write_network(
        tmp_path / "n.onnx", TensorProto.UINT8, ("N", 112, 112, 3), names=("images", "quality"), keep=1
    )
    network = find_network(path)
    assert network.kind is NetworkKind.EXPORTED
    faces = draw_faces(3)
    found = open_labeler(network, Device.CPU)(faces).columns["quality"]
    np.testing.assert_allclose(found, faces.images.astype(np.float64).mean(axis=(1, 2, 3)), rtol=1e-5)


def test_a_face_has_one_quality_however_many_come_with_it(
    small_model: Callable[[str], QualityModel], tmp_path: Path
) -> None:
    save_model(tmp_path / "run.safetensors", small_model("test-vit"))
    labeler = open_labeler(find_network(tmp_path / "run.safetensors"), Device.CPU)
    faces = draw_faces(BATCH + 5)
    together = labeler(faces).columns["quality"]
    for row in (0, BATCH - 1, BATCH + 4):
        piece = slice(row, row + 1)
        alone = FaceBatch(keys=faces.keys[piece], images=faces.images[piece], identities=faces.identities[piece])
        place = row % BATCH
        assert labeler(alone).columns["quality"][0] == pytest.approx(together[row], abs=1e-6), place
    assert len(labeler(draw_faces(1)).columns["quality"]) == 1
    assert ((together > 0.1) & (together < 0.9)).all()
    assert len(np.unique(together)) > BATCH


def test_a_run_is_found_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(QualityNetworkError, match=r"holds no model\.safetensors: name the folder of a finished"):
        find_network(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(QualityNetworkError, match="this training is not finished"):
        find_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_network(tmp_path).files == (tmp_path / "model.safetensors",)
    assert find_network(tmp_path).kind is NetworkKind.TRAINED


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QualityNetworkError, match="no such file or folder"):
        find_network(tmp_path / "n.onnx")
    (tmp_path / "n.txt").write_text("x")
    with pytest.raises(QualityNetworkError, match="is no kind of network that is known"):
        find_network(tmp_path / "n.txt")
    (tmp_path / "n.onnx").write_bytes(b"no network")
    with pytest.raises(QualityNetworkError, match="is no ONNX network"):
        find_network(tmp_path / "n.onnx")
    (tmp_path / "n.onnx").write_bytes(b"")
    with pytest.raises(QualityNetworkError, match="has 0 inputs"):
        find_network(tmp_path / "n.onnx")
    with pytest.raises(
        QualityNetworkError, match=r"takes float32 \[0, 3, 224, 224\]: one that takes \[N, 3, 112, 112\]"
    ):
        find_network(write_network(tmp_path / "n.onnx", shape=("N", 3, 224, 224)))
    with pytest.raises(QualityNetworkError, match="takes FLOAT16"):
        find_network(write_network(tmp_path / "n.onnx", TensorProto.FLOAT16))
    with pytest.raises(QualityNetworkError, match=r"takes bytes but training\.export did not write it"):
        find_network(write_network(tmp_path / "n.onnx", TensorProto.UINT8, ("N", 112, 112, 3)))


def test_weights_beside_a_network_belong_to_it(tmp_path: Path) -> None:
    model = onnx.load(write_network(tmp_path / "n.onnx"))
    onnx.save(model, tmp_path / "n.onnx", save_as_external_data=True, location="n.weights", size_threshold=0)
    network = find_network(tmp_path / "n.onnx")
    assert network.files == (tmp_path / "n.onnx", tmp_path / "n.weights")
    assert len(open_labeler(network, Device.CPU)(draw_faces(2)).columns["quality"]) == 2
    factory = QualityLabelerFactory(network=network, hashes=tuple(map(sha256_of, network.files)), device="cpu")
    factory.open()
    (tmp_path / "n.weights").write_bytes((tmp_path / "n.weights").read_bytes()[::-1])
    with pytest.raises(WeightsError, match=r"n\.weights has changed since this run began"):
        factory.open()
    (tmp_path / "n.weights").unlink()
    with pytest.raises(QualityNetworkError, match=r"keeps weights in n\.weights, which is not beside it"):
        find_network(tmp_path / "n.onnx")


def test_a_network_that_gives_no_number_is_named_with_the_face(tmp_path: Path) -> None:
    path = write_network(tmp_path / "n.onnx")
    model = onnx.load(path)
    model.graph.node[1].output[0] = "mean"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.9), "more"))
    model.graph.node.append(helper.make_node("Add", ["mean", "more"], ["sum"]))
    model.graph.node.append(helper.make_node("Sqrt", ["sum"], ["score"]))  # of -0.1 for a black face
    onnx.save(model, path)
    dark = FaceBatch(
        keys=np.array([7, 8], np.int32),
        images=np.stack([np.full((112, 112, 3), 200, np.uint8), np.zeros((112, 112, 3), np.uint8)]),
        identities=np.array([-1, -1], np.int32),
    )
    labeler = open_labeler(find_network(path), Device.CPU)
    with pytest.raises(QualityNetworkError, match=r"n\.onnx gives no number for the image with key 8"):
        labeler(dark)
