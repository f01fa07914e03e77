"""Where a quality comes from: networks, lists of scores, and baselines that need no training."""

from __future__ import annotations

from enum import StrEnum

FLOOR = "floor"
"""The name that no method may have: the floor is evaluated beside all of them."""
UNWEIGHTED = "mean"
"""The name of templates that are pooled without the weights of a method."""


class MethodKind(StrEnum):
    """Where a quality comes from."""

    MODEL = "model"
    """A trained model: a run's folder, or a file of weights."""
    ONNX = "onnx"
    """A network in ONNX, our own or another."""
    ON_TOP = "on_top"
    """A linear function of a recogniser's embedding and norm: the folder of a run of training.train_on_top."""
    TABLE = "table"
    """Scores that were made elsewhere."""
    CPBD = "cpbd"
    SOBEL = "sobel"
    NORM = "norm"
    """Length of the embedding, of the recogniser whose errors are counted."""
    CCS = "ccs"
    """Similarity to the own class centre, by the recogniser whose errors are counted, or one that is named."""
    NNCCS = "nnccs"
    """Similarity to the nearest other class centre, likewise. CR-FIQA Figure 2 shows that it is no quality."""
    CERTAINTY_RATIO = "certainty_ratio"
    """CR-FIQA Eq. 4, likewise."""
    RANDOM = "random"


WITH_PATH = (MethodKind.MODEL, MethodKind.ONNX, MethodKind.ON_TOP, MethodKind.TABLE)
ANCHORED = (MethodKind.CCS, MethodKind.NNCCS, MethodKind.CERTAINTY_RATIO)
"""Those that compare an image with the others of its person; `KIND:RECOGNISER` takes another than the judge for it."""
BASELINES = tuple(kind for kind in MethodKind if kind not in WITH_PATH)
