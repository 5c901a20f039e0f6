"""How the engine's benchmark times two sides in turn, on a clock of the test's own."""

from itertools import chain, repeat

import pytest
from benchmarks.engine_parts import steps
from benchmarks.engine_parts.steps import Patience, in_turn, stretch, usual


class Clock:
    """Time that passes only while a side works."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def side(self, *first, then):
        """Work that takes `first` seconds, one call each, and `then` from there on."""
        durations = chain(first, repeat(then))

        def work():
            self.now += next(durations)

        return work


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(steps, "time", made)
    return made


def test_the_first_quarter_of_a_stretch_does_not_count(clock):
    assert stretch(clock.side(0.5, 0.25, then=0.125), 1.0) == [0.25, 0.125, 0.125]
    assert clock.now == 1.0


def test_a_stretch_has_four_steps_at_least(clock):
    assert stretch(clock.side(0.5, then=0.25), 0.0) == [0.25] * 3


def test_long_steps_all_count(clock):
    assert stretch(clock.side(3.0, then=2.0), 0.0) == [3.0]
    assert stretch(clock.side(3.0, then=2.0), 6.0) == [3.0, 2.0, 2.0]


def test_all_three_have_as_long_and_a_group_of_products_lasts_as_long_as_a_step(clock):
    taken = in_turn(
        clock.side(then=2.0),
        clock.side(then=0.5),
        clock.side(then=8.0),
        Patience(rounds=3, seconds=0.0, stretch_seconds=100.0),
    )
    assert taken.peft == [8.0] * 3
    assert taken.ours == [2.0] * 12
    assert taken.in_group == 4
    assert taken.products == [0.5] * 12


def test_a_long_step_of_the_other_side_gives_no_more_than_a_stretch(clock):
    patience = Patience(rounds=1, seconds=0.0, stretch_seconds=4.0)
    taken = in_turn(clock.side(then=2.0), clock.side(then=0.5), clock.side(then=50.0), patience)
    assert (len(taken.ours), len(taken.products)) == (2, 2)


def test_rounds_go_on_until_the_time_is_over(clock):
    patience = Patience(rounds=1, seconds=31.0, stretch_seconds=4.0)
    taken = in_turn(clock.side(then=2.0), clock.side(then=0.5), clock.side(then=8.0), patience)
    # Of 16 seconds each.
    assert len(taken.peft) == 2


def test_the_usual_is_the_lower_quartile_or_of_few_the_least():
    assert usual([3.0, 1.0, 2.0]) == 1.0
    assert usual([7.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == 2.0
