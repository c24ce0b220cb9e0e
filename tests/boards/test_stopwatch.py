import pytest

from boards.profiling.stopwatch import (
    ANSWERS_PER_BLOCK,
    MAX_ROUNDS,
    MIN_ROUNDS,
    Stopwatch,
    Timing,
    drift_pct,
)


class Clock:
    """Time that passes only when something takes it."""

    def __init__(self):
        self.now_s = 0.0

    def read(self):
        return self.now_s

    def pass_s(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return Stopwatch(clock.read, clock.pass_s)


def taking(clock, watch, seconds):
    return lambda: watch.once(lambda: clock.pass_s(seconds))


def test_what_things_take_is_told(clock, watch):
    things = {"slow": taking(clock, watch, 0.5), "fast": taking(clock, watch, 0.0002)}
    timed = watch.timed("things", things, seconds=60)
    assert timed["slow"].ms == pytest.approx(500)
    assert timed["fast"].ms == pytest.approx(0.2)
    assert timed["slow"].spread_pct == 0


def test_a_disturbance_of_half_the_time_does_not_count_but_is_told(clock, watch):
    """Others that run now and then make answers longer: never shorter."""

    def disturbed():
        busy = int(clock.now_s) % 2 == 0
        return watch.once(lambda: clock.pass_s(0.05 if busy else 0.02))

    timed = watch.timed("thing", {"thing": disturbed}, seconds=30)
    assert timed["thing"].ms == pytest.approx(20)
    assert timed["thing"].spread_pct > 50


def test_things_take_turns(clock, watch):
    seen = []

    def noting(name):
        return lambda: seen.append(name) or 1.0

    watch.timed("things", {"a": noting("a"), "b": noting("b")}, seconds=0)
    block = 1 + ANSWERS_PER_BLOCK
    assert seen == (["a"] * block + ["b"] * block) * MIN_ROUNDS


def test_rounds_end_with_the_time_or_at_the_most(clock, watch):
    slow = watch.timed("slow", {"x": taking(clock, watch, 10)}, seconds=1)
    assert slow["x"].blocks == MIN_ROUNDS
    fast = watch.timed("fast", {"x": taking(clock, watch, 1e-6)}, seconds=1e6)
    assert fast["x"].blocks == MAX_ROUNDS


def test_the_first_answer_of_a_block_does_not_count(clock, watch):
    answers = iter([99.0, *[1.0] * ANSWERS_PER_BLOCK] * MIN_ROUNDS)
    timed = watch.timed("thing", {"x": lambda: next(answers)}, seconds=0)
    assert timed["x"] == Timing(1.0, 0.0, MIN_ROUNDS)


def test_progress_ends_at_its_total(clock, watch):
    told = []
    watch.timed("things", {"x": taking(clock, watch, 0.1)}, 5, lambda *each: told.append(each))
    assert {what for what, _, _ in told} == {"things"}
    assert all(0 <= done <= total for _, done, total in told)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_drift_is_relative_to_before():
    assert drift_pct(Timing(2.0, 0, 1), Timing(2.5, 0, 1)) == pytest.approx(25)
    assert drift_pct(Timing(2.0, 0, 1), Timing(1.5, 0, 1)) == pytest.approx(-25)
