"""What a page shows of every benchmark, and the overview of all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from training.evaluation.error_reject import Protocol
from training.evaluation.report.gallery import prepare
from training.evaluation.report.lineup import list_benchmarks, list_methods, order
from training.evaluation.report.metric_sheets import build_metric_sheet, explain, list_choices
from training.evaluation.report.other_sheets import build_correlation_sheet, build_template_sheet, show_accuracy
from training.evaluation.report.panels import Panels
from training.evaluation.report.plots import draw_distribution
from training.evaluation.report.sheet import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from training.evaluation.report.gallery import Face
    from training.evaluation.report.metric_sheets import Choice
    from training.evaluation.report.panels import Panel
    from training.evaluation.report.plots import Style
    from training.evaluation.report.sheet import Sheet
    from training.pages.pictures import Picture

    Record = dict[str, Any]
    Ranked = Mapping[str, tuple[Sequence[Face], Sequence[Face]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The scores of one method: their histogram as SVG, nothing where there are none, and their range in words."""

    method: str
    figure: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The faces that one method rejects first and last."""

    method: str
    first: tuple[Picture, ...]
    last: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page shows of one benchmark.

    Attributes:
        name: of the benchmark.
        anchor: unique in the page.
        panels: one a recogniser and choice.
        joint: areas of all recognisers side by side; none where there is one recogniser.
        templates: true accept rates.
        distributions: of the scores.
        correlations: of the scores with measures.
        gallery: faces by method.
    """

    name: str
    anchor: str
    panels: tuple[Panel, ...]
    joint: tuple[tuple[Choice, Sheet], ...]
    templates: Sheet | None
    distributions: tuple[Distribution, ...]
    correlations: Sheet | None
    gallery: tuple[Ends, ...]

    def shorten(self, faces: int, *, figures: bool) -> Section:
        """The section with fewer pictures."""
        if figures:
            panels, distributions = self.panels, self.distributions
        else:
            panels = tuple(replace(panel, figure="") for panel in self.panels)
            distributions = tuple(replace(scores, figure="") for scores in self.distributions)
        ends = tuple(replace(ends, first=ends.first[:faces], last=ends.last[:faces]) for ends in self.gallery)
        return replace(self, gallery=ends if faces else (), panels=panels, distributions=distributions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the overview: a recogniser with numbers as text."""

    recogniser: str
    texts: tuple[str, ...]


def build_sections(
    tables: Mapping[str, pa.Table], gallery: Mapping[str, Ranked], styles: Mapping[str, Style]
) -> Iterator[Section]:
    """The sections of a page.

    Args:
        tables: those of an evaluation.
        gallery: benchmark -> method -> faces rejected first and last.
        styles: of the methods, in order.
    """
    panels = Panels.read(tables, styles)
    choices = list_choices(panels.metrics)
    records = {name: tables[name].to_pylist() for name in ("templates", "correlations") if name in tables}
    scores = _read_qualities(tables)
    for number, name in enumerate(list_benchmarks(tables)):
        metrics = [row for row in panels.metrics if row["benchmark"] == name]
        several = len({row["recogniser"] for row in metrics}) > 1
        sheets = [(choice, build_metric_sheet(metrics, choice)) for choice in choices if several]
        own = {table: [row for row in rows if row["benchmark"] == name] for table, rows in records.items()}
        yield Section(
            name=name,
            anchor=f"benchmark-{number}",
            panels=tuple(panels.build(name, choices, f"p{number}")),
            joint=tuple((choice, sheet) for choice, sheet in sheets if not sheet.empty),
            templates=build_template_sheet(own["templates"]) if own.get("templates") else None,
            distributions=tuple(_describe(scores.get(name, {}), styles, f"d{number}")),
            correlations=build_correlation_sheet(own["correlations"]) if own.get("correlations") else None,
            gallery=tuple(_prepare(gallery.get(name, {}))),
        )


def build_overview(tables: Mapping[str, pa.Table], left_out: Mapping[str, Mapping[str, int]]) -> dict[str, list[Line]]:
    """Benchmark -> one line a recogniser: pairs, left out, accuracy, and errors without rejection at FMRs.

    Args:
        tables: those of an evaluation.
        left_out: benchmark -> recogniser -> what has no embedding.
    """
    metrics = tables["metrics"].to_pylist() if "metrics" in tables else []
    accuracies = tables["accuracy"].to_pylist() if "accuracy" in tables else []
    accuracy = {(row["benchmark"], row["recogniser"]): row for row in accuracies}
    rates = list_rates(metrics)
    found = {(row["benchmark"], row["recogniser"], row["fmr"]): row for row in metrics if _is_fixed(row)}
    lines: dict[str, list[Line]] = {}
    for which in dict.fromkeys([(row["benchmark"], row["recogniser"]) for row in (*metrics, *accuracies)]):
        row = next((row for row in metrics if (row["benchmark"], row["recogniser"]) == which), None)
        pairs = [f"{row['genuine']:,}", f"{row['impostors']:,}"] if row else [ABSENT, ABSENT]
        missing = left_out.get(which[0], {}).get(which[1])
        errors = [_show_error(found.get((*which, rate))) for rate in rates]
        texts = (*pairs, ABSENT if missing is None else f"{missing:,}", show_accuracy(accuracy.get(which)), *errors)
        lines.setdefault(which[0], []).append(Line(recogniser=which[1], texts=texts))
    return lines


def list_rates(metrics: Sequence[Record]) -> list[float]:
    """The false match rates of protocol `fixed`."""
    return [choice.fmr for choice in list_choices(row for row in metrics if _is_fixed(row))]


def list_left_out(
    tables: Mapping[str, pa.Table], left_out: Mapping[str, Mapping[str, int]]
) -> dict[str, tuple[str, ...]]:
    """Benchmark -> what is left out of it, and why."""
    texts: dict[str, list[str]] = {}
    for benchmark, counts in left_out.items():
        texts[benchmark] = [
            f"{recogniser}: {count:,} without an embedding" for recogniser, count in counts.items() if count
        ]
    for row in tables["metrics"].to_pylist() if "metrics" in tables else []:
        texts.setdefault(row["benchmark"], []).append(explain(row))
        if row["unscored"]:
            texts[row["benchmark"]].append(
                f"{row['method']}: images without a quality, which are rejected first: {row['unscored']:,}"
            )
    reasons = {name: tuple(dict.fromkeys(text for text in found if text)) for name, found in texts.items()}
    return {name: found for name, found in reasons.items() if found}


def _is_fixed(row: Record) -> bool:
    return bool(row["protocol"] == Protocol.FIXED)


def _show_error(row: Record | None) -> str:
    """A false non-match rate, where its threshold is sure."""
    return ABSENT if row is None or row["status"] == "too_few_impostors" else f"{row['fnmr']:.4f}"


def _prepare(ranked: Ranked) -> Iterator[Ends]:
    """The faces in the order of methods."""
    for method in order(ranked):
        first, last = (tuple(prepare(face) for face in faces) for faces in ranked[method])
        yield Ends(method=method, first=first, last=last)


def _read_qualities(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, pl.Series]]:
    """Benchmark -> method -> qualities, null where there is none; methods in order."""
    if "qualities" not in tables:
        return {}
    groups = pl.DataFrame(pl.from_arrow(tables["qualities"])).partition_by(
        ["benchmark", "method"], as_dict=True, include_key=False
    )
    places = {method: place for place, method in enumerate(list_methods(tables))}
    scores: dict[str, dict[str, pl.Series]] = {}
    for (benchmark, method), rows in sorted(groups.items(), key=lambda group: places[str(group[0][1])]):
        scores.setdefault(str(benchmark), {})[str(method)] = rows["quality"]
    return scores


def _describe(scores: Mapping[str, pl.Series], styles: Mapping[str, Style], name: str) -> Iterator[Distribution]:
    """Histograms of the scores with their range in words."""
    for number, (method, values) in enumerate(scores.items()):
        known = values.filter(values.is_finite()).to_numpy()
        missing = len(values) - len(known)
        gap = f"none for {missing:,} of {len(values):,} images" if missing else ""
        if not len(known):
            yield Distribution(method=method, figure="", text=gap)
            continue
        low, middle, high = np.quantile(known, [0, 0.5, 1]).tolist()
        yield Distribution(
            method=method,
            figure=draw_distribution(known, styles[method], f"{name}-{number}"),
            text=f"{low:.3g} to {high:.3g}, median {middle:.3g}" + (f"; {gap}" if gap else ""),
        )
