"""The tables that a quality model makes: the confidence of its training images, and the scores of any images."""

from __future__ import annotations

import pyarrow as pa

from data_manifests.tables.stages import CLASSES, KEY, QUALITY_CLASSES, STATUS, TABLES, Column, Factor, Table


def name_level(level: str) -> str:
    """The column that holds the probability of a level of quality.

    >>> name_level("bad")
    'q_bad'
    """
    return f"q_{level}"


def name_class(words: str) -> str:
    """The column that holds the probability of a factor's class.

    >>> name_class("slight angle")
    'p_slight_angle'
    """
    return f"p_{words.replace(' ', '_')}"


def _probability(name: str, text: str) -> Column:
    return Column(name=name, type=pa.float32(), text=text, limits=(0.0, 1.0), source="CLIB-FIQA section 3.2")


def _factor_columns(factor: Factor) -> tuple[Column, ...]:
    """The probabilities of a factor's classes, worst first, and the likeliest class."""
    kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
    likeliest = Column(
        name=factor.value, type=kind, text="the likeliest class; of equal ones the worse", categories=CLASSES[factor]
    )
    return (*(_probability(name_class(c), f"probability of {factor}: {c}") for c in CLASSES[factor]), likeliest)


SCORES = Table(
    name="scores",
    text="The quality of every image by a trained model, and the probabilities that say why.",
    columns=(
        KEY,
        Column(name="path", type=pa.string(), text="the image file below the folder; null for RecordIO and .bin"),
        Column(name="quality", type=pa.float32(), limits=(-float("inf"), float("inf")),
               source="CLIB-FIQA Eq. 2", text="the score, larger is better: 0.1 to 0.9 by CLIB-FIQA's model; a network "
               "that gives nothing else has its own scale"),
        *(_probability(name_level(level), f"probability of quality: {level}") for level in QUALITY_CLASSES),
        *(column for factor in Factor for column in _factor_columns(factor)),
        STATUS,
    ),
)  # fmt: skip

CONFIDENCE = Table(
    name="confidence",
    text="How far the factors of an image justify its quality, after the first phase of a training. One row for every "
    "record of the labels; what was not learned from has nulls, and `status` says why.",
    columns=(
        KEY,
        Column(
            name="js", type=pa.float32(), limits=(0.0, float("inf")), source="CLIB-FIQA Eq. 9",
            text="divergence of the quality told by the factors from the quality told by the image, in nats",
        ),
        Column(
            name="confidence", type=pa.float32(), limits=(0.5, 1.0), source="CLIB-FIQA Eq. 8",
            text="1 / (1 + exp(beta js)) + 0.5, which multiplies beta in the second phase",
        ),
        STATUS,
    ),
)  # fmt: skip

QUALITY = Table(
    name="quality",
    text="The quality of every image of a benchmark by one network, for an evaluation.",
    columns=(
        KEY,
        Column(name="quality", type=pa.float32(), limits=(-float("inf"), float("inf")),
               text="larger is better; the scale is the network's own"),
        STATUS,
    ),
)  # fmt: skip

MODEL_TABLES = {table.name: table for table in (CONFIDENCE, SCORES, QUALITY)}
"""The tables that a trained quality model makes."""

STAGE_TABLES = TABLES | {QUALITY.name: QUALITY}
"""The table of every stage that is made shard by shard, by the stage's name."""
