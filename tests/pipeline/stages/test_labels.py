"""Classes, quality and causes of one shard, against values worked by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_manifests.recipes import Recipe
from data_manifests.storage.embeddings import embeddings_of
from data_manifests.tables.stages import ANCHORS, BLUR, EMBEDDINGS, FACTORS, LABELS, POSE, Status
from labelers.rules import LabelSettings
from pipeline.stages.columns import TableError, check_table, make_table
from pipeline.stages.labels import anchor_limits, join_causes, make_labels

KEYS = np.array([1, 2, 3, 4], np.int32)
NAN = np.nan


def settings(**changes: object) -> LabelSettings:
    values: dict[str, object] = {
        "recipe": Recipe.PAPER,
        "blur_source": "cpbd",
        "blur_hazy": 0.35,
        "blur_clear": 0.7,
        "yaw_frontal": 10.0,
        "yaw_profile": 25.0,
        "worse_probability": 0.5,
        "missing_pose": "null",
        "anchor": "certainty_ratio",
        "normalise": "minmax",
    }
    return LabelSettings.model_validate(values | changes)


def measured() -> dict[str, pa.Table]:
    ok = ["ok"] * 4
    f32 = lambda *values: np.array(values, np.float32)  # noqa: E731
    unit = np.full((4, 4), 0.5, np.float16)
    return {
        "blur": make_table(BLUR, KEYS, {"cpbd": f32(0.34, 0.35, 0.7, 0.71), "sobel": f32(0.7, 0.35, 0.1, 0.2)}, ok),
        "pose": make_table(
            POSE,
            KEYS,
            {"yaw_deg": f32(-10, 26, NAN, 3), "pitch_deg": f32(0, 0, NAN, 0), "roll_deg": f32(0, 0, NAN, 0)},
            ["ok", "ok", "no_face", "ok"],
        ),
        "factors": make_table(
            FACTORS,
            KEYS,
            {
                "p_obstructed": f32(0.5, 0.49, 0, 1),
                "p_exaggerated": f32(0, 0, 0, 1),
                "p_extreme_lighting": f32(1, 0, 0, 0),
            },
            ok,
        ),
        "embeddings": make_table(EMBEDDINGS, KEYS, {"embedding": unit, "norm": f32(1, 2, 3, 4)}, ok),
        "anchors": make_table(
            ANCHORS,
            KEYS,
            {
                "ccs": f32(0.8, 0.4, NAN, 0.2),
                "nnccs": f32(0.2, 0.2, NAN, 0),
                "certainty_ratio": f32(0.6, 0.4, NAN, 0.2),
            },
            ["ok", "ok", "single_image", "ok"],
        ),
    }


def labels(**changes: object) -> dict[str, list[object]]:
    index = pa.table({"key": pa.array(KEYS), "identity": pa.array([7, 7, 8, 9], pa.int32())})
    return make_labels(index, measured(), (0.2, 0.6), settings(**changes)).to_pydict()


def test_paper_classes() -> None:
    made = labels()
    assert made["blur"] == ["hazy", "blurry", "blurry", "clear"]
    assert made["pose"] == ["slight angle", "profile", None, "frontal"]
    assert made["occlusion"] == ["obstructed", "unobstructed", "unobstructed", "obstructed"]
    assert made["expression"] == ["typical expression"] * 3 + ["exaggerated expression"]
    assert made["lighting"] == ["extreme lighting"] + ["normal lighting"] * 3


def test_released_classes() -> None:
    made = labels(recipe=Recipe.RELEASED, blur_source="sobel", missing_pose="profile")
    assert made["blur"] == ["clear", "blurry", "hazy", "hazy"]
    assert made["pose"] == ["frontal", "profile", "profile", "frontal"]


def test_quality_is_the_anchor_over_its_range() -> None:
    quality = labels()["quality"]
    assert quality[2] is None
    assert quality[:2] + quality[3:] == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)


def test_both_causes_are_said() -> None:
    assert labels()["status"] == ["ok", "ok", "no_face+single_image", "ok"]


def test_causes_are_distinct_and_in_stage_order() -> None:
    columns = [["decode_error", "ok"], ["decode_error", "no_face"], ["ok", "ok"], ["ok", "single_image"]]
    joined = join_causes([pa.chunked_array([pa.array(c).dictionary_encode()]) for c in columns])
    assert joined.to_pylist() == ["decode_error", "no_face+single_image"]


def test_causes_of_many_rows_are_those_of_each_row_and_are_stored_in_order_of_appearance() -> None:
    chance = np.random.default_rng(0)
    rows = chance.choice([s.value for s in Status], size=(500, 5)).tolist()
    expected = ["+".join(dict.fromkeys(cause for cause in row if cause != "ok")) or "ok" for row in rows]
    columns = [pa.chunked_array([pa.array(column).dictionary_encode()]) for column in zip(*rows, strict=True)]
    joined = join_causes(columns)
    assert joined.to_pylist() == expected
    assert joined.dictionary.to_pylist() == list(dict.fromkeys(expected))


def test_limits_follow_the_settings() -> None:
    row = {"certainty_ratio_min": 0.0, "certainty_ratio_max": 1.0, "plain_ratio_q001": 2.0, "plain_ratio_q999": 3.0}
    assert anchor_limits(row, settings()) == (0.0, 1.0)
    assert anchor_limits(row, settings(anchor="plain_ratio", normalise="quantile")) == (2.0, 3.0)


def test_embeddings_survive_the_table() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors.astype(np.float16)
    stored[2] = NAN
    table = make_table(EMBEDDINGS, KEYS, {"embedding": stored, "norm": np.ones(4, np.float32)}, ["ok"] * 4)
    assert table["embedding"].null_count == 1
    back = embeddings_of(table["embedding"].slice(1, 3))
    assert np.isnan(back[1]).all()
    assert np.abs(back[[0, 2]] - vectors[[1, 3]]).max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpbd": np.array([0, 0, 0, 1.5], np.float32)}, "exceeds 0.0 to 1.0"),
        ({"cpbd": np.array([0, 0, 0, NAN], np.float32)}, "null although their status is ok"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    columns = {"cpbd": np.zeros(4, np.float32), "sobel": np.zeros(4, np.float32)} | changes
    table = make_table(BLUR, KEYS, columns, ["ok"] * 4)
    with pytest.raises(TableError, match=message):
        check_table(BLUR, table, table["key"])


def test_other_keys_are_refused() -> None:
    columns = {"cpbd": np.zeros(4, np.float32), "sobel": np.zeros(4, np.float32)}
    table = make_table(BLUR, KEYS, columns, ["ok"] * 4)
    with pytest.raises(TableError, match="not those of the index"):
        check_table(BLUR, table, pa.chunked_array([pa.array([1, 2, 3, 5], pa.int32())]))


def test_the_robust_recipe_cuts_the_edge_ratio_and_carries_it() -> None:
    """A face between the thresholds, and those at them, are blurry; one without edges has no class and says why."""
    parts = measured()
    ratios = np.array([1.1499, 1.15, 1.2801, NAN], np.float32)
    columns = {"cpbd": np.full(4, 0.9, np.float32), "sobel": np.full(4, 0.9, np.float32), "edge_ratio": ratios}
    parts["blur"] = make_table(BLUR, KEYS, columns, ["ok", "ok", "ok", "no_edges"])
    check_table(BLUR, parts["blur"], parts["blur"]["key"])
    index = pa.table({"key": pa.array(KEYS), "identity": pa.array([7, 7, 8, 9], pa.int32())})
    made = make_labels(index, parts, (0.2, 0.6), LabelSettings.model_validate({"recipe": "robust"}))
    check_table(LABELS, made, made["key"])
    assert made["blur"].to_pylist() == ["hazy", "blurry", "clear", None]
    assert made.column_names[2:6] == ["cpbd", "sobel", "edge_ratio", "yaw_deg"]
    assert made["status"].to_pylist()[3].startswith("no_edges")
    assert "edge_ratio" not in labels()


def test_a_column_that_no_table_has_is_refused_and_an_optional_one_at_its_place_alone() -> None:
    columns = {"cpbd": np.zeros(4, np.float32), "sobel": np.zeros(4, np.float32), "edge_ratio": np.ones(4, np.float32)}
    table = make_table(BLUR, KEYS, columns, ["ok"] * 4)
    for wrong in (table.rename_columns(["key", "cpbd", "sobel", "sharp", "status"]), table.select([0, 3, 1, 2, 4])):
        with pytest.raises(TableError, match="instead of"):
            check_table(BLUR, wrong, table["key"])


def test_thresholds_of_cpbd_are_none_of_the_edge_ratio() -> None:
    with pytest.raises(ValueError, match=r"blur_clear = 0.7 is a threshold of cpbd.*leave"):
        LabelSettings.model_validate({"recipe": "robust", "blur_hazy": 0.35, "blur_clear": 0.7})


def test_what_is_left_empty_is_as_the_recipe_says_and_nought_is_not_empty() -> None:
    found = LabelSettings.model_validate(
        {"recipe": "released", "blur_source": "", "anchor": "certainty_ratio", "blur_hazy": 0.0}
    )
    assert (found.blur_source, found.missing_pose, found.anchor) == ("sobel", "profile", "certainty_ratio")
    assert (found.blur_hazy, found.blur_clear) == (0.0, 0.7)
