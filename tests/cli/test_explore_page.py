"""The page of an exploration in a browser; it skips without Chromium."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

IN_SIGHT = """() => {
    const at = document.getElementById("detail").getBoundingClientRect();
    return at.top >= -1 && at.bottom <= innerHeight + 1 && at.right <= innerWidth + 1;
}"""
PAGE_WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture
def explored(nonn_plan, partition_file, tmp_path):
    said = nonn_plan(
        "explore", partition_file, "--fleet", "rpi3x2", "--image", "3x32x32", "--classes", "10",
        "--student", "wrn16:32,64,64", "--student", "wrn16:16,32,64", "--precision", "int8",
        "--students", "2", "--memory", "50KB:500KB:50KB", "--flops", "60M,200M", "--jobs", "1",
        "-o", tmp_path / "explore",
    )  # fmt: skip
    assert said.code == 0, said.err
    return (tmp_path / "explore" / "index.html").as_uri()


def test_what_is_chosen_is_in_sight_on_narrow_and_wide_screens(explored):
    """The first and the last cell of the picture, and of the table far below it."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (400, 1600):
            page, wrong = browser.new_page(viewport={"width": width, "height": 800}), []
            page.on("console", lambda said, wrong=wrong: wrong.append(said.text))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.goto(explored)
            assert page.evaluate(PAGE_WIDTH) <= width
            for cells in (page.locator(".map button"), page.locator("#rows tbody tr")):
                assert cells.count() == 20
                for cell in (cells.first, cells.last):
                    cell.click()
                    objective = page.locator("#detail").inner_text()
                    assert "latency" in objective or "infeasible" in objective
                    assert page.evaluate(IN_SIGHT)
            assert wrong == []
        browser.close()
