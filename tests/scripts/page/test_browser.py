"""The web page in a browser that has no network: a click sorts the table, and the pointer reads a point."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.page import make
from tests.tools.page import entry

pytestmark = pytest.mark.slow
SECONDS = 20

EVERYWHERE = """
const all = root => [...root.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
const found = arguments[0];
return all(document).filter(e => e.matches(found));
"""
"""Elements by a selector, also those in Bokeh's shadow trees, where a selector of the document does not look."""

PLACE = """
const plot = Bokeh.documents[0].get_model_by_name(arguments[0]), view = Bokeh.index.find_one(plot);
view.el.scrollIntoView({block: 'center'});
for (const drawn of plot.renderers) {
    const data = drawn.data_source.data, n = [...(data.name ?? [])].indexOf(arguments[1]);
    if (n < 0) continue;
    const box = view.el.getBoundingClientRect();
    return [box.x + view.frame.x_scale.compute(data.x[n]), box.y + view.frame.y_scale.compute(data.y[n])];
}
"""
"""JavaScript that returns a point's place on the screen, given its plot and its name."""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--window-size=1280,900", f"--user-data-dir={tmp_path}/profile",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def waited(found: Callable[[], Any]) -> Any:
    """Wait until a function returns something; return it."""
    end = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < end, "the browser shows nothing"
        time.sleep(0.1)
    return value


def everywhere(browser: Any, selector: str) -> list[Any]:
    return browser.execute_script(EVERYWHERE, selector)


def rows(browser: Any) -> list[list[str]]:
    """The cells of the table as they stand on the screen, from above."""
    shown = sorted(everywhere(browser, ".slick-row"), key=lambda row: row.location["y"])
    return [[cell.text for cell in row.find_elements("css selector", ".slick-cell")] for row in shown]


def opened(browser: Any, path: Path) -> None:
    browser.get(path.as_uri())
    waited(lambda: everywhere(browser, ".slick-row"))


def point(browser: Any, plot: str, name: str) -> str:
    """Return the text that appears when the pointer is on a point."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    x, y = waited(lambda: browser.execute_script(PLACE, plot, name))
    actions = ActionBuilder(browser)
    actions.pointer_action.move_to_location(round(x) + 40, round(y) + 40).move_to_location(round(x), round(y))
    actions.perform()
    return waited(lambda: " ".join(each.text for each in everywhere(browser, ".bk-Tooltip, .bk-tooltip")).strip())


def test_a_click_sorts_by_numbers_and_the_pointer_reads_a_point(browser: Any, tmp_path: Path) -> None:
    entries = [
        entry("first", 9.5, milliseconds=3.0, packed_bytes=11_000),
        entry("second", 100.0, 8_000, method="DoReFa", milliseconds=1.0, packed_bytes=1_100),
        entry("third", 90.25, 16_000, method="INT8", milliseconds=2.0, packed_bytes=2_100),
        entry("unjudged", None),
    ]
    make.write(entries, tmp_path / "page.html", "A page")
    opened(browser, tmp_path / "page.html")
    assert [row[1] for row in rows(browser)] == ["first", "second", "third", "unjudged"]
    (header,) = [each for each in everywhere(browser, ".slick-header-column") if each.text.startswith("accuracy")]
    header.click()
    assert [row[5] for row in rows(browser)] == ["9.50", "90.25", "100.00", "not evaluated"]  # as text, 100 came first
    header.click()
    assert [row[5] for row in rows(browser)] == ["not evaluated", "100.00", "90.25", "9.50"]
    read = point(browser, "size", "3. third")
    for words in ("3. third", "90.25 %", "2,000 bytes", "2.00 ms"):
        assert words in read
    assert "1. first" in point(browser, "time", "1. first")
    assert browser.execute_script("return document.body.scrollWidth <= window.innerWidth")


def test_nothing_is_fetched_and_no_word_of_a_file_runs(browser: Any, tmp_path: Path) -> None:
    evil = "$$x$$ \\(y\\) <img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    odd = entry(evil, type=evil, dataset=evil, remarks=evil, epochs=evil, method=evil, network=evil, provenance=evil)
    make.write([entry("a"), odd], tmp_path / "page.html", evil)
    opened(browser, tmp_path / "page.html")
    assert evil in rows(browser)[1][1]
    assert evil in point(browser, "size", f"2. {evil}")
    assert browser.title == evil
    said = [line["message"] for line in browser.get_log("browser") if line["level"] != "INFO"]
    assert not said
    asked = [
        line["message"] for line in browser.get_log("performance") if '"Network.requestWillBeSent"' in line["message"]
    ]
    assert asked  # the page itself
    assert not [line for line in asked if '"url":"http' in line]


def test_losses_have_their_sign(browser: Any, tmp_path: Path) -> None:
    entries = [entry("a"), entry("b", 89.5), entry("c", 90.5), entry("d", 90.001)]
    make.write(entries, tmp_path / "page.html", "A page")
    opened(browser, tmp_path / "page.html")
    assert [row[6] for row in rows(browser)] == ["-", "+0.50", "-0.50", "+0.00"]
