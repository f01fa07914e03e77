"""Lists of scores as the repositories of the field write them: read, matched with images, and evaluated."""

from __future__ import annotations

import math
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_manifests.image_paths import clean_path
from data_manifests.sample import draw_images
from pipeline.evaluation.methods import parse_methods
from pipeline.evaluation.plan import make_plan
from pipeline.evaluation.request import EvaluationRequest
from pipeline.evaluation.score_columns import ScoreListError
from pipeline.evaluation.score_lists import read_scores
from pipeline.evaluation.score_matching import Matched, Target, match_scores
from tests.pipeline.conftest import Factory
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Rows = list[tuple[str, float]]

FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MEASURES = ("UnifiedQualityScore", "BackgroundUniformity", "Sharpness", "HeadPoseYaw")


# --- what the repositories write ------------------------------------------------------------------------------------


def write_cr_fiqa(rows: Rows) -> str:
    """getQualityScore.py of CR-FIQA and ViT-FIQA, extract_grafiqs.py, and what their ERC reads of every method."""
    return "".join(f"{path} {score}\n" for path, score in rows)


def write_sdd_fiqa(rows: Rows) -> str:
    """gen_pseudo_labels.py of SDD-FIQA."""
    return "".join(f"{path}\t{score}\n" for path, score in rows)


def write_clib_fiqa(rows: Rows) -> str:
    """generate_labels.py of CLIB-FIQA, which prints an array of one."""
    return "".join(f"{path}\t[{score}]\t2\t0\t1\t1\t0\n" for path, score in rows)


def write_faceqnet(rows: Rows) -> str:
    """FaceQNet_obtainscores_Keras.py, on Windows."""
    lines = (f".\\\\Samples\\\\{path.replace('/', chr(92))};[{score}]\n" for path, score in rows)
    return "img;score\n" + "".join(lines)


def write_faceqnet_sorted(rows: Rows) -> str:
    """face_quality_scores.csv of FaceQnet."""
    return "".join(f"./Samples_cropped/{path},[{score}]\n" for path, score in rows)


def write_magface(rows: Rows) -> str:
    """gen_feat.py of MagFace: 512 numbers, whose length is the quality."""
    part = math.sqrt(512)
    return "".join(f"{path} " + f"{score / part} " * 512 + "\n" for path, score in rows)


def write_ofiq(rows: Rows, *, timed: bool = True) -> str:
    """OFIQSampleApp: raw measures, then values of 0 to 100; the header alone ends with a semicolon."""
    names = ["Filename", *MEASURES, *(f"{name}.scalar" for name in MEASURES), *["assessment_time_in_ms"] * timed]
    lines = [
        ";".join([path, f"{score / 2}", "7.5", "44", f"{-score}", f"{score}", "80", "2", "99", *["31"] * timed])
        for path, score in rows
    ]
    return ";".join(names) + ";\n" + "".join(f"{line}\n" for line in lines)


def write_spaced(rows: Rows) -> str:
    """Pandas, with a blank between columns."""
    return "image_path quality_score\n" + write_cr_fiqa(rows)


WRITERS: dict[str, tuple[Callable[[Rows], str], str]] = {
    "cr_fiqa.txt": (write_cr_fiqa, "the last field of a line"),
    "cr_fiqa": (write_cr_fiqa, "the last field of a line"),
    "quality_pseudo_labels.txt": (write_sdd_fiqa, "the second field of a line"),
    "clib.txt": (write_clib_fiqa, "the second field of a line"),
    "scores_quality.txt": (write_faceqnet, "column score"),
    "face_quality_scores.csv": (write_faceqnet_sorted, "the second field of a line"),
    "feat.list": (write_magface, "the length of the 512 numbers of a line"),
    "ofiq.csv": (write_ofiq, "column UnifiedQualityScore.scalar"),
    "ofiq.txt": (lambda rows: write_ofiq(rows, timed=False), "column UnifiedQualityScore.scalar"),
    "spaced.csv": (write_spaced, "the last field of a line"),
}
WITH_BLANKS = tuple(name for name in WRITERS if name != "feat.list")

PATHS = ("a/1.jpg", "a/2 b.jpg", "b/2.jpg", "c/d/3.png")


def save(folder: Path, text: str | bytes, name: str = "scores.txt") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def match(file: Path, paths: Sequence[str] | None = PATHS, column: str = "", count: int = 4, **more: Any) -> Matched:
    """Of a benchmark called XQLFW, whose images are files, or those of lfw.bin."""
    others = more.pop("others", ())
    keys = np.arange(1, (count if paths is None else len(paths)) + 1, dtype=np.int32)
    packed = "lfw" if paths is None else ""
    target = Target(**{"name": "xqlfw", "keys": keys, "paths": paths, "packed": packed} | more)
    return match_scores(read_scores(file, column), target, others)


def qualities(found: Matched) -> list[float | None]:
    return [None if np.isnan(value) else value for value in found.quality.tolist()]


@pytest.mark.parametrize("name", WRITERS)
def test_a_list_is_read_as_its_repository_writes_it(name: str, tmp_path: Path) -> None:
    write, said = WRITERS[name]
    file = save(tmp_path, write([("x/a/1.jpg", 0.5), ("x/c/d/3.png", 2.0), ("x/b/2.jpg", 1e-05)]), name)
    assert qualities(match(file)) == pytest.approx([0.5, None, 1e-05, 2.0])
    assert read_scores(file).said == said
    assert qualities(match(save(tmp_path, b"\xef\xbb\xbf" + file.read_bytes(), name)))[0] == pytest.approx(0.5)
    assert qualities(match(save(tmp_path, file.read_bytes().replace(b"\n", b"\r\n\r\n"), name)))[3] == pytest.approx(2)


@pytest.mark.parametrize("name", WITH_BLANKS)
def test_a_path_may_hold_blanks(name: str, tmp_path: Path) -> None:
    file = save(tmp_path, WRITERS[name][0]([("a/2 b.jpg", 0.25)]), name)
    assert qualities(match(file)) == [None, 0.25, None, None]


name_parts = st.text(alphabet="abcxyz0159._-é%=+#'()&@! ", min_size=1, max_size=8).map(str.strip)
names = st.lists(name_parts, min_size=1, max_size=3).map(lambda parts: "/".join(["n", *parts, "f.jpg"]))
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@FILES
@given(rows=st.dictionaries(names, floats, min_size=1, max_size=12), name=st.sampled_from(WITH_BLANKS))
@example(rows={"n/0/f.jpg": -1.0}, name="cr_fiqa.txt")
def test_what_a_repository_writes_is_what_is_read(rows: dict[str, float], name: str, tmp_path: Path) -> None:
    write, _ = WRITERS[name]
    scores = read_scores(save(tmp_path, write(list(rows.items())), name))
    assert scores.rows["quality"].len() == len(rows)
    read = [re.sub(r"^(Samples|Samples_cropped)/", "", clean_path(path)) for path in scores.rows["path"]]
    assert read == list(map(clean_path, rows))
    kept = [None if value == -1 and name.startswith("ofiq") else value for value in rows.values()]
    assert scores.rows["quality"].to_list() == kept


@FILES
@given(
    rows=st.dictionaries(
        st.text(alphabet="abc019./_-é", min_size=1).map("x".__add__),
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=32, max_size=32),
        min_size=1,
        max_size=4,
    )
)
def test_the_length_of_an_embedding_is_a_quality(rows: dict[str, list[float]], tmp_path: Path) -> None:
    text = "".join(f"{path} " + "".join(f"{value} " for value in values) + "\n" for path, values in rows.items())
    scores = read_scores(save(tmp_path, text))
    assert scores.rows["path"].to_list() == list(rows)
    np.testing.assert_allclose(scores.rows["quality"], [np.linalg.norm(values) for values in rows.values()], rtol=1e-12)


WORDS = ["a.jpg", "0", "1", "nan", "1e400", "-inf", "=1+1", '"', "[", ";", "score", "img", "\n"]


@FILES
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="[]Filenamqutyscor.jpg0015-;,\t\n #\"'=", max_size=150).map(str.encode),
        st.lists(st.sampled_from(WORDS)).map(lambda words: " ".join(words).encode()),
    ),
    name=st.sampled_from(["s", "s.txt", "s.csv", "s.list", "s.pkl"]),
    column=st.sampled_from(["", "-", "score", "-img", "#"]),
)
@example(content=b"a.jpg " * 200_000 + b"1", name="s.txt", column="")
@example(content=b"a.jpg " + b"9" * 200_000, name="s.txt", column="")
@example(content=b"a" * 200_000 + b",1", name="s.csv", column="")
@example(content=b"img;score\n" + b'"' + b"a" * 200_000 + b";1", name="s.csv", column="")
@example(content=b"img;score;.scalar\na;;\nb\n", name="s.csv", column="")
@example(content=b"".join(b"%05d.jpg 1\n" % n for n in (0, 1, 1)) + b"9" * 5_000 + b".jpg 2\n", name="s", column="")
def test_any_bytes_are_a_list_or_one_error(content: bytes, name: str, column: str, tmp_path: Path) -> None:
    file = save(tmp_path, content, name)
    for paths in (PATHS, ("a.jpg",), None):
        try:
            found = match(file, paths, column)
            said = f"{file}: {found.describe()}, {found.show_both()}"
            said += "" if found.known >= np.isfinite(found.quality).sum() else "miscounted"
        except ScoreListError as error:
            said = str(error)
        assert said.startswith(str(file))
        assert len(said) < 1500
        assert "miscounted" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jpg 0.5\nb.jpg nan\n", "line 2: column quality: 'nan' says that the method gave the image no score: leave"),
        ("a.jpg N/A\nb.jpg 1\n", "no column quality"),
        ("a.jpg 1\nb.jpg N/A\n", "line 2: column quality: 'N/A' says that the method gave the image no score"),
        ("a.jpg 0,53\nb.jpg 0,4\n", "'0,53' in the first line has a decimal comma: write 0.53 there"),
        ("a 2.jpg;0,53\n", "'0,53' in the first line has a decimal comma"),
        ("a.jpg\t-1,5\n", "'-1,5' in the first line has a decimal comma: write -1.5 there"),
        ("a.jpg 0.5\nb.jpg 0,4\n", "line 2: column quality: '0,4' has a decimal comma: write 0.4 there"),
        ("img;score\na.jpg;0,53\n", "line 2: column score: '0,53' has a decimal comma"),
        ("a b.jpg " + "0.5 " * 40, "line 1: the name 'a b.jpg' before the 40 numbers holds a blank, which ends a name"),
        ("a.jpg " + "0.5 " * 40 + "\nb 2.jpg " + "1 " * 40, "line 2: the name 'b 2.jpg' before the 40 numbers holds a"),
        ("a.jpg 0.5\n\nb.jpg 1e400\n", "line 3: column quality: '1e400' is no finite float32"),
        ("a.jpg 0.5\nb.jpg =1+1\n", r"line 2: column quality: '=1\+1' is no number"),
        ("a.jpg 0.5\nb.jpg [0.5\n", r"'\[0.5' is no number"),
        ("img;score\na.jpg;[0.5 0.6]\n", r"line 2: column score: '\[0.5 0.6\]' is no number"),
        ("img;score\na.jpg;0.5;1\n", "line 2: 3 fields, but the first line names 2"),
        ("a.jpg\t0.5\nb.jpg\t1\t2\n", "line 2: 3 fields, but the first line has 2"),
        ("a.jpg " + "1 " * 40 + "\nb.jpg 1 2\n", "line 2: is not a path and 40 numbers, as the first line is"),
        ("a.jpg " + "1 " * 40 + "\nb.jpg " + "1e400 " * 40 + "\n", "line 2: column quality: 'inf' is no number"),
        (
            "a.jpg " + "1 " * 40 + "\nb.jpg " + "1e200 " * 40 + "\n",
            r"line 2: column quality: '6.3\d+e\+200' is no finite float32",
        ),
        ("img;confidence\na.jpg;0.5\n", r"no column quality or score \(there are img, confidence\)"),
        ("Path;path_;score\na;b;1\n", "there are several columns Path: leave one"),
        ("a.jpg\nb.jpg\n", r"no column quality or score \(there are a.jpg\)"),
        ("00000 00001 1\n00002 00003 0\n", "is a list of pairs"),
        ("a_0001.jpg b_0001.jpg 0\n", "is a list of pairs"),
        ("171707  187569  0  1.79\n26      17991   0  1.76\n", "is a list of pairs"),
        ("a.jpg 0.5\na.jpg 0.6\n", "line 2: 'a.jpg' has another score already, in line 1: leave one"),
    ],
)
def test_what_is_no_list_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    file = save(tmp_path, text)
    with pytest.raises(ScoreListError, match=said) as caught:
        match(file, ("a.jpg", "b.jpg"))
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_not_read_but_said_how_to_write_as_text(protocol: int, tmp_path: Path) -> None:
    """eDifFIQA, DifFIQA and FaceQAN write their scores so."""
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return ran.touch, ()

    for name in ("quality-scores.pkl", *["scores.txt"] * (protocol > 1)):
        file = save(tmp_path, pickle.dumps({"a.jpg": Attack()}, protocol), name)
        with pytest.raises(ScoreListError, match=rf"is a pickle, .*open\('{name}'.* > scores.txt"):
            read_scores(file)
    assert not ran.exists()


# --- columns, and what is better ------------------------------------------------------------------------------------


def test_a_column_of_ofiq_is_chosen_by_name_and_what_it_could_not_assess_has_no_quality(tmp_path: Path) -> None:
    text = write_ofiq([("a/1.jpg", 40), ("a/2 b.jpg", 55)]) + "b/2.jpg;0;0;0;0;-1;-1;-1;-1;9\nc/d/3.png;;;9\n"
    file = save(tmp_path, text, "ofiq.csv")
    assert qualities(match(file)) == [40, 55, None, None]
    assert qualities(match(file, column="UnifiedQualityScore")) == [20, 27.5, None, None]
    assert qualities(match(file, column="Sharpness.scalar")) == [2, 2, None, None]
    assert qualities(match(file, column="-HeadPoseYaw")) == [40, 55, None, None]
    assert read_scores(file, "-HeadPoseYaw").said == "column HeadPoseYaw, where lower is better"
    with pytest.raises(ScoreListError, match=r"no column Sharp \(there are Filename, UnifiedQualityScore, Backgr"):
        read_scores(file, "Sharp")


def test_a_lower_number_may_be_better(tmp_path: Path) -> None:
    """PFE's uncertainty is one; CR-FIQA's ERC turns it round, too."""
    file = save(tmp_path, "a/1.jpg 0.5\nb/2.jpg -2\n")
    assert qualities(match(file, column="-")) == [-0.5, None, 2.0, None]
    assert read_scores(file, "-").said == "the last field of a line, where lower is better"
    with pytest.raises(ScoreListError, match="its first line names no columns, so there is no column sigma: leave it"):
        read_scores(file, "-sigma")
    named = save(tmp_path, "path,quality,sigma\na/1.jpg,9,0.5\n", "pfe.csv")
    assert qualities(match(named, column="-sigma"))[0] == -0.5


def test_usual_names_of_columns_come_first(tmp_path: Path) -> None:
    for header, wanted in (
        ("Quality_Score,score,image,path", [2, None]),
        ("Quality_Score,score,key,image", [2, None]),
        ("Quality Score,confidence,IMG,Image-Path", [1, None]),
    ):
        row = "1,2,1,a.jpg" if "key" in header else "1,2,x.jpg,a.jpg"
        assert qualities(match(save(tmp_path, f"{header}\n{row}\n"), ("a.jpg", "b.jpg"))) == wanted


def test_a_method_s_column_stands_behind_its_file(tmp_path: Path) -> None:
    file = save(tmp_path, "", "ofiq.csv")
    found = parse_methods(
        f"table:{file},table:{file}#Sharpness.scalar,yaw=table:{file}#-HeadPoseYaw,table:/x/pfe.txt#-"
    )
    assert [(m.name, m.path and m.path.name, m.column) for m in found] == [
        ("ofiq", "ofiq.csv", ""),
        ("ofiq (Sharpness.scalar)", "ofiq.csv", "Sharpness.scalar"),
        ("yaw", "ofiq.csv", "-HeadPoseYaw"),
        ("pfe", "pfe.txt", "-"),
    ]
    whole = save(tmp_path, "", "a#b.csv")
    assert [(m.path, m.column) for m in parse_methods(f"table:{whole},table:{whole}#c,onnx:{whole}.onnx")] == [
        (whole, ""), (whole, "c"), (tmp_path / "a#b.csv.onnx", ""),
    ]  # fmt: skip


# --- which image a row is about -------------------------------------------------------------------------------------


def test_rows_of_pairs_repeat_an_image(tmp_path: Path) -> None:
    """CR-FIQA's XQLFW list has every image as often as pairs have it; batches change its last digits."""
    file = save(tmp_path, "a/1.jpg 0.44192782\nb/2.jpg 1\na/1.jpg 0.44192785\na/1.jpg 0.44192782\n")
    found = match(file)
    assert qualities(found) == [0.44192782, None, 1, None]
    assert (found.rows, found.known) == (4, 4)
    assert found.describe() == (
        "4 of 4 rows name an image, by path; 2 of 4 images have a score (not 'a/2 b.jpg', 'c/d/3.png', which are "
        "rejected first)"
    )


def test_images_of_a_bin_are_found_by_the_numbers_of_the_released_extraction(tmp_path: Path) -> None:
    rows = [(f"quality_data/lfw/images/{number:05d}.jpg", number / 10) for number in (1, 0, 3, 7)]
    found = match(save(tmp_path, write_cr_fiqa(rows)), None)
    assert qualities(found) == [0, 0.1, None, 0.3]  # the first pair is keys 1 and 2, files 00000 and 00001
    assert found.describe() == (
        "3 of 4 rows name an image, by number, as CR-FIQA's extract_bin.py names the images of a .bin, from 00000.jpg "
        "on (not 'quality_data/lfw/images/00007.jpg'); 3 of 4 images have a score (not 'lfw/images/00002.jpg', which "
        "are rejected first)"
    )
    with pytest.raises(ScoreListError, match=r"numbers images from 00001\.jpg on, but CR-FIQA's extract_bin.py from"):
        match(save(tmp_path, "00001.jpg 1\n00002.jpg 2\n"), None)
    for name in ("0.jpg", "00000.png", "a/Aaron_0000.jpg"):
        with pytest.raises(ScoreListError, match="the images of xqlfw are no files, so they need a column key"):
            match(save(tmp_path, f"{name} 1\n"), None)
    with pytest.raises(ScoreListError, match="need a column key"):
        match(save(tmp_path, "00000.jpg 1\n"), None, packed="")  # of a .rec, which is numbered otherwise


def test_numbers_are_of_the_benchmark_whose_folder_they_are_in_where_there_are_several(tmp_path: Path) -> None:
    of_lfw = [(f"quality_data/LFW/images/{number:05d}.jpg", 1.0) for number in range(4)]
    others = [(f"quality_data/cplfw/images/{number:05d}.jpg", 2.0) for number in range(4)]
    both = match(save(tmp_path, write_cr_fiqa(others + of_lfw)), None, others=["CPLFW"])
    assert (qualities(both), both.rows, both.unknown) == ([1, 1, 1, 1], 4, 0)
    for rows in (others, [("00000.jpg", 1.0)], [("quality_data/XQLFW2/images/a.jpg", 1.0)]):
        assert match(save(tmp_path, write_cr_fiqa(rows)), None, others=["CPLFW"]).known == 0


def test_a_copy_without_folders_is_found_by_the_names_of_its_files(tmp_path: Path) -> None:
    """CR-FIQA copies XQLFW's images into one folder."""
    paths = ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg", "Bob/x.jpg", "Cy/x.jpg")
    flat = save(tmp_path, "data/XQLFW/images/Ann_0002.jpg 2\ndata/XQLFW/images/x.jpg 4\n")
    found = match(flat, paths)
    assert qualities(found) == [None, 2, None, None, None]  # x.jpg is two images
    assert (
        "by name alone, as all are in the folder 'data/XQLFW/images' (not 'data/XQLFW/images/x.jpg'); 1 of 5"
        in found.describe()
    )
    assert match(flat, paths, others=["lfw"]).known == 1
    assert match(flat, paths, others=["xqlfw"], name="lfw").known == 0  # whose images have the same names
    two = save(tmp_path, "data/a/Ann_0002.jpg 2\ndata/b/Bob_0001.jpg 4\n")
    assert match(two, paths).known == 0


def test_a_path_through_a_folder_called_like_another_benchmark_is_about_that_one(tmp_path: Path) -> None:
    """LFW and XQLFW have the same names of files."""
    rows = [("/data/LFW/a/1.jpg", 1.0), ("/data/XQLFW/a/1.jpg", 2.0), ("b/2.jpg", 3.0), ("lfw/xqlfw/c/d/3.png", 4.0)]
    file = save(tmp_path, write_cr_fiqa(rows))
    assert qualities(match(file, others=["lfw"])) == [2, None, 3, 4]
    assert qualities(match(file, others=["xqlfw"], name="lfw")) == [1, None, 3, 4]
    with pytest.raises(ScoreListError, match="has another score already"):
        match(file)


def test_first_names_of_both_sides_are_shown(tmp_path: Path) -> None:
    rows = [(f"/data/faces/{name}.png", 1.0) for name in "abcdefg"]
    found = match(save(tmp_path, write_cr_fiqa([*rows, ("b/2.jpg", 3.0)])))
    assert found.describe() == (
        "1 of 8 rows name an image, by path (not '/data/faces/a.png', '/data/faces/b.png', '/data/faces/c.png', ...); "
        "1 of 4 images have a score (not 'a/1.jpg', 'a/2 b.jpg', 'c/d/3.png', which are rejected first)"
    )
    found = match(save(tmp_path, write_cr_fiqa(rows)))
    assert found.show_both() == "by path: rows are called like '/data/faces/a.png', images like 'a/1.jpg'"


# --- end to end -----------------------------------------------------------------------------------------------------


def test_lists_of_others_are_evaluated_on_real_faces(sample_weights: None, tmp_path: Path) -> None:
    drawn = list(draw_images())
    people = [[image.encoded for image in drawn if image.identity == person][:4] for person in range(4)]
    paths = [f"p{person}/{number}.jpg" for person in range(4) for number in range(4)]
    for path, image in zip(paths, (image for person in people for image in person), strict=True):
        (tmp_path / "people" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / path).write_bytes(image)
    images = [image for first, second in zip(people[:2], people[2:], strict=True) for image in (*first, *second)]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((images, [True, True, False, False] * 2), 2))
    common = 'pose_model = "fr_pose"\nroot = '
    (tmp_path / "files.toml").write_text(f'name = "files"\nformat = "image_folder"\n{common}"people"\n')
    (tmp_path / "pairs.toml").write_text(
        f'name = "pairs"\nformat = "verification"\nrecord_file = "lfw.bin"\n{common}"."\n'
    )
    rows = [(f"/data/set/{path}", 0.1 * place) for place, path in enumerate(paths)]
    rows += [(f"quality_data/lfw/images/{place:05d}.jpg", float(place)) for place in range(16)]
    cr_fiqa = save(tmp_path, write_cr_fiqa(rows), "crfiqa.txt")
    ofiq = save(tmp_path, write_ofiq([(path, 90.0 - place) for place, path in enumerate(paths[1:])]), "ofiq.csv")
    factory = Factory(workspace=tmp_path / "workspace")
    done = factory.luigi(
        "EvaluateQuality", "--benchmarks", f"{tmp_path / 'files.toml'},{tmp_path / 'pairs.toml'}",
        "--recognition", "fr_feature", "--fmrs", "0.1", "--replicates", "0", "--no-correlate",
        "--methods", f"table:{cr_fiqa},pfe=table:{cr_fiqa}#-,table:{ofiq},table:{ofiq}#-HeadPoseYaw",
    )  # fmt: skip
    folder = factory.workspace / "evaluation" / "current"
    table = pl.read_parquet(folder / "qualities.parquet").with_columns(pl.selectors.categorical().cast(pl.String))
    found = {
        (benchmark, method): group["quality"].cast(pl.Float64).round(4).to_list()
        for (benchmark, method), group in table.group_by("benchmark", "method", maintain_order=True)
    }
    rising, falling = [round(0.1 * place, 4) for place in range(16)], [None, *(90.0 - place for place in range(15))]
    assert found == {
        ("files", "crfiqa"): rising,
        ("files", "pfe"): [-value for value in rising],
        ("files", "ofiq"): falling,
        ("files", "ofiq (HeadPoseYaw)"): falling,
        ("pairs", "crfiqa"): [float(place) for place in range(16)],
        ("pairs", "pfe"): [-float(place) for place in range(16)],
    }
    report, terminal = re.sub(r"\\(.)", r"\1", (folder / "report.md").read_text()), done.stdout.replace("\n", " ")
    for said in (
        "crfiqa.txt on files: 16 of 16 rows name an image, by path; 16 of 16 images have a score. Quality is the last",
        "crfiqa.txt on pairs: 16 of 16 rows name an image, by number, as CR-FIQA's extract_bin.py names the images",
        "Quality is the last field of a line, where lower is better",
        "ofiq.csv on files: 15 of 15 rows name an image, by path; 15 of 16 images have a score (not 'p0/0.jpg', which",
        "Quality is column UnifiedQualityScore.scalar",
        "ofiq is left out there",
    ):
        assert said in report, said
        assert said in terminal, said
    assert "list ofiq.csv#-HeadPoseYaw (SHA-256 " in report


def test_a_column_enters_the_fingerprint(sample_weights: None, tmp_path: Path) -> None:
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(([b"x"] * 2, [True]), 2))
    (tmp_path / "b.toml").write_text('name = "b"\nformat = "verification"\nroot = "."\nrecord_file = "lfw.bin"\n')
    file = save(tmp_path, "00000.jpg 1\n")
    made = {
        column: make_plan(
            EvaluationRequest(
                benchmarks=(str(tmp_path / "b.toml"),), recognisers=(), methods=f"s=table:{file}{column}",
                protocols=(Protocol.FIXED,), fmrs=(0.1,), replicates=0, fewest_impostors=0, correlate=False, limit=0,
                workspace=tmp_path,
            )
        ).spec
        for column in ("", "#-", "#score")
    }  # fmt: skip
    assert len({spec.fingerprint for spec in made.values()}) == 3
    assert set(made[""].parameters["methods"][0]) == {"name", "kind", "sha256"}  # as before there were columns
