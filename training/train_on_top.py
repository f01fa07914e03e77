r"""Learns quality on top of a recogniser: python -m training.train_on_top --index A --embeddings B ... --output RUN.

The certainty ratio as a linear function of stored embeddings and norms: no image is read. For example:

    python -m training.train_on_top --index workspace/sample/index/current --output runs/on_top \
        --embeddings workspace/sample/embeddings/current --anchors workspace/sample/anchors/current

RUN holds the coefficients (model.safetensors), the recogniser with the quality behind it (quality.onnx), figures on
people who were not learned from (metrics.json), and a card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from data_manifests.storage.atomic import DiskFullError, LockedError, RunLock, write_atomically
from data_manifests.storage.environment import version_of
from data_manifests.storage.values import attributes, reader_of
from data_manifests.weights.files import WeightsError
from data_manifests.weights.registry import RegistryError
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.onnx import NetworkError
from training.on_top.card import write_card
from training.on_top.config import OnTopConfig
from training.on_top.export import encode_on_top, find_recogniser
from training.on_top.fit import fit
from training.on_top.ridge import RidgeError
from training.on_top.scorer import NETWORK, OnTopError, encode_scorer, recogniser_of
from training.on_top.tables import StoredTablesError, open_tables
from training.scoring.onnx_file import ExportError, Note
from training.trainer.progress import TrainingProgress
from training.trainer.run_folder import CARD, MODEL, RunFolder, RunFolderError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.on_top.tables import StoredTables

log = logging.getLogger("training.train_on_top")

METRICS = "metrics.json"
_PACKAGES = ("numpy", "pyarrow", "onnx", "safetensors")
_MISTAKES = (
    DiskFullError, ExportError, LockedError, NetworkError, OnTopError, RegistryError, RidgeError, RunFolderError,
    StoredTablesError, WeightsError,
)  # fmt: skip


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Learn; 0 when the run is there, 1 with one message on stderr when it cannot be made."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    config = OnTopConfig(**{name: getattr(given, name) for name in OPTIONS})
    try:
        tables = open_tables(given.index, given.embeddings, given.anchors)
        lock = RunLock(given.output)
        lock.acquire(" ".join(sys.argv))
        try:
            train(tables, config, given.output)
        finally:
            lock.release()
    except _MISTAKES as error:
        if os.environ.get("FIQA_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def train(tables: StoredTables, config: OnTopConfig, output: Path) -> None:
    """Learn from tables, and write the run.

    Raises:
        RidgeError, OnTopError, RunFolderError, ExportError, WeightsError, RegistryError: each says what to do.
    """
    recogniser = recogniser_of(tables.made_from)
    entry = find_recogniser(recogniser)
    folder = RunFolder(root=output, fingerprint=fingerprint_of(config, tables))
    versions = {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}}
    facts = {"config": config.describe(), "recogniser": recogniser, "anchors": tables.fingerprint, "versions": versions}
    folder.open(facts, _describe_change)
    if folder.finished:
        log.info("%s: this run is finished already", output)
        return
    with TrainingProgress(total=tables.shards) as meter:
        fitted = fit(tables, config, lambda _: meter.advance(1))
    told = fitted.held_out or fitted.folds
    log.info("%d images of %d people; on people not learned from: correlation %.3f", fitted.images, fitted.people,
             told.correlation)  # fmt: skip
    folder.write(METRICS, fitted.metrics())
    card = write_card(folder.read("config.json"), fitted.metrics())
    write_atomically(folder.root / CARD, lambda file: file.write(card.encode()))
    model = encode_scorer(fitted.scorer, folder.fingerprint)
    notes = {Note.RUN.value: folder.fingerprint, Note.MODEL.value: hashlib.sha256(model).hexdigest()}
    network = encode_on_top(fitted.scorer, entry, notes)
    write_atomically(folder.root / NETWORK, lambda file: file.write(network))
    write_atomically(folder.root / MODEL, lambda file: file.write(model))
    log.info("%s: %s", output, ", ".join((MODEL, NETWORK, METRICS, CARD)))


def fingerprint_of(config: OnTopConfig, tables: StoredTables) -> str:
    """What names a run: its settings and the anchors, which rest on the other tables."""
    content = json.dumps([config.describe(), tables.fingerprint], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """In what two runs differ."""
    before, after = ({**facts["config"], "anchors": facts["anchors"]} for facts in (old, new))
    return ", ".join(f"{n}: {before[n]} there, {after[n]} here" for n in after if before.get(n) != after[n])


OPTIONS = get_type_hints(OnTopConfig, include_extras=True)
"""Setting -> its type."""


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    result = argparse.ArgumentParser(prog="python -m training.train_on_top", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    for stage in ("index", "embeddings", "anchors"):
        add(f"--{stage}", type=Path, required=True, help=f"folder of the table `{stage}`, such as .../{stage}/current")
    add("--output", type=Path, required=True, help="folder of the run")
    defaults, texts = OnTopConfig(), attributes(OnTopConfig)
    for name, kind in OPTIONS.items():
        default = getattr(defaults, name)
        told = "" if default is None else " (default: %(default)s)"
        text = f"{texts[name].rstrip('.')}{told}"
        add(f"--{name.replace('_', '-')}", type=reader_of(kind), default=default, help=text)
    return result


if __name__ == "__main__":
    sys.exit(main())
