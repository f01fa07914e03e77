"""Paired tests in words: the leading method against every other one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipeline.evaluation.report.method_order import Kind, kind_of, order
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

SIGNIFICANCE = 0.05
"""A p-value under this is called a difference."""

AREA_NAMES = {"pauc": "pAUC", "auc": "AUC"}
_POINT = ("benchmark", "recogniser", "fmr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One paired test.

    Attributes:
        benchmark: its name.
        recogniser: whose errors are counted.
        fmr: false match rate.
        area: `pauc` or `auc`.
        method: the leading method.
        other: the one it is compared with.
        difference: area of `method` less that of `other`.
        low: lower end of its interval.
        high: upper end.
        p_value: two-sided.
    """

    benchmark: str
    recogniser: str
    fmr: float
    area: str
    method: str
    other: str
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> str:
        """The outcome of the test in words."""
        if self.p_value >= SIGNIFICANCE:
            return f"{self.method} and {self.other} cannot be told apart"
        return f"{self.method} is {'better' if self.difference < 0 else 'worse'} than {self.other}"

    @property
    def evidence(self) -> str:
        """The numbers behind the verdict; the interval has the direction of the words."""
        if self.difference < 0:
            way, low, high = "lower", -self.high, -self.low
        else:
            way, low, high = "higher", self.low, self.high
        name = AREA_NAMES[self.area]
        return f"{name} {way} by {abs(self.difference):.3f} {show_interval(low, high)}, {show_p(self.p_value)}"


def show_p(p_value: float) -> str:
    """A p-value with three decimals."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def show_interval(low: float, high: float) -> str:
    """An interval with three decimals."""
    return f"[{low:.3f}, {high:.3f}]"


def group_verdicts(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Verdict and evidence of each test; tests with the same verdict stand together."""
    evidence: dict[str, list[str]] = {}
    for finding in findings:
        evidence.setdefault(finding.verdict, []).append(finding.evidence)
    return [(verdict, "; ".join(texts)) for verdict, texts in evidence.items()]


def list_findings(comparisons: pl.DataFrame, metrics: pl.DataFrame) -> list[Finding]:
    """The tests of the leading method of every benchmark: the first method, or the first baseline without one.

    Tests of areas that the report does not show are left out, and so are those without a p-value, for want of bootstrap
    draws or of errors; `floor` is not tested.

    Args:
        comparisons: the table; each pair of methods once, in either order.
        metrics: the table.
    """
    shown = metrics.filter(protocol=Protocol.FIXED.value, status="ok")
    rows = comparisons.filter(pl.col("difference").is_finite(), pl.col("p_value").is_finite()).join(
        shown, on=_POINT, how="semi", maintain_order="left"
    )
    findings: list[Finding] = []
    for _, own in rows.group_by("benchmark", maintain_order=True):
        pairs = [pair for pair in own["method", "other"].rows() if Kind.FLOOR not in map(kind_of, pair)]
        methods = order(name for pair in pairs for name in pair)
        turned = pl.concat([own.filter(method=methods[0]), _turn(own.filter(other=methods[0]))]) if methods else own
        tests = [Finding(**row) for row in turned.iter_rows(named=True) if row["other"] in methods]
        findings += sorted(tests, key=lambda finding: methods.index(finding.other))
    return findings


def _turn(rows: pl.DataFrame) -> pl.DataFrame:
    """The same tests with both methods exchanged."""
    return rows.with_columns(
        method="other", other="method", difference=-pl.col("difference"), low=-pl.col("high"), high=-pl.col("low")
    )
