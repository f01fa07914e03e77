"""Lists of scores as tables: by key or path, as text or Parquet, and what is wrong with them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.evaluation.score_columns import ScoreListError
from pipeline.evaluation.score_lists import read_scores
from pipeline.evaluation.score_matching import Target, match_scores

if TYPE_CHECKING:
    from pathlib import Path

SLOW_FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PATHS = ("a/1.jpg", "a/2.jpg", "b/2.jpg", "c/d/3.png")
KEYS = np.array([1, 2, 3, 4], np.int32)


def write_text(folder: Path, text: str, name: str = "s.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def write_parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "s.parquet")
    return folder / "s.parquet"


def read_quality(file: Path, paths: tuple[str, ...] | None = PATHS, *others: list[str]) -> list[float | None]:
    found = match_scores(read_scores(file), Target(name="b", keys=KEYS, paths=paths), *others)
    return [None if np.isnan(value) else value for value in found.quality.tolist()]


def test_a_list_by_key_or_path_in_any_format(tmp_path: Path) -> None:
    wanted = [0.5, None, -2.0, 1e3]
    assert read_quality(write_text(tmp_path, "key,quality\n1,.5\n3,-2\n4,+1e3\n")) == wanted
    assert read_quality(write_text(tmp_path, "quality\tx\tkey\n.5\ty\t1\n\n-2\t\t3\n1e3\tz\t4\n", "s.tsv")) == wanted
    text = "\ufeffpath , score\r\nc/d/3.png, 1000\r\na/1.jpg,0.5\r\nb/2.jpg,-2.0\r\na/2.jpg,\r\n"
    assert read_quality(write_text(tmp_path, text)) == wanted
    assert read_quality(write_parquet(tmp_path, key=[4, 3, 1], quality=[1e3, -2.0, 0.5])) == wanted
    of_scores = write_parquet(
        tmp_path,
        key=[9, 9, 9],
        path=["a/1.jpg", "b/2.jpg", "c/d/3.png"],
        quality=pa.array([0.5, -2, 1e3], pa.float32()),
    )
    assert read_quality(of_scores) == wanted
    no_files = write_parquet(tmp_path, key=[1, 3, 4], path=pa.nulls(3, pa.string()), quality=[0.5, -2.0, 1e3])
    assert read_quality(no_files) == wanted
    assert read_quality(no_files, None) == wanted


def test_paths_may_have_folders_before_them_or_be_names_alone(tmp_path: Path) -> None:
    file = write_text(
        tmp_path, "path,quality\n/data/x/a/1.jpg,1\n./b/2.jpg,2\n3.png,3\n2.jpg,4\nz/3.png,5\nc\\d\\9.png,6\n"
    )
    found = match_scores(read_scores(file), Target(name="b", keys=KEYS, paths=PATHS))
    assert found.quality.tolist()[0::2] == [1, 2]
    assert found.quality[3] == 3
    assert np.isnan(found.quality[1])
    assert (found.rows, found.unknown, found.known) == (6, 3, 3)  # 2.jpg is two images, z/3.png and 9.png none


def test_a_list_about_several_benchmarks_is_read_by_theirs(tmp_path: Path) -> None:
    file = write_text(tmp_path, "benchmark,key,quality\nb,1,1\nother,1,7\nb,2,2\n")
    assert read_quality(file, PATHS, ["c"]) == [1, 2, None, None]
    keyed = write_text(tmp_path, "key,quality\n1,1\n")
    with pytest.raises(ScoreListError, match="its keys are those of one benchmark, but several are evaluated: add a"):
        read_quality(keyed, PATHS, ["c"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"no column quality or score \(there are none\): add it"),
        ("key,quality\n1,1\n1,2\n", "line 3: '1' has another score already, in line 2: leave one"),
        ("path,quality\na/1.jpg,1\nx/a/1.jpg,2\n", "line 3: 'x/a/1.jpg' has another score already, in line 2"),
        (
            "key,quality\n0,1\n1,2\n",
            "has a key 0, but those of b begin at 1: where its first image has 0, add 1 to each",
        ),
        ("key,quality\n1,high\n", "line 2: column quality: 'high' is no number: correct it, or leave it empty"),
        (
            "key,quality\n1,nan\n",
            "line 2: column quality: 'nan' says that the method gave the image no score: leave the",
        ),
        ("key,quality\n1,0,5\n", "3 fields, but the first line names 2: correct it, or, where a number has a decimal"),
        ("key;quality\n1;0,5\n", "line 2: column quality: '0,5' has a decimal comma: write 0.5 there"),
        ("key,quality\n1,1_0\n", "'1_0' is no number"),
        ("key,quality\n1,1e39\n", "'1e39' is no finite float32"),
        ("key,quality\n\n1.5,1\n", "line 3: column key: '1.5' is no key"),
        ("key,value\n1,1\n", r"no column quality or score \(there are key, value\): add it, or rename one"),
        ("face,quality\n1,1\n", "no column path or key"),
        ("key,quality,quality\n1,1,1\n", "several columns quality: leave one"),
        ("key,quality\n1,1\n1,2,3\n", "line 3: 3 fields, but the first line names 2"),
        ('key,quality\n1,"1\n', "cannot be read"),
    ],
)
def test_a_damaged_text_is_one_error_that_names_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    file = write_text(tmp_path, text)
    with pytest.raises(ScoreListError, match=said) as caught:
        read_quality(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": [1, 1], "quality": [1.0, 2.0]}, "row 1: '1' has another score already, in row 0"),
        ({"key": [1, 2], "quality": [1.0, float("nan")]}, "row 1: column quality: 'nan' says that the method gave the"),
        ({"key": [1, 2], "quality": [1.0, float("inf")]}, "row 1: column quality: 'inf' is no finite float32"),
        ({"key": [1], "quality": ["x"]}, "row 0: column quality: 'x' is no number"),
        ({"key": [1], "quality": [[1.0]]}, "row 0: column quality: '\\[1.0\\]' is no number"),
        ({"key": [1], "quality": [True]}, "'True' is no number"),
        ({"key": [1.5], "quality": [1.0]}, "'1.5' is no key"),
        ({"path": [b"a/1.jpg"], "quality": [1.0]}, "is no text"),
        ({"quality": [1.0]}, "no column path or key"),
    ],
)
def test_a_damaged_parquet_is_one_error_that_names_file_and_row(
    columns: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ScoreListError, match=said):
        read_quality(write_parquet(tmp_path, **columns))


def test_files_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoreListError, match="no such file"):
        read_scores(tmp_path / "s.csv")
    with pytest.raises(ScoreListError, match=r"no column quality or score \(there are x\)"):
        read_scores(write_text(tmp_path, "x", "s.txt"))
    for content in (b"", b"PAR1", b"key,quality\n1,1\n"):
        (tmp_path / "s.parquet").write_bytes(content)
        with pytest.raises(ScoreListError, match="cannot be read as Parquet"):
            read_scores(tmp_path / "s.parquet")
    (tmp_path / "s.csv").write_bytes(b"key,quality\n1,\xff\n")
    with pytest.raises(ScoreListError, match="save it as UTF-8"):
        read_scores(tmp_path / "s.csv")
    with pytest.raises(ScoreListError, match="the images of b are no files, so they need a column key"):
        read_quality(write_text(tmp_path, "path,quality\na/1.jpg,1\n"), None)


@SLOW_FILES
@given(
    rows=st.dictionaries(
        st.integers(1, 2**31 - 1),
        st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=30,
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_is_written_is_read(rows: dict[int, float | None], quoting: Any, tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(["key", "quality"])
    writer.writerows(rows.items())
    parquet = write_parquet(tmp_path, key=list(rows), quality=pa.array(list(rows.values()), pa.float32()))
    keys = np.array(sorted(rows), np.int32)
    wanted = np.array([np.nan if rows[key] is None else rows[key] for key in keys.tolist()], np.float64)
    for file in (write_text(tmp_path, text.getvalue()), parquet):
        found = match_scores(read_scores(file), Target(name="b", keys=keys, paths=None))
        np.testing.assert_array_equal(found.quality, wanted)
        assert found.unknown == 0


@SLOW_FILES
@given(content=st.binary(max_size=200) | st.text(alphabet='key,qualitypth\n"\t01.e-/\\', max_size=120).map(str.encode))
def test_any_bytes_are_a_list_or_one_error(content: bytes, tmp_path: Path) -> None:
    for name in ("s.csv", "s.tsv", "s.parquet"):
        (tmp_path / name).write_bytes(content)
        for paths in (PATHS, None):
            said = str(tmp_path / name)
            try:
                found = match_scores(read_scores(tmp_path / name), Target(name="b", keys=KEYS, paths=paths))
                said += "" if found.known >= np.isfinite(found.quality).sum() else "miscounted"
            except ScoreListError as error:
                said = str(error)
            assert str(tmp_path / name) in said
            assert "miscounted" not in said
