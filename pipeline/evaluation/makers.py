"""Which recogniser made the labels of a method: it is no fair judge of that method (CLIB-FIQA section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_manifests.storage.toml_file import TomlFileError
from data_manifests.weights.entry import Kind
from data_manifests.weights.registry import SHIPPED, read_entries
from pipeline.evaluation.methods import NETWORKS
from pipeline.storage.receipts import labels_of_training
from pipeline.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.evaluation.methods import Method
    from pipeline.evaluation.plan import Plan

    Network = tuple[str, tuple[str, ...]]
    """The name of a network, and the SHA-256 of its files."""


_CONFIG = "config.json"
"""What every training leaves (training.trainer.run_folder)."""


def find_makers(plan: Plan) -> dict[str, str]:
    """Method -> the recogniser of its labels: a judge by the judge's name, another by its own.

    Known are the trainings of this factory, whose labels lie beside them in the workspace; a recogniser that gives
    qualities itself; and anchors of a named recogniser. Methods of which it is not known are not in it.
    """
    jobs = plan.benchmarks[0].jobs
    judges = {_read_network(job.stages["embeddings"].describe()): name for name, job in jobs.items()}
    of_files = {files: name for (_, files), name in judges.items()}  # the same network may be known by two names
    networks = {method.name: _find(plan, method) for method in plan.methods}
    found = {method: network for method, network in networks.items() if network is not None}
    return {method: judges.get((name, files)) or of_files.get(files, name) for method, (name, files) in found.items()}


def _find(plan: Plan, method: Method) -> Network | None:
    """The recogniser of one method's labels."""
    if method.recogniser:
        jobs = [job for benchmark in plan.benchmarks for name, job in benchmark.anchored.items() if name == method.name]
        return _read_network(jobs[0].stages["embeddings"].describe()) if jobs else None
    if method.name in plan.sources.on_top:
        return _read_network(plan.sources.on_top[method.name].recogniser)
    if method.kind in NETWORKS and method.path is not None:
        folder = (method.path if method.path.is_dir() else method.path.parent).resolve()
        return (_find_own(folder) or _find_of_labels(folder)) if (folder / _CONFIG).is_file() else None
    return None


def _find_own(run: Path) -> Network | None:
    """The recogniser that a training made together with the quality."""
    try:
        entries = read_entries(run / SHIPPED.name)
    except TomlFileError:
        return None
    networks = [entry for entry in entries.values() if entry.kind is Kind.RECOGNITION]
    if len(networks) != 1:
        return None
    return networks[0].name, tuple(file.sha256 or "" for file in networks[0].files)


def _find_of_labels(run: Path) -> Network | None:
    """The recogniser of the labels that a training learned from."""
    store, fingerprint = Store(root=run.parent.parent), labels_of_training(run)
    labels = store.recall("labels", fingerprint) if fingerprint else None
    embeddings = store.recall("embeddings", labels["upstream"]["embeddings"]) if labels else None
    return None if embeddings is None else _read_network(embeddings)


def _read_network(made_from: Mapping[str, Any]) -> Network:
    """The recogniser of a stage `embeddings` by its description."""
    (files,) = made_from["weights"].values()
    return made_from["parameters"]["model"], tuple(files)
