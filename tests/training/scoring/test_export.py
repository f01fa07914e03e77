"""The model as files: safetensors that stands alone, and ONNX that gives what PyTorch gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_manifests.storage.atomic import sha256_of
from training.export import INPUT, OUTPUT_SIZES, OUTPUTS, ExportError, Scorer, check_equal, main, to_onnx
from training.quality.config import Score
from training.quality.model import ModelConfig, QualityModel, build_merged, log_factors, log_marginals, quality_score
from training.quality.model_file import load_model, save_model
from training.scoring.models import open_model
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    SmallModel = Callable[[str], QualityModel]


@pytest.fixture(scope="module")
def scorers(small_model: SmallModel) -> dict[str, Scorer]:
    merged = build_merged(ModelConfig(), seed=2).eval()
    return {
        "test-resnet": Scorer(small_model("test-resnet")).eval(),
        "test-vit": Scorer(small_model("test-vit"), merged, Score.MERGED).eval(),
    }


@pytest.fixture(scope="module")
def files(scorers: dict[str, Scorer]) -> dict[str, bytes]:
    return {name: to_onnx(scorer) for name, scorer in scorers.items()}


def test_scores_are_made_of_the_marginals(scorers: dict[str, Scorer], noisy_faces: Tensor) -> None:
    with torch.no_grad():
        found = dict(zip(OUTPUTS, scorers["test-resnet"](noisy_faces), strict=True))
        log_joint = scorers["test-resnet"].model(noisy_faces)
    marginals = log_marginals(log_joint)
    assert torch.equal(found["quality"], quality_score(marginals.quality.exp()))
    for name in ("quality", "blur", "occlusion", "pose", "expression", "lighting"):
        assert torch.equal(found[f"p_{name}"], getattr(marginals, name).exp())


def test_a_merged_score_is_made_of_the_factors(scorers: dict[str, Scorer], noisy_faces: Tensor) -> None:
    scorer = scorers["test-vit"]
    with torch.no_grad():
        quality, p_quality, *_ = scorer(noisy_faces)
        wanted = scorer.merged(log_factors(scorer.model(noisy_faces)).exp())
    assert torch.equal(p_quality, wanted)
    assert torch.equal(quality, quality_score(wanted))


def test_a_merged_score_needs_the_merged_network(small_model: SmallModel) -> None:
    with pytest.raises(ValueError, match="was not saved"):
        Scorer(small_model("test-vit"), None, Score.MERGED)


@pytest.mark.parametrize("name", ["test-resnet", "test-vit"])
class TestOnnx:
    @pytest.mark.parametrize("count", [1, 3, 4])
    def test_gives_what_pytorch_gives(
        self, scorers: dict[str, Scorer], files: dict[str, bytes], noisy_faces: Tensor, name: str, count: int
    ) -> None:
        session = onnxruntime.InferenceSession(files[name], providers=["CPUExecutionProvider"])
        found = session.run(list(OUTPUTS), {INPUT: noisy_faces[:count].numpy()})
        with torch.no_grad():
            wanted = scorers[name](noisy_faces[:count])
        for output, right, size in zip(found, wanted, OUTPUT_SIZES, strict=True):
            assert output.dtype == np.float32
            assert output.shape == ((count,) if size == 1 else (count, size))
            np.testing.assert_allclose(output, right, atol=1e-4)

    def test_says_what_goes_in_and_out(self, files: dict[str, bytes], name: str) -> None:
        session = onnxruntime.InferenceSession(files[name], providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        assert (given.name, given.type) == (INPUT, "tensor(uint8)")
        assert given.shape[1:] == [112, 112, 3]
        assert isinstance(given.shape[0], str)
        assert [output.name for output in session.get_outputs()] == list(OUTPUTS)

    def test_a_difference_is_an_error(self, scorers: dict[str, Scorer], files: dict[str, bytes], name: str) -> None:
        proto = onnx.load_from_string(files[name])
        weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = np.frombuffer(weight.raw_data, np.float32)
        weight.raw_data = (values + 0.1 * np.arange(len(values)) / len(values)).astype(np.float32).tobytes()
        with pytest.raises(ExportError, match="differs from PyTorch's"):
            check_equal(proto.SerializeToString(), scorers[name])


def notes_of(encoded: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(encoded).metadata_props}


def test_the_onnx_file_tells_score_and_tower(files: dict[str, bytes]) -> None:
    assert notes_of(files["test-resnet"]) == {"score": "quality", "tower": "test-resnet"}
    assert notes_of(files["test-vit"]) == {"score": "merged", "tower": "test-vit"}
    session = onnxruntime.InferenceSession(files["test-vit"], providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == notes_of(files["test-vit"])


def test_nothing_else_of_the_machine_is_in_the_onnx_file(files: dict[str, bytes]) -> None:
    for encoded in files.values():
        for word in (b"site-packages", b"/training/", str(Path.cwd()).encode()):
            assert word not in encoded


class TestCommand:
    def test_exports_a_run(self, small_model: SmallModel, noisy_faces: Tensor, tmp_path: Path) -> None:
        model, merged = small_model("test-vit"), build_merged(ModelConfig(), seed=2).eval()
        save_model(tmp_path / "model.safetensors", model, merged, notes={"score": "merged", "run": "0123456789ab"})
        output = tmp_path / "out" / "model.onnx"
        assert main(["--checkpoint", str(tmp_path), "--output", str(output)]) == 0
        told = {"score": "merged", "tower": "test-vit", "run": "0123456789ab"}
        assert notes_of(output.read_bytes()) == told | {"model_sha256": sha256_of(tmp_path / "model.safetensors")}
        opened, wanted = open_model(output), open_model(tmp_path)
        assert opened.score is wanted.score is Score.MERGED
        images = noisy_faces.numpy()
        np.testing.assert_allclose(opened.run(images), wanted.run(images), atol=1e-4)

    @pytest.mark.parametrize(
        ("checkpoint", "output", "message"),
        [
            ("gone", "model.onnx", "no such checkpoint"),
            ("text.safetensors", "model.onnx", "is not a model of this project"),
            ("text.onnx", "model.onnx", "is not a kind of checkpoint"),
            ("text.safetensors", "model.pth", "ends in .onnx"),
        ],
    )
    def test_a_mistake_is_one_message(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str, output: str, message: str
    ) -> None:
        for name in ("text.safetensors", "text.onnx"):
            (tmp_path / name).write_text("no")
        assert main(["--checkpoint", str(tmp_path / checkpoint), "--output", str(tmp_path / output)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / output).exists()


def test_the_same_weights_give_the_same_onnx_bytes(scorers: dict[str, Scorer], files: dict[str, bytes]) -> None:
    assert to_onnx(scorers["test-vit"]) == files["test-vit"]


class TestModelFile:
    @pytest.mark.parametrize("tower", ["test-resnet", "test-vit"])
    def test_comes_back_bit_for_bit(
        self, small_model: SmallModel, noisy_faces: Tensor, tmp_path: Path, tower: str
    ) -> None:
        model, merged = small_model(tower), build_merged(ModelConfig(merged_hidden=(9, 4)), seed=3).eval()
        path = tmp_path / "model.safetensors"
        save_model(path, model, merged, notes={"run": "abc", "score": "quality"})
        saved = load_model(path)
        assert saved.notes == {"run": "abc", "score": "quality"}
        assert saved.model.tower == model.tower
        assert not saved.model.training
        assert saved.merged is not None
        with torch.no_grad():
            log_joint = model(noisy_faces)
            assert torch.equal(saved.model(noisy_faces), log_joint)
            p_factors = log_factors(log_joint).exp()
            assert torch.equal(saved.merged(p_factors), merged(p_factors))

    def test_may_lack_the_merged_network(self, small_model: SmallModel, tmp_path: Path) -> None:
        save_model(tmp_path / "a.safetensors", small_model("test-vit"))
        saved = load_model(tmp_path / "a.safetensors")
        assert saved.merged is None
        assert saved.notes == {}

    def test_same_weights_give_the_same_bytes(self, small_model: SmallModel, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save_model(tmp_path / f"{name}.safetensors", small_model("test-vit"), notes={"x": 1, "y": [2]})
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state, _: state.pop("model.visual.proj"), "missing: visual.proj"),
            (lambda state, _: state.pop("model.text_features"), "lacks the embeddings of the prompts"),
            (lambda state, _: state.update({"other": torch.zeros(1)}), "not of this model: other"),
            (lambda state, _: state.update({"model.other": torch.zeros(1)}), "not of this model: other"),
            (lambda _, config: config.update(prompts_sha256="0"), "other prompts"),
            (lambda _, config: (config.pop("tower"), config.pop("notes")), "does not say its notes, tower"),
            (lambda _, config: config.update(format="fiqa-quality-model-0"), "does not say fiqa-quality-model-1"),
        ],
    )
    def test_what_was_changed_is_refused_by_name(
        self,
        small_model: SmallModel,
        tmp_path: Path,
        change: Callable[[dict[str, Tensor], dict[str, object]], object],
        message: str,
    ) -> None:
        path = tmp_path / "a.safetensors"
        save_model(path, small_model("test-vit"))
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
        state = load_file(path)
        change(state, config)
        save_file(state, path, metadata={"config": json.dumps(config)})
        with pytest.raises(WeightsError, match=message):
            load_model(path)

    def test_other_files_are_told_apart(self, small_model: SmallModel, tmp_path: Path) -> None:
        state = small_model("test-vit").state_dict()
        save_file(state, tmp_path / "plain.safetensors")
        torch.save(state, tmp_path / "a.pth")
        (tmp_path / "text").write_text("no")
        for name in ("plain.safetensors", "a.pth", "text", "gone"):
            with pytest.raises(WeightsError, match=f"{name} is not a model of this project"):
                load_model(tmp_path / name)
