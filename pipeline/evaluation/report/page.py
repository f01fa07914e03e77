"""An evaluation as one HTML page that needs nothing else: no network and no other file."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.evaluation.report.findings import build_matrices
from pipeline.evaluation.report.frames import (
    OperatingPoint,
    distinct,
    list_benchmarks,
    list_methods,
    list_points,
    read_frames,
    select_benchmark,
)
from pipeline.evaluation.report.method_order import explain, kind_of
from pipeline.evaluation.report.plots import assign_styles, draw_betas, draw_curves, draw_losses
from pipeline.evaluation.report.score_figures import draw_overlay, draw_scatters, read_scores
from pipeline.evaluation.report.side_by_side import Known, list_side_by_side
from pipeline.evaluation.report.tables import (
    ABSENT,
    SHOWN,
    build_area_table,
    build_correlation_table,
    build_template_table,
    count_errors,
    describe_intervals,
    explain_missing,
    show_accuracy,
)
from pipeline.pages.document import LIMIT, render_document
from pipeline.pages.figures import Distribution, draw_histogram
from pipeline.pages.people import A_ROW
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from pipeline.evaluation.report.gallery import Ends
    from pipeline.evaluation.report.plots import Style
    from pipeline.evaluation.report.tables import ReportTable
    from training.evaluation.pairs.ranked_pairs import Curve

    Frames = Mapping[str, pl.DataFrame]
    LeftOut = Mapping[str, Mapping[str, int]]
    Gallery = Mapping[str, Mapping[str, Ends]]

LOG = logging.getLogger(__name__)

_USUAL = OperatingPoint(protocol="fixed", fmr=1e-3)
"""What is shown first where it can be: CLIB-FIQA's Tables 1 to 3."""

TOTAL = "total"
"""The loss that a training learns from."""

_BARS = 40

_BETA = re.compile(r"beta-([1-9]\d{0,5}(?:\.\d+)?|0\.\d*[1-9]\d*)")
"""How `Ablation` calls a model of the sweep."""


class Size(NamedTuple):
    """How much a page shows.

    Attributes:
        faces: at each end.
        figures: whether there are any.
        every: whether there are curves of all operating points, and scatters, or curves of that alone which is shown
            first.
    """

    faces: int
    figures: bool = True
    every: bool = True


_SIZES = (
    Size(A_ROW), Size(8), Size(4), Size(4, every=False), Size(2, every=False), Size(0, every=False),
    Size(0, figures=False, every=False),
)  # fmt: skip
"""What is tried until a page is under the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInput:
    """What a page is made of.

    Attributes:
        tables: by name, as `data_manifests.tables.evaluation` has them; an absent table is passed over.
        gallery: benchmark -> method -> the faces rejected first, worst first, and last, best first.
        left_out: benchmark -> recogniser -> pairs of a list, or images of an identity set, without an embedding.
        notes: heading -> name -> text, such as fingerprints and versions.
        known: what is known beside the tables.
        title: of the page.
    """

    tables: Mapping[str, pa.Table]
    gallery: Gallery = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    title: str = "Evaluation of face image quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What the page shows of one benchmark for one recogniser and operating point.

    Attributes:
        recogniser: its name.
        point: protocol and false match rate.
        errors: how many genuine pairs are wrong; nothing where the recogniser was not evaluated.
        table: areas of the methods, with intervals; without rows where the recogniser was not evaluated.
        intervals: what they are.
        figure: the curves as SVG; nothing where all areas are left out.
        leading: the method whose areas are shaded, that of the smallest pAUC; none where methods are not ranked.
        alike: methods whose curves are the same, in words.
        matrices: area -> every method against every other one.
        betas: areas by beta as SVG; nothing where fewer than two models are called by theirs, as `Ablation` calls them.
    """

    recogniser: str
    point: OperatingPoint
    errors: str
    table: ReportTable
    intervals: str
    figure: str
    leading: str | None
    alike: list[str]
    matrices: Mapping[str, ReportTable]
    betas: str

    @property
    def title(self) -> str:
        """For the panel's heading."""
        return f"{self.recogniser}, {self.point.title}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page shows of one benchmark.

    Attributes:
        name: of the benchmark.
        anchor: unique in the page.
        panels: one a recogniser and operating point.
        joint: areas of all recognisers side by side; none where there is one recogniser.
        templates: true accept rates.
        distributions: of the scores.
        leading: the method that the scatters are of.
        overlay: the distributions on one scale, as SVG; nothing where fewer than two methods vary.
        overlaid: the methods in it.
        scatters: scores of the leading method against those of each other one.
        correlations: of the scores with measures.
        gallery: method -> faces rejected first and last.
    """

    name: str
    anchor: str
    panels: list[Panel]
    joint: list[tuple[OperatingPoint, ReportTable]]
    templates: ReportTable | None
    distributions: list[Distribution]
    leading: str
    overlay: str
    overlaid: tuple[str, ...]
    scatters: list[Distribution]
    correlations: ReportTable | None
    gallery: dict[str, Ends]


def render_page(evaluation: PageInput) -> str:
    """The page.

    It stays under `LIMIT`: where all pictures would be more, fewer faces are shown, then curves of the operating point
    alone that is shown first, then none, and the page says so. Numbers are never left out for that. Without its script
    the page shows all panels one after another.

    Raises:
        ReportError: if a table has other columns, or does not say which benchmark or recogniser a row is of.
    """
    content = _build_content(evaluation)
    has_faces = any(section.gallery for section in content["sections"])
    page = ""
    for size in dict.fromkeys(size if has_faces else size._replace(faces=0) for size in _SIZES):
        shown = {"faces_shown": size.faces, "figures": size.figures, "every": size.every, "has_faces": size.faces > 0}
        cuts = list(_describe_cuts(size, content["begin"], has_faces))
        page = render_document("pipeline.evaluation.report", {**content, **shown, "cuts": cuts})
        if len(page.encode()) <= LIMIT:
            return page
    LOG.warning(
        "the tables alone make a page of %s bytes, over the limit of %s", f"{len(page.encode()):,}", f"{LIMIT:,}"
    )
    return page


def _build_content(evaluation: PageInput) -> dict[str, Any]:
    """What the template needs, but for the size of the page."""
    frames = read_frames(evaluation.tables)
    metrics = frames["metrics"]
    points = list_points(metrics)
    styles = assign_styles(list_methods(frames))
    sections = list(_build_sections(frames, evaluation.gallery, styles))
    printed = list_side_by_side(frames, evaluation.known)
    tables = [table for table in printed if table.several and not table.table.empty]
    shown = {panel.point for section in sections for panel in section.panels if not panel.table.empty}
    return {
        "title": evaluation.title,
        "notes": evaluation.notes,
        "warnings": evaluation.known.warnings,
        "styles": styles,
        "meanings": {method: text for method in styles if (text := explain(method))},
        "sections": sections,
        "overview": _build_overview(frames, evaluation.left_out),
        "overview_rates": [point.rate for point in points if point.protocol == Protocol.FIXED],
        "left_out": _list_left_out(metrics, evaluation.left_out),
        "paper_tables": tables,
        "losses": _draw_losses(frames["losses"], styles),
        "recognisers": distinct(metrics, "recogniser"),
        "rates": list(dict.fromkeys(point.rate for point in points)),
        "protocols": list(dict.fromkeys(point.protocol for point in points)),
        "begin": next((point for point in (_USUAL, *points) if point in shown), next(iter(points), None)),
    }


def _build_sections(frames: Frames, gallery: Gallery, styles: Mapping[str, Style]) -> Iterator[Section]:
    """The sections of a page, one a benchmark."""
    points = list_points(frames["metrics"])
    for number, name in enumerate(list_benchmarks(frames.values())):
        own = select_benchmark(frames, name)
        several = own["metrics"]["recogniser"].n_unique() > 1
        joint = [(point, build_area_table(own["metrics"], point)) for point in points if several]
        faces = gallery.get(name, {})
        scores = read_scores(own["qualities"], styles)
        yield Section(
            name=name,
            anchor=f"benchmark-{number}",
            panels=[
                _build_panel(own, recogniser, point, styles)
                for recogniser in distinct(frames["metrics"], "recogniser")
                for point in points
            ],
            joint=[(point, table) for point, table in joint if not table.empty],
            templates=build_template_table(own["templates"]) if own["templates"].height else None,
            distributions=list(draw_distributions(own["qualities"], styles, f"d{number}")),
            leading=next(iter(scores), ""),
            overlay=draw_overlay(scores, styles, f"o{number}") if len(scores) > 1 else "",
            overlaid=tuple(scores),
            scatters=list(draw_scatters(scores, styles, f"s{number}")) if len(scores) > 1 else [],
            correlations=build_correlation_table(own["correlations"]) if own["correlations"].height else None,
            gallery={method: faces[method] for method in dict.fromkeys((*styles, *faces)) if method in faces},
        )


def _build_panel(own: Frames, recogniser: str, point: OperatingPoint, styles: Mapping[str, Style]) -> Panel:
    """One panel.

    Args:
        own: the tables of one benchmark.
        recogniser: whose errors are shown.
        point: protocol and false match rate.
        styles: of the methods.
    """
    metrics = point.select(own["metrics"].filter(recogniser=recogniser))
    table = build_area_table(metrics, point)
    curves = {} if table.empty else _read_curves(point.select(own["curves"].filter(recogniser=recogniser)), styles)
    areas = {
        method: pauc
        for method, pauc in metrics.filter(status="ok")["method", "pauc"].rows()
        if method in curves and kind_of(method).competes and isfinite(pauc)
    }
    leading = min(areas, key=areas.__getitem__, default=None)
    tests = own["comparisons"].filter(recogniser=recogniser, fmr=point.fmr)
    where = "-".join([*distinct(metrics, "benchmark"), recogniser]).encode().hex() + f"-{point.protocol}-{point.fmr:g}"
    return Panel(
        recogniser=recogniser,
        point=point,
        errors=next(map(count_errors, metrics.iter_rows(named=True)), ""),
        table=table,
        intervals=describe_intervals(metrics),
        figure=draw_curves(curves, styles, leading, where) if curves else "",
        leading=leading,
        alike=[f"{', '.join(names[:-1])} and {names[-1]}" for names in _find_alike(curves)],
        matrices=build_matrices(tests, metrics) if point.protocol == Protocol.FIXED else {},
        betas=_draw_betas(metrics, f"{where}-betas"),
    )


def _find_alike(curves: Mapping[str, Curve]) -> list[list[str]]:
    """The methods whose curves are the same."""
    groups: dict[bytes, list[str]] = {}
    for method, (_, fnmr) in curves.items():
        groups.setdefault(fnmr.tobytes(), []).append(method)
    return [names for names in groups.values() if len(names) > 1]


def _draw_betas(metrics: pl.DataFrame, name: str) -> str:
    """The areas of the models that are called by their beta."""
    rows = {
        float(found[1]): row
        for row in metrics.filter(pl.col("status").is_in(SHOWN)).iter_rows(named=True)
        if (found := _BETA.fullmatch(row["method"]))
    }
    columns = {"pAUC": "pauc", "AUC": "auc"}
    areas = {area: {beta: row[column] for beta, row in rows.items()} for area, column in columns.items()}
    return draw_betas(areas, name) if len(rows) > 1 else ""


def _read_curves(points: pl.DataFrame, styles: Mapping[str, Style]) -> dict[str, Curve]:
    """The curve of every method, in the order of the page."""
    found = points.partition_by("method", as_dict=True)
    own = {method: found[method,] for method in styles if (method,) in found}
    return {method: (rows["rejection"].to_numpy(), rows["fnmr"].to_numpy()) for method, rows in own.items()}


def _draw_losses(losses: pl.DataFrame, styles: Mapping[str, Style]) -> str:
    """The loss of every training by epoch; nothing where there is none."""
    found = losses.filter(loss=TOTAL).partition_by("method", as_dict=True)
    means = {name: found[name,]["mean"].to_numpy() for name in styles if (name,) in found}
    return draw_losses(means, styles, "losses") if means else ""


def draw_distributions(qualities: pl.DataFrame, styles: Mapping[str, Style], name: str) -> Iterator[Distribution]:
    """Histograms of the scores of one benchmark (CR-FIQA Figure 15), each on its method's own scale.

    The outermost thousandths are drawn at the ends.
    """
    groups = qualities.partition_by("method", as_dict=True)
    for number, method in enumerate(method for method in styles if (method,) in groups):
        values = groups[method,]["quality"]
        known = values.filter(values.is_finite()).to_numpy()
        missing = len(values) - len(known)
        gap = f"none for {missing:,} of {len(values):,} images" if missing else ""
        if not len(known):
            yield Distribution(title=method, figure="", text=gap)
            continue
        low, left, middle, right, high = np.quantile(known, [0, 0.001, 0.5, 0.999, 1]).tolist()
        ends = (left, right) if left < right else (left - 0.5, right + 0.5)
        counts, _ = np.histogram(np.clip(known, *ends), bins=_BARS, range=ends)
        yield Distribution(
            title=method,
            figure=draw_histogram(counts, ends, f"{name}-{number}", colour=styles[method].colour),
            text=f"{low:.3g} to {high:.3g}, median {middle:.3g}" + (f"; {gap}" if gap else ""),
        )


def _build_overview(frames: Frames, left_out: LeftOut) -> dict[str, list[tuple[str, ...]]]:
    """Benchmark -> for each recogniser: name, pairs, left out, accuracy, and errors without rejection at each FMR."""
    metrics, keys = frames["metrics"], ("benchmark", "recogniser")
    rates = [point.fmr for point in list_points(metrics) if point.protocol == Protocol.FIXED]
    accuracy = frames["accuracy"].rows_by_key(keys, named=True, unique=True)
    pairs = metrics.unique(keys, keep="first").rows_by_key(keys, named=True, unique=True)
    errors = metrics.filter(protocol=Protocol.FIXED.value).rows_by_key((*keys, "fmr"), named=True, unique=True)
    lines: dict[str, list[tuple[str, ...]]] = {}
    for benchmark, recogniser in dict.fromkeys((*metrics[keys].rows(), *frames["accuracy"][keys].rows())):
        row = pairs.get((benchmark, recogniser))
        counts = (f"{row['genuine']:,}", f"{row['impostors']:,}") if row else (ABSENT, ABSENT)
        missing = left_out.get(benchmark, {}).get(recogniser)
        texts = ABSENT if missing is None else f"{missing:,}", show_accuracy(accuracy.get((benchmark, recogniser)))
        shown = (_show_error(errors.get((benchmark, recogniser, rate))) for rate in rates)
        lines.setdefault(benchmark, []).append((recogniser, *counts, *texts, *shown))
    return lines


def _show_error(row: Mapping[str, Any] | None) -> str:
    """A false non-match rate with its wrong pairs, where enough impostor pairs set its threshold."""
    if row is None or row["status"] == "too_few_impostors":
        return ABSENT
    return f"{row['fnmr']:.4f} ({row['errors']:,})"


def _list_left_out(metrics: pl.DataFrame, left_out: LeftOut) -> dict[str, list[str]]:
    """Benchmark -> what is left out of it, and why."""
    texts: dict[str, dict[str, None]] = {}
    for benchmark, counts in left_out.items():
        texts[benchmark] = {f"{name}: {count:,} without an embedding": None for name, count in counts.items() if count}
    for row in metrics.iter_rows(named=True):
        found = texts.setdefault(row["benchmark"], {})
        if why := explain_missing(row):
            found[why] = None
        if row["unscored"]:
            found[f"{row['method']}: images without a quality, which are rejected first: {row['unscored']:,}"] = None
    return {name: list(found) for name, found in texts.items() if found}


def _describe_cuts(size: Size, begin: OperatingPoint | None, has_faces: bool) -> Iterator[str]:
    """What was left out for the size of the page, on which a point is shown first."""
    limit, points = (
        f"the page would be over {LIMIT / 1e6:g} MB",
        "their points stand in the tables curves and qualities",
    )
    if has_faces and size.faces < A_ROW:
        what = f"faces: {size.faces} at each end instead of {A_ROW}" if size.faces else "all faces"
        yield f"{what}, as {limit}"
    if not size.figures:
        yield f"curves and histograms, as {limit}; {points}"
    elif not size.every:
        other = f" but those at {begin.title}" if begin else ""
        yield f"all curves{other}, and scatters, as {limit}; {points}"
