"""The tables are what the contract says, and their page is what the tables say."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_manifests.tables.page import PAGE, renew
from data_manifests.tables.stages import CLASSES, LABELS, STATUS_TEXT, TABLES, Factor, Status, polars_enum_text

CONTRACT = {
    "index": ("key", "identity", "offset", "length", "path", "status"),
    "blur": ("key", "cpbd", "sobel", "status"),
    "pose": ("key", "yaw_deg", "pitch_deg", "roll_deg", "status"),
    "factors": ("key", "p_obstructed", "p_exaggerated", "p_extreme_lighting", "status"),
    "embeddings": ("key", "embedding", "norm", "status"),
    "anchors": ("key", "ccs", "nnccs", "certainty_ratio", "status"),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_are_the_contract(name: str) -> None:
    assert TABLES[name].names == CONTRACT[name]


def test_labels_hold_all_measures_in_order() -> None:
    measures = [c for t in list(CONTRACT)[1:] for c in CONTRACT[t] if c not in {"key", "status", "embedding"}]
    classes = ["blur", "occlusion", "pose", "expression", "lighting"]
    assert list(LABELS.names) == ["key", "identity", *measures, *classes, "quality", "status"]


def test_types_are_the_contract() -> None:
    schema = LABELS.schema()
    assert schema.field("key").type == pa.int32()
    assert schema.field("quality").type == pa.float32()
    assert pa.types.is_dictionary(schema.field("status").type)
    assert TABLES["embeddings"].schema(512).field("embedding").type == pa.binary(1024)
    assert TABLES["index"].schema().field("offset").type == pa.int64()


def test_enum_text_is_polars_own() -> None:
    assert polars_enum_text(CLASSES[Factor.BLUR]) == "4;hazy6;blurry5;clear"


@pytest.mark.parametrize("factor", list(Factor))
def test_polars_opens_a_class_as_an_enum(factor: Factor, tmp_path: pytest.TempPathFactory) -> None:
    names = CLASSES[factor]
    column = pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.array(names), ordered=True)
    path = tmp_path / "t.parquet"  # type: ignore[operator]
    pq.write_table(pa.table([column], schema=pa.schema([LABELS.column(factor.value).to_field()])), path)
    assert pl.read_parquet(path).schema[factor.value] == pl.Enum(list(names))


def test_every_status_is_explained() -> None:
    assert set(STATUS_TEXT) == set(Status)


def test_the_page_is_in_step() -> None:
    assert renew(PAGE.read_text()) == PAGE.read_text(), "run python -m data_manifests.tables.page"


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="has no column 'blurr'"):
        LABELS.column("blurr")
