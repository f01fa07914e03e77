"""A recogniser that gives the length of its vectors itself: labels of real faces, and the method `norm`."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
import torch

from data_manifests.verification import read_bin
from labelers.faces import decode
from labelers.opening import open_labeler
from labelers.runtime.onnx import NetworkError
from tests.pipeline.conftest import Factory
from tests.two_outputs import NAME, entry_of, write_two_outputs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@torch.no_grad()
def test_norm_is_what_the_network_gives(real_data: Path, tmp_path: Path) -> None:
    network = write_two_outputs(tmp_path / "models")
    images, same = read_bin(real_data / "data" / "verification" / "lfw_clean.bin")
    pairs = range(0, len(same), 20)  # all 2,000 images take half a minute
    images = [image for pair in pairs for image in images[2 * pair : 2 * pair + 2]]
    (tmp_path / "faces.bin").write_bytes(pickle.dumps((images, [bool(same[pair]) for pair in pairs]), 2))
    manifest = tmp_path / "faces.toml"
    manifest.write_text('name = "faces"\nformat = "verification"\nroot = "."\nrecord_file = "faces.bin"\npairs = 50\n')
    factory = Factory(workspace=tmp_path / "workspace")
    words = ("EvaluateQuality", "--benchmarks", str(manifest), "--recognition", NAME, "--methods", "norm,random")
    factory.luigi(*words, "--fmrs", "0.1", "--replicates", "0", "--no-correlate", FIQA_MODELS=str(tmp_path / "models"))

    pictures = np.stack([decode(encoded) for encoded in images])
    pixels = torch.from_numpy(pictures[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    units, norms = (output.numpy() for output in network(pixels))
    assert norms.std() > 0.01 * norms.mean()  # so that another column would be seen

    table = pl.read_parquet(factory.workspace / "faces" / "embeddings" / "current")
    np.testing.assert_allclose(table["norm"], norms[:, 0], rtol=1e-4)
    vectors = np.stack([np.frombuffer(value, np.float16) for value in table["embedding"]]).astype(np.float32)
    np.testing.assert_allclose(vectors, units, atol=1e-3)
    qualities = pl.read_parquet(factory.workspace / "evaluation" / "current" / "qualities.parquet")
    told = qualities.filter(pl.col("method").cast(pl.String) == "norm").sort("key")["quality"]
    np.testing.assert_allclose(told, norms[:, 0], rtol=1e-4)


def test_an_entry_that_does_not_say_so_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two_outputs(tmp_path, norm=False)
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path))
    with pytest.raises(
        NetworkError, match=r"two_outputs\.onnx gives \(\(512,\), \(1,\)\) .*of 512 values; .*norm = true"
    ):
        open_labeler(entry_of(tmp_path), "cpu")
