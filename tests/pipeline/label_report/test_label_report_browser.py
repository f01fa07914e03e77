"""The page of labels in a real browser: what a reader does by pointer and by keyboard, and what it shows then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from data_manifests.tables.stages import CLASSES
from tests.pipeline.browser import Browser, find_browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.pipeline.conftest import Factory

TOLERANCE = 0.051
"""A share is shown in percent with one decimal; it is counted over all images, so rounding is all that it lacks."""

COMMAND = "luigi --module pipeline LabelAll --dataset sample"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    find_browser()
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(labelled_sample: Factory) -> Path:
    return labelled_sample.workspace / "sample"


@pytest.fixture(scope="module")
def labels(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "labels" / "current")


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Browser]:
    """The page, freshly opened; a test that leaves a complaint of the browser behind fails."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(folder / "report" / "current" / "index.html")
    yield browser
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("data:", "file://"))] == []
    assert len([url for url in browser.requests if url.startswith("file://")]) == 1


def would_be(page: Browser, factor: str) -> dict[str, float]:
    """The shares that a section shows for moved thresholds, in percent."""
    cells = page.run(f"[...document.querySelectorAll('#{factor} [data-share]')].map((e) => e.textContent)")
    return {name: float(text.removesuffix(" %")) for name, text in zip(CLASSES[factor], cells, strict=True)}


def visible(page: Browser, selector: str) -> bool:
    return bool(page.run(f"document.querySelector({json.dumps(selector)}).checkVisibility()"))


def pool_of(page: Browser, factor: str) -> dict[int, list[float]]:
    """The scores of the faces in each group."""
    found: dict[str, Any] = page.run(
        f"Object.fromEntries([...document.querySelectorAll('#{factor} .group')].map((group) =>"
        " [group.dataset.place, [...group.querySelectorAll('li')].map((e) => Number(e.dataset.value))]))"
    )
    return {int(place): values for place, values in found.items()}


def card_of(page: Browser) -> dict[str, str]:
    """What the card says, if it is there."""
    said = page.run(
        "document.getElementById('card').hidden ? [] : [...document.querySelectorAll('#card dl div')]"
        ".map((e) => [e.children[0].textContent, e.children[1].textContent])"
    )
    return dict(said)


def test_a_dragged_slider_shows_the_shares_and_gives_the_command(page: Browser, labels: pl.DataFrame) -> None:
    assert not visible(page, "#bar")
    page.drag("#blur-blur_hazy", 0.21)
    value = float(page.run("document.querySelector('[data-exact=blur_hazy]').value"))
    assert value == pytest.approx(0.21, abs=0.006)
    cpbd = labels["cpbd"].to_numpy()
    hazy, clear = (cpbd < np.float32(value)).mean(), (cpbd > np.float32(0.7)).mean()
    shown = would_be(page, "blur")
    assert shown["hazy"] == pytest.approx(100 * hazy, abs=TOLERANCE)
    assert shown["clear"] == pytest.approx(100 * clear, abs=TOLERANCE)
    assert shown["blurry"] == pytest.approx(100 * (1 - hazy - clear), abs=TOLERANCE)
    assert visible(page, "#bar")
    assert page.run("document.getElementById('command').textContent") == f"{COMMAND} --labels-blur-hazy {value:g}"
    pool = pool_of(page, "blur")
    assert all(score < np.float32(value) for score in pool[0])
    assert all(np.float32(value) <= score <= np.float32(0.7) for score in pool[1])
    assert all(score > np.float32(0.7) for score in pool[2])
    assert pool[0] == sorted(pool[0])
    left = page.run("document.querySelector('#blur .zone[data-place=\"1\"]').style.left")
    assert float(left.removesuffix("%")) == pytest.approx(100 * value)


def test_thresholds_move_by_keyboard_and_by_number(page: Browser, labels: pl.DataFrame) -> None:
    page.run("document.getElementById('pose-yaw_profile').focus()")
    for _ in range(3):
        page.press("ArrowLeft")
    page.press("ArrowRight", shift=True)
    yaw = labels["yaw_deg"].abs().to_numpy()
    assert page.run("document.activeElement.getAttribute('aria-valuetext')") == "23.6°"
    assert would_be(page, "pose")["profile"] == pytest.approx(100 * (yaw > np.float32(23.6)).mean(), abs=TOLERANCE)
    page.run("document.querySelector('[data-exact=yaw_frontal]').select()")
    page.type("7.5")
    page.press("Tab")
    assert would_be(page, "pose")["frontal"] == pytest.approx(100 * (yaw < np.float32(7.5)).mean(), abs=TOLERANCE)
    said = page.run("document.getElementById('command').textContent")
    assert said == f"{COMMAND} --labels-yaw-frontal 7.5 --labels-yaw-profile 23.6"
    page.click("#reset")
    assert not visible(page, "#bar")
    assert page.run("document.getElementById('pose-yaw_profile').getAttribute('aria-valuetext')") == "25°"


def test_neither_threshold_passes_the_other(page: Browser) -> None:
    page.drag("#blur-blur_hazy", 0.95)
    assert page.run("document.querySelector('[data-exact=blur_hazy]').value") == "0.699"
    page.run("document.querySelector('[data-exact=blur_clear]').select()")
    page.type("0.2")
    page.press("Tab")
    assert page.run("document.querySelector('[data-exact=blur_clear]').value") == "0.7"


def test_a_number_that_cannot_be_chosen_is_told(page: Browser) -> None:
    for typed, said in (
        ("5", "it lies between 0 and 1"),
        ("0.2", "it stays over 0.35"),
        ("0.80049", "the nearest that is counted here is 0.8"),
        ("0.9", ""),
    ):
        page.run("document.querySelector('[data-exact=blur_clear]').select()")
        page.type(typed)
        page.press("Tab")
        assert page.run("document.querySelector('[data-outside=blur_clear]').textContent") == said


def test_a_click_keeps_the_card_and_offers_the_command_that_explains(page: Browser, labelled_sample: Factory) -> None:
    page.click("#quality .strip li:nth-child(3) .face")
    page.point("h1")
    page.run("new Promise((done) => setTimeout(done, 400))")
    key = card_of(page)["image"]
    page.run("globalThis.taken = ''; document.addEventListener('copy', () => { taken = String(getSelection()); });"
             " navigator.clipboard.writeText = async (text) => { taken = text; };")  # fmt: skip
    page.click("#card button")
    assert page.run("new Promise((done) => setTimeout(() => done(taken), 200))") == (
        f"python -m pipeline explain {key} --dataset sample"
    )
    assert f" {key} " in labelled_sample.command(*page.run("taken").split()[3:]).stdout
    page.press("Escape")
    assert card_of(page) == {}


def test_the_footer_names_the_labels_where_they_lie(page: Browser, labels: pl.DataFrame) -> None:
    told = page.run("document.getElementById('scan').textContent")
    assert pl.scan_parquet(told.removeprefix('polars.scan_parquet("').removesuffix('")')).collect().equals(labels)


def test_one_threshold_of_three_factors_moves_in_all(page: Browser, labels: pl.DataFrame) -> None:
    page.drag("#lighting-worse_probability", 0.9)
    value = float(page.run("document.querySelector('#occlusion [data-exact]').value"))
    assert value == pytest.approx(0.9, abs=0.006)
    for factor, column in (("occlusion", "p_obstructed"), ("expression", "p_exaggerated"),
                           ("lighting", "p_extreme_lighting")):  # fmt: skip
        share = (labels[column].to_numpy() >= np.float32(value)).mean()
        assert would_be(page, factor)[CLASSES[factor][0]] == pytest.approx(100 * share, abs=TOLERANCE)
    said = page.run("document.getElementById('command').textContent")
    assert said == f"{COMMAND} --labels-worse-probability {value:g}"


def test_the_command_can_be_copied(page: Browser) -> None:
    page.drag("#blur-blur_hazy", 0.3)
    page.run("getSelection().removeAllRanges()")
    page.run("globalThis.taken = ''; document.addEventListener('copy', () => { taken = String(getSelection()); });"
             " navigator.clipboard.writeText = async (text) => { taken = text; };")  # fmt: skip
    page.click("#copy")
    assert page.run("new Promise((done) => setTimeout(() => done(document.getElementById('copied').textContent), 200))")
    assert page.run("taken").startswith(f"{COMMAND} --labels-blur-hazy 0.")


def test_a_filter_leaves_one_factor_and_one_kind_of_faces(page: Browser) -> None:
    choose = "(() => {{ const s = document.querySelector('select[name={0}]'); s.value = '{1}';"
    fire = " s.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
    page.run((choose + fire).format("factor", "pose"))
    page.run((choose + fire).format("kind", "at the border"))
    shown = page.run("[...document.querySelectorAll('[data-factor]')].filter((e) => !e.hidden).map((e) => e.id)")
    assert shown == ["pose"]
    kinds = page.run(
        "[...new Set([...document.querySelectorAll('#pose .kind')].filter((e) => e.checkVisibility())"
        ".map((e) => e.querySelector('h5').textContent))]"
    )
    assert kinds == ["at the border"]
    for _ in range(2):  # the second time the address stays the same
        page.run((choose + fire).format("factor", "pose"))
        page.run("document.querySelector('nav a[href=\"#blur\"]').click()")
        assert page.run("new Promise((done) => setTimeout(() => done(!document.getElementById('blur').hidden), 300))")


def test_scores_are_shown_by_keyboard_focus(page: Browser, labels: pl.DataFrame) -> None:
    rows = {row["key"]: row for row in labels.iter_rows(named=True)}
    page.run("document.querySelector('nav li:last-child a').focus()")
    ordered = labels.sort("quality", "key")["key"].to_list()
    for _ in range(12):
        page.press("Tab")
        if page.run("document.activeElement.classList.contains('face')"):
            break
    first = card_of(page)
    assert int(first["image"]) == ordered[0]
    page.press("ArrowRight")
    page.press("ArrowDown")
    page.press("ArrowLeft")
    page.press("End")
    card = card_of(page)
    assert int(card["image"]) == ordered[-1]
    row = rows[int(card["image"])]
    assert card["quality"] == f"{row['quality']:.3f}"
    assert card["cpbd"] == f"{row['cpbd']:.3f}"
    assert card["classes"] == ", ".join(row[factor] for factor in CLASSES)
    assert page.run("document.activeElement.getAttribute('aria-describedby')") == "card"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.press("Tab")
    assert page.run("document.activeElement.closest('[data-grid]').getAttribute('aria-label')") == "lowest quality"
    page.press("Escape")
    assert card_of(page) == {}


def test_scores_are_shown_under_the_pointer(page: Browser, labels: pl.DataFrame) -> None:
    assert card_of(page) == {}
    page.point("#blur .group li:nth-child(3) .face")
    card = card_of(page)
    value = page.run("Number(document.querySelector('#blur .group li:nth-child(3)').dataset.value)")
    assert float(card["cpbd"]) == pytest.approx(value, abs=5.1e-4)
    assert int(card["image"]) in labels["key"]
    page.point("h1")
    assert page.run("new Promise((done) => setTimeout(() => done(document.getElementById('card').hidden), 400))")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True), (360, False)])
def test_it_fits_the_window_and_the_light(browser: Browser, folder: Path, width: int, dark: bool) -> None:
    browser.errors.clear()
    browser.open(folder / "report" / "current" / "index.html", width, 800, dark=dark)
    for slider in ("#blur-blur_hazy", "#expression-worse_probability", "#pose-yaw_frontal"):
        browser.drag(slider, 0.2)
        content, window = browser.run("[document.documentElement.scrollWidth, innerWidth]")
        assert content <= window == width
    brightness = sum(
        map(int, browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"))
    )
    assert (brightness < 200) == dark
    assert browser.errors == []


def test_everything_that_can_be_used_has_a_name(page: Browser) -> None:
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    used = [node for node in nodes if not node["ignored"] and node["role"]["value"] in
            {"button", "slider", "spinbutton", "combobox", "link", "image", "img", "figure", "region"}]  # fmt: skip
    roles = {node["role"]["value"] for node in used}
    assert {"button", "slider", "spinbutton", "combobox", "link"} <= roles
    nameless = [node for node in used if node["role"]["value"] != "figure" and not node["name"]["value"].strip()]
    assert nameless == []


def test_it_opens_in_under_two_seconds(page: Browser) -> None:
    timing = (
        "(({ loadEventEnd, startTime }) => loadEventEnd - startTime)(performance.getEntriesByType('navigation')[0])"
    )
    assert 0 < page.run(timing) < 2000
