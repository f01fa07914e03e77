"""The tables that an evaluation makes: curves, areas and accuracies of every benchmark, recogniser and method."""

from __future__ import annotations

import pyarrow as pa

from data_manifests.tables.stages import KEY, Column, Table

_TEXT = pa.dictionary(pa.int32(), pa.string())
_F64 = pa.float64()

BENCHMARK = Column(name="benchmark", type=_TEXT, text="the benchmark's name")
RECOGNISER = Column(name="recogniser", type=_TEXT, text="network whose errors are counted, by its name in models.toml")
METHOD = Column(name="method", type=_TEXT, text="what gave the quality")
PROTOCOL = Column(name="protocol", type=_TEXT, text="`fixed` or `cr_fiqa`: which pairs are rejected, and the threshold")
FMR = Column(name="fmr", type=_F64, text="false match rate that sets the threshold", limits=(0.0, 1.0))


def _number(name: str, text: str, source: str = "") -> Column:
    return Column(name=name, type=_F64, text=text, source=source)


def _count(name: str, text: str) -> Column:
    return Column(name=name, type=pa.int64(), text=text)


METRICS = Table(
    name="metrics",
    text="Areas under the error-reject curve; smaller is better, and rejecting pairs at random gives about 1.",
    columns=(
        BENCHMARK, RECOGNISER, METHOD, PROTOCOL, FMR,
        _number("threshold", "cosine similarity below which a pair is not matched"),
        _count("genuine", "genuine pairs"),
        _count("impostors", "impostor pairs"),
        _count("unscored", "images (templates) of genuine pairs that the method gave no quality; rejected first"),
        _number("fnmr", "false non-match rate without rejection"),
        _count("errors", "wrong pairs: genuine pairs that are not matched without rejection"),
        _number("pauc_raw", "area to a rejection of 0.3"),
        _number("auc_raw", "area to a rejection of 0.95"),
        _number("pauc", "pauc_raw / (0.3 fnmr)", "CLIB-FIQA section 4.1"),
        _number("auc", "auc_raw / (0.95 fnmr)", "CLIB-FIQA section 4.1"),
        _number("pauc_low", "lower end of the 95 % bootstrap interval of pauc; null where there are too few errors",
                "BCa, Efron 1987"),
        _number("pauc_high", "upper end"),
        _number("auc_low", "lower end of the 95 % bootstrap interval of auc; likewise", "BCa, Efron 1987"),
        _number("auc_high", "upper end"),
        _count("draws", "of the bootstrap; 0 of protocol `cr_fiqa`"),
        Column(name="drawn", type=_TEXT, text="what is drawn: `pairs`, or `people` with all their pairs"),
        Column(name="status", type=_TEXT,
               text="`ok`; `too_few_impostors`: fewer impostor pairs than `--fewest-impostors` set the threshold; "
               "`too_few_errors`: fewer errors than `--fewest-errors`, so methods are not ranked; `no_errors`: fnmr is "
               "0"),
    ),
    per_image=False,
)  # fmt: skip

CURVES = Table(
    name="curves",
    text="Error-reject curves: `fixed` at every 0.005 of rejection, `cr_fiqa` at its twenty rates.",
    columns=(
        BENCHMARK, RECOGNISER, METHOD, PROTOCOL, FMR,
        _number("rejection", "share of the pairs that is rejected"),
        _number("fnmr", "false non-match rate of the rest"),
    ),
    per_image=False,
)  # fmt: skip

COMPARISONS = Table(
    name="comparisons",
    text="Every method against every other one on the same bootstrap draws (protocol `fixed`).",
    columns=(
        BENCHMARK, RECOGNISER, FMR,
        Column(name="area", type=_TEXT, text="`pauc` or `auc`, normalised"),
        METHOD,
        Column(name="other", type=_TEXT, text="the method that it is compared with"),
        _number("difference", "area of `method` less that of `other`; below 0 where `method` is better"),
        _number("low", "lower end of its 95 % bootstrap interval; null where there are too few errors",
                "BCa, Efron 1987"),
        _number("high", "upper end"),
        _number("p_value", "two-sided; null where there are too few errors"),
    ),
    per_image=False,
)  # fmt: skip

ACCURACY = Table(
    name="accuracy",
    text="Verification accuracy of every recogniser by ten folds.",
    columns=(
        BENCHMARK, RECOGNISER,
        _number("accuracy", "mean over the folds"),
        _number("std", "standard deviation over the folds"),
        _number("threshold", "mean of the folds' thresholds on the squared distance of unit embeddings"),
    ),
    per_image=False,
)  # fmt: skip

TEMPLATES = Table(
    name="templates",
    text="Templates pooled by quality: the share of genuine template pairs accepted (CR-FIQA, IJB-C 1:1).",
    columns=(
        BENCHMARK, RECOGNISER, METHOD,
        _number("far", "false accept rate that sets the threshold"),
        _number("tar", "true accept rate"),
        _count("genuine", "genuine template pairs"),
        _count("impostors", "impostor template pairs"),
        _count("errors", "genuine template pairs that are not accepted"),
        Column(name="status", type=_TEXT,
               text="`ok`, `too_few_impostors`, or `too_few_errors`: without weights there are fewer than "
               "`--fewest-errors`"),
    ),
    per_image=False,
)  # fmt: skip

CORRELATIONS = Table(
    name="correlations",
    text="Spearman's rank correlation of every method's quality with the measures of the images.",
    columns=(
        BENCHMARK, METHOD,
        Column(name="measure", type=_TEXT, text="a measure of the factory, such as `cpbd` or `abs_yaw_deg`"),
        _number("spearman", "rank correlation"),
        _count("images", "images that have both"),
    ),
    per_image=False,
)  # fmt: skip

QUALITIES = Table(
    name="qualities",
    text="The quality of every image by every method; null where a method gives none.",
    columns=(
        BENCHMARK, METHOD, KEY,
        Column(name="quality", type=pa.float32(), text="larger is better; the scale is the method's own"),
    ),
    per_image=False,
)  # fmt: skip

LOSSES = Table(
    name="losses",
    text="The losses of every training that is a method, by epoch (CLIB-FIQA Figure 4, right).",
    columns=(
        METHOD,
        Column(name="loss", type=_TEXT, text="`total`, which is learned from, or a term of it"),
        _count("epoch", "from 1"),
        _number("mean", "over the epoch's steps"),
    ),
    per_image=False,
)  # fmt: skip

_ALL = (METRICS, CURVES, COMPARISONS, ACCURACY, TEMPLATES, CORRELATIONS, QUALITIES, LOSSES)
EVALUATION_TABLES = {table.name: table for table in _ALL}
"""The tables of an evaluation, by name."""
