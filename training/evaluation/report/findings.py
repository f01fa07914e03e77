"""Paired tests in words: the leading method against every other one."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from training.evaluation.error_reject import Protocol
from training.evaluation.report.lineup import Kind, kind_of, order

if TYPE_CHECKING:
    from collections.abc import Iterable

    Record = dict[str, Any]

SIGNIFICANCE = 0.05
"""A p-value under this is called a difference."""

AREA_NAMES = {"pauc": "pAUC", "auc": "AUC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One paired test.

    Attributes:
        benchmark: its name.
        recogniser: whose errors are counted.
        fmr: false match rate.
        area: `pauc` or `auc`.
        method: the one that leads the tests.
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
    def differs(self) -> bool:
        """Whether the methods can be told apart."""
        return self.p_value < SIGNIFICANCE

    @property
    def verdict(self) -> str:
        """The method's standing, in words."""
        if not self.differs:
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


def list_findings(comparisons: Iterable[Record], metrics: Iterable[Record]) -> list[Finding]:
    """The tests of the leading method of every benchmark: the first that is judged, or the first baseline.

    Tests whose areas are left out of the tables are left out too, and the bound is not tested.

    Args:
        comparisons: rows of `comparisons`, a pair of methods once, in either order.
        metrics: rows of `metrics`.
    """
    shown = {
        (row["benchmark"], row["recogniser"], row["fmr"])
        for row in metrics
        if row["protocol"] == Protocol.FIXED and row["status"] == "ok"
    }
    rows = [
        row
        for row in comparisons
        if (row["benchmark"], row["recogniser"], row["fmr"]) in shown
        and Kind.FLOOR not in {kind_of(row["method"]), kind_of(row["other"])}
        and isfinite(row["difference"])
    ]
    findings = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == benchmark]
        methods = order(name for row in own for name in (row["method"], row["other"]))
        turned = [_turn(row, methods[0]) for row in own if methods[0] in {row["method"], row["other"]}]
        findings += sorted(turned, key=lambda finding: methods.index(finding.other))
    return findings


def _turn(row: Record, method: str) -> Finding:
    """The test as one of `method` against the other."""
    fields = {name: row[name] for name in Finding.__dataclass_fields__}
    if row["method"] != method:
        fields |= {
            "method": method, "other": row["method"],
            "difference": -row["difference"], "low": -row["high"], "high": -row["low"],
        }  # fmt: skip
    return Finding(**fields)
