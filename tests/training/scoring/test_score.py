"""Scores of folders, record files and pairs: the values, the rows, the table, and what happens to what is wrong."""

from __future__ import annotations

import logging
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

import training
from data_manifests.recordio.record_file import RecordFile
from data_manifests.storage.atomic import sha256_of
from data_manifests.tables.scores import SCORES
from data_manifests.tables.stages import CLASSES, Factor
from labelers.faces import decode
from training import score
from training.clip.backbone import import_open_clip
from training.export import Scorer, to_onnx
from training.losses import ANCHORS
from training.prompts import PROMPTS
from training.quality.model import ModelConfig, build_merged, log_factors, quality_score
from training.quality.model_file import save_model
from training.scoring.inputs import StoredImages, decode_ahead, open_images
from training.scoring.models import open_model
from training.scoring.table import score_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.quality.model import QualityModel

    SmallModel = Callable[[str], QualityModel]

State = dict[str, Tensor]
COLUMNS = [
    "key", "path", "quality", "q_bad", "q_poor", "q_fair", "q_good", "q_perfect",
    "p_hazy", "p_blurry", "p_clear", "blur",
    "p_obstructed", "p_unobstructed", "occlusion",
    "p_profile", "p_slight_angle", "p_frontal", "pose",
    "p_exaggerated_expression", "p_typical_expression", "expression",
    "p_extreme_lighting", "p_normal_lighting", "lighting",
    "status",
]  # fmt: skip
MEASURES = [name for name in COLUMNS if name not in ("key", "path", "status")]
WIDTH, LAYERS, PATCH, PLACES = 64, 2, 28, 16  # a vision transformer that sees 112 x 112 pixels as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAlike:
    """The same 256 images as a record file, a folder and pairs."""

    rec: Path
    folder: Path
    pairs: Path
    encoded: list[bytes]


@pytest.fixture(scope="module")
def faces(labelled_faces: object, tmp_path_factory: pytest.TempPathFactory) -> StoredAlike:
    rec: Path = labelled_faces.record_file  # type: ignore[attr-defined]
    root = tmp_path_factory.mktemp("alike")
    folder = root / "folder"
    encoded = []
    for key, identity, stored in RecordFile(rec).images():
        (folder / f"{identity}").mkdir(parents=True, exist_ok=True)
        (folder / f"{identity}" / f"{key:05d}.jpg").write_bytes(stored)
        encoded.append(stored)
    pairs = root / "pairs.bin"
    with pairs.open("wb") as file:
        pickle.dump((encoded, [True, False] * (len(encoded) // 4)), file, protocol=2)
    return StoredAlike(rec=rec, folder=folder, pairs=pairs, encoded=encoded)


@pytest.fixture(scope="module")
def checkpoint(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a sharper temperature than random weights have, so that images differ."""
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    model = small_model("test-vit")
    with torch.no_grad():
        model.logit_scale.fill_(math.log(60.0))
    save_model(path, model, build_merged(ModelConfig(), seed=4), notes={"score": "quality"})
    return path


def run_score(checkpoint: Path, place: Path, output: Path, *more: str) -> pl.DataFrame:
    words = ["--checkpoint", str(checkpoint), "--input", str(place), "--output", str(output), *more]
    code = score.main(words)
    table = pl.read_parquet(output)
    assert code == (0 if (table["status"].cast(pl.String) == "ok").any() else 1)
    return table


def fail_score(capsys: pytest.CaptureFixture[str], checkpoint: Path, place: Path, output: Path, *more: str) -> str:
    """The one message with which scoring ends; nothing may be written."""
    words = ["--checkpoint", str(checkpoint), "--input", str(place), "--output", str(output), *more]
    before = sorted(output.parent.rglob("*"))
    assert score.main(words) == 1
    assert sorted(output.parent.rglob("*")) == before
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def as_array(frame: pl.DataFrame) -> np.ndarray:
    """Every number of a table of scores, and every class by its number."""
    return frame.select(pl.col(MEASURES).to_physical()).to_numpy().astype(np.float64)


class PlainTransformer:
    """A CLIP with a vision transformer under OpenAI's names, and its forward pass, made without any CLIP code."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.state: State = {"logit_scale": torch.tensor(math.log(100.0))}
        self.rand("visual.class_embedding", WIDTH)
        self.rand("visual.positional_embedding", PLACES + 1, WIDTH, scale=0.3)
        self.rand("visual.conv1.weight", WIDTH, 3, PATCH, PATCH, scale=(3 * PATCH**2) ** -0.5)
        self.rand("visual.proj", WIDTH, WIDTH, scale=WIDTH**-0.5)
        for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
            self.add_norm(norm)
        self.add_blocks("visual.transformer")
        self.rand("token_embedding.weight", 49408, WIDTH, scale=0.5)
        self.rand("positional_embedding", 77, WIDTH, scale=0.1)
        self.add_blocks("transformer")
        self.rand("text_projection", WIDTH, WIDTH, scale=WIDTH**-0.5)

    def rand(self, name: str, *shape: int, scale: float = 1.0, around: float = 0.0) -> None:
        self.state[name] = around + scale * torch.randn(*shape, generator=self.generator)

    def add_norm(self, name: str) -> None:
        self.rand(f"{name}.weight", WIDTH, scale=0.2, around=1.0)
        self.rand(f"{name}.bias", WIDTH, scale=0.2)

    def add_blocks(self, tower: str) -> None:
        widths = {"attn.in_proj_": 3, "attn.out_proj.": 1, "mlp.c_fc.": 4}
        for layer in range(LAYERS):
            base = f"{tower}.resblocks.{layer}"
            for norm in ("ln_1", "ln_2"):
                self.add_norm(f"{base}.{norm}")
            for name, times in widths.items():
                self.rand(f"{base}.{name}weight", times * WIDTH, WIDTH, scale=WIDTH**-0.5)
                self.rand(f"{base}.{name}bias", times * WIDTH, scale=0.1)
            self.rand(f"{base}.mlp.c_proj.weight", WIDTH, 4 * WIDTH, scale=(4 * WIDTH) ** -0.5)
            self.rand(f"{base}.mlp.c_proj.bias", WIDTH, scale=0.1)

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}weight"].T + self.state[f"{name}bias"]

    def transform(self, x: Tensor, tower: str, *, causal: bool) -> Tensor:
        """One head, since everything of OpenAI's has 64 channels a head."""
        hidden = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1) if causal else 0.0
        for layer in range(LAYERS):
            base = f"{tower}.resblocks.{layer}"
            q, k, v = self.linear(self.norm(x, f"{base}.ln_1"), f"{base}.attn.in_proj_").chunk(3, dim=-1)
            attention = (q @ k.mT / math.sqrt(WIDTH) + hidden).softmax(-1)
            x = x + self.linear(attention @ v, f"{base}.attn.out_proj.")
            y = self.linear(self.norm(x, f"{base}.ln_2"), f"{base}.mlp.c_fc.")
            x = x + self.linear(y * torch.sigmoid(1.702 * y), f"{base}.mlp.c_proj.")
        return x

    def see(self, images: Tensor) -> Tensor:
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        pixels = (images.float() / 255.0 - torch.tensor(mean)) / torch.tensor(std)  # [N, 112, 112, 3]
        side = math.isqrt(PLACES)
        patches = pixels.reshape(-1, side, PATCH, side, PATCH, 3).permute(0, 1, 3, 5, 2, 4).reshape(-1, PLACES, 2352)
        x = patches @ self.state["visual.conv1.weight"].reshape(WIDTH, -1).T
        first = self.state["visual.class_embedding"].expand(len(x), 1, WIDTH)
        x = self.norm(torch.cat([first, x], dim=1) + self.state["visual.positional_embedding"], "visual.ln_pre")
        x = self.transform(x, "visual.transformer", causal=False)
        return self.norm(x[:, 0], "visual.ln_post") @ self.state["visual.proj"]

    def read(self) -> Tensor:
        tokens = import_open_clip().SimpleTokenizer()(list(PROMPTS), context_length=77)
        x = self.state["token_embedding.weight"][tokens] + self.state["positional_embedding"]
        ends = self.transform(x, "transformer", causal=True)[torch.arange(len(tokens)), tokens.argmax(-1)]
        return self.norm(ends, "ln_final") @ self.state["text_projection"]

    def score(self, images: Tensor) -> np.ndarray:
        """Every number and class of the table, float64 [N, 23]."""
        image, text = self.see(images), self.read()
        cosine = (image / image.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).T
        joint = (self.state["logit_scale"].exp() * cosine).softmax(-1).double().numpy().reshape(-1, 3, 2, 3, 2, 2, 5)
        quality = joint.sum((1, 2, 3, 4, 5))
        columns = [quality @ np.array([0.1, 0.3, 0.5, 0.7, 0.9]), *quality.T]
        for axis in range(1, 6):
            marginal = joint.sum(tuple({1, 2, 3, 4, 5, 6} - {axis}))
            columns += [*marginal.T, marginal.argmax(1)]
        return np.stack(columns, axis=1)


def test_scores_are_those_of_a_plain_recomputation(faces: StoredAlike, tmp_path: Path) -> None:
    plain = PlainTransformer()
    torch.save(plain.state, tmp_path / "released.pth")
    frame = run_score(tmp_path / "released.pth", faces.rec, tmp_path / "scores.parquet")
    wanted = plain.score(torch.from_numpy(np.stack([decode(stored) for stored in faces.encoded])))
    assert wanted[:, 0].std() > 0.01, "images that score the same would hide a mistake"
    found = as_array(frame)
    classes = [MEASURES.index(factor.value) for factor in Factor]
    numbers = [place for place in range(len(MEASURES)) if place not in classes]
    np.testing.assert_allclose(found[:, numbers], wanted[:, numbers], atol=1e-4, rtol=0.0)
    assert (found[:, classes] != wanted[:, classes]).mean() < 0.005, "only an even chance may fall the other way"
    assert frame["status"].cast(pl.String).unique().to_list() == ["ok"]


class TestTable:
    def test_a_folder_a_record_file_and_pairs_give_the_same_rows(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path
    ) -> None:
        rec = run_score(checkpoint, faces.rec, tmp_path / "rec.parquet")
        folder = run_score(checkpoint, faces.folder, tmp_path / "folder.parquet")
        pairs = run_score(checkpoint, faces.pairs, tmp_path / "pairs.parquet")
        assert rec["key"].to_list() == RecordFile(faces.rec).keys.tolist()
        assert pairs["key"].to_list() == folder["key"].to_list() == list(range(1, 257))
        assert rec["quality"].std() > 0.001
        assert folder.drop("key", "path").equals(rec.drop("key", "path"))
        assert pairs.drop("key").equals(rec.drop("key"))
        assert folder["path"].to_list() == sorted(
            path.relative_to(faces.folder).as_posix() for path in faces.folder.rglob("*.jpg")
        )
        assert rec["path"].null_count() == pairs["path"].null_count() == 256

    def test_is_the_contract(self, faces: StoredAlike, checkpoint: Path, tmp_path: Path) -> None:
        frame = run_score(checkpoint, faces.pairs, tmp_path / "a.parquet")
        assert frame.columns == list(SCORES.names) == COLUMNS
        assert frame.schema["key"] == pl.Int32
        assert frame.schema["path"] == pl.String
        for factor, classes in CLASSES.items():
            assert frame.schema[factor.value] == pl.Enum(list(classes))
            names = [f"p_{each.replace(' ', '_')}" for each in classes]
            assert set(frame.select(names).schema.values()) == {pl.Float32}
            np.testing.assert_allclose(frame.select(pl.sum_horizontal(names)).to_numpy(), 1.0, atol=1e-5)
        np.testing.assert_allclose(frame.select(pl.sum_horizontal(COLUMNS[3:8])).to_numpy(), 1.0, atol=1e-5)
        schema = pq.read_schema(tmp_path / "a.parquet")
        assert schema.remove_metadata() == SCORES.schema().remove_metadata()

    def test_says_what_it_was_made_from(self, faces: StoredAlike, checkpoint: Path, tmp_path: Path) -> None:
        run_score(checkpoint, faces.pairs, tmp_path / "a.parquet")
        run_score(checkpoint.parent, faces.pairs, tmp_path / "b.parquet")
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes(), "same run, same bytes"
        found = pq.read_schema(tmp_path / "a.parquet").metadata
        assert found[b"stage"] == b"scores"
        assert found[b"checkpoint_sha256"].decode() == sha256_of(checkpoint)
        assert found[b"score"] == b"quality"
        assert found[b"input"] == b"verification"
        assert len(found[b"fingerprint"]) == 12
        assert not any(str(tmp_path).encode() in value for name, value in found.items() if name != b"ARROW:schema")
        run_score(checkpoint, faces.folder, tmp_path / "c.parquet")
        other = pq.read_schema(tmp_path / "c.parquet").metadata
        assert other[b"input_identity"] != found[b"input_identity"]
        assert other[b"fingerprint"] != found[b"fingerprint"]

    @pytest.mark.parametrize(("batch", "threads"), [("1", "1"), ("7", "3"), ("1000", "1")])
    def test_batch_and_threads_leave_the_rows_alone(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path, batch: str, threads: str
    ) -> None:
        wanted = run_score(checkpoint, faces.pairs, tmp_path / "a.parquet")
        found = run_score(checkpoint, faces.pairs, tmp_path / "b.parquet", "--batch", batch, "--threads", threads)
        np.testing.assert_allclose(found["quality"], wanted["quality"], atol=1e-5)
        assert found["key"].equals(wanted["key"])


class TestModels:
    def test_a_merged_score_is_taken_from_the_factors(
        self, faces: StoredAlike, small_model: SmallModel, tmp_path: Path
    ) -> None:
        model, merged = small_model("test-vit"), build_merged(ModelConfig(), seed=4).eval()
        save_model(tmp_path / "model.safetensors", model, merged, notes={"score": "merged"})
        frame = run_score(tmp_path, faces.pairs, tmp_path / "a.parquet")
        with torch.no_grad():
            pixels = torch.from_numpy(np.stack([decode(stored) for stored in faces.encoded[:8]]))
            p_quality = merged(log_factors(model(pixels)).exp())
        np.testing.assert_allclose(frame["quality"][:8], quality_score(p_quality), atol=1e-5)
        np.testing.assert_allclose(frame["q_perfect"][:8], p_quality[:, 4], atol=1e-5)
        assert pq.read_schema(tmp_path / "a.parquet").metadata[b"score"] == b"merged"

    def test_onnx_scores_like_the_model(
        self, faces: StoredAlike, checkpoint: Path, small_model: SmallModel, tmp_path: Path
    ) -> None:
        model = small_model("test-vit")
        with torch.no_grad():
            model.logit_scale.fill_(math.log(60.0))
        (tmp_path / "model.onnx").write_bytes(to_onnx(Scorer(model)))
        wanted = run_score(checkpoint, faces.pairs, tmp_path / "a.parquet")
        found = run_score(tmp_path / "model.onnx", faces.pairs, tmp_path / "b.parquet")
        numbers = [name for name in MEASURES if name not in set(Factor)]
        np.testing.assert_allclose(found.select(numbers).to_numpy(), wanted.select(numbers).to_numpy(), atol=1e-4)
        assert pq.read_schema(tmp_path / "b.parquet").metadata[b"score"] == b"quality"

    def test_an_onnx_file_that_does_not_tell_its_score_is_called_exported(
        self, faces: StoredAlike, small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        proto = onnx.load_from_string(to_onnx(Scorer(small_model("test-vit"))))
        proto.ClearField("metadata_props")
        onnx.save(proto, tmp_path / "model.onnx")
        run_score(tmp_path / "model.onnx", faces.pairs, tmp_path / "a.parquet")
        assert pq.read_schema(tmp_path / "a.parquet").metadata[b"score"] == b"exported"
        onnx.helper.set_model_props(proto, {"score": "median"})
        onnx.save(proto, tmp_path / "model.onnx")
        message = fail_score(capsys, tmp_path / "model.onnx", faces.pairs, tmp_path / "b.parquet")
        assert "model.onnx: 'median' is not a valid Score; export the run's model again" in message

    def test_flips_are_averaged_when_asked_for(self, faces: StoredAlike, checkpoint: Path, tmp_path: Path) -> None:
        folder, mirrored = tmp_path / "folder", tmp_path / "mirrored"
        folder.mkdir()
        mirrored.mkdir()
        for row in range(6):
            image = decode(faces.encoded[row])[:, :, ::-1]
            cv2.imwrite(str(folder / f"{row}.png"), image)
            cv2.imwrite(str(mirrored / f"{row}.png"), image[:, ::-1])
        plain, other = (run_score(checkpoint, place, tmp_path / "a.parquet") for place in (folder, mirrored))
        found, again = (
            run_score(checkpoint, place, tmp_path / f"{place.name}.parquet", "--flip-average")
            for place in (folder, mirrored)
        )
        numbers = [name for name in MEASURES if name not in set(Factor)]
        assert (plain["quality"] - other["quality"]).abs().max() > 1e-3, (
            "mirror images that score the same hide a mistake"
        )
        mean = (plain.select(numbers).to_numpy() + other.select(numbers).to_numpy()) / 2
        np.testing.assert_allclose(found.select(numbers).to_numpy(), mean, atol=1e-6)
        np.testing.assert_allclose(found["quality"], found.select(COLUMNS[3:8]).to_numpy() @ ANCHORS, atol=1e-6)
        assert found.drop("path").equals(again.drop("path")), "an image and its mirror image score the same"
        told = [pq.read_schema(tmp_path / name).metadata for name in ("a.parquet", "mirrored.parquet")]
        assert [each[b"flip_average"] for each in told] == [b"no", b"yes"]
        assert told[0][b"input_identity"] == told[1][b"input_identity"]
        assert told[0][b"fingerprint"] != told[1][b"fingerprint"]


class TestDamage:
    def test_broken_and_wrong_images_are_rows_with_a_cause(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        good = faces.encoded[0]
        larger = cv2.imencode(".png", np.zeros((224, 224, 3), np.uint8))[1].tobytes()
        files = {"a.jpg": good, "b.jpg": good[: len(good) // 2], "c.jpg": b"", "d.png": larger, "e.jpg": good}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "f.jpg").symlink_to("gone.jpg")
        frame = run_score(checkpoint, folder, tmp_path / "a.parquet", "--batch", "4")
        wanted = ["ok", "decode_error", "decode_error", "wrong_size", "ok", "missing_record"]
        assert frame["status"].cast(pl.String).to_list() == wanted
        assert frame["key"].to_list() == [1, 2, 3, 4, 5, 6]
        assert frame["path"].to_list() == [*files, "f.jpg"]
        readable = [status == "ok" for status in wanted]
        for name in MEASURES:
            assert frame[name].is_not_null().to_list() == readable
        np.testing.assert_allclose(frame["quality"][0], frame["quality"][4], atol=1e-6)

    def test_a_damaged_record_costs_its_own_row_only(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path
    ) -> None:
        for name in ("train.rec", "train.idx"):
            shutil.copy(faces.rec.with_name(name), tmp_path / name)
        rec = tmp_path / "train.rec"
        index = RecordFile(rec).index()
        with rec.open("r+b") as file:
            file.seek(int(index.offsets[9]))
            file.write(struct.pack("<I", 0))
        wanted = run_score(checkpoint, faces.rec, tmp_path / "a.parquet")
        found = run_score(checkpoint, rec, tmp_path / "b.parquet")
        assert found["status"].cast(pl.String).to_list() == ["record_error" if i == 9 else "ok" for i in range(256)]
        assert found["quality"][9] is None
        others = [row for row in range(256) if row != 9]
        np.testing.assert_allclose(found["quality"].gather(others), wanted["quality"].gather(others), atol=1e-5)

    def test_no_image_that_can_be_scored_is_a_table_and_a_warning(
        self, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"no")
        frame = run_score(checkpoint, folder, tmp_path / "a.parquet")
        assert frame["status"].cast(pl.String).to_list() == ["decode_error"]
        assert frame["quality"].to_list() == [None]
        assert "none of the images could be scored" in caplog.text
        assert frame.schema["pose"] == pl.Enum(list(CLASSES[Factor.POSE]))

    def test_reading_goes_no_further_than_it_must(self, faces: StoredAlike) -> None:
        whole = open_images(faces.pairs)
        asked: list[int] = []

        def fetch(row: int) -> bytes:
            asked.append(row)
            return whole.fetch(row)

        images = StoredImages(place=whole.place, keys=whole.keys, paths=None, identity=whole.identity, fetch=fetch)
        pieces = decode_ahead(images, batch=8, threads=2)
        first = next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert first.start == 0
        assert len(first) == 8
        assert max(asked) < 3 * 8


class TestMistakes:
    def test_missing_checkpoints_are_named(
        self, faces: StoredAlike, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "a.parquet"
        (tmp_path / "empty").mkdir()
        (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
        (tmp_path / "text.safetensors").write_text("no")
        (tmp_path / "text.onnx").write_text("no")
        (tmp_path / "text.pth").write_text("no")
        (tmp_path / "text.bin").write_text("no")
        told = {
            "gone": "no such checkpoint",
            "empty": "holds no model.safetensors",
            "begun": "not finished",
            "text.safetensors": "is not a model of this project",
            "text.onnx": "not a network that ONNX Runtime opens",
            "text.pth": "is not a file of weights",
            "text.bin": "not a kind of checkpoint",
        }
        for name, words in told.items():
            message = fail_score(capsys, tmp_path / name, faces.pairs, output)
            assert f"{tmp_path / name}" in message
            assert words in message

    def test_in_python_the_numbers_are_the_same(self, faces: StoredAlike, checkpoint: Path, tmp_path: Path) -> None:
        written = run_score(checkpoint, faces.folder, tmp_path / "s.parquet")
        model = training.load(checkpoint)
        assert model.score(faces.folder).equals(written)
        # The record file has the images in another order than the folder's sorted paths.
        keyed = run_score(checkpoint, faces.rec, tmp_path / "r.parquet")
        pixels = np.stack([decode(stored) for stored in faces.encoded])
        found = model.score(pixels)
        assert found.columns == [name for name in written.columns if name != "path"]
        assert found.equals(keyed.drop("path"))
        flipped = training.load(checkpoint, flip_average=True).score(pixels[:3])["quality"]
        assert not flipped.equals(found["quality"][:3])

    def test_one_image_is_a_row(self, faces: StoredAlike, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(faces.encoded[0])
        alone = run_score(checkpoint, tmp_path / "a.jpg", tmp_path / "one.parquet")
        assert alone.select("key", "path", "status").rows() == [(1, "a.jpg", "ok")]
        assert training.load(checkpoint).score(tmp_path / "a.jpg").drop("path").equals(alone.drop("path"))

    def test_inputs_that_hold_no_images_are_named(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "a.parquet"
        (tmp_path / "empty").mkdir()
        (tmp_path / "a.txt").write_bytes(faces.encoded[0])
        (tmp_path / "a.bin").write_bytes(b"no")
        shutil.copy(faces.rec, tmp_path / "a.rec")
        (tmp_path / "a.idx").write_text("no")
        told = {
            tmp_path / "gone.rec": "no such file or folder",
            tmp_path / "empty": "no image in it",
            tmp_path / "a.txt": "is not a folder of images, an image (.jpg,",
            tmp_path / "a.bin": "nothing of it was run",
            tmp_path / "a.rec": "not an index",
            faces.rec.parent: "name the file",
        }
        for place, words in told.items():
            message = fail_score(capsys, checkpoint, place, output)
            assert str(place.with_suffix("")) in message
            assert words in message

    @pytest.mark.parametrize("name", ["train.rec", "folder.parquet", "file/scores.parquet", "scores"])
    def test_outputs_that_cannot_be_are_refused_before_any_work(
        self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        (tmp_path / "folder.parquet").mkdir()
        (tmp_path / "file").write_text("")
        (tmp_path / "train.rec").write_text("dear data")
        message = fail_score(capsys, checkpoint, tmp_path / "not looked at", tmp_path / name)
        assert f"{tmp_path / name}" in message
        assert (tmp_path / "train.rec").read_text() == "dear data"

    def test_a_model_that_has_diverged_writes_nothing(
        self, faces: StoredAlike, small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = small_model("test-vit")
        with torch.no_grad():
            model.logit_scale.fill_(float("nan"))
        save_model(tmp_path / "model.safetensors", model)
        message = fail_score(capsys, tmp_path, faces.rec, tmp_path / "a.parquet")
        assert "model.safetensors: gives no number for key 1 of" in message

    def test_a_score_that_the_file_cannot_give_is_an_error(
        self, faces: StoredAlike, small_model: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for kind in ("merged", "median"):
            save_model(tmp_path / "model.safetensors", small_model("test-vit"), notes={"score": kind})
            message = fail_score(capsys, tmp_path, faces.rec, tmp_path / "a.parquet")
            assert "model.safetensors" in message
            assert kind in message

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_missing_gpu_is_an_error(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        message = fail_score(capsys, checkpoint, faces.rec, tmp_path / "a.parquet", "--device", "cuda")
        assert "no GPU" in message

    def test_an_interrupted_run_keeps_the_older_table(
        self, faces: StoredAlike, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output = tmp_path / "a.parquet"
        output.write_text("older")
        calls = []

        def interrupt(_: object, count: int) -> None:
            calls.append(count)
            if len(calls) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr("training.trainer.progress.TrainingProgress.advance", interrupt)
        words = ["--checkpoint", str(checkpoint), "--input", str(faces.rec), "--output", str(output)]
        assert score.main([*words, "--batch", "16"]) == 130
        assert calls == [16, 16, 16]
        assert output.read_text() == "older"
        assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_scores_like_the_processor(faces: StoredAlike, checkpoint: Path) -> None:
    images = open_images(faces.pairs)
    wanted, found = (
        score_images(images, open_model(checkpoint, device), batch=64, threads=2).values for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_summary_counts_every_cause(
    faces: StoredAlike, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(faces.encoded[0])
    (folder / "b.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    with caplog.at_level(logging.INFO):
        run_score(checkpoint, folder, tmp_path / "a.parquet")
    assert "a.parquet: 1 ok, 1 wrong_size" in caplog.text
    assert "align the faces first" in caplog.text


def test_the_command_scores_real_pairs(real_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    words = ["--checkpoint", str(checkpoint.parent), "--output", str(output)]
    words += ["--input", str(real_data / "data" / "verification" / "lfw_clean.bin")]
    root = Path(score.__file__).resolve().parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "training.score", *words],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert "scores.parquet: 2,000 ok" in done.stderr
    frame = pl.read_parquet(output)
    assert frame["key"].to_list() == list(range(1, 2001))
    assert frame["quality"].is_between(0.1, 0.9).all()
    assert frame.select(pl.col(MEASURES).null_count()).row(0) == (0,) * len(MEASURES)
