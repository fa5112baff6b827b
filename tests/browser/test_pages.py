"""Every page in a real browser: no complaint, no request to anybody else, usable at 420 and at 1400 pixels.

Skips where no Chromium is installed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.note import NoteChange
from highnoon.shared.domain.states import StudyState, WorkerState
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.submission import submit
from highnoon.webui import event_stream
from tests.browser.chromium import Page, browser, installed
from tests.browser.studies import keep_worker, make_studies
from tests.conftest import empty_database
from tests.ledger import FAILED, Ledger
from tests.made_up import SPACE, spec_of
from tests.support import eventually, steady_network
from tests.web import TOKEN, dashboard

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium is installed")

HERE = Path(__file__).parents[1]
PAGES = {
    "studies": "/hpo",
    "study": "/hpo/studies/digits",
    "trials": "/hpo/studies/digits/trials",
    "trial": "/hpo/studies/digits/trials/7",
    "trial-running": "/hpo/studies/digits/trials/60",
    "compare": "/hpo/studies/digits/compare?trial=3&trial=7&trial=12",
    "new": "/hpo/new?like=digits",
    "fresh": "/hpo/studies/fresh",
    "large": "/hpo/studies/large",
    "goals": "/hpo/studies/goals",
    "goals-trials": "/hpo/studies/goals/trials",
    "goals-trial": "/hpo/studies/goals/trials/11",
    "goals-compare": "/hpo/studies/goals/compare?trial=3&trial=11",
    "goals-new": "/hpo/new?like=goals",
    "sixty": "/hpo/studies/sixty",
    "sixty-trial": "/hpo/studies/sixty/trials/7",
    "sixty-new": "/hpo/new?like=sixty",
    "failed": "/hpo/studies/broken",
    "failed-trial": "/hpo/studies/broken/trials/1",
    "external": "/hpo/studies/plain%20optuna",
    "wide": "/hpo/studies/wide",
    "wide-trials": "/hpo/studies/wide/trials",
    "compared": "/hpo/compare?study=digits&study=goals",
    "cluster": "/hpo/cluster",
    "docs": "/docs",
}
_SCREEN = 900
_DRAWN = """[...document.querySelectorAll('[data-figure] .note')].every((note) =>
    note.textContent !== 'Loading …' || note.closest('details:not([open])'))"""
_OPEN = "document.querySelectorAll('details.more').forEach((more) => { more.open = true; })"
_UNNAMED = """[...document.querySelectorAll('a, button, input:not([type=hidden]), select')].filter((e) => e.offsetParent
    && !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.title)).map((e) => e.outerHTML)"""
_FAINT = """[...document.querySelectorAll('p, td, th, dt, dd, a, h1, h2, h3, label, summary, button')].filter((e) => {
    const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    if (!e.offsetParent || !e.innerText.trim() || e.closest('.js-plotly-plot, .hidden')) return false;
    let behind = e;
    while (behind && (rgb(getComputedStyle(behind).backgroundColor)[3] ?? 1) < 1) behind = behind.parentElement;
    const [a, b] = [light(rgb(getComputedStyle(e).color)),
        light(rgb(getComputedStyle(behind ?? document.documentElement).backgroundColor))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
}).map((e) => e.outerHTML.slice(0, 120))"""
_WRAPPED = """[...document.querySelectorAll('button, .button')].filter((e) => {
    if (!e.offsetParent) return false;
    const [above, below, line] = ['paddingTop', 'paddingBottom', 'lineHeight'].map((name) =>
        parseFloat(getComputedStyle(e)[name]));
    return e.clientHeight - above - below > 1.9 * line;
}).map((e) => e.outerHTML)"""
_COVERED = """[...document.querySelectorAll('.js-plotly-plot')].filter((plot) => {
    const boxes = (what) => [...plot.querySelectorAll(what)].map((e) => e.getBoundingClientRect());
    return boxes('.legend .traces, .xtick text, .ytick text').some((a) => boxes('.modebar-btn').some((b) =>
        a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
}).map((plot) => plot.closest('figure').dataset.name)"""

_FITTED = """[...document.querySelectorAll('.js-plotly-plot')].every((plot) => {
    const [place, drawn] = [plot.closest('figure'), plot.querySelector('.main-svg')]
        .map((e) => e.getBoundingClientRect());
    return Math.abs(drawn.width - plot.clientWidth) < 2 && drawn.height >= 220 && drawn.bottom < place.bottom;
})"""

_LAST_AXIS = """(() => {
    const plot = document.querySelector('[data-name=parallel] .plot');
    plot.scrollIntoView({block: 'center'});
    const [box, size] = [plot.getBoundingClientRect(), plot._fullLayout];
    const x = box.x + size._size.l + size.xaxis.l2p(size.xaxis.tickvals.length - 1);
    return [x, box.y + size._size.t + size.yaxis.l2p(1), box.y + size._size.t + size.yaxis.l2p(0)];
})()"""

_RULES_OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The second one is experimental, and not one of those that axe applies by itself."""


def _axe(rules: Sequence[str] = ()) -> str:
    """Finds what is serious, by all rules or by these. Drawings are plotly's own, and their content is in tables."""
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    return f"""axe.run({{exclude: [['.js-plotly-plot']]}}, {json.dumps(options)}).then((result) => result.violations
        .filter((one) => ['serious', 'critical'].includes(one.impact))
        .map((one) => one.id + ': ' + one.help + ' ' + one.nodes.map((node) => node.html.slice(0, 160)).join(' | ')))"""


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with empty_database(stack) as url:
        make_studies(url)
        yield url


@pytest.fixture(scope="module")
def books(url: str) -> Iterator[Access]:
    with opened(url) as access:
        yield access


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url, create=False)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def address(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environ = {"HIGHNOON_OBJECTIVES": f"{HERE}/*.py:*"}
    with dashboard(url, tmp_path_factory.mktemp("home"), environ=environ) as address:
        yield address


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with steady_network(), browser() as page:
        yield page


@pytest.fixture(autouse=True)
def _no_complaint_and_no_stranger(page: Page, address: str) -> Iterator[None]:
    page.complaints.clear()
    page.requests.clear()
    page.look(1400)
    yield
    assert page.complaints == []
    assert {urlsplit(request).hostname for request in page.requests if request.startswith("http")} <= {"127.0.0.1"}


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_is_named_and_is_readable_and_axe_finds_nothing_serious(
    page: Page, address: str, url: str, name: str
) -> None:
    """Light and dark differ in colours alone: what else is on the page is checked once for both."""
    keep_worker(url)
    for width in (420, 1400):
        page.look(width)
        page.goto(address + PAGES[name])

        assert page.eval("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
        assert page.eval(_UNNAMED) == []
        assert page.eval("document.querySelectorAll('h1').length") == 1 and page.eval("document.title")
        assert page.eval(_FAINT) == [], "light"
        page.look(width, dark=True)
        assert page.eval(_FAINT) == [], "dark"
        page.look(min(width, 1200), dark=True)
        assert page.eval(_WRAPPED) == [], "a button has two lines"

    page.look(1400, height=200)  # so that few drawings are drawn, which axe is not asked about
    page.eval(f"{_OPEN}; {files('axe_core_python').joinpath('axe.min.js').read_text()}; true")
    assert page.eval(_axe()) == [], "light"
    page.look(1400, height=200, dark=True)
    assert page.eval(_axe(rules=_RULES_OF_COLOURS)) == [], "dark"

    if folder := os.environ.get("SCREENSHOTS"):
        for width, dark in product((420, 1400), (False, True)):
            page.look(width, dark=dark, height=8000)  # a figure is drawn when it comes into view
            page.goto(address + PAGES[name])
            page.until(_DRAWN)
            height = page.eval("Math.ceil(document.querySelector('main').offsetHeight) + 80")
            page.look(width, dark=dark, height=height)
            page.screenshot(Path(folder) / f"{name}-{width}-{'dark' if dark else 'light'}.png")


def test_no_page_is_longer_than_three_screens_before_something_is_opened(page: Page, address: str) -> None:
    for name, path in PAGES.items():
        page.look(1400, height=8000)  # a figure is drawn when it comes into view
        page.goto(address + path)
        page.until(_DRAWN)

        height = page.eval("document.querySelector('main').getBoundingClientRect().bottom")
        assert height <= 3 * _SCREEN, f"{name} has {height:.0f} pixels"


def test_a_study_of_sixty_parameters_is_a_page_and_not_a_scroll(page: Page, address: str) -> None:
    page.look(1400, height=3000)
    page.goto(f"{address}/hpo/studies/wide")
    page.until(_DRAWN)

    assert page.eval("document.documentElement.outerHTML.length") < 1_000_000
    assert page.eval("document.body.innerText.includes('The 10 of 60 parameters that matter most.')")
    page.goto(f"{address}/hpo/studies/wide/trials")
    shown = "[...document.querySelectorAll('thead th')].filter((head) => head.offsetParent).length"
    assert page.eval(shown) < 22


def test_values_of_compared_studies_are_seen_on_every_screen(page: Page, address: str, ledger: Ledger) -> None:
    space = {"layer_of_the_encoder": ["categorical", [f"a long choice of words, number {n}" for n in range(9)]]}
    for name in ("wordy", "wordy-" + 60 * "x"):
        submit(spec_of(name, search_space={**space, name[:40]: ["uniform", 0.0, 1.0]}), ledger.access)
    for width, count in ((420, 1), (1400, 3)):
        page.look(width)
        page.goto(f"{address}/hpo/compare?study=wordy&study=wordy-{60 * 'x'}&study=goals")
        ends = page.eval("[...document.querySelectorAll('thead th')].map((e) => e.getBoundingClientRect().right)")
        assert ends[count] <= width, (width, ends)


def test_a_study_in_which_all_failed_does_not_look_like_a_success(page: Page, address: str) -> None:
    page.goto(f"{address}/hpo/studies/broken")
    assert page.eval("document.querySelector('h1 .state').textContent") == "finished, all failed"
    assert page.eval("getComputedStyle(document.querySelector('h1 .state')).color") == page.eval(
        "getComputedStyle(document.querySelector('.bar .fail')).fill"
    )


def test_a_logarithmic_axis_is_one_click_away(page: Page, address: str) -> None:
    page.look(1400, height=3000)
    page.goto(f"{address}/hpo/studies/digits")
    page.until(_DRAWN)
    page.eval("document.querySelector('[data-name=history] [data-log]').click()")
    page.until("document.querySelector('[data-name=history] .plot').layout.yaxis.type === 'log'")


def test_a_range_on_an_axis_keeps_the_lines_that_cross_it(page: Page, address: str) -> None:
    page.look(1400, height=6000)
    page.goto(f"{address}/hpo/studies/digits")
    page.until("document.querySelector('[data-name=parallel] .main-svg')", what="the figure is drawn")
    note = "document.querySelector('[data-name=parallel] .note').textContent"
    assert "Drag along an axis" in page.eval(note)
    x, top, bottom = page.eval(_LAST_AXIS)

    page.drag((x, bottom + 8), (x, (top + bottom) / 2))
    page.until(f"{note}.includes('chosen ranges')", what="a part of the lines is shown")
    shown, total = map(int, re.findall(r"(\d+) of (\d+) lines", page.eval(note))[0])
    assert 0 < shown < total
    values = (
        "document.querySelector('[data-name=parallel] .plot').data"
        f".flatMap((trace) => trace.y.filter((y, index) => trace.x[index] === {len(SPACE)}))"
    )
    assert 0 <= page.eval(f"Math.max(...{values})") <= 0.55

    page.click("[data-name=parallel] [data-all]")
    page.until(f"{note}.includes('Drag along an axis')", what="all lines are back")


def choose_a_range(page: Page, address: str) -> str:
    """The lower half of the last axis of the parallel coordinates; gives the expression of the figure's note."""
    page.look(1400, height=6000)
    page.goto(address)
    page.until("document.querySelector('[data-name=parallel] .main-svg')", what="the figure is drawn")
    x, top, bottom = page.eval(_LAST_AXIS)
    page.drag((x, bottom + 8), (x, (top + bottom) / 2))
    note = "document.querySelector('[data-name=parallel] .note').textContent"
    page.until(f"{note}.includes('chosen ranges')", what="a part of the lines is shown")
    return note


def test_a_range_is_dropped_with_the_axis_that_it_was_chosen_on(page: Page, address: str) -> None:
    note = choose_a_range(page, f"{address}/hpo/studies/sixty")

    page.click("[data-name=parallel] [data-whole]")
    axes = "document.querySelector('[data-name=parallel] .plot').layout.xaxis.ticktext.length"
    page.until(f"{axes} === 61", what="all axes are drawn")
    assert "Drag along an axis" in page.eval(note)


def test_a_range_is_dropped_when_the_values_of_its_axis_move(page: Page, address: str) -> None:
    note = choose_a_range(page, f"{address}/hpo/studies/digits")

    figure = "figures.find((figure) => figure.element.dataset.name === 'parallel')"
    change = "layout.meta = layout.meta.map((scale, axis) => axis === %s ? -1 : scale)"
    changed = f"(() => {{ const it = {figure}, {{ layout }} = it.data; {change}; it.draw(); return {note}; }})()"
    assert "chosen ranges" in page.eval(changed % 0)
    assert "Drag along an axis" in page.eval(changed % len(SPACE))


def test_every_figure_is_drawn(page: Page, address: str) -> None:
    page.look(1400, height=6000)
    page.goto(f"{address}/hpo/studies/digits")
    page.eval(_OPEN)

    page.until(_DRAWN)
    page.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 18", what="nine figures are drawn")

    page.fill("[data-y]", "dropout")
    page.until("document.querySelector('[data-name=contour] .ytitle')?.textContent === 'dropout'")

    # The last of two choices counts, also where the first one is still being fetched
    chosen = "document.querySelector('[data-y]').value = {}; document.querySelector('[data-y]')"
    chosen += ".dispatchEvent(new Event('change', {{bubbles: true}}))"
    first, last = [name for name in SPACE if name != "dropout"][:2]
    page.eval("; ".join(chosen.format(json.dumps(name)) for name in (first, last)))
    page.until(f"document.querySelector('[data-name=contour] .ytitle')?.textContent === {json.dumps(last)}")


def test_figures_keep_their_words_on_a_narrow_screen(page: Page, address: str) -> None:
    page.look(400, height=6500)
    page.goto(f"{address}/hpo/studies/digits")
    page.eval(_OPEN)
    page.until(_DRAWN)
    page.until("document.querySelectorAll('.modebar').length === 9", what="nine figures are drawn")

    assert page.eval(_COVERED) == [], "buttons lie over a legend or an axis"
    named = "[...document.querySelectorAll('[data-name=parallel] .xtick text')].map((text) => text.textContent)"
    assert page.eval(named) == [*SPACE, "value"]


def test_figures_follow_the_window(page: Page, address: str) -> None:
    page.look(1600, height=4000)
    page.goto(f"{address}/hpo/studies/digits")
    page.eval(_OPEN)
    page.until("document.querySelectorAll('.modebar').length === 9", what="nine figures are drawn")

    for width in (900, 400, 1600):
        page.look(width, height=7000)
        page.until(_FITTED, what=f"every figure fits into {width} pixels")


def test_a_trials_page_draws_what_it_logged(page: Page, address: str) -> None:
    page.look(1400, height=3000)
    page.goto(f"{address}/hpo/studies/goals/trials/11")
    page.until(_DRAWN)
    page.until("document.querySelectorAll('.scatterlayer .js-line').length === 2", what="a curve for each metric")
    titles = "[...document.querySelectorAll('text.ytitle, text.y2title')].map((text) => text.textContent)"
    assert page.eval(titles) == ["validation_accuracy_o…", "grad_norm"]
    assert page.eval("document.querySelectorAll('.js-plotly-plot .modebar').length") == 1
    page.look(420, height=4000)
    page.until(_FITTED, what="the figure fits into 420 pixels")

    page.goto(f"{address}/hpo/studies/digits/trials/60")
    page.until("document.querySelector('[data-name=metrics] .note').textContent.includes('hn.log')")


def test_a_page_follows_its_study(page: Page, address: str, books: Access) -> None:
    page.goto(f"{address}/hpo/studies/digits")
    study = books.studies.get("digits")
    assert page.eval("document.querySelector('.title .state').innerText").endswith("running")

    # One change, whether the page listens already or not.
    books.studies.pause(study.id)
    page.until("document.querySelector('.title .state').innerText.endsWith('paused')")
    books.studies.resume(study.id)
    page.until("document.querySelector('.title .state').innerText.endsWith('running')")


def test_the_head_of_a_trials_page_follows_the_trial(page: Page, address: str, ledger: Ledger) -> None:
    record = ledger.study(2, name="ends")
    lease = ledger.start(ledger.tickets(record)[0])
    page.goto(f"{address}/hpo/studies/ends/trials/{lease.trial_number}")
    state = "document.querySelector('h1 .state').innerText"
    assert page.eval(state).endswith("running")
    page.click("[data-part=note] summary")
    page.eval("document.querySelector('textarea[name=note]').value = 'half a note'")

    ledger.finish(lease, FAILED)

    page.until(f"{state}.endsWith('fail') && document.querySelector('.title form[action$=\"/retry\"]')")
    assert page.eval("document.querySelector('textarea[name=note]').value") == "half a note"


def test_a_page_connects_again_after_an_answer_that_is_no_stream(
    page: Page, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = "document.getElementById('link')"
    with monkeypatch.context() as full:
        full.setattr(event_stream, "_MOST_LISTENERS", 0)
        page.goto(f"{address}/hpo/studies/digits")
        page.until(f"{link}.textContent.startsWith('Not connected')")
    page.until(f"{link}.hidden", what="it is connected again")
    assert all("503" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_the_cluster_page_follows_workers_while_no_study_changes(
    page: Page, address: str, url: str, books: Access
) -> None:
    keep_worker(url)
    page.goto(f"{address}/hpo/cluster")
    button = "Drain the worker on node-a"
    page.eval(f"document.querySelector('[aria-label=\"{button}\"]').focus()")
    Nodes(books.database).mark("w1", WorkerState.ACTIVE, "its clock was set")
    page.until("document.body.innerText.includes('its clock was set')", what="the page shows it")
    assert page.eval("document.activeElement.ariaLabel") == button, "the focus stays where it was"
    Nodes(books.database).mark("w1", WorkerState.ACTIVE)


def test_what_a_person_has_opened_or_written_outlives_a_change(page: Page, address: str, books: Access) -> None:
    page.goto(f"{address}/hpo/studies/sixty")
    page.click("[data-part=best] summary")
    page.click("[data-part=note] summary")
    page.eval("document.querySelector('textarea[name=note]').value = 'half a note'")
    study = books.studies.get("sixty")

    books.studies.pause(study.id)
    page.until("document.querySelector('.title .state').innerText.endsWith('paused')")
    books.studies.resume(study.id)
    page.until("document.querySelector('.title .state').innerText.endsWith('running')")

    assert page.eval("document.querySelector('textarea[name=note]').value") == "half a note"
    assert page.eval(
        "[...document.querySelectorAll('details[open]')].map((one) => one.closest('[data-part]').dataset.part)"
    ) == [
        "note",
        "best",
    ]

    # And numbers go on
    ended = "document.querySelector('[data-part=progress] dl > div:nth-child(2)').textContent"
    before = page.eval(ended)
    assert "Trials ended" in before
    books.studies.add_trials(study.id, 1, at_most=10_000)
    page.until(f"{ended} !== {json.dumps(before)}")

    # And what was left out meanwhile is shown when the form is closed
    NoteStore(books.database).change("sixty", None, NoteChange(text="of another person"))
    books.studies.pause(study.id)
    page.until("document.querySelector('.title .state').innerText.endsWith('paused')")
    assert not page.eval("document.querySelector('.remark')")
    page.click("[data-part=note] summary")
    page.until("document.querySelector('.remark')")
    books.studies.resume(study.id)


def test_steering_by_buttons(page: Page, address: str, books: Access) -> None:
    page.goto(f"{address}/hpo/studies/digits")

    page.until("document.querySelector('form[action$=\"/pause\"]')")
    page.click('form[action$="/pause"] button')
    eventually(lambda: books.studies.get("digits").state is StudyState.PAUSED, what="it is paused")
    page.until("document.querySelector('form[action$=\"/resume\"]')")
    page.click('form[action$="/resume"] button')
    eventually(lambda: books.studies.get("digits").state is StudyState.RUNNING, what="it goes on")


def test_a_study_is_built_from_rows(page: Page, address: str, books: Access) -> None:
    page.goto(f"{address}/hpo/new")
    function = next(line for line in (HERE / "objectives.py").read_text().splitlines() if line.startswith("def "))
    page.fill("#f-name", "from rows")
    page.fill("#f-objective", f"objectives.py:{function[4:].partition('(')[0]}")
    page.fill("#f-code_dir", str(HERE))
    page.click("#add-param")
    page.fill("[name=space-1-name]", "optimizer")
    page.fill("[name=space-1-kind]", "categorical")
    page.fill("[name=space-1-choices]", "adam, sgd")
    assert page.eval("document.querySelectorAll('#space fieldset').length") == 3
    assert page.eval("document.querySelectorAll('#space fieldset:nth-child(2) circle').length") == 2
    page.click("#space fieldset:last-child .p-remove")

    page.click("button.primary")

    page.until("location.pathname === '/hpo/studies/from%20rows'")
    assert books.studies.get("from rows").spec["search_space"] == {
        "learning_rate": ["log_uniform", 1e-5, 0.1],
        "optimizer": ["categorical", ["adam", "sgd"]],
    }


def test_columns_are_chosen_and_remembered(page: Page, address: str) -> None:
    page.goto(f"{address}/hpo/studies/digits/trials")
    page.click(".columns-menu summary")
    page.click('[data-column="host"]')
    page.goto(f"{address}/hpo/studies/digits/trials?page=2")
    assert page.eval("document.querySelector('th.c-host').hidden") is True


def test_the_keyboard_reaches_the_content_first(page: Page, address: str) -> None:
    page.goto(f"{address}/hpo")
    page.press("Tab")
    assert page.eval("document.activeElement.className") == "skip"
    page.press("Tab")
    assert page.eval("document.activeElement.className") == "brand"


def test_the_printed_address_logs_in(page: Page, url: str, tmp_path: Path) -> None:
    with dashboard(url, tmp_path, host="0.0.0.0", environ={"HIGHNOON_TOKEN": TOKEN}) as address:
        page.goto(f"{address}/login#{TOKEN}")
        page.until("location.pathname === '/hpo' && document.querySelector('.logout')")
        assert all(TOKEN not in request for request in page.requests[1:])
