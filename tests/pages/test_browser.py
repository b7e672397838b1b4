"""Reports in a real browser: read, sorted, checked for accessibility, printed."""

from __future__ import annotations

import re

import pytest

from tests.browser import NEEDS, chromium
from tests.pages.cases import CASES

pytestmark = pytest.mark.skipif(bool(NEEDS), reason=NEEDS)

SORTED = """
const table = document.querySelector("#components table");
return [...table.tBodies[0].rows].map(row => parseFloat(row.cells[arguments[0]].dataset.v));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=CASES)
def page(request, tmp_path_factory):
    model, X = CASES[request.param]()
    path = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    model.report(path, X)
    return path


def test_no_findings_in_either_theme_on_a_desk_and_a_phone(browser, page):
    for dark, width in ((False, 1100), (True, 360)):
        browser.look(page, dark=dark, width=width)
        assert browser.findings() == []
        wide = browser.run("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "the page scrolls sideways"
    assert browser.complaints() == []
    assert browser.run("return window.hacked") is None
    assert browser.run("return performance.getEntriesByType('resource').length") == 0


def test_themes_differ_and_letters_stay_readable(browser, page):
    grounds = set()
    for dark in (False, True):
        browser.look(page, dark=dark, width=360)
        grounds.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
        least = browser.run(
            "return Math.min(...[...document.querySelectorAll('svg text')].map(t => "
            "parseFloat(getComputedStyle(t).fontSize) * "
            "Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b)))"
        )
        assert least >= 9.5  # pixels, on a phone
    assert len(grounds) == 2


def test_components_are_sorted_by_a_click_and_by_a_key(browser, page):
    browser.look(page)
    weights = browser.run(SORTED, 1)
    assert weights == sorted(weights, reverse=True)
    buttons = browser.driver.find_elements("css selector", "#components thead button")
    head = "return document.querySelectorAll('#components thead th')[1].getAttribute('aria-sort')"
    buttons[1].click()
    assert browser.run(head) == "descending"
    buttons[1].send_keys("\n")
    assert browser.run(head) == "ascending"
    assert browser.run(SORTED, 1) == sorted(weights)
    buttons[0].click()
    numbers = browser.run(SORTED, 0)
    assert numbers == sorted(numbers, reverse=True)
    assert browser.run(head) is None
    assert browser.complaints() == []


def test_it_works_without_a_script(browser, page):
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.look(page)
        assert not browser.driver.find_elements("css selector", "thead button")
        rows = browser.driver.find_elements("css selector", "#components tbody tr")
        assert rows
        assert all(row.is_displayed() for row in rows[:3])
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_it_can_be_printed(browser, page):
    browser.look(page, dark=True)
    printed = browser.printed()
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 60
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        assert (
            browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
        )
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")


def test_nothing_is_cut_off_on_paper(browser, page):
    browser.look(page, width=718)  # A4 between its margins
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        over = browser.run(
            "return [...document.querySelectorAll('table, svg')].filter(t => "
            "t.getBoundingClientRect().right > innerWidth).map(t => t.outerHTML.slice(0, 200))"
        )
        assert over == []
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")


def test_letters_of_pictures_are_whole(browser, page):
    browser.look(page)
    cut = browser.run(
        "return [...document.querySelectorAll('svg text')].filter(t => {"
        "const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 2 ||"
        " a.bottom > b.bottom + 2 }).map(t => t.textContent)"
    )
    assert cut == []


def test_quantiles_lie_in_the_lanes_of_their_components(browser, page):
    browser.look(page)
    charts = browser.driver.find_elements("css selector", "#separation figure svg")
    assert bool(charts) == (page.stem != "alone")
    for chart in charts:
        lanes = [
            float(t.get_attribute("y")) - 4 for t in chart.find_elements("css selector", ".end")
        ]
        dots = [
            float(c.get_attribute("cy")) for c in chart.find_elements("css selector", "circle")
        ]
        assert set(dots) <= {round(lane, 1) for lane in lanes}
        assert len(set(dots)) == len(dots)


def test_links_of_the_page_lead_to_its_sections(browser, page):
    browser.look(page)
    links = browser.driver.find_elements("css selector", "nav a")
    assert len(links) >= 8
    links[-1].click()
    top = browser.run("return document.querySelector('#made').getBoundingClientRect().top")
    assert top < browser.run("return innerHeight")


def test_pictures_of_a_page_are_whole(browser, page):
    browser.look(page)
    assert browser.picture().startswith(b"\x89PNG")
    sizes = browser.run(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
    )
    assert sizes
    assert min(sizes) > 100
