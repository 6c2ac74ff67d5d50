"""The page in a real browser: Chromium without a window, and axe-core for contrast and labels."""

import importlib.resources

import pytest
from browser import CHROMIUM, Browser
from runs import INJECTIONS, write_run, write_search

from rnntune.report.page import write_report

SEVERAL = {"tune.metric": ["validation_accuracy", "latency_ms"]}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of every kind, each from labels and texts that try to inject."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = {"classes": INJECTIONS, "texts": INJECTIONS}
    many = [f"a rather long name of class number {n:02}" for n in range(77)]
    train = write_run(folder / "train", **hostile)
    runs = {
        "train": [train],
        "classes": [write_run(folder / "classes", classes=many, num_rows=5_000)],
        "tune": [write_search(folder / "tune", settings=SEVERAL, **hostile)],
        "compare": [train, write_run(folder / "other", seed=3, **hostile)],
    }
    files = {}
    for name, uris in runs.items():
        files[name] = folder / f"{name}.html"
        write_report(uris, str(files[name]))
    files["watch"] = folder / "watch.html"
    running = write_search(folder / "running", finished=False)
    write_report([running], str(files["watch"]), refresh_s=1)
    return files


@pytest.mark.parametrize(
    ("kind", "width", "dark"),
    [
        ("train", 400, False),
        ("train", 400, True),
        ("train", 1400, False),
        ("train", 1400, True),
        ("tune", 400, True),
        ("tune", 1400, False),
        ("classes", 400, False),
        ("classes", 1400, True),
        ("compare", 400, True),
        ("compare", 1400, False),
    ],
)
def test_every_figure_is_drawn_and_everybody_can_read_it(kind, width, dark, browser, pages):
    browser.open(pages[kind], width=width, dark=dark)
    empty = browser.run(
        "[...document.querySelectorAll('.plot')].filter((plot) => plot.dataset.drawn !== 'true' ||"
        " !plot.querySelector('.trace, .hm image, .points path')).map((plot) => plot.id)"
    )
    assert empty == []
    assert browser.run("document.querySelectorAll('.plot').length") > 2
    assert browser.problems() == []
    assert "hacked" not in browser.run("document.title")
    assert browser.run("document.documentElement.scrollWidth") <= width
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    browser.run(axe)
    found = browser.run("axe.run()")
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert {"color-contrast", "button-name"} <= {rule["id"] for rule in found["passes"]}


def test_labels_in_figures_are_what_the_data_says(browser, pages):
    browser.open(pages["train"])
    drawn = browser.run(
        "[...document.querySelectorAll('#figure-confusion .ytick text')].map((t) => t.textContent)"
    )
    assert any(text.startswith("{{ 7701 * 7") for text in drawn)
    assert any(text.startswith("<script>") for text in drawn)
    assert browser.run("document.querySelectorAll('.plot a, .plot script').length") == 0


def test_the_two_themes_differ(browser, pages):
    colors = []
    for dark in (False, True):
        browser.open(pages["train"], dark=dark)
        colors.append(
            browser.run(
                "[getComputedStyle(document.body).backgroundColor,"
                " document.querySelector('#figure-epochs-loss .trace .js-line').style.stroke]"
            )
        )
    assert colors[0][0] != colors[1][0]
    assert colors[0][1] != colors[1][1]


def test_tables_are_sorted_with_the_keyboard(browser, pages):
    browser.open(pages["tune"])
    heading = "document.querySelectorAll('#trials-table th')[2]"  # accuracy
    values = (
        "[...document.querySelectorAll('#trials-table tbody td:nth-child(3)')]"
        ".map((cell) => Number(cell.textContent))"
    )
    browser.run(f"{heading}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.run(f"{heading}.ariaSort") == "descending"
    once = browser.run(values)
    browser.press("Enter")
    assert browser.run(f"{heading}.ariaSort") == "ascending"
    assert once == sorted(once, reverse=True)
    assert browser.run(values) == sorted(once)
    browser.press("Tab")
    buttons = "document.querySelectorAll('#trials-table th button')"
    assert browser.run(f"document.activeElement === {buttons}[3]")


def test_tables_are_filtered(browser, pages):
    browser.open(pages["tune"])
    browser.run("document.querySelector('[data-filter=trials-table]').focus()")
    for letter in "stop":
        browser.press(letter)
    rows = "[...document.querySelectorAll('#trials-table tbody tr')]"
    assert browser.run(f"{rows}.filter((row) => !row.hidden).length") == 4
    assert browser.run("document.querySelector('[data-count=trials-table]').textContent") == (
        "4 of 12 rows"
    )


def test_a_page_of_a_running_search_loads_itself_until_told_otherwise(browser, pages):
    browser.open(pages["watch"])
    browser.run("window.before = true")
    browser.wait(
        "!window.before && document.documentElement?.dataset.drawn &&"
        " (document.getElementById('refresh').click(), window.before = true)"
    )
    browser.run("new Promise((done) => setTimeout(done, 1500))")
    assert browser.run("window.before") is True
    assert browser.run("document.getElementById('refresh').ariaPressed") == "false"


def test_print_has_its_own_width_and_theme(browser, pages):
    browser.open(pages["train"], dark=True)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    browser.run("new Promise((done) => setTimeout(done, 1000))")
    widths = browser.run(
        "[...document.querySelectorAll('.plot .main-svg')].map((svg) => svg.clientWidth)"
    )
    assert set(widths) == {660}
    assert browser.run("getComputedStyle(document.body).color") == "rgb(27, 32, 39)"
    pdf = browser.call("Page.printToPDF")["data"]
    assert len(pdf) > 50_000
