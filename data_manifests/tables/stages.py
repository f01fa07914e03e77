"""Every table that the factory writes: column names, Arrow types, units, and the text that documents them.

The docs page of the tables (docs/labels.md) is generated from here, and so are the Arrow schemas of the shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Container

SCHEMA_VERSION = 1
"""Enters every fingerprint: a change of any table makes what was written before stale."""


class Status(StrEnum):
    """Why a row has, or lacks, its measures."""

    OK = "ok"
    MISSING = "missing_record"
    RECORD_ERROR = "record_error"
    DECODE_ERROR = "decode_error"
    WRONG_SIZE = "wrong_size"
    NO_FACE = "no_face"
    NO_IDENTITY = "no_identity"
    SINGLE_IMAGE = "single_image"
    NO_OTHER_IDENTITY = "no_other_identity"
    NO_LABEL = "no_label"
    HELD_OUT = "held_out"
    COPY = "copy"
    NO_CENTRE = "no_centre"
    NO_EDGES = "no_edges"


STATUS_TEXT = {
    Status.OK: "measured",
    Status.MISSING: "the index points outside the data file, or the image file is gone",
    Status.RECORD_ERROR: "the record's framing or header is damaged",
    Status.DECODE_ERROR: "the stored bytes are not an image that decodes",
    Status.WRONG_SIZE: "the image is not 112 x 112 pixels",
    Status.NO_FACE: "the pose model found no face",
    Status.NO_IDENTITY: "the image names no person, so there is no class centre to compare it with",
    Status.SINGLE_IMAGE: "the person has one image only, so no other image can be compared with it",
    Status.NO_OTHER_IDENTITY: "the data set has one person only, so there is no negative centre",
    Status.NO_LABEL: "the image has none of the labels that a training uses, so it was not learned from",
    Status.HELD_OUT: "the person was held out of a training, so the image was not learned from",
    Status.COPY: "the image repeats another one of its person, so it is neither compared nor part of a class centre",
    Status.NO_CENTRE: "the recogniser's head holds no centre of the person, who was left out of its training",
    Status.NO_EDGES: "the image shows too few edges, or noise alone, to tell by `edge_ratio` how sharp it is",
}


class Factor(StrEnum):
    """The five quality factors of CLIB-FIQA section 3.1, in the order of the `labels` table."""

    BLUR = "blur"
    OCCLUSION = "occlusion"
    POSE = "pose"
    EXPRESSION = "expression"
    LIGHTING = "lighting"


CLASSES: dict[Factor, tuple[str, ...]] = {
    Factor.BLUR: ("hazy", "blurry", "clear"),
    Factor.OCCLUSION: ("obstructed", "unobstructed"),
    Factor.POSE: ("profile", "slight angle", "frontal"),
    Factor.EXPRESSION: ("exaggerated expression", "typical expression"),
    Factor.LIGHTING: ("extreme lighting", "normal lighting"),
}
"""The words of CLIB-FIQA's prompt for every factor; index 0 is the worst."""

QUALITY_CLASSES = ("bad", "poor", "fair", "good", "perfect")
"""The five levels of CLIB-FIQA section 3.1; index 0 is the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: as it stands in the Parquet file.
        type: the Arrow type.
        text: what it holds, with its unit.
        source: the paper's equation or section, where there is one.
        categories: for an ordered class, its names from worst to best.
        limits: the smallest and the largest value that may stand in it.
        optional: whether the table has it only where a setting asks for it.
    """

    name: str
    type: pa.DataType
    text: str
    source: str = ""
    categories: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    optional: bool = False

    @property
    def kind(self) -> str:
        """The type as a person reads it; an ordered class shows its names from worst to best."""
        if self.categories:
            return " < ".join(self.categories)
        if pa.types.is_dictionary(self.type):
            return "text"
        return "float16 x D" if self.type == EMBEDDING else str(self.type)

    def to_field(self) -> pa.Field:
        """The Arrow field; ordered classes carry the text by which Polars opens them as an Enum."""
        if not self.categories:
            return pa.field(self.name, self.type)
        return pa.field(self.name, self.type, metadata={"_PL_ENUM_VALUES2": polars_enum_text(self.categories)})


def polars_enum_text(categories: tuple[str, ...]) -> str:
    """The field metadata by which Polars opens a dictionary column as an Enum in the given order.

    It is Polars' own text: each value after its length in bytes, separated by semicolons.

    >>> polars_enum_text(("hazy", "blurry", "clear"))
    '4;hazy6;blurry5;clear'
    """
    return "".join(f"{len(c.encode())};{c}" for c in categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: what a stage writes for every image, or once for the data set.

    Attributes:
        names: of the columns that it has always.
    """

    name: str
    text: str
    columns: tuple[Column, ...]
    per_image: bool = True
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(c.name for c in self.written(())))

    def to_arrow(self, rows: list[dict[str, Any]]) -> pa.Table:
        """Rows by column name as an Arrow table; what a row lacks is null."""
        return pa.Table.from_pylist(rows, schema=self.schema())

    def written(self, present: Container[str]) -> tuple[Column, ...]:
        """The columns without the optional ones, but for those whose names are present."""
        return tuple(column for column in self.columns if not column.optional or column.name in present)

    def schema(self, dimension: int | None = None, present: Container[str] = ()) -> pa.Schema:
        """The Arrow schema without file metadata.

        Args:
            dimension: the number of values in an embedding, for tables that hold one.
            present: names of optional columns that it has.
        """
        fields = []
        for column in self.written(present):
            if column.type == EMBEDDING:
                if dimension is None:
                    raise ValueError(f"the table {self.name!r} needs the dimension of its embeddings")
                fields.append(pa.field(column.name, pa.binary(2 * dimension)))
            else:
                fields.append(column.to_field())
        return pa.schema(fields)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"the table {self.name!r} has no column {name!r}; it has {', '.join(self.names)}")


EMBEDDING = pa.binary(1024)
"""Stands for 'fixed-size binary of as many float16 values as the recogniser gives'; see Table.schema."""

_CLASS = pa.dictionary(pa.int8(), pa.string(), ordered=True)
_TEXT = pa.dictionary(pa.int32(), pa.string())
_F32 = pa.float32()

KEY = Column(
    name="key",
    type=pa.int32(),
    text="the record's key; in a folder, 1 … N over the sorted paths; in a .bin and for templates, over its list",
)
STATUS = Column(name="status", type=_TEXT, text="`ok`, or why a measure is null")
IDENTITY = Column(name="identity", type=pa.int32(), text="the person's number")

_CPBD = Column(
    name="cpbd", type=_F32, limits=(0.0, 1.0),
    text="sharpness: share of edges whose blur is not noticed; 1 is sharp",
    source="Narvekar & Karam 2011",
)  # fmt: skip
_SOBEL = Column(
    name="sobel", type=_F32, limits=(0.0, 50.0),
    text="mean 3x3 Sobel magnitude of the 8-bit L* channel, times 0.01",
    source="what the released CLIB-FIQA code calls CPBD",
)  # fmt: skip
_EDGE_RATIO = Column(
    name="edge_ratio", type=_F32, limits=(0.0, 1.8), optional=True,
    text="how much steeper edges are at a scale of 1 pixel than of 2, in the direction in which least: 1 blurred, "
    "1.4 sharp; only with `[labels] recipe = robust` or `[blur] edge_ratio`",
    source="after Zhuo & Sim 2011",
)  # fmt: skip
_YAW = Column(name="yaw_deg", type=_F32, limits=(-180.0, 180.0),
              text="yaw in degrees; positive: the nose points to the right of the picture")  # fmt: skip
_PITCH = Column(name="pitch_deg", type=_F32, limits=(-180.0, 180.0),
                text="pitch in degrees; positive: the face looks up")  # fmt: skip
_ROLL = Column(name="roll_deg", type=_F32, limits=(-180.0, 180.0),
               text="roll in degrees; positive: clockwise in the picture")  # fmt: skip
_P_OBSTRUCTED = Column(name="p_obstructed", type=_F32, limits=(0.0, 1.0),
                       text="probability that the face is occluded in part or heavily")  # fmt: skip
_P_EXAGGERATED = Column(name="p_exaggerated", type=_F32, limits=(0.0, 1.0),
                        text="probability of an exaggerated expression")  # fmt: skip
_P_EXTREME = Column(name="p_extreme_lighting", type=_F32, limits=(0.0, 1.0),
                    text="probability of extreme lighting")  # fmt: skip
_NORM = Column(name="norm", type=_F32, limits=(0.0, float("inf")),
               text="length of the recognition embedding before it is normalised")  # fmt: skip
_CCS = Column(name="ccs", type=_F32, limits=(-1.0, 1.0),
              text="cosine similarity with the centre of the own class", source="CR-FIQA Eq. 2")  # fmt: skip
_NNCCS = Column(name="nnccs", type=_F32, limits=(-1.0, 1.0),
                text="largest cosine similarity with the centre of another class", source="CR-FIQA Eq. 3")  # fmt: skip
_RATIO = Column(name="certainty_ratio", type=_F32,
                text="ccs / (nnccs + 1 + 1e-9)", source="CR-FIQA Eq. 4")  # fmt: skip


def _factor(factor: Factor, text: str) -> Column:
    """The class column of a quality factor."""
    return Column(name=factor.value, type=_CLASS, text=text, source="CLIB-FIQA section 4.1", categories=CLASSES[factor])


INDEX = Table(
    name="index",
    text="Where every image lies and whom it shows.",
    columns=(
        KEY,
        IDENTITY,
        Column(name="offset", type=pa.int64(),
               text="where the record's first part starts in the .rec, in bytes; in a .bin, the image's number from 0"),
        Column(name="length", type=pa.int32(), text="stored bytes of the record with its framing, or of the image"),
        Column(name="path", type=pa.string(), text="the image file below its folder; null for RecordIO and .bin"),
        STATUS,
    ),
)  # fmt: skip
IDENTITIES = Table(
    name="identities",
    text="The folder that each person's number stands for; made for image folders alone.",
    columns=(
        Column(name="identity", type=pa.int32(), text="the person's number"),
        Column(name="name", type=pa.string(), text="the folder's name"),
    ),
    per_image=False,
)
BLUR = Table(name="blur", text="Sharpness of every image.", columns=(KEY, _CPBD, _SOBEL, _EDGE_RATIO, STATUS))
POSE = Table(name="pose", text="Head pose of every image.", columns=(KEY, _YAW, _PITCH, _ROLL, STATUS))
FACTORS = Table(
    name="factors",
    text="Occlusion, expression and lighting of every image, by a network trained on WIDER FACE.",
    columns=(KEY, _P_OBSTRUCTED, _P_EXAGGERATED, _P_EXTREME, STATUS),
)
EMBEDDINGS = Table(
    name="embeddings",
    text="Recognition embedding of every image.",
    columns=(
        KEY,
        Column(name="embedding", type=EMBEDDING, text="D float16 values, little-endian, of unit length"),
        _NORM,
        STATUS,
    ),
)
CENTRES = Table(
    name="centres",
    text="One row a person: the sum of the person's unit embeddings, or the column of the recogniser's last layer.",
    columns=(
        Column(name="identity", type=pa.int32(), text="the person's number"),
        Column(
            name="images",
            type=pa.int32(),
            text="how many embeddings stand in the sum; 0 for a column of a head",
        ),
        Column(name="centre", type=pa.binary(), text="D float32 values, little-endian"),
        Column(
            name="copies",
            type=pa.list_(pa.int32()),
            text="keys of the person's images that repeat an earlier one, ascending; they stand in no sum",
        ),
    ),
    per_image=False,
)
ANCHORS = Table(
    name="anchors",
    text="How certainly the recogniser tells every image's person from the nearest other person.",
    columns=(KEY, _CCS, _NNCCS, _RATIO, STATUS),
)


def _range_columns(anchor: str, formula: str) -> tuple[Column, ...]:
    """The statistics of one kind of anchor."""
    statistics = {"min": "smallest value", "max": "largest value", "q001": "0.1 % quantile", "q999": "99.9 % quantile"}
    return tuple(
        Column(name=f"{anchor}_{name}", type=_F32, text=f"{text} of {formula}") for name, text in statistics.items()
    )


ANCHOR_RANGE = Table(
    name="anchor_range",
    text="One row: the statistics over the data set by which the anchor is brought to [0, 1].",
    columns=(
        *_range_columns("certainty_ratio", "ccs / (nnccs + 1 + 1e-9)"),
        *_range_columns("plain_ratio", "ccs / nnccs, with nnccs of at least -1e-12 as in the released code"),
        Column(name="images", type=pa.int64(), text="number of images with an anchor"),
    ),
    per_image=False,
)
LABELS = Table(
    name="labels",
    text="Every measure of every image with the classes that the thresholds make of them, and the quality.",
    columns=(
        KEY, IDENTITY, _CPBD, _SOBEL, _EDGE_RATIO, _YAW, _PITCH, _ROLL, _P_OBSTRUCTED, _P_EXAGGERATED, _P_EXTREME,
        _NORM, _CCS, _NNCCS, _RATIO,
        _factor(
            Factor.BLUR,
            "from `cpbd` (or `sobel`): under 0.35, 0.35 to 0.7, over 0.7; recipe `robust`: from `edge_ratio`, under "
            "1.15, 1.15 to 1.28, over 1.28",
        ),
        _factor(Factor.OCCLUSION, "obstructed where `p_obstructed` is at least 0.5"),
        _factor(Factor.POSE, "from the absolute yaw: over 25, 10 to 25, under 10 degrees"),
        _factor(Factor.EXPRESSION, "exaggerated where `p_exaggerated` is at least 0.5"),
        _factor(Factor.LIGHTING, "extreme where `p_extreme_lighting` is at least 0.5"),
        Column(name="quality", type=_F32, limits=(0.0, 1.0),
               text="the anchor, brought to [0, 1] over the whole data set",
               source="CLIB-FIQA section 3.2, CR-FIQA Eq. 4"),
        Column(name="status", type=_TEXT, text="`ok`, or all causes of nulls in stage order, joined by `+`"),
    ),
)  # fmt: skip

_ALL = (INDEX, IDENTITIES, BLUR, POSE, FACTORS, EMBEDDINGS, CENTRES, ANCHORS, ANCHOR_RANGE, LABELS)

TABLES = {table.name: table for table in _ALL}
"""Every table of the labelling half, in the order in which it is made."""
