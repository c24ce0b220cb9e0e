"""The page in a browser: what it shows is what the command answers; it skips without Chromium."""

import base64
import json
import re
import shlex
import shutil
import signal
from itertools import product

import pytest

pytest.importorskip("starlette", reason="the part `ui` is not installed")
pytest.importorskip("axe_playwright_python", reason="Playwright or axe is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from running_page import RunningServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

MEMORY, FLOPS = '[aria-label="memory of all boards"]', '[aria-label="flops of all boards"]'
SLIDER = '[aria-label="memory of all boards, slider"]'
WAIT_MS = 120_000
OUTSIDE = """[...document.querySelectorAll('.card *')]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
    .map((one) => one.outerHTML)"""
"""Elements that are cut at the right."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, partition_document):
    folder = tmp_path_factory.mktemp("page")
    (folder / "partition.json").write_text(json.dumps(partition_document))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    running = RunningServer(folder / "partition.json")
    yield running
    running.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def link(server):
    """Link to the published question in a state of the page."""
    question = server.client.get("opened").json()["question"]
    question["options"] = {"teacher_network": "wrn40-4", "image": "3x32x32", "classes": "10"}
    question["options"] |= {"precision": "int8", "objective": "capacity:5%,latency"}
    for board in question["boards"]:
        board["budgets"] = {"memory": "500KB", "flops": "200M"}
    return f"{server.address}#{base64.b64encode(json.dumps(question).encode()).decode()}"


@pytest.fixture
def page(browser, server, link):
    """A tab with the published question; nothing may leave it, and nothing may go wrong."""
    with browser.new_context(viewport={"width": 1600, "height": 900}) as context:
        tab, wrong = context.new_page(), []
        tab.set_default_timeout(WAIT_MS)
        tab.on("console", lambda said: wrong.append(said.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        own = server.address.rsplit("/", 2)[0]
        tab.on("request", lambda asked: leaving(asked.url, own) and wrong.append(asked.url))
        tab.goto(link)
        settled(tab, "optimal")
        yield tab
        assert wrong == []


def leaving(url, own):
    return not url.startswith((own, "blob:", "data:"))


def settled(page, state):
    """Wait for an answer and all that comes behind it."""
    expect(page.locator("#status")).to_have_attribute("data-state", state, timeout=WAIT_MS)
    expect(page.locator("#trade-off")).to_be_visible(timeout=WAIT_MS)


def put(page, field, text):
    page.locator(field).fill(text)
    page.locator(field).press("Tab")


def test_a_slider_moves_and_the_plan_is_that_of_the_command(page, folder, nonn_plan, monkeypatch):
    before = page.locator("#command").inner_text()
    for _ in range(6):
        page.locator(SLIDER).press("ArrowLeft")
    expect(page.locator("#command")).not_to_have_text(before, timeout=WAIT_MS)
    settled(page, "optimal")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save plan.json").click()
    shown = json.loads(saved.value.path().read_text())
    monkeypatch.chdir(folder)
    assert nonn_plan(*shlex.split(page.locator("#command").inner_text())[1:]).code == 0
    asked = json.loads((folder / "plan.json").read_text())
    assert shown == asked
    for student in asked["students"]:
        board = page.locator(f'[data-board="{student["board"]}"]')
        expect(board).to_contain_text(student["name"])
        expect(board).to_contain_text(student["network"])
    for row, level in zip(page.locator("#proof tbody tr").all(), asked["stages"], strict=True):
        assert level["objective"] in row.inner_text()
        assert f"{level['value']:.7g}" in row.inner_text()


def test_a_conflict_is_shown_and_a_repair_repairs(page):
    put(page, MEMORY, "100KB")
    settled(page, "infeasible")
    expect(page.get_by_text("memory budget of rpi-3b-1: 100.0 KB").first).to_be_visible()
    page.locator(".repairs button").first.click()
    settled(page, "optimal")
    assert "132.882KB" in page.locator("#command").inner_text()
    page.get_by_role("button", name="Undo").click()
    settled(page, "infeasible")
    page.get_by_role("button", name="Redo").click()
    settled(page, "optimal")
    # The link reproduces what is there.
    command = page.locator("#command").inner_text()
    page.reload()
    settled(page, "optimal")
    assert page.locator("#command").inner_text() == command


def test_the_table_sorts_by_each_column(page):
    def column(number):
        cells = page.locator(f"#trade-off tbody td:nth-child({number})").all_inner_texts()
        return [float(cell) for cell in cells if re.fullmatch(r"[\d.]+", cell)]

    for number, name in ((2, "latency, ms"), (3, "accuracy, %"), (4, "energy, mJ")):
        button = page.locator("#trade-off").get_by_role("button", name=name)
        button.click()
        assert column(number) == sorted(column(number))
        button.click()
        assert column(number) == sorted(column(number), reverse=True)


def test_boards_are_added_duplicated_and_removed(page):
    page.get_by_role("button", name="duplicate rpi-3b-1").click()
    expect(page.locator("#command")).to_contain_text("--fleet 'rpi-3b*3'", timeout=WAIT_MS)
    page.get_by_label("Add a board: search the library").press_sequentially("a72 4b")
    page.get_by_role("button", name="add rpi-4b", exact=True).click()
    expect(page.locator("#command")).to_contain_text("rpi-3b*3,rpi-4b", timeout=WAIT_MS)
    page.get_by_role("button", name="remove rpi-3b-2").click()
    expect(page.locator("#command")).to_contain_text("rpi-3b*2,rpi-4b", timeout=WAIT_MS)
    settled(page, "optimal")


def test_the_keyboard_alone_suffices(page):
    """From the first control on, with Tab, arrows and Enter."""

    def tab_to(label):
        for _ in range(150):
            page.keyboard.press("Tab")
            if label in page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.textContent || ''"
            ):
                return
        raise AssertionError(f"no way to {label}")

    page.locator("h1").click()
    tab_to("memory of all boards, slider")
    page.keyboard.press("Home")
    settled(page, "infeasible")
    tab_to("on every board")
    page.keyboard.press("Enter")
    settled(page, "optimal")
    tab_to("Copy the command")


def test_on_a_narrow_screen_the_answer_is_in_sight_beside_the_form(page):
    page.set_viewport_size({"width": 400, "height": 700})
    summary = page.locator("#summary")
    expect(summary).to_be_in_viewport(ratio=1)
    latency = page.locator(".figures .value").first.inner_text()
    expect(summary).to_contain_text(f"optimal, proven latency {latency}")
    put(page, MEMORY, "100KB")
    expect(summary).to_contain_text("proven infeasible repairs:", timeout=WAIT_MS)
    summary.get_by_role("button").click()
    expect(page.locator("#conflict-title")).to_be_in_viewport()
    page.set_viewport_size({"width": 1600, "height": 700})
    expect(summary).to_be_hidden()


def test_flash_and_ram_are_asked_for_where_a_board_has_them_apart(page):
    page.get_by_text("further budgets").first.click()
    expect(page.get_by_label("time of all boards", exact=True)).to_be_visible()
    flash = page.get_by_label("flash of all boards", exact=True)
    expect(flash).to_have_count(0)
    page.get_by_label("Add a board: search the library").press_sequentially("stm32l4r5")
    page.get_by_role("button", name="add stm32l4r5", exact=False).first.click()
    expect(flash).to_be_visible()
    expect(page.get_by_label("flash of rpi-3b-1", exact=True)).to_have_count(0)


def test_nothing_is_cut_and_axe_has_nothing_serious_to_say(page):
    for summary in page.locator("summary").all():
        summary.click()
    for width, scheme in product((1600, 400), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OUTSIDE) == []
        violations = Axe().run(page).response["violations"]
        assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
