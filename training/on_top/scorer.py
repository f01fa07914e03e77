"""The fitted function, from an image's unit embedding and norm to its quality, and the file that holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from data_manifests.storage.json_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

NETWORK = "quality.onnx"
"""The recogniser with the quality behind it, in the folder of a run."""

FORMAT = "fiqa-on-top-1"
_TENSORS = ("direction", "norm", "intercept")


class OnTopError(ValueError):
    """A file or folder holds no quality on top of a recogniser; names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTopScorer:
    """Quality = direction . u + norm * n + intercept, of an embedding with unit direction u [D] and length n.

    Attributes:
        direction: float64 [D].
        norm: coefficient of the length.
        intercept: what is added.
        recogniser: what made the embeddings, as `recogniser_of` gives it.
    """

    direction: NDArray[np.float64]
    norm: float
    intercept: float
    recogniser: Mapping[str, Any]

    @classmethod
    def of(cls, function: NDArray[np.float64], recogniser: Mapping[str, Any]) -> OnTopScorer:
        """From the coefficients of `features_of` and the intercept, float64 [D + 2]."""
        *_, norm, intercept = function.tolist()
        return cls(direction=function[:-2], norm=norm, intercept=intercept, recogniser=recogniser)

    def score(self, embeddings: NDArray[np.floating[Any]], norms: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The quality of N images, float64 [N]; NaN where the embedding or the norm is.

        Args:
            embeddings: [N, D], of unit length.
            norms: [N].
        """
        return np.asarray(embeddings @ self.direction + self.norm * norms + self.intercept, np.float64)


def features_of(embeddings: NDArray[np.float32], norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the quality is linear in, float32 [N, D + 1]: unit embedding and norm.

    Args:
        embeddings: float32 [N, D], of unit length.
        norms: float32 [N].
    """
    return np.column_stack([embeddings, norms])


def recogniser_of(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the embedding of an image, from the description of a stage `embeddings`: all but the images."""
    return {name: made_from[name] for name in ("version", "parameters", "weights")}


def encode_scorer(scorer: OnTopScorer, run: str) -> bytes:
    """A scorer as a safetensors file; the same coefficients give the same bytes.

    Args:
        scorer: what is written.
        run: fingerprint of the training.
    """
    tensors = {name: np.atleast_1d(np.asarray(getattr(scorer, name), np.float64)) for name in _TENSORS}
    config = {"format": FORMAT, "recogniser": scorer.recogniser, "run": run}
    content: bytes = save(tensors, metadata={"config": json.dumps(config, sort_keys=True)})
    return content


def load_scorer(path: Path) -> OnTopScorer:
    """Read a file of `encode_scorer`.

    Raises:
        OnTopError: if it is not such a file.
    """
    try:
        with safe_open(path, framework="np") as file:
            config = parse_json((file.metadata() or {}).get("config", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise OnTopError(f"{path} is no file of training.train_on_top ({error}): name the folder of a run") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or tensors.keys() != set(_TENSORS):
        raise OnTopError(f"{path} does not say {FORMAT}: name the folder of a run of training.train_on_top")
    return OnTopScorer(
        direction=tensors["direction"],
        norm=float(tensors["norm"][0]),
        intercept=float(tensors["intercept"][0]),
        recogniser=config["recogniser"],
    )
