import sys

import pytest

from nwb_compact import progress
from nwb_compact.progress import Advance, silent, stage


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_at_the_end_and_few_before(clock, capsys):
    with stage("training", 10) as advance:
        for number in range(10):
            clock.now += 4
            advance(note=f"loss {number}")
    assert capsys.readouterr().err.splitlines() == [
        "training: 4/10, 16 s, 24 s left  loss 3",
        "training: 8/10, 32 s, 8 s left  loss 7",
        "training: 10/10, 40 s  loss 9",
    ]


def test_steps_can_be_taken_many_at_a_time_and_a_note_stays_until_the_next(clock, capsys):
    with stage("resuming", 5) as advance:
        clock.now += 1
        advance(3, "resumed")
        advance(2)
    assert capsys.readouterr().err == "resuming: 5/5, 1 s  resumed\n"


def test_a_stage_without_a_step_yet_can_be_told_of(clock, capsys):
    with stage("waiting", 5) as advance:
        clock.now += 20
        advance(0)
    assert capsys.readouterr().err == "waiting: 0/5, 20 s, 100 s left\n"


def test_quiet_is_quiet(capsys):
    with stage("training", 1, quiet=True) as advance:
        advance(note="done")
    assert advance is silent
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with stage("training", 2) as advance:
        advance(note="loss 1")
        advance()
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "2/2" in shown
    assert "loss 1" in shown


@pytest.mark.parametrize("quiet", [True, False])
def test_what_a_stage_gives_is_an_advance(quiet):
    with stage("training", 1, quiet=quiet) as advance:
        assert isinstance(advance, Advance)
