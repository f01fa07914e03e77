"""The readers of files that people bring, as benchmarks.fuzz calls them: bytes in, and only their own errors out."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save as save_tensors

from data_manifests.benchmarks.pair_lists import PairsError, parse_pairs
from data_manifests.benchmarks.pairs import read_template_images
from data_manifests.benchmarks.templates import TemplateError
from data_manifests.manifest import ManifestError, load_manifest
from data_manifests.recordio.format import RecordError
from data_manifests.recordio.record_file import RecordFile
from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import draw_images
from data_manifests.storage.shard_file import DamagedShardError, open_shard, read_columns
from data_manifests.storage.toml_file import TomlFileError
from data_manifests.tables.stages import BLUR
from data_manifests.verification import VerificationError, read_bin
from data_manifests.weights.registry import SHIPPED, read_entries
from data_manifests.wider_face import WiderFaceError, read_annotation
from labelers.anchors.head import HeadError, load_head
from labelers.faces import DecodeError, decode
from labelers.runtime.onnx import Device, InputSpec, NetworkError, open_network
from labelers.runtime.picture_input import Colour
from pipeline.evaluation.score_lists import ScoreListError, read_scores
from pipeline.storage.receipts import read_runs
from training.backbones.published import load_backbone
from training.on_top.scorer import OnTopError, load_scorer
from training.quality.model_file import load_model
from training.trainer.weights import WeightsError, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

_SETS = Path(__file__).resolve().parent.parent / "data_manifests" / "sets"
_INPUT = InputSpec(width=8, height=8, colour=Colour.RGB, mean=(0.0,) * 3, std=(1.0,) * 3)
_READ = 20
"""Records whose images are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader.

    Attributes:
        file: the name that the bytes have when they are read.
        read: reads a file of that name.
        errors: what it may raise.
        seeds: makes the contents of whole files to begin with.
    """

    file: str
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]


def _read_records(path: Path) -> None:
    """The index of a .rec, and some of its images."""
    with RecordFile(path) as records:
        for key in records.keys[:_READ].tolist():
            records.read(key)


def _read_idx(path: Path) -> None:
    """The same with an .idx that is not to be trusted; the .rec is whole."""
    whole = path.with_name("train.rec")
    if not whole.is_file():
        _write_records(path.parent / "whole")
        (path.parent / "whole" / "train.rec").rename(whole)
    with RecordFile(whole, path) as records:
        for key in records.keys[:_READ].tolist():
            records.read(key)


def _write_records(folder: Path) -> Path:
    """A small MS1MV2."""
    faces = [(image.identity, image.encoded) for image in list(draw_images())[:6]]
    with write_ms1mv2(folder, faces):
        return folder


def _seed_records(name: str) -> list[bytes]:
    """One file of it."""
    with tempfile.TemporaryDirectory() as folder:
        return [(_write_records(Path(folder)) / name).read_bytes()]


def _read_templates(path: Path) -> None:
    """A list of who is on which image, beside a whole one of faces."""
    meta = path.parent / "meta"
    meta.mkdir(exist_ok=True)
    (path.parent / "aligned_112").mkdir(exist_ok=True)
    (meta / "x_face_tid_mid.txt").write_bytes(path.read_bytes())
    points = " ".join(["50"] * 10)
    (meta / "x_name_5pts_score.txt").write_text("".join(f"{name}.jpg {points} 0.9\n" for name in range(2)))
    (meta / "x_template_pair_label.txt").write_text("0 1 0\n")
    toml = path.with_name("x.toml")
    toml.write_text('name = "x"\nformat = "templates"\nroot = "."\n')
    read_template_images(load_manifest(toml))


def _seed_onnx() -> list[bytes]:
    """A network of one node."""
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
    )  # fmt: skip
    return [helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()]


def _seed_torch() -> list[bytes]:
    """State dicts in the three forms."""
    linear = torch.nn.Linear(4, 3)
    plain, old, script = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(linear.state_dict(), plain)
    torch.save({"state_dict": linear.half().state_dict()}, old, _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(4, 3)), script)
    return [plain.getvalue(), old.getvalue(), script.getvalue()]


def _seed_mxnet() -> list[bytes]:
    """Two small arrays of a .params file."""
    head = struct.pack("<3Q", 0x112, 0, 2)
    array = struct.pack("<IiI1q3i", 0xF993FAC9, 0, 1, 2, 1, 0, 0) + struct.pack("<2f", 1, 2)
    names = [b"arg:conv0_weight", b"aux:bn0_moving_var"]
    told = struct.pack("<Q", 2) + b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return [head + array * 2 + told]


def _seed_npy() -> list[bytes]:
    """A matrix of two people."""
    file = io.BytesIO()
    np.save(file, np.ones((2, 4), np.float32))
    return [file.getvalue()]


def _seed_model() -> list[bytes]:
    """A file that says it is a model of this project, without weights."""
    config = json.dumps({"format": "clib-fiqa", "tower": {}, "merged_hidden": None, "notes": {}})
    return [save_tensors({"a": np.ones(3, np.float32)}, metadata={"config": config})]


def _seed_shard() -> list[bytes]:
    """A table with the metadata of a shard."""
    schema = BLUR.schema().with_metadata({"stage": "blur", "fingerprint": "0" * 12})
    arrays = [pa.array([1, 2] if field.type == pa.int32() else [None, None], field.type) for field in schema]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=schema), file)
    return [file.getvalue()]


def _seed_scores() -> list[bytes]:
    """A table of scores."""
    file = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "quality": [0.5, None]}), file)
    return [file.getvalue()]


def _decode(path: Path) -> None:
    """One image."""
    decode(path.read_bytes())


def _read_shard(path: Path) -> None:
    """All columns of a shard of blur."""
    read_columns(open_shard(path, "blur"), path)


def _texts(*seeds: str) -> Callable[[], list[bytes]]:
    """Texts as seeds."""
    return lambda: [seed.encode() for seed in seeds]


def _faces() -> list[bytes]:
    """Two encoded faces."""
    return [image.encoded for image in list(draw_images())[:2]]


READERS: dict[str, Reader] = {
    "rec": Reader(file="a.rec", read=_read_records, errors=(RecordError,),
                  seeds=lambda: _seed_records("train.rec")),
    "idx": Reader(file="a.idx", read=_read_idx, errors=(RecordError,),
                  seeds=lambda: _seed_records("train.idx")),
    "bin": Reader(file="a.bin", read=read_bin, errors=(VerificationError,),
                  seeds=lambda: [pickle.dumps(([b"a", b"b"], [True]), p) for p in range(6)]),
    "weights": Reader(file="a.pt", read=read_state_dict, errors=(WeightsError,), seeds=_seed_torch),
    "recogniser_mxnet": Reader(file="a.params", read=load_backbone, errors=(WeightsError,), seeds=_seed_mxnet),
    "recogniser_pt": Reader(file="a.ckpt", read=load_backbone, errors=(WeightsError,), seeds=_seed_torch),
    "safetensors": Reader(file="a.safetensors", read=read_state_dict, errors=(WeightsError,), seeds=_seed_model),
    "model": Reader(file="a.safetensors", read=load_model, errors=(WeightsError,), seeds=_seed_model),
    "on_top": Reader(file="a.safetensors", read=load_scorer, errors=(OnTopError,), seeds=_seed_model),
    "head_npy": Reader(file="a.npy", read=lambda path: load_head(path, dimension=4), errors=(HeadError,),
                       seeds=_seed_npy),
    "head_pt": Reader(file="a.pt", read=lambda path: load_head(path, dimension=4), errors=(HeadError,),
                      seeds=_seed_torch),
    "onnx": Reader(file="a.onnx", read=lambda path: open_network(path, input=_INPUT, batch=2, device=Device.CPU),
                   errors=(NetworkError,), seeds=_seed_onnx),
    "image": Reader(file="a.jpg", read=_decode, errors=(DecodeError,), seeds=_faces),
    "shard": Reader(file="a.parquet", read=_read_shard, errors=(DamagedShardError,), seeds=_seed_shard),
    "receipts": Reader(file="run-1.json", read=lambda path: read_runs(path.parent), errors=(),
                       seeds=_texts('{"wall_seconds": 1, "figures": {}, "finished": "2026-01-01"}')),
    "manifest": Reader(file="a.toml", read=load_manifest, errors=(ManifestError, TomlFileError),
                       seeds=lambda: [path.read_bytes() for path in sorted(_SETS.glob("*.toml"))]),
    "models": Reader(file="models.toml", read=read_entries, errors=(TomlFileError,),
                     seeds=lambda: [SHIPPED.read_bytes()]),
    "pairs_txt": Reader(file="a.txt", read=parse_pairs, errors=(PairsError,),
                        seeds=_texts("1\t1\nA\t1\t2\nA\t1\tB\t1\n", "a.jpg b.jpg 1\nc d.png e.jpg 0\n")),
    "pairs_csv": Reader(file="a.csv", read=parse_pairs, errors=(PairsError,),
                        seeds=_texts('a,b,same\n"a,b.jpg",b.jpg,1\nc.jpg,d.jpg,0\n')),
    "scores_csv": Reader(file="a.csv", read=read_scores, errors=(ScoreListError,),
                         seeds=_texts("benchmark,key,path,score\nx,1,a.jpg,0.5\nx,2,,\n")),
    "scores_parquet": Reader(file="a.parquet", read=read_scores, errors=(ScoreListError,), seeds=_seed_scores),
    "templates": Reader(file="a.txt", read=_read_templates, errors=(TemplateError, ManifestError),
                        seeds=_texts("0.jpg 0 0\n1.jpg 1 0\n")),
    "wider_face": Reader(
        file="a.txt",
        read=lambda path: list(read_annotation(path.read_bytes().decode("utf-8", "replace"), Path("photos"), path)),
        errors=(WiderFaceError,),
        seeds=_texts("0--Parade/a.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"),
    ),
}  # fmt: skip
"""Name of a reader -> how it is called."""
