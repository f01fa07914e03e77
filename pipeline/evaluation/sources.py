"""What gives the qualities of an evaluation: networks, functions of embeddings and lists, found and hashed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import sha256_of
from labelers.runtime.device import Device
from pipeline.evaluation.methods import NETWORKS
from pipeline.evaluation.quality_factory import QualityLabelerFactory
from pipeline.evaluation.request import EvaluationError
from training.evaluation.methods.kinds import MethodKind
from training.evaluation.methods.networks import MODEL, NetworkKind, find_network
from training.on_top.scorer import NETWORK, load_scorer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.evaluation.methods import Method
    from training.on_top.scorer import OnTopScorer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What gives the qualities of methods that are no baselines, by the method's name.

    Attributes:
        factories: what opens the network of a method; one on top of a recogniser has one too.
        on_top: what scores the embeddings of a method's recogniser.
        hashes: SHA-256 of the file of a list, or of coefficients.
    """

    factories: Mapping[str, QualityLabelerFactory]
    on_top: Mapping[str, OnTopScorer]
    hashes: Mapping[str, str]


def find_sources(methods: tuple[Method, ...], device: str) -> Sources:
    """Find what gives the qualities of methods.

    Args:
        methods: all of an evaluation.
        device: where networks compute.

    Raises:
        EvaluationError, QualityNetworkError, OnTopError: each names the file and the remedy.
    """
    paths = {kind: {m.name: m.path for m in methods if m.kind is kind and m.path is not None} for kind in MethodKind}
    runs = paths[MethodKind.ON_TOP]
    networks = {name: path for kind in NETWORKS for name, path in paths[kind].items()}
    networks |= {name: run / NETWORK for name, run in runs.items()}
    on_top = {name: load_scorer(run / MODEL) for name, run in runs.items()}
    files = paths[MethodKind.TABLE] | {name: run / MODEL for name, run in runs.items()}
    return Sources(
        factories={name: _find_network(path, device) for name, path in networks.items()},
        on_top=on_top,
        hashes={name: _hash_file(path) for name, path in files.items()},
    )


def _find_network(path: Path, device: str) -> QualityLabelerFactory:
    """What opens a network."""
    network = find_network(path)
    if network.kind is NetworkKind.EXPORTED and device != Device.CPU:
        logger.info("%s: an exported model computes on the processor; name its run for the GPU", path)
        device = Device.CPU
    return QualityLabelerFactory(network=network, hashes=tuple(map(sha256_of, network.files)), device=device)


def _hash_file(path: Path) -> str:
    """SHA-256 of a list of scores, or of coefficients."""
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file: give one with a row an image, Parquet or text")
    return sha256_of(path)
