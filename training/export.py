"""Writes a trained model as ONNX: python -m training.export --checkpoint RUN_OR_FILE --output model.onnx.

The file takes pixels and gives every number of a score. Its metadata tells what the score is taken from, the tower, the
run, and the SHA-256 of the model. A recogniser that was published in PyTorch becomes the file that its entry in
models.toml names: it gives embeddings, not normalised. For example:

    python -m training.export --checkpoint workspace/sample/quality_model/current --output quality.onnx
    python -m training.export --checkpoint adaface_ir101_webface4m.ckpt --output networks/adaface_webface4m.onnx
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from data_manifests.storage.atomic import sha256_of, write_atomically
from labelers.faces import SIDE
from labelers.runtime.denormals import flush_denormals
from training.backbones.published import load_backbone
from training.clip.backbone import ClipConfigError
from training.quality.scorer import OUTPUT_SIZES, OUTPUTS, Scorer
from training.recognition.export import embedding_to_onnx, quality_to_onnx
from training.recognition.model_file import is_recogniser, load_recogniser
from training.scoring.models import find_model, load_scorer
from training.scoring.onnx_file import INPUT, TOLERANCE, ExportError, Note, encode_onnx
from training.trainer.run_folder import MODEL, SCORER
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["INPUT", "OUTPUTS", "OUTPUT_SIZES", "ExportError", "Scorer", "check_equal", "export", "main", "to_onnx"]


def to_onnx(scorer: Scorer, *, run: str = "", sha256: str = "") -> bytes:
    """Export a model and check the result against it.

    Args:
        scorer: any mode; it stays as it is.
        run: fingerprint of the training, for the file's metadata; empty where it is not known.
        sha256: of the model's file, likewise.

    Returns:
        An ONNX model: `images` uint8 [N, 112, 112, 3] to `OUTPUTS`, for any N. The same weights and origin give the
        same bytes.

    Raises:
        ExportError: if an output differs by more than 1e-4 from what PyTorch gives.
    """
    frozen = copy.deepcopy(scorer).cpu().float().eval()
    example = torch.from_numpy(_pictures(2))
    notes = {Note.SCORE: scorer.score.value, Note.TOWER: scorer.model.tower.name, Note.RUN: run, Note.MODEL: sha256}
    encoded = encode_onnx(
        frozen, example, OUTPUTS, "quality_model", {n.value: text for n, text in notes.items() if text}
    )
    check_equal(encoded, frozen)
    return encoded


def export(checkpoint: Path, output: Path) -> None:
    """Write the model of a run's folder, or of a file, as an ONNX file, whole or not at all.

    Raises:
        ExportError: if the output is not to be an .onnx file, or does not give what PyTorch gives.
        WeightsError: if there is no model, or if it cannot be read whole.
        DiskFullError: if no space is left; nothing stays behind.
    """
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: give the file a name that ends in .onnx")
    path = find_model(checkpoint)
    if path.name == SCORER:  # of the run of a recogniser
        path = path.with_name(MODEL)
    if is_recogniser(path):
        encoded = _export_recogniser(path)
    elif published := load_backbone(path):
        backbone, network = published
        encoded = embedding_to_onnx(network, {Note.TOWER.value: backbone.value, Note.MODEL.value: sha256_of(path)})
    else:
        saved = load_scorer(path)
        encoded = to_onnx(saved.scorer, run=saved.run, sha256=sha256_of(path))
    write_atomically(output, lambda file: file.write(encoded))
    model = onnx.load_from_string(encoded)
    told = {each.key: each.value for each in model.metadata_props}
    gives = ", ".join(f"{value.name} {_shape(value)}" for value in model.graph.output)
    sys.stdout.write(f"{output}: {told.get(Note.TOWER, 'a network')}, gives {gives}; it agrees with PyTorch\n")


def _shape(value: onnx.ValueInfoProto) -> str:
    """The shape of an output as a text."""
    axes = value.type.tensor_type.shape.dim
    return f"[{', '.join(axis.dim_param or str(axis.dim_value) for axis in axes)}]"


def _export_recogniser(path: Path) -> bytes:
    """The scorer of a recogniser, as an ONNX model."""
    found = load_recogniser(path)
    told = {Note.TOWER: found.backbone.value, Note.RUN: str(found.notes.get("run", "")), Note.MODEL: sha256_of(path)}
    return quality_to_onnx(found.model, {note.value: text for note, text in told.items() if text})


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Export; 0 when the file is there, 1 with one message on stderr when it cannot be made."""
    given = parser().parse_args(arguments)
    try:
        export(given.checkpoint, given.output)
    except (ExportError, OSError, ClipConfigError, WeightsError) as error:
        if os.environ.get("FIQA_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    result = argparse.ArgumentParser(prog="python -m training.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--checkpoint", type=Path, required=True,
        help="folder of a finished training, its model.safetensors, a .pt or .pth that the authors of CLIB-FIQA or "
             "CR-FIQA released, or a recogniser of ArcFace's, AdaFace's, ElasticFace's, MagFace's or CurricularFace's "
             "authors (.pt, .pth, .ckpt, MXNet's .params)")  # fmt: skip
    add("--output", type=Path, required=True, help="the .onnx file to write; an older one is replaced")
    return result


def check_equal(encoded: bytes, scorer: Scorer) -> None:
    """Compare an ONNX model with PyTorch on dark and bright, smooth and noisy pictures, one and several.

    Args:
        encoded: the ONNX model.
        scorer: on the CPU, in evaluation mode.

    Raises:
        ExportError: if an output differs by more than 1e-4.
    """
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = _pictures(count)
        with torch.no_grad():
            wanted = [output.numpy() for output in scorer(torch.from_numpy(images))]
        for name, right, found in zip(OUTPUTS, wanted, session.run(list(OUTPUTS), {INPUT: images}), strict=True):
            difference = float(np.abs(found - right).max()) if found.shape == right.shape else float("inf")
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"the ONNX file's {name} {list(found.shape)} differs from PyTorch's {list(right.shape)} by "
                    f"{difference:.2g} (allowed: {TOLERANCE:g}): the installed torch, onnxscript and onnxruntime do "
                    "not fit"
                )


def _pictures(count: int) -> NDArray[np.uint8]:
    """Pictures [N, 112, 112, 3] from dark to bright, smooth and noisy."""
    random = np.random.default_rng(count)
    level = np.linspace(20.0, 235.0, count)[:, None, None, None]
    noise = random.normal(0.0, 30.0, (count, SIDE, SIDE, 3))
    coarse = np.kron(random.normal(0.0, 60.0, (count, 7, 7, 3)), np.ones((1, 16, 16, 1)))
    return np.clip(level + noise + coarse, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
