import base64
import hashlib
import logging
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import islice
from types import MappingProxyType

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from data_manifests.sample import draw_images
from data_manifests.tables.evaluation import EVALUATION_TABLES
from labelers.faces import decode
from pipeline.evaluation.report import page as page_module
from pipeline.evaluation.report.frames import ReportError, read_frames
from pipeline.evaluation.report.gallery import pick_faces, show_face
from pipeline.evaluation.report.page import LIMIT, PageInput, render_page
from pipeline.evaluation.report.side_by_side import Known
from tests.pipeline.evaluation.test_evaluation_markdown import area, make_table
from training.evaluation.comparison import compare_identities
from training.evaluation.error_reject import Protocol
from training.evaluation.evaluate import Options, correlate, evaluate_methods, list_qualities, stamp

HOSTILE = """<img src=//x onerror="alert(1)">'"&{{ 7 * 7 }}</script><script>alert(2)</script>"""
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
VOID = {"meta", "img", "br", "link", "input"}


class Parsed(HTMLParser):
    """Elements with their attributes, text, and what is open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def evaluate_faces(seed, methods):
    """60 people of 5 images; noisier images have the lower quality. At 1e-4 there are too few impostor pairs."""
    random = np.random.default_rng(seed)
    people = np.repeat(np.arange(60), 5).astype(np.int32)
    noise = random.uniform(0.2, 1.6, 300)
    embeddings = random.normal(size=(60, 32))[people] + noise[:, None] * random.normal(size=(300, 32))
    compared = compare_identities(embeddings.astype(np.float32), np.ones(300, bool), people, (1e-2, 1e-3, 1e-4))
    qualities = {name: -noise + random.normal(0, 0.3 * place, 300) for place, name in enumerate(methods)}
    qualities["random"] = random.random(300)
    qualities[methods[-1]][7] = np.nan
    options = Options(protocols=(Protocol.FIXED, Protocol.CR_FIQA), replicates=40, fewest_impostors=10)
    return qualities, evaluate_methods(compared, qualities, options)


def evaluate_all(benchmarks, recognisers, methods):
    """All tables, by the evaluation itself."""
    parts = {name: [] for name in ("metrics", "curves", "comparisons", "correlations", "qualities")}
    for place, benchmark in enumerate(benchmarks):
        for number, recogniser in enumerate(recognisers):
            qualities, found = evaluate_faces(10 * place + number, methods)
            for name, table in zip(parts, found, strict=False):
                parts[name].append(stamp(table, benchmark=benchmark, recogniser=recogniser))
        yaw = {"abs_yaw_deg": qualities[methods[0]] ** 2}
        parts["correlations"].append(stamp(correlate(qualities, yaw), benchmark=benchmark))
        keys = np.arange(1, 301, dtype=np.int32)
        parts["qualities"].append(stamp(list_qualities(keys, qualities), benchmark=benchmark))
    tables = {name: pa.concat_tables(found).unify_dictionaries() for name, found in parts.items()}
    accuracy = [{"benchmark": benchmarks[0], "recogniser": recognisers[0], "accuracy": 0.98765, "std": 0.01}]
    tables["accuracy"] = pa.Table.from_pylist(accuracy, schema=EVALUATION_TABLES["accuracy"].schema())
    return tables


@pytest.fixture(scope="module")
def tables_of_two():
    return evaluate_all(("lfw hard", "cfp"), ("r50", "mbf"), ("clib", "other", "norm"))


@pytest.fixture(scope="module")
def real_faces():
    """Encoded faces by key."""
    return {key: image.encoded for key, image in enumerate(islice(draw_images(), 24), start=1)}


def show(key, encoded, labels=MappingProxyType({"blur": "hazy", "yaw_deg": 12.3456, "pose": None})):
    return show_face(key, encoded, key / 7, labels)


@pytest.fixture(scope="module")
def two_benchmarks(tables_of_two, real_faces):
    faces = [show(key, encoded) for key, encoded in real_faces.items()]
    ends = faces[:12], faces[12:]
    return PageInput(
        tables=tables_of_two,
        gallery={"lfw hard": {"clib": ends, "norm": ends}},
        left_out={"lfw hard": {"r50": 3, "mbf": 0}},
        notes={"Fingerprints": {"embeddings of r50": "0a1b2c3d4e5f"}},
    )


@pytest.fixture(scope="module")
def one_benchmark(two_benchmarks):
    """The same with one benchmark, recogniser and protocol: quick to render."""
    wanted = {"benchmark": "lfw hard", "recogniser": "r50", "protocol": "fixed"}
    tables = {}
    for name, table in two_benchmarks.tables.items():
        frame = pl.DataFrame(pl.from_arrow(table))
        kept = frame.select(
            pl.all_horizontal(True, *(pl.col(column) == value for column, value in wanted.items() if column in frame))
        ).to_series()
        tables[name] = table.filter(kept.to_arrow())
    return replace(
        two_benchmarks, tables=tables, gallery={"lfw hard": {"clib": two_benchmarks.gallery["lfw hard"]["clib"]}}
    )


@pytest.fixture(scope="module")
def whole_page(two_benchmarks):
    return render_page(two_benchmarks)


def test_nothing_is_fetched(whole_page):
    parsed = Parsed(whole_page)
    assert not parsed.open
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "formaction", "ping"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), (tag, name)
    assert not parsed.all("link")
    assert re.findall(r"url\((?!#)", whole_page) == []
    assert "@import" not in whole_page
    assert not re.search(r"https?:", whole_page)


def test_only_the_page_s_own_script_may_run(whole_page):
    (policy,) = [meta["content"] for meta in Parsed(whole_page).all("meta") if "http-equiv" in meta]
    script = re.search(r"<script>(.*?)</script>", whole_page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]


def test_everything_that_was_evaluated_is_there(whole_page):
    text = Parsed(whole_page).text
    for name in ("lfw hard", "cfp", "r50", "mbf", "clib", "other", "norm", "random", "floor", "abs_yaw_deg"):
        assert name in text
    for said in ("98.77 ± 1.00", "0a1b2c3d4e5f", "r50: 3 without an embedding", "2 benchmarks, 2 recognisers"):
        assert said in text
    assert "mbf: 0 without" not in text
    assert "norm: images without a quality, which are rejected first: 1" in text
    assert re.search(r"Without rejection, [\d,]+ of 600 genuine pairs are wrong\.", text)
    assert "Normalised areas with 95 % bootstrap intervals (BCa, 40 draws of people); smaller is better" in text
    assert re.search(r"0\.\d{4} \(\d+\)", text)  # a false non-match rate and its wrong pairs
    assert "of 44,250 impostor pairs, 4.42 may match at FMR 1e-4: too few to set a threshold" in text


def test_every_choice_has_its_figure_where_it_has_numbers(whole_page):
    panels = Parsed(whole_page).all("article")
    found = {(p["data-recogniser"], p["data-rate"], p["data-protocol"]) for p in panels}
    assert len(panels) == 2 * len(found) == 2 * 2 * 3 * 2
    articles = re.findall(r"<article.*?</article>", whole_page, re.DOTALL)
    for article in articles:
        assert ("<figure" in article) == ('data-rate="1e-4"' not in article)
        assert ("<figure" in article) == ("Left out." not in article)


def test_ids_are_unique_and_links_lead_somewhere(whole_page):
    parsed = Parsed(whole_page)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"][1:] for _, attributes in parsed.elements if attributes.get("href", "").startswith("#")}
    assert {"overview", "benchmark-0", "benchmark-1", "side-by-side", "left-out"} <= links <= set(ids)
    named = {attributes["aria-labelledby"] for _, attributes in parsed.elements if "aria-labelledby" in attributes}
    assert named <= set(ids)


def test_pictures_are_small_and_say_what_they_show(whole_page, real_faces):
    images = Parsed(whole_page).all("img")
    buttons = [button for button in Parsed(whole_page).all("button") if button["class"] == "face"]
    assert len(images) == len(buttons) == 2 * 24
    for image, button in zip(images, buttons, strict=True):
        assert "\nblur\thazy\nyaw_deg\t12.3" in button["title"]
        assert "pose" not in button["title"]
        assert "blur hazy" in image["alt"]
    first = next(iter(real_faces))
    assert images[0]["alt"].startswith(f"image {first}, quality {first / 7:.2f}")
    jpeg = base64.b64decode(images[0]["src"].partition(",")[2])
    assert decode(jpeg).shape == (84, 84, 3)
    assert len(jpeg) < 5000
    assert "This page contains pictures of people." in Parsed(whole_page).text
    for figure in Parsed(whole_page).all("figure"):
        assert len(figure["aria-label"]) > 20


def test_every_method_stands_against_every_other(one_benchmark):
    page = render_page(one_benchmark)
    found = re.findall(r'<table class="matrix">.*?</table>', page, re.DOTALL)
    assert len(found) == 2 * 2  # pAUC and AUC at both rates with enough impostor pairs
    for table in found:
        parsed = Parsed(table)
        heads = [th["scope"] for th in parsed.all("th")]
        assert heads.count("row") == heads.count("col") - 1 == 4
        assert parsed.words.count("-") == 4
        assert len(re.findall(r"p = \d\.\d{3}|p &lt; 0.001", table)) == 4 * 3


def test_curves_that_are_the_same_are_named(one_benchmark):
    assert "are the same." not in render_page(one_benchmark)
    points = one_benchmark.tables["curves"]
    twins = [row | {"method": "twin"} for row in points.to_pylist() if row["method"] == "clib"]
    curves = pa.concat_tables([points, pa.Table.from_pylist(twins, schema=points.schema)]).unify_dictionaries()
    metrics = one_benchmark.tables["metrics"]
    rows = [row | {"method": "twin"} for row in metrics.to_pylist() if row["method"] == "clib"]
    both = pa.concat_tables([metrics, pa.Table.from_pylist(rows, schema=metrics.schema)]).unify_dictionaries()
    page = render_page(replace(one_benchmark, tables={**one_benchmark.tables, "curves": curves, "metrics": both}))
    assert page.count("The curves of clib and twin are the same.") == 2


def test_of_too_few_errors_nothing_leads(one_benchmark):
    metrics = one_benchmark.tables["metrics"]
    rows = [row | {"status": "too_few_errors", "errors": 7} for row in metrics.to_pylist() if row["status"] == "ok"]
    tables = {**one_benchmark.tables, "metrics": pa.Table.from_pylist(rows, schema=metrics.schema)}
    page = render_page(replace(one_benchmark, tables=tables))
    assert "has the smallest pAUC" not in page
    assert "matrix" not in page.partition("</style>")[2]
    assert "<b>0." not in page
    assert "r50: 7 of 600 genuine pairs are wrong at FMR 1e-2: too few to rank methods" in page


def test_warnings_stand_at_the_top(one_benchmark):
    page = render_page(replace(one_benchmark, known=Known(warnings=(HOSTILE,))))
    parsed = Parsed(page)
    assert " ".join(HOSTILE.split()) in parsed.text.partition("Methods")[0]
    assert len(parsed.all("script")) == 1


def test_trainings_are_drawn_where_there_are_any(one_benchmark):
    rows = [
        {"method": "clib", "loss": loss, "epoch": epoch, "mean": 1 / epoch}
        for loss in ("total", "blur") for epoch in (1, 2, 3)
    ]  # fmt: skip
    losses = pa.Table.from_pylist(rows, schema=EVALUATION_TABLES["losses"].schema())
    page = render_page(replace(one_benchmark, tables={**one_benchmark.tables, "losses": losses}))
    (figure,) = [f for f in Parsed(page).all("figure") if "Losses of the trainings" in f.get("aria-label", "")]
    assert figure["role"] == "img"
    assert "Losses of the trainings" not in render_page(one_benchmark)


def test_models_of_a_sweep_are_drawn_by_their_beta(one_benchmark):
    metrics = one_benchmark.tables["metrics"]
    named = metrics.to_pylist()
    rename = dict(zip(dict.fromkeys(row["method"] for row in named), ("beta-8", "beta-32", "beta-128"), strict=False))
    swept = [row | {"method": rename.get(row["method"], row["method"])} for row in named]
    tables = {**one_benchmark.tables, "metrics": pa.Table.from_pylist(swept, schema=metrics.schema)}
    figures = Parsed(render_page(replace(one_benchmark, tables=tables))).all("figure")
    assert any("by the beta of the models" in figure.get("aria-label", "") for figure in figures)
    assert "by the beta of the models" not in render_page(one_benchmark)


def test_without_faces_there_is_no_word_of_them(one_benchmark):
    page = render_page(replace(one_benchmark, gallery={}))
    assert "pictures of people" not in page
    assert "rejected first and last" not in page


def test_a_picture_that_does_not_decode_is_said(one_benchmark, real_faces):
    key, encoded = next(iter(real_faces.items()))
    broken = show(key, encoded[:200])
    page = Parsed(render_page(replace(one_benchmark, gallery={"lfw hard": {"clib": ((broken,), ())}})))
    assert page.all("img") == []
    assert f"image {key}, quality {key / 7:.3f}" in page.text
    assert "does not decode" in page.text


def test_hostile_names_are_text(one_benchmark, real_faces):
    def rename(table):
        return pa.Table.from_pylist(
            [
                {
                    name: {"clib": HOSTILE, "lfw hard": HOSTILE, "r50": HOSTILE}.get(value, value)
                    for name, value in row.items()
                }
                for row in table.to_pylist()
            ],
            schema=table.schema,
        )

    face = show(*next(iter(real_faces.items())), {HOSTILE: HOSTILE})
    evaluation = PageInput(
        tables={name: rename(table) for name, table in one_benchmark.tables.items()},
        gallery={HOSTILE: {HOSTILE: ((face,), (face,))}},
        left_out={HOSTILE: {HOSTILE: 2}},
        notes={HOSTILE: {HOSTILE: HOSTILE}},
        title=HOSTILE,
    )
    parsed = Parsed(render_page(evaluation))
    assert not parsed.open
    assert len(parsed.all("script")) == 1
    assert len(parsed.all("img")) == 2
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    assert " ".join(HOSTILE.split()) in parsed.text
    assert parsed.all("img")[0]["alt"].count(HOSTILE) == 2
    assert [button for button in parsed.all("button") if button["title"].count(HOSTILE) == 2]


@pytest.mark.parametrize(
    ("share", "shown", "said"),
    [
        (1.0, (24, ["1e-2", "1e-3"]), None),
        (0.9, (16, ["1e-2", "1e-3"]), "faces: 8 at each end instead of 12, as the page would be over"),
        (0.6, (8, ["1e-3"]), "all curves but those at FMR 1e-3, and scatters, as the page would be over"),
        (0.4, (0, ["1e-3"]), "all faces, as the page would be over"),
        (0.2, (0, []), "curves and histograms, as the page would be over"),
    ],
)
def test_pictures_give_way_to_the_limit_and_the_page_says_so(share, shown, said, one_benchmark, monkeypatch):
    faces, drawn = shown
    whole = render_page(one_benchmark)
    bound = int(share * len(whole.encode()))
    monkeypatch.setattr(page_module, "LIMIT", bound)
    page = render_page(one_benchmark)
    parsed = Parsed(page)
    assert len(page.encode()) <= bound < LIMIT
    assert len(parsed.all("img")) == faces
    curves = [figure for figure in parsed.all("figure") if "Error-reject curves" in figure.get("aria-label", "")]
    assert [
        rate for rate in ("1e-2", "1e-3") if any(f"FMR {rate}." in curve["aria-label"] for curve in curves)
    ] == drawn
    assert len(curves) == len(drawn)
    assert ("Scatter of" in page) == (len(drawn) == 2)
    assert said is None or said in parsed.text
    assert len(parsed.all("table")) == len(Parsed(whole).all("table"))


def test_without_faces_a_page_is_not_made_twice(one_benchmark, monkeypatch):
    made = []
    monkeypatch.setattr(page_module, "render_document", lambda _, content: made.append(content) or 1000 * "a")
    monkeypatch.setattr(page_module, "LIMIT", 999)
    render_page(replace(one_benchmark, gallery={}))
    shown = [(c["faces_shown"], c["every"], c["figures"]) for c in made]
    assert shown == [(0, True, True), (0, False, True), (0, False, False)]


def test_a_page_of_tables_over_the_limit_is_written_with_a_warning(one_benchmark, monkeypatch, caplog):
    monkeypatch.setattr(page_module, "LIMIT", 1000)
    with caplog.at_level(logging.WARNING):
        page = render_page(one_benchmark)
    assert "clib" in page
    assert "over the limit of 1,000" in caplog.text


def test_equal_evaluations_give_equal_pages(one_benchmark):
    assert render_page(one_benchmark) == render_page(one_benchmark)


def test_an_evaluation_of_nothing_is_a_page():
    parsed = Parsed(render_page(PageInput(tables={})))
    assert "0 benchmarks, 0 recognisers, 0 methods." in parsed.text
    assert parsed.all("form") == []


def test_tables_of_another_version_are_refused():
    with pytest.raises(ReportError, match="evaluate again"):
        render_page(PageInput(tables={"curves": pa.table({"benchmark": ["a"]})}))


def test_faces_at_the_ends_are_ordered_and_stand_at_one_end():
    rows = [
        {"benchmark": "lfw", "method": "m", "key": key, "quality": quality}
        for key, quality in ((1, 0.5), (2, None), (3, 0.5), (4, 0.1), (5, 0.9), (6, float("nan")))
    ] + [{"benchmark": "lfw", "method": "other", "key": 9, "quality": -1.0}]
    qualities = pa.Table.from_pylist(rows, schema=EVALUATION_TABLES["qualities"].schema())
    own = read_frames({"qualities": qualities})["qualities"].filter(benchmark="lfw", method="m")
    nobody = np.full(own.height, -1, np.int32)
    first, last = pick_faces(own, nobody)
    assert [key for key, _ in first] == [4, 1]
    assert [key for key, _ in last] == [5, 3]
    assert first[0] == (4, pytest.approx(0.1))
    assert pick_faces(own, nobody, count=1)[1] == [(5, pytest.approx(0.9))]
    assert pick_faces(own.head(0), nobody[:0]) == ([], [])


def test_no_person_has_more_than_two_faces_at_one_end():
    own = pl.DataFrame({"key": range(1, 41), "quality": [key / 41 for key in range(1, 41)]})
    people = np.array([0] * 20 + [1] * 8 + [2] * 8 + [-1] * 4, np.int32)
    first, last = pick_faces(own, people)
    assert [key for key, _ in first] == [1, 2]  # of the worse half
    assert [key for key, _ in last] == [40, 39, 38, 37, 36, 35, 28, 27, 20, 19]


WIDTHS = """
const found = [...document.querySelectorAll(".scroll")].filter((part) => part.clientWidth);
const most = (list) => Math.max(...list);
document.body.setAttribute("data-tables", `${found.length} ${most(found.map((part) => part.scrollWidth
  > part.clientWidth ? 9999 : part.firstElementChild.offsetWidth))} ${most(found.map((part) => part.clientWidth))}`);
"""

DRIVER = """
const list = () => [...document.querySelectorAll("article")].filter((part) => !part.hidden)
  .map((part) => `${part.dataset.recogniser} ${part.dataset.rate} ${part.getBoundingClientRect().height > 100}`);
const report = (name) => document.body.setAttribute(name, [...new Set(list())].join("; "));
document.body.setAttribute("data-widths", `${document.documentElement.scrollWidth} ${innerWidth}`);
report("data-before");
const select = document.querySelector("select[name=rate]");
select.value = "1e-2";
select.dispatchEvent(new Event("change", { bubbles: true }));
report("data-after");
"""


def drive(page, script, width, folder):
    """The attributes of the body of a page after a script."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    driven = page.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    (folder / "page.html").write_text(driven.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},800", f"--user-data-dir={folder}"]
    dumped = subprocess.run(
        [browser, *options, "--dump-dom", (folder / "page.html").as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    ).stdout  # fmt: skip
    return dict(Parsed(dumped.replace("<!DOCTYPE html>", "")).all("body")[0])


def test_eight_benchmarks_stand_side_by_side_on_a_screen_of_1500_pixels(tmp_path):
    names = ("lfw", "cfp_fp", "cplfw", "xqlfw", "calfw", "agedb_30", "adience", "tinyface")
    rows = [area("adaface_webface4m", method, 0.6, 0.4, benchmark=f"stand_in_{name}", fmr=fmr)
            for name in names for method in ("clib_fiqa", "norm (adaface_webface4m)", "certainty_ratio")
            for fmr in (1e-2, 1e-3)]  # fmt: skip
    body = drive(render_page(PageInput(tables={"metrics": make_table("metrics", rows)})), WIDTHS, 1500, tmp_path)
    tables, widest, room = map(int, body["data-tables"].split())
    assert tables >= 2 + 8  # of each rate eight benchmarks and their mean, of each benchmark two rates
    assert 1000 < widest <= room < 1500


def test_another_rate_shows_another_figure_in_a_browser(whole_page, tmp_path):
    body = drive(whole_page, DRIVER, 360, tmp_path)
    assert body["data-before"] == "r50 1e-3 true"
    assert body["data-after"] == "r50 1e-2 true"
    content, window = map(int, body["data-widths"].split())
    assert content <= window == 360
