"""The panels of a page: for every benchmark, recogniser and choice the curves, their areas and the tests."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from training.evaluation.error_reject import Protocol
from training.evaluation.report.findings import list_findings
from training.evaluation.report.lineup import kind_of, list_methods
from training.evaluation.report.metric_sheets import build_metric_sheet
from training.evaluation.report.plots import draw_curves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from training.evaluation.pairs.ranked_pairs import Curve
    from training.evaluation.report.findings import Finding
    from training.evaluation.report.metric_sheets import Choice
    from training.evaluation.report.plots import Style
    from training.evaluation.report.sheet import Sheet

    Record = dict[str, Any]
    Curves = dict[tuple[Any, ...], dict[str, Curve]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What the page shows of one benchmark for one recogniser and choice.

    Attributes:
        recogniser: its name.
        choice: protocol and false match rate.
        sheet: areas of the methods, with intervals; without rows where the recogniser was not evaluated.
        figure: the curves as SVG; nothing where all areas are left out.
        leading: the method whose areas are shaded, that of the smallest pAUC.
        findings: paired tests.
    """

    recogniser: str
    choice: Choice
    sheet: Sheet
    figure: str
    leading: str | None
    findings: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """For the panel's heading."""
        return f"{self.recogniser}, {self.choice.title}"

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """The tests in words: what they say, and the numbers; those that say the same stand together."""
        evidence: dict[str, list[str]] = {}
        for found in self.findings:
            evidence.setdefault(found.verdict, []).append(found.evidence)
        return [(verdict, "; ".join(texts)) for verdict, texts in evidence.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """Builds panels.

    Attributes:
        metrics: rows of the table.
        curves: (benchmark, recogniser, protocol, fmr) -> method -> curve.
        findings: all paired tests.
        styles: of the methods.
    """

    metrics: Sequence[Record]
    curves: Curves
    findings: Sequence[Finding]
    styles: Mapping[str, Style]

    @classmethod
    def read(cls, tables: Mapping[str, pa.Table], styles: Mapping[str, Style]) -> Self:
        """Take what is needed out of the tables of an evaluation."""
        metrics = tables["metrics"].to_pylist() if "metrics" in tables else []
        comparisons = tables["comparisons"].to_pylist() if "comparisons" in tables else []
        return cls(
            metrics=metrics, curves=_read_curves(tables), findings=list_findings(comparisons, metrics), styles=styles
        )

    def build(self, benchmark: str, choices: Sequence[Choice], name: str) -> Iterator[Panel]:
        """The panels of a benchmark: every recogniser of the evaluation with every choice.

        Args:
            benchmark: its name.
            choices: those of the evaluation.
            name: unique in the page.
        """
        for recogniser in dict.fromkeys(row["recogniser"] for row in self.metrics):
            for choice in choices:
                yield self._build(benchmark, recogniser, choice, f"{name}-{recogniser.encode().hex()}")

    def _build(self, benchmark: str, recogniser: str, choice: Choice, name: str) -> Panel:
        """One panel."""
        rows = [
            row for row in self.metrics
            if (row["benchmark"], row["recogniser"], row["protocol"], row["fmr"])
            == (benchmark, recogniser, choice.protocol, choice.fmr)
        ]  # fmt: skip
        sheet = build_metric_sheet(rows, choice)
        curves = {} if sheet.empty else self.curves.get((benchmark, recogniser, choice.protocol, choice.fmr), {})
        leading = _find_leading(rows, curves)
        name = f"{name}-{choice.protocol}-{choice.fmr:g}"
        return Panel(
            recogniser=recogniser,
            choice=choice,
            sheet=sheet,
            figure=draw_curves(curves, self.styles, leading, name) if curves else "",
            leading=leading,
            findings=tuple(
                found for found in self.findings
                if (Protocol.FIXED, found.benchmark, found.recogniser, found.fmr)
                == (choice.protocol, benchmark, recogniser, choice.fmr)
            ),
        )  # fmt: skip


def _find_leading(rows: Sequence[Record], curves: Mapping[str, Curve]) -> str | None:
    """The method of the smallest pAUC; chance and the bound do not compete."""
    areas = {
        row["method"]: row["pauc"]
        for row in rows
        if row["method"] in curves and kind_of(row["method"]).competes and isfinite(row["pauc"])
    }
    return min(areas, key=areas.__getitem__, default=None)


def _read_curves(tables: Mapping[str, pa.Table]) -> Curves:
    """All curves, methods in the order of the evaluation."""
    if "curves" not in tables:
        return {}
    groups = pl.DataFrame(pl.from_arrow(tables["curves"])).partition_by(
        ["benchmark", "recogniser", "protocol", "fmr", "method"], as_dict=True, include_key=False
    )
    places = {method: place for place, method in enumerate(list_methods(tables))}
    curves: Curves = {}
    for (*which, method), points in sorted(groups.items(), key=lambda group: places[str(group[0][-1])]):
        curve = points["rejection"].to_numpy(), points["fnmr"].to_numpy()
        curves.setdefault(tuple(which), {})[str(method)] = curve
    return curves
