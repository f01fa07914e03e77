"""What the tests of training share: small models, pictures of noise, and the embedded sample with drawn labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_manifests.recordio.record_file import RecordFile
from data_manifests.sample import make_sample
from data_manifests.tables.stages import LABELS
from tests import forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from training.quality.model import QualityModel


forked.PACKAGES += ["open_clip", "torch.utils.tensorboard", "training.train_quality", "training.train_recognition"]


@pytest.fixture(scope="session")
def small_model() -> Callable[[str], QualityModel]:
    """Builds the named small tower with random weights; a fresh copy every time, in evaluation mode."""
    import copy  # noqa: PLC0415 - placed here so that it stands beside its use

    from training.quality.model import ModelConfig, build_model  # noqa: PLC0415

    torch.set_num_threads(1)
    built: dict[str, QualityModel] = {}

    def build(name: str) -> QualityModel:
        if name not in built:
            built[name] = build_model(ModelConfig(tower=name, pretrained=""), seed=1).eval()
        return copy.deepcopy(built[name])

    return build


@pytest.fixture(scope="session")
def noisy_faces() -> Tensor:
    """Four pictures of noise, uint8 [4, 112, 112, 3]."""
    return torch.randint(0, 256, (4, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSample:
    """256 real faces in RecordIO, and a `labels` table of the first `rows` of them.

    A tenth of every label is null; one row says that its image does not decode.
    """

    folder: Path
    record_file: Path

    def write_labels(self, name: str, rows: int = 256, seed: int = 0, fingerprint: str = "0123456789ab") -> Path:
        """Write a table in two shards and return its folder."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        table = self.draw(rows, seed).replace_schema_metadata({"stage": "labels", "fingerprint": fingerprint})
        half = rows // 2
        pq.write_table(table.slice(0, half), folder / "shard-00000.parquet")
        pq.write_table(table.slice(half), folder / "shard-00001.parquet")
        return folder

    def draw(self, rows: int, seed: int) -> pa.Table:
        """A `labels` table whose keys and people are those of the record file."""
        index = RecordFile(self.record_file).index()
        random = np.random.default_rng(seed)
        columns = {}
        for column in LABELS.columns:
            null = random.random(rows) < 0.1
            if column.categories:
                codes = pa.array(random.integers(0, len(column.categories), rows), pa.int8(), mask=null)
                columns[column.name] = pa.DictionaryArray.from_arrays(codes, list(column.categories), ordered=True)
            else:
                columns[column.name] = pa.array(random.random(rows).astype(np.float32), mask=null)
        columns["key"] = pa.array(index.keys[:rows])
        columns["identity"] = pa.array(index.identities[:rows])
        status = ["ok"] * rows
        status[rows // 3] = "decode_error"
        status[rows // 4] = "no_face+single_image"
        columns["status"] = pa.array(status).dictionary_encode()
        return pa.table([columns[name] for name in LABELS.names], schema=LABELS.schema())


@pytest.fixture(scope="session")
def labelled_faces(tmp_path_factory: pytest.TempPathFactory) -> LabelledSample:
    """The sample; labels are written by the tests, under names of their own."""
    folder = tmp_path_factory.mktemp("faces")
    make_sample(folder / "sample")
    return LabelledSample(folder=folder, record_file=folder / "sample" / "train.rec")
