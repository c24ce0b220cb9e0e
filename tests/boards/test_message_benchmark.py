import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.profiling import message_benchmark
from boards.profiling.message_benchmark import MessageTime, measure_messages, message_figures
from boards.profiling.stopwatch import Stopwatch
from boards.profiling.student_benchmark import Sharing, sharing_figure, thread_counts
from nonn_common.errors import BoardError
from nonn_core.networks.blueprint import ImageShape

SIZES = (256, 12288, 49152, 110592)


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(1e-7, 1e-3), st.floats(1e-7, 1e-3))
def test_fixed_times_and_times_per_byte_are_told_apart(send_ms, rest_ms, per_sent, per_rest):
    rows = [
        MessageTime(size, send_ms + per_sent * size, 0.02 + rest_ms + per_rest * size, 0.02)
        for size in SIZES
    ]
    found = message_figures(rows)
    assert found.message_ms.value == pytest.approx(send_ms, rel=1e-3, abs=1e-4)
    assert found.join_fixed_ms.value == pytest.approx(rest_ms, rel=1e-3, abs=1e-4)
    assert found.ms_per_byte.value == pytest.approx(per_sent + per_rest, rel=1e-3)
    assert found.fc_ms.value == 0.02


def test_an_fc_layer_that_takes_all_of_the_rest_leaves_no_time_below_zero():
    rows = [MessageTime(size, 1.0, 0.01, 0.02) for size in SIZES]
    assert message_figures(rows).join_fixed_ms.value == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "ncnn"])
def test_a_real_worker_is_asked_and_ended(monkeypatch, engine):
    pytest.importorskip(engine)
    started = []
    popen = message_benchmark.subprocess.Popen

    def noting(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(message_benchmark.subprocess, "Popen", noting)
    sizes = (ImageShape(1, 8, 8), ImageShape(3, 32, 32))
    rows = measure_messages(0.2, Stopwatch(), sizes, engine)
    assert [row.size_bytes for row in rows] == [256, 12288]
    assert all(min(row.send_ms, row.rest_ms, row.fc_ms) > 0 for row in rows)
    (worker,) = started
    assert worker.returncode == 0  # SIGTERM drains it.


def test_a_worker_that_does_not_start_is_told_with_its_last_words(monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(BoardError, match="no such luck"):
        measure_messages(0.1, Stopwatch(), (ImageShape(1, 8, 8),))


def test_sharing_is_one_factor_for_all_numbers():
    rows = [Sharing(2, 6.0, 10.0), Sharing(4, 12.0, 20.0)]
    assert sharing_figure(rows).value == pytest.approx(0.6)
    assert sharing_figure(rows).residual_pct == 0
    mixed = sharing_figure([Sharing(2, 5.0, 10.0), Sharing(4, 14.0, 20.0)])
    assert 0.5 < mixed.value < 0.7
    assert mixed.residual_pct > 5


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))]
)
def test_threads_are_doubled_up_to_the_cores(cores, counts):
    assert thread_counts(cores) == counts
