"""The server of `nonn-plan ui`: who may call, what it answers, and what it leaves behind."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest

pytest.importorskip("starlette", reason="the part `ui` is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from running_page import RunningServer
from starlette.testclient import TestClient

from nonn_plan.ui.server import PageServer

OPTIONS = {"teacher_network": "wrn40-4", "image": "3x32x32", "classes": "10", "precision": "int8"}
ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture
def page(partition_document):
    """Client of a server, which starts no solver process."""
    server = PageServer.with_file(partition_document, "partition.json")
    client = TestClient(server.app(), base_url=f"{ORIGIN}/{server.token}/")
    client.headers["origin"] = ORIGIN
    return client


def asked(opened, **budgets):
    question = deepcopy(opened["question"])
    question["options"] = {**OPTIONS, "objective": "latency"}
    for board in question["boards"]:
        board["budgets"] = budgets or {"memory": "500KB", "flops": "200M"}
    return question


def test_the_page_and_all_that_it_loads_are_shipped(page):
    text = page.get("").text
    names = ["style.css", "app.js", "drawing.js", "form.js", "solver.js", "quantity.js"]
    for name in [*names, "preact-htm.js", "LICENSE-preact.txt", "LICENSE-htm.txt"]:
        assert page.get(f"asset/{name}").status_code == 200
    assert 'src="asset/app.js"' in text and "http" not in text
    assert page.get("asset/server.py").status_code == 404
    assert page.get("asset/..%2fserver.py").status_code == 404
    assert "default-src 'self'" in page.get("").headers["content-security-policy"]


def test_nobody_but_the_page_may_call(page):
    question = {"question": asked(page.get("opened").json())}
    for headers in (
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "https://example.org"},
        {"origin": "null"},
        {"host": "example.org:8000"},
        {"host": "127.0.0.1"},
    ):
        refused = page.post("answer", json=question, headers=headers)
        assert refused.status_code == 403, headers
    del page.headers["origin"]
    assert page.post("answer", json=question).status_code == 403
    assert page.get("opened").status_code == 200
    assert page.get("opened", headers={"host": "rebound.example.org:8000"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/opened", "/wrong/opened", "//opened"])
def test_without_the_token_there_is_nothing(page, path):
    assert page.get(f"{ORIGIN}{path}").status_code == 404


@pytest.mark.parametrize(
    ("body", "kind", "status", "told"),
    [
        ("{", "application/json", 400, "is not JSON"),
        ("[1]", "application/json", 400, "no mapping"),
        ("{}", "application/json", 400, "the whole file"),
        ('{"question": {"source": "1"}}', "application/json", 400, "required and missing"),
        ("[" * 200_000, "application/json", 400, "is not JSON"),
        ("{}", "text/plain", 415, "application/json"),
        ("\x00\xff", "application/json", 400, "is not JSON"),
    ],
)
@pytest.mark.parametrize("path", ["answer", "open"])
def test_what_is_no_question_gets_an_error_and_nothing_dies(page, path, body, kind, status, told):
    refused = page.post(path, content=body.encode("latin-1"), headers={"content-type": kind})
    assert refused.status_code == status
    assert told in refused.json()["message"] or path == "open"
    assert page.get("opened").json()["filters"] == 81


def test_a_file_is_opened_and_told_of(page, partition_document, plan_file):
    for name, content in (
        ("other.json", partition_document),
        ("plan.json", json.loads(plan_file.read_text())),
    ):
        opened = page.post("open", json={"name": name, "content": content}).json()
        assert opened["filters"] == 81
        assert page.get(f"opened/{opened['id']}").json() == opened
    assert opened["notes"] == [
        "the command reads plan-partition.json: save it from this page",
        *opened["notes"][1:],
    ]
    assert page.get(f"partition/{opened['id']}").json()["filters"] == 81
    assert page.get("devices", params={"search": "pi 4b"}).json()["found"] >= 1


@pytest.fixture
def running(partition_file):
    server = RunningServer(partition_file)
    yield server
    server.end(signal.SIGKILL)


def wait_until(holds):
    for _ in range(600):
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_two_tabs_get_their_answers_and_a_signal_ends_all(running, nonn_plan, plan_arguments):
    opened = running.client.get("opened").json()
    questions = [asked(opened, memory=size) for size in ("500KB", "100KB")]
    with ThreadPoolExecutor(2) as tabs:
        first, second = tabs.map(running.answer, questions)
    assert first[-1]["status"] == "optimal"
    assert second[-1]["status"] == "infeasible"
    assert second[-1]["repairs"]
    rest = running.answer(questions[0] | {"boards": questions[1]["boards"]}, rest=True)
    assert rest[-1]["kind"] == "rest"
    assert {row["way"] for row in rest[-1]["alternatives"]} >= {"teacher on rpi-3b-1"}
    processes = running.solvers()
    assert processes
    running.end()
    assert wait_until(lambda: not any(one.is_running() for one in processes))


def test_a_cancelled_solve_leaves_no_process(running, partition_document):
    sizes = range(3, 40, 2)
    start, communities = 0, []
    for number, size in enumerate(sizes):
        filters = list(range(start, start + size))
        communities.append({"id": number, "filters": filters, "linked": True})
        start += size
    content = {**partition_document, "filters": start, "communities": communities}
    opened = running.client.post("open", json={"name": "long.json", "content": content}).json()
    question = asked(opened)
    devices = ("rpi-3b", "rpi-4b", "odroid-xu4s")
    question["boards"] = [
        {
            "name": f"{device}-{number}",
            "device": device,
            "budgets": {"memory": f"{300 + 37 * number}KB", "flops": f"{60 + 11 * number}M"},
        }
        for device in devices
        for number in range(1, 6)
    ]
    question["options"]["objective"] = "capacity,latency"
    assert wait_until(running.solvers)
    (busy,) = running.solvers()
    with running.client.stream("POST", "answer", json={"question": question}) as response:
        first = json.loads(next(response.iter_lines()))
        assert first["kind"] == "asked"
    # The browser is gone: closed, cancelled or killed is the same.
    assert wait_until(lambda: not busy.is_running())
    # The next question does not wait for a start, and is answered.
    assert running.answer(asked(running.client.get("opened").json()))[-1]["status"] == "optimal"
    # A killed server takes its solvers along.
    processes = running.solvers()
    os.kill(running.process.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(one.is_running() for one in processes))
