"""The papers' own numbers: as the papers print them, and beside ours only where both are of the same thing."""

import re

import pytest

from data_manifests.manifest import Published, load_manifest, shipped_names
from pipeline.evaluation.report.frames import read_frames
from pipeline.evaluation.report.markdown import render_markdown
from pipeline.evaluation.report.paper_tables import write_csv
from pipeline.evaluation.report.published import compare_published, read_published
from pipeline.evaluation.report.side_by_side import Known
from tests.pipeline.evaluation.test_evaluation_markdown import area, make_table

DIGITS = {"pauc": 3, "auc": 3, "auc_raw": 4, "tar": 2}
EIGHT = ("LFW", "CFP-FP", "CPLFW", "XQLFW", "CALFW", "AgeDB-30", "Adience", "TinyFace")


def test_every_number_has_its_place_and_every_mean_is_one():
    tables = read_published()
    assert sum(len(row) for table in tables for row in table.rows.values()) == 486 + 24 + 4 * 11 * 16 + 4 * 12 * 3
    for table in tables:
        assert set(table.benchmarks) <= {*Published, "Avg."}
        for name, row in table.rows.items():
            assert len(row) == len(table.benchmarks) * len(table.rates), name
            if len(table.benchmarks) > 1 and "Avg." in table.benchmarks:
                assert table.benchmarks == (*EIGHT, "Avg.")
                assert row[-1] == pytest.approx(sum(row[:-1]) / 8, abs=0.001), (table.table, name)
    best = {t.recogniser: t for t in tables if (t.table, t.area) in {("Table 1", "pauc"), ("Table 3", "pauc")}}
    assert best["ArcFace"].value("CLIB-FIQA", "XQLFW", 1e-3) == 0.647
    assert best["AdaFace"].value("CLIB-FIQA", "Avg.", 1e-3) == 0.664


def test_every_row_stands_in_the_paper(real_data):
    papers = {path.name[:3]: path.read_text().replace("\u2217", "") for path in (real_data / "papers").glob("*.txt")}
    if set(papers) != {"000", "002"}:
        pytest.skip("the text of the papers is not there")
    for table in read_published():
        text = papers["000" if table.paper == "CLIB-FIQA" else "002"]
        for name, row in table.rows.items():
            printed = " ".join(f"{value:.{DIGITS[table.area]}f}" for value in row)
            if table.table == "Table 4":
                assert f"✓ {printed}" in text
            else:
                start = "-" if name == "mean" else re.escape(name)
                assert re.search(rf"^{start}\W.*{re.escape(printed)}", text, re.MULTILINE | re.IGNORECASE), name


def test_a_shipped_benchmark_is_a_published_one():
    found = {name: load_manifest(name).published for name in shipped_names()}
    assert {name: value for name, value in found.items() if value} == {
        "lfw": "LFW", "cfp_fp": "CFP-FP", "cplfw": "CPLFW", "calfw": "CALFW", "agedb_30": "AgeDB-30", "xqlfw": "XQLFW",
        "adience": "Adience", "tinyface": "TinyFace", "ijbc": "IJB-C",
    }  # fmt: skip


def rows(recogniser="adaface_r50", benchmarks=("mine",), **others):
    return [area(recogniser, "clib_fiqa", 0.9604, 0.6, benchmark=name, fmr=1e-3, **others) for name in benchmarks]


def compare(metrics, published):
    return list(compare_published(read_frames({"metrics": make_table("metrics", metrics)}), published))


def test_ours_the_published_number_and_the_difference_stand_side_by_side():
    pauc, auc = compare([*rows(), area("adaface_r50", "norm", 0.9, 0.9, benchmark="mine", fmr=1e-3)], {"mine": "LFW"})
    assert pauc.title == "adaface_r50 beside CLIB-FIQA, Table 3: pAUC, FMR 1e-3"
    assert write_csv(pauc.table).splitlines() == [
        "method,LFW ours,LFW published,LFW difference",
        "clib_fiqa,0.960,0.960,+0.000",
    ]
    assert write_csv(auc.table).splitlines()[1] == "clib_fiqa,0.600,0.640,-0.040"
    few, source = pauc.table.footnotes
    assert few == "adaface_r50: of 3,000 impostor pairs, 3 may match at FMR 1e-3: few to set a threshold"
    assert source == (
        "CLIB-FIQA, Table 3. Taken for the same: adaface_r50 as its AdaFace, trained on WebFace4M; benchmarks, as "
        "their manifests say: mine as LFW; methods: clib_fiqa as CLIB-FIQA"
    )
    report = render_markdown({"metrics": make_table("metrics", rows())}, Known(published={"mine": "LFW"}))
    assert "### adaface_r50 beside CLIB-FIQA, Table 3: AUC, FMR 1e-3" in report
    assert "| clib_fiqa | 0.600 | 0.640 | -0.040 |" in report


@pytest.mark.parametrize(
    ("metrics", "published"),
    [
        (rows(), {}),
        (rows(benchmarks=["LFW"]), {}),
        (rows(), {"other": "LFW"}),
        (rows(), {"mine": "IJB-C"}),
        (rows("glintr100"), {"mine": "LFW"}),
        (rows("fr_adaface"), {"mine": "LFW"}),
        (rows(protocol="cr_fiqa"), {"mine": "LFW"}),
        ([area("adaface", "clib", 0.5, 0.5, benchmark="mine", fmr=1e-3)], {"mine": "LFW"}),
        ([area("adaface", "CLIB-FIQA", 0.5, 0.5, benchmark="mine", fmr=1e-2)], {"mine": "LFW"}),
    ],
    ids=["stand-in", "its-name", "another", "no-such-column", "recogniser", "not-first", "protocol", "method", "rate"],
)
def test_what_is_another_thing_is_not_compared(metrics, published):
    assert compare(metrics, published) == []


def test_a_number_that_we_lack_is_no_difference():
    pauc, _ = compare(rows(status="no_errors", fnmr=0.0), {"mine": "LFW"})
    assert write_csv(pauc.table).splitlines()[1] == "clib_fiqa,,0.960,"
    assert pauc.table.empty is False
    assert any("makes no error" in note for note in pauc.table.footnotes)


def test_the_mean_is_compared_where_we_have_all_eight():
    own = {f"b{number}": name for number, name in enumerate(EIGHT)}
    pauc, *_ = compare(rows(benchmarks=own), own)
    assert write_csv(pauc.table).splitlines()[1].endswith("0.960,0.664,+0.296")
    seven = dict(list(own.items())[:7])
    pauc, *_ = compare(rows(benchmarks=seven), seven)
    assert "Avg." not in write_csv(pauc.table)


def test_the_rows_of_table_4_are_those_of_the_ablation():
    own = {f"b{number}": name for number, name in enumerate(EIGHT)}
    metrics = [
        area("adaface", name, 0.7, 0.5, benchmark=benchmark, fmr=fmr)
        for name in ("calibrated", "nqf")
        for benchmark in own
        for fmr in (1e-2, 1e-3)
    ]
    (found,) = compare(metrics, own)
    assert write_csv(found.table).splitlines() == [
        "method,FMR 1e-2 ours,FMR 1e-2 published,FMR 1e-2 difference,"
        "FMR 1e-3 ours,FMR 1e-3 published,FMR 1e-3 difference",
        "calibrated,0.700,0.668,+0.032,0.700,0.664,+0.036",
        "nqf,0.700,0.703,-0.003,0.700,0.705,-0.005",
    ]


def test_templates_are_compared_with_table_ii():
    tar = {"benchmark": "ijbc", "recogniser": "arcface", "genuine": 20_000, "impostors": 15_000_000, "status": "ok"}
    values = [tar | {"method": "mean", "far": far, "tar": 0.9} for far in (1e-4, 1e-5, 1e-6)]
    frames = read_frames({"templates": make_table("templates", values)})
    (found,) = compare_published(frames, {"ijbc": "IJB-C"})
    assert found.title == "arcface beside CR-FIQA, Table II: true accept rate in percent"
    assert write_csv(found.table).splitlines()[1] == "mean,90.00,89.85,+0.15,90.00,94.47,-4.47,90.00,96.28,-6.28"
    values[0] |= {"genuine": 200, "errors": 20, "status": "too_few_errors"}
    (few,) = compare_published(read_frames({"templates": make_table("templates", values)}), {"ijbc": "IJB-C"})
    assert write_csv(few.table) == write_csv(found.table)
    said = "of 200 genuine template pairs, 20 are not accepted at FAR 1e-4 by mean: too few to rank methods"
    assert any(said in note for note in few.table.footnotes)


def test_raw_areas_are_compared_at_each_rate_by_itself():
    metrics = [
        area("magface", name, 0.5, 0.5, benchmark="mine", fmr=fmr, protocol="cr_fiqa", auc_raw=0.05)
        for name in ("CR-FIQA(S)", "cr_fiqa_l", "cr_fiqa")
        for fmr in (1e-3, 1e-4)
    ]
    first, second = compare(metrics, {"mine": "Adience"})
    assert write_csv(first.table).splitlines()[1:] == [
        "CR-FIQA(S),0.0500,0.0244,+0.0256", "cr_fiqa_l,0.0500,0.0211,+0.0289",
    ]  # fmt: skip
    assert (second.rate, second.title) == ("1e-4", "magface beside CR-FIQA, Table I: raw AUC, FMR 1e-4")
