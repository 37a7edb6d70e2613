"""modules/training/autosave.py: an autosave is due when the last checkpoint is too old, and not before."""

import time

import pytest

from modules.training.autosave import AutosaveTimer


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_an_autosave_is_due_when_the_last_is_minutes_old(clock):
    timer = AutosaveTimer(minutes=2)
    for seconds, due in ((0, False), (119, False), (1, True), (500, True)):
        clock[0] += seconds
        assert timer.due is due
    timer.restart()
    assert not timer.due
    clock[0] += 120
    assert timer.due


def test_without_minutes_none_is_ever_due(clock):
    timer = AutosaveTimer(minutes=0)
    clock[0] += 1e9
    assert not timer.due
