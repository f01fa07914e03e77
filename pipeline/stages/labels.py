"""From measures to labels: classes by thresholds, the anchor brought to [0, 1], all causes of nulls in one column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.manifest import Anchor
from data_manifests.tables.stages import CLASSES, LABELS, Status
from labelers.anchors.similarities import normalise, plain_ratio
from labelers.rules import CLASSIFIED, LabelSettings, Normalise, classify
from pipeline.config.pixel_stages import CARRIED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_NOT_CARRIED = {"key", "status", "embedding"}


def make_labels(
    index: pa.Table, measured: Mapping[str, pa.Table], limits: tuple[float, float], settings: LabelSettings
) -> pa.Table:
    """Join the measures of one shard and classify them.

    Args:
        index: `key` and `identity` of N images.
        measured: stage -> its table of the same N images, for every stage in CARRIED.
        limits: the anchor's low and high end over the whole data set.
        settings: thresholds and rules.

    Returns:
        N rows of the `labels` table.
    """
    columns: dict[str, Any] = {"key": index["key"], "identity": index["identity"]}
    for stage in CARRIED:
        table = measured[stage]
        columns |= {name: table[name] for name in table.column_names if name not in _NOT_CARRIED}
    looked_at = pc.is_in(measured["pose"]["status"].cast(pa.string()), pa.array([Status.OK, Status.NO_FACE]))
    classes = classify(
        {name: _floats(columns[name]) for name in CLASSIFIED if name in columns}, looked_at.to_numpy(), settings
    )
    for factor, codes in classes.items():
        columns[factor.value] = _class_array(codes, CLASSES[factor])
    columns["quality"] = pa.array(_quality(columns, limits, settings), pa.float32(), from_pandas=True)
    columns["status"] = join_causes([measured[stage]["status"] for stage in CARRIED])
    return pa.table([columns[c.name] for c in LABELS.written(columns)], schema=LABELS.schema(present=columns))


def anchor_limits(row: Mapping[str, float], settings: LabelSettings) -> tuple[float, float]:
    """The low and high end by which the chosen anchor is normalised, from the one row of `anchor_range`."""
    ends = ("min", "max") if settings.normalise is Normalise.MINMAX else ("q001", "q999")
    low, high = (row[f"{settings.anchor.value}_{end}"] for end in ends)
    return low, high


def _quality(columns: Mapping[str, Any], limits: tuple[float, float], settings: LabelSettings) -> NDArray[np.float32]:
    """The chosen anchor brought to [0, 1]; NaN where an image has none."""
    if settings.anchor is Anchor.CERTAINTY_RATIO:
        anchor = _floats(columns["certainty_ratio"])
    else:
        anchor = plain_ratio(_floats(columns["ccs"]), _floats(columns["nnccs"])).astype(np.float32)
    if np.isnan(anchor).all():
        return anchor
    return normalise(anchor, *limits).astype(np.float32)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A float column with NaN for null."""
    values: NDArray[np.float32] = column.to_numpy()
    return values.astype(np.float32, copy=False)


def _class_array(codes: NDArray[np.int8], categories: tuple[str, ...]) -> pa.Array:
    """Codes as an ordered dictionary; -1 becomes null."""
    indices = pa.array(codes, pa.int8(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(categories, pa.string()), ordered=True)


def join_causes(statuses: Sequence[pa.ChunkedArray]) -> pa.Array:
    """Join the statuses of N images over the stages: distinct causes in stage order joined by `+`, or ok."""
    names = [s.value for s in Status]
    numbers = {name: i for i, name in enumerate(names)}
    combined = np.zeros(len(statuses[0]), np.int64)  # one digit a stage: sorting rows would take most of the stage
    for column in statuses:
        combined = combined * len(names) + _codes(column, numbers)
    combinations = np.unique(combined)
    digits = np.stack(np.unravel_index(combinations, (len(names),) * len(statuses)), axis=1)  # [combinations, stages]
    causes = [_cause(row, names) for row in digits]
    # Two combinations can say the same, and the order of np.unique is not the order of appearance.
    places = {cause: i for i, cause in enumerate(dict.fromkeys(causes))}
    spoken = np.array([places[cause] for cause in causes], np.int32)[np.searchsorted(combinations, combined)]
    encoded = pa.array(spoken).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(places, pa.string()).take(encoded.dictionary))


def _codes(column: pa.ChunkedArray, numbers: Mapping[str, int]) -> NDArray[np.int8]:
    """A status column as numbers of the Status enum."""
    encoded = column.combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    table = np.array([numbers[name] for name in encoded.dictionary.to_pylist()], np.int8)
    codes: NDArray[np.int8] = table[encoded.indices.to_numpy()]
    return codes


def _cause(row: NDArray[np.intp], names: Sequence[str]) -> str:
    """The distinct causes of one combination of statuses."""
    causes = dict.fromkeys(names[code] for code in row if names[code] != Status.OK)
    return "+".join(causes) or Status.OK.value
