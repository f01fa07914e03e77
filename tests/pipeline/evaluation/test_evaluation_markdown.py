import math
from itertools import combinations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manifests.tables.evaluation import EVALUATION_TABLES
from pipeline.evaluation.report.findings import build_matrices
from pipeline.evaluation.report.frames import ReportError, read_frames, show_rate
from pipeline.evaluation.report.markdown import escape, render_markdown
from pipeline.evaluation.report.method_order import Kind, explain, kind_of, order
from pipeline.evaluation.report.paper_tables import list_paper_tables, write_csv, write_latex
from pipeline.evaluation.report.side_by_side import Known
from pipeline.evaluation.report.tables import Mark, rank_column

NAN = math.nan


def make_table(name, rows):
    return pa.Table.from_pylist(rows, schema=EVALUATION_TABLES[name].schema())


def area(recogniser, method, pauc, auc, **others):
    """A row of `metrics`; the interval is 0.05 to both sides."""
    row = {
        "benchmark": "lfw", "recogniser": recogniser, "method": method, "protocol": "fixed", "fmr": 1e-2,
        "threshold": 0.3, "genuine": 3000, "impostors": 3000, "unscored": 0, "fnmr": 0.1, "errors": 300,
        "draws": 1000, "drawn": "pairs", "pauc_raw": 0.03 * pauc,
        "auc_raw": 0.095 * auc, "pauc": pauc, "auc": auc, "pauc_low": pauc - 0.05, "pauc_high": pauc + 0.05,
        "auc_low": auc - 0.05, "auc_high": auc + 0.05, "status": "ok",
    }  # fmt: skip
    return row | others


def difference(method, other, value, p_value, **others):
    row = {"benchmark": "lfw", "recogniser": "r50", "fmr": 1e-2, "area": "pauc", "method": method, "other": other}
    return row | {"difference": value, "low": value - 0.02, "high": value + 0.01, "p_value": p_value} | others


METRICS = [
    area("r50", "norm", 0.7001, 0.5),
    area("r50", "random", 0.1, 0.1),
    area("r50", "clib", 0.6, 0.4),
    area("r50", "b|ad", 0.7004, 0.4, unscored=12),
    area("r50", "floor", 0.05, 0.05),
    area("mbf", "norm", NAN, NAN, status="no_errors", fnmr=0.0, errors=0),
    area("mbf", "random", NAN, NAN, status="no_errors", fnmr=0.0, errors=0),
    area("mbf", "clib", NAN, NAN, status="no_errors", fnmr=0.0, errors=0),
    area("mbf", "b|ad", NAN, NAN, status="no_errors", fnmr=0.0, errors=0),
]
RARE = [area("r50", name, 0.6, 0.4, fmr=1e-3, status="too_few_impostors") for name in ("clib", "norm")]
RELEASED = [
    area(
        "r50",
        name,
        value,
        value,
        protocol="cr_fiqa",
        pauc_low=None,
        pauc_high=None,
        auc_low=None,
        auc_high=None,
        draws=0,
        drawn=None,
    )
    for name, value in (("clib", 0.5), ("norm", 0.6), ("random", 0.9))
]
GOLDEN = """\
## lfw

### FMR 1e-2

Without rejection: r50, 300 of 3,000 genuine pairs are wrong; mbf, 0 of 3,000 genuine pairs are wrong.

| method | r50 pAUC ↓ | r50 AUC ↓ | mbf pAUC ↓ | mbf AUC ↓ |
| --- | ---: | ---: | ---: | ---: |
| clib | **0.600** | **0.400** | -¹ | -¹ |
| b\\|ad² | *0.700* | **0.400** | -¹ | -¹ |
|  |  |  |  |  |
| norm | *0.700* | *0.500* | -¹ | -¹ |
| random | 0.100 | 0.100 | -¹ | -¹ |
|  |  |  |  |  |
| floor | 0.050 | 0.050 | -³ | -³ |

¹ mbf makes no error on 3,000 genuine pairs at FMR 1e-2: there is nothing to reject

² images without a quality, which are rejected first: 12 (r50)

³ mbf: not judged

95 % bootstrap intervals (BCa, 1,000 draws of pairs):

| method | r50 pAUC ↓ | r50 AUC ↓ | mbf pAUC ↓ | mbf AUC ↓ |
| --- | ---: | ---: | ---: | ---: |
| clib | [0.550, 0.650] | [0.350, 0.450] |  |  |
| b\\|ad | [0.650, 0.750] | [0.350, 0.450] |  |  |
|  |  |  |  |  |
| norm | [0.650, 0.750] | [0.450, 0.550] |  |  |
| random | [0.050, 0.150] | [0.050, 0.150] |  |  |
|  |  |  |  |  |
| floor | [0.000, 0.100] | [0.000, 0.100] |  |  |

### FMR 1e-3

Without rejection: r50, 300 of 3,000 genuine pairs are wrong.

Left out:

- r50: of 3,000 impostor pairs, 3 may match at FMR 1e-3: too few to set a threshold

### FMR 1e-2, protocol `cr_fiqa`

Without rejection: r50, 300 of 3,000 genuine pairs are wrong.

| method (r50) | pAUC ↓ | AUC ↓ | raw AUC ↓ |
| --- | ---: | ---: | ---: |
| clib | **0.500** | **0.500** | **0.0475** |
|  |  |  |  |
| norm | *0.600* | *0.600* | *0.0570* |
| random | 0.900 | 0.900 | 0.0855 |

### Templates: true accept rate in percent

| method (r50) | FAR 1e-6 | FAR 1e-4¹ |
| --- | ---: | ---: |
| uniform | -² | *95.12* |
| clib | -² | **96.30** |

¹ r50: of 15,000 impostor template pairs, 1.5 may be accepted at FAR 1e-4: few to set a threshold

² r50: of 15,000 impostor template pairs, 0.015 may be accepted at FAR 1e-6: too few to set a threshold

### Every method against every other

Area of the row less that of the column on the same bootstrap draws, under 0 where the row is better; p is two-sided, of
each test by itself. **Bold** are those of which one in twenty at most is expected to be chance (Benjamini-Hochberg over
the table).

pAUC, r50, FMR 1e-2:

| less → | clib | b\\|ad | norm |
| --- | ---: | ---: | ---: |
| clib | - | **-0.100** p \\< 0.001 | **-0.100** p = 0.002 |
| b\\|ad | **+0.100** p \\< 0.001 | - | +0.001 p = 0.900 |
|  |  |  |  |
| norm | **+0.100** p = 0.002 | -0.001 p = 0.900 | - |

### Rank correlation with measures

| method | cpbd | yaw |
| --- | ---: | ---: |
| clib | +0.12 | - |
|  |  |  |
| norm | +0.00 | -0.50 |

## Side by side

### r50, lfw

| method | FMR 1e-2 pAUC ↓ | FMR 1e-2 AUC ↓ | FMR 1e-3 pAUC ↓ | FMR 1e-3 AUC ↓ | Avg. pAUC ↓¹ | Avg. AUC ↓¹ |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| clib | **0.600** | **0.400** | -² | -² | **0.600** | **0.400** |
| b\\|ad⁴ | *0.700* | **0.400** | -³ | -³ | *0.700* | **0.400** |
|  |  |  |  |  |  |  |
| norm | *0.700* | *0.500* | -² | -² | *0.700* | *0.500* |
| random | 0.100 | 0.100 | -³ | -³ | 0.100 | 0.100 |
|  |  |  |  |  |  |  |
| floor | 0.050 | 0.050 | -³ | -³ | 0.050 | 0.050 |

¹ over 1 of 2, without FMR 1e-3

² r50: of 3,000 impostor pairs, 3 may match at FMR 1e-3: too few to set a threshold

³ FMR 1e-3: not judged

⁴ images without a quality, which are rejected first: 12 (FMR 1e-2)

## Verification accuracy in percent, ± standard deviation over the folds

| benchmark | r50 |
| --- | ---: |
| lfw | 99.50 ± 0.30 |
"""


@pytest.fixture(scope="module")
def hand_made():
    tar = {"benchmark": "lfw", "recogniser": "r50", "genuine": 20_000, "impostors": 15_000, "errors": 976}
    few = {"status": "too_few_impostors"}
    return {
        "metrics": make_table("metrics", METRICS + RARE + RELEASED),
        "comparisons": make_table("comparisons", [
            difference("norm", "clib", 0.1, 0.002),
            difference("norm", "b|ad", -0.001, 0.9),
            difference("clib", "b|ad", -0.1, 0.0002),
            difference("clib", "floor", 0.5, 0.0),
            difference("clib", "norm", -0.2, 0.0, fmr=1e-3),
        ]),
        "templates": make_table("templates", [
            tar | {"method": "uniform", "far": 1e-4, "tar": 0.9512, "status": "ok"},
            tar | {"method": "clib", "far": 1e-4, "tar": 0.963, "status": "ok"},
            tar | {"method": "uniform", "far": 1e-6, "tar": 0.9} | few,
            tar | {"method": "clib", "far": 1e-6, "tar": 0.8} | few,
        ]),
        "correlations": make_table("correlations", [
            {"benchmark": "lfw", "method": method, "measure": measure, "spearman": value, "images": 10}
            for method, measure, value in (
                ("norm", "cpbd", -0.001), ("clib", "cpbd", 0.123), ("norm", "yaw", -0.5), ("clib", "yaw", NAN),
            )
        ]),
        "accuracy": make_table("accuracy", [
            {"benchmark": "lfw", "recogniser": "r50", "accuracy": 0.995, "std": 0.003, "threshold": 1.4},
        ]),
    }  # fmt: skip


def test_the_tables_of_a_hand_made_evaluation_are_laid_out_like_the_papers(hand_made):
    found = render_markdown(hand_made)
    assert found[found.index("## lfw") :] == GOLDEN
    assert "Protocol `cr_fiqa` rejects genuine and impostor pairs together" in found[: found.index("## lfw")]


def test_means_over_benchmarks_count_only_what_is_shown_of_each():
    rows = [
        area("r50", "clib", 0.6, 0.4),
        area("r50", "norm", 0.8, 0.6),
        area("r50", "clib", 0.7, 0.5, benchmark="cfp"),
        area("r50", "norm", 1.0, 0.7, benchmark="cfp"),
        area("r50", "half", 0.1, 0.1, benchmark="cfp"),
        area("r50", "clib", 0.0, 0.0, benchmark="few", status="too_few_impostors"),
    ]
    found = render_markdown({"metrics": make_table("metrics", rows)})
    section = found[found.index("## Side by side") :]
    assert (
        "| method | lfw pAUC ↓ | lfw AUC ↓ | cfp pAUC ↓ | cfp AUC ↓ | few pAUC ↓ | few AUC ↓ | Avg. pAUC ↓¹ |"
        in section
    )
    assert "| clib | **0.600** | **0.400** | *0.700* | *0.500* | -² | -² | **0.650** | **0.450** |" in section
    assert "| *0.900* | *0.650* |" in section
    assert "| half | -³ | -³ | **0.100** | **0.100** | -⁴ | -⁴ | - | - |" in section
    assert "¹ over 2 of 3, without few" in section


def test_what_rests_on_few_impostor_pairs_is_shown_and_marked():
    rows = [area("r50", name, pauc, 0.4, fmr=1e-3, benchmark=b) for name, pauc in (("clib", 0.6), ("norm", 0.7))
            for b in ("lfw", "cfp")]  # fmt: skip
    found = render_markdown({"metrics": make_table("metrics", rows)})
    section = found[found.index("## lfw") : found.index("## cfp")]
    assert "| method (r50) | pAUC ↓¹ | AUC ↓¹ |" in section
    assert "| clib | **0.600** | **0.400** |" in section
    assert "¹ r50: of 3,000 impostor pairs, 3 may match at FMR 1e-3: few to set a threshold" in section
    assert "| clib | **0.600** | **0.400** | **0.600** | **0.400** | **0.600** | **0.400** |" in found


def test_one_benchmark_has_no_mean():
    assert "Avg." not in render_markdown({"metrics": make_table("metrics", METRICS)})


def test_tables_that_are_absent_are_passed_over():
    assert render_markdown({}).startswith("# Evaluation")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 0.5004, "b": 0.4996, "c": 0.6}, {"a": Mark.BEST, "b": Mark.BEST, "c": Mark.SECOND}),
        ({"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.3}, {"a": Mark.BEST, "b": Mark.SECOND, "c": Mark.SECOND}),
        ({"a": 0.1, "b": NAN, "c": 0.2}, {"a": Mark.BEST, "c": Mark.SECOND}),
        ({"a": 0.1, "b": NAN}, {}),
        ({"a": 0.1, "b": 0.1}, {"a": Mark.BEST, "b": Mark.BEST}),
    ],
)
def test_numbers_that_are_shown_alike_are_marked_alike(values, expected):
    assert rank_column(values, 3) == expected


def test_where_larger_is_better_the_largest_is_the_best():
    assert rank_column({"a": 1.0, "b": 2.0}, 1, larger=True) == {"b": Mark.BEST, "a": Mark.SECOND}


def test_a_baseline_stays_one_under_the_name_of_its_recogniser():
    assert [kind_of(name) for name in ("norm (fr_feature)", "ours (2)", "norms")] == [
        Kind.BASELINE,
        Kind.METHOD,
        Kind.METHOD,
    ]


def test_chance_and_the_bound_stand_last():
    assert order(["floor", "norm", "random", "z", "a", "z"]) == ("z", "a", "norm", "random", "floor")
    assert [kind_of(name).competes for name in ("z", "cpbd", "random", "floor")] == [True, True, False, False]
    assert order(["random", "ccs", "norm (r50)"]) == ("norm (r50)", "ccs", "random")
    assert kind_of("certainty_ratio") is Kind.REFERENCE
    assert not kind_of("nnccs (mine)").competes


@pytest.mark.parametrize(
    ("rate", "text"), [(1e-2, "1e-2"), (1e-4, "1e-4"), (5e-3, "5e-3"), (2.5e-4, "2.5e-4"), (0.1, "1e-1"), (1.0, "1e0")]
)
def test_rates_are_written_as_in_the_papers(rate, text):
    assert show_rate(rate) == text


def read_matrices(*comparisons):
    tables = {"comparisons": comparisons, "metrics": [area("r50", "clib", 0.6, 0.4)]}
    frames = read_frames({name: make_table(name, rows) for name, rows in tables.items()})
    return build_matrices(frames["comparisons"], frames["metrics"])


def test_every_method_is_tested_against_every_other_from_its_own_side():
    found = read_matrices(
        difference("norm", "clib", 0.1, 0.02), difference("clib", "other", -0.03, 0.01),
        difference("other", "norm", -0.07, 0.5), difference("clib", "floor", 0.5, 0.0),
        difference("norm", "clib", 0.2, 0.0004, area="auc"),
    )  # fmt: skip
    assert list(found) == ["pAUC", "AUC"]
    rows = {row.name: row.cells for row in found["pAUC"].rows}
    assert list(rows) == ["clib", "other", "norm"]
    assert [name for _, name in found["pAUC"].columns] == list(rows)
    assert [cell.text for cell in rows["clib"]] == ["-", "-0.030", "-0.100"]
    assert [cell.text for cell in rows["norm"]] == ["+0.100", "+0.070", "-"]
    assert [cell.interval for cell in rows["other"]] == ["p = 0.010", "", "p = 0.500"]
    # Three tests at once: 0.01 · 3 / 1 and 0.02 · 3 / 2 are under 0.05.
    assert [cell.mark is Mark.BEST for cell in (*rows["clib"], *rows["norm"])] == [0, 1, 1, 1, 0, 0]
    assert found["AUC"].rows[0].cells[1].interval == "p < 0.001"


def test_tests_that_are_made_together_are_corrected():
    (lone,) = read_matrices(difference("a", "b", 0.1, 0.04)).values()
    assert lone.rows[0].cells[1].mark is Mark.BEST
    (table,) = read_matrices(
        difference("a", "b", 0.1, 0.04), difference("a", "c", 0.1, 0.3), difference("b", "c", 0.1, 0.6)
    ).values()  # 0.04 · 3 / 1 is over 0.05
    assert {cell.mark for row in table.rows for cell in row.cells} == {Mark.PLAIN}


def test_a_thousand_draws_are_enough_for_a_table_of_ten_methods():
    names = [f"m{place}" for place in range(10)]
    rows = [difference(one, other, -0.5, 2 / 1001) for one, other in combinations(names, 2)]
    (table,) = read_matrices(*rows).values()
    assert sum(cell.mark is Mark.BEST for row in table.rows for cell in row.cells) == 90


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("norm", "length of the recogniser's embedding"),
        ("norm (cr_fiqa)", "length of the recogniser's embedding; in brackets the recogniser"),
        (
            "ccs (mine)",
            "similarity to the person's class centre; in brackets the recogniser or what the command calls it",
        ),
        ("norm2 (cr_fiqa)", ""),
    ],
)
def test_a_baseline_is_explained_under_the_name_of_its_recogniser(method, said):
    assert explain(method) == said


def test_a_difference_without_a_p_value_is_no_test():
    untested = difference("clib", "norm", -0.031, 0.002) | dict.fromkeys(("low", "high", "p_value"), float("nan"))
    assert read_matrices(untested) == {}
    assert read_matrices(untested | dict.fromkeys(("low", "high", "p_value"))) == {}


def test_of_too_few_errors_numbers_are_shown_and_not_ranked():
    few = {"status": "too_few_errors", "errors": 1, "genuine": 747, "fnmr": 1 / 747, "pauc_low": None,
           "pauc_high": None, "auc_low": None, "auc_high": None}  # fmt: skip
    rows = [area("r50", name, pauc, 0.4, benchmark=b, **(few if b == "lfw" else {}))
            for name, pauc in (("clib", 0.6), ("norm", 0.7)) for b in ("lfw", "cfp")]  # fmt: skip
    found = render_markdown({"metrics": make_table("metrics", rows)})
    section = found[found.index("## lfw") : found.index("## cfp")]
    assert "Without rejection: r50, 1 of 747 genuine pairs is wrong." in section
    assert "| clib | 0.600 | 0.400 |" in section
    assert "¹ r50: 1 of 747 genuine pairs is wrong at FMR 1e-2: too few to rank methods" in section
    assert "intervals" not in section
    # Beside it are ranks, but none of the mean.
    assert "| clib | 0.600 | 0.400 | **0.600** | **0.400** | 0.600 | 0.400 |" in found
    assert "² rests on lfw, with too few wrong pairs to rank methods" in found


def test_what_knows_the_people_is_shown_and_not_ranked():
    areas = {"clib": 0.6, "norm": 0.7, "ccs": 0.1, "certainty_ratio (mine)": 0.2}
    rows = [area("r50", name, pauc, 0.4) for name, pauc in areas.items()]
    found = render_markdown({"metrics": make_table("metrics", rows)})
    for line in (
        "| clib | **0.600** |",
        "| norm | *0.700* |",
        "| ccs¹ | 0.100 |",
        "| certainty_ratio (mine)¹ | 0.200 |",
    ):
        assert line in found
    assert "¹ knows who is on the images" in found


def test_warnings_stand_before_the_numbers():
    text = render_markdown({"metrics": make_table("metrics", METRICS)}, Known(warnings=("clib learned lfw",)))
    assert "- **Warning**: clib learned lfw" in text[: text.index("## lfw")]


@given(st.text(min_size=1, max_size=30))
def test_no_name_breaks_a_table(name):
    rows = [area("r50", name, 0.6, 0.4), area("r50", "other one", 0.7, 0.5)]
    text = render_markdown({"metrics": make_table("metrics", rows)})
    table = [line for line in text.split("\n") if line.startswith("|")]
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in table} == {4}
    assert "<" not in escape(name).replace("\\<", "")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"metric": pa.table({})}, "no evaluation has a table 'metric'"),
        ({"accuracy": pa.table({"benchmark": ["a"]})}, "evaluate again"),
        ({"metrics": make_table("metrics", [area(None, "clib", 0.6, 0.4)])}, "have no recogniser"),
    ],
)
def test_tables_of_something_else_are_refused(tables, message):
    with pytest.raises(ReportError, match=message):
        render_markdown(tables)


def test_a_printed_table_for_latex_and_as_csv():
    rows = [
        area("r50", name, pauc, 0.4, benchmark=benchmark)
        for name, pauc in (("ours_50%", 0.6), ("norm", 0.7))
        for benchmark in ("lfw", "cfp_fp")
    ]
    rows.append(area("r50", "late", 0.5, 0.5, benchmark="lfw"))
    metrics = read_frames({"metrics": make_table("metrics", rows)})["metrics"]
    (found,) = list_paper_tables(metrics)
    assert found.name == "r50-FMR-1e-2"
    assert write_csv(found.table).splitlines() == [
        "method,lfw pAUC ↓,lfw AUC ↓,cfp_fp pAUC ↓,cfp_fp AUC ↓,Avg. pAUC ↓,Avg. AUC ↓",
        "ours_50%,0.600,0.400,0.600,0.400,0.600,0.400",
        "late,0.500,0.500,,,,",
        "norm,0.700,0.400,0.700,0.400,0.700,0.400",
    ]
    lines = write_latex(found.table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrr}"
    assert lines[2] == r" & \multicolumn{2}{c}{lfw} & \multicolumn{2}{c}{cfp\_fp} & \multicolumn{2}{c}{Avg.} \\"
    assert r"ours\_50\% & \underline{0.600} & \textbf{0.400} & \textbf{0.600} & \textbf{0.400} & " in lines[5]
    assert r"late & \textbf{0.500} & \underline{0.500} & -$^{1}$ & -$^{1}$ & - & - \\" in lines
    assert lines[-1] == r"\par\footnotesize $^{1}$ cfp\_fp: not judged"
