"""modules/progress_lines.py: progress is logged if there is no terminal for a bar."""

import io
import logging
from datetime import datetime, timedelta

import pytest

from modules import progress_lines
from modules.console import get_logger, nested_progress, progress
from modules.training.log_files import TextLog


@pytest.fixture
def clock(monkeypatch, caplog):
    """A clock in seconds that tests advance; standard error is no terminal, and its lines are in caplog."""
    caplog.set_level("INFO", "svc")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    now = [5000.0]
    monkeypatch.setattr(progress_lines, "monotonic", lambda: now[0])
    return now


def test_the_first_line_comes_after_seconds_and_the_next_each_minute(clock, caplog):
    for _ in progress(range(300), description="resampling", unit="clip"):
        clock[0] += 1
    moments = [line.partition(", expected")[0] for line in caplog.messages]
    assert moments == [
        "resampling: 10 of 300 clips; 0:00:10 so far",
        *(f"resampling: {10 + 60 * k} of 300 clips; 0:0{k}:10 so far" for k in range(1, 5)),
    ]


def test_the_end_is_expected_by_what_this_run_has_done(clock, caplog):
    with progress(total=1000, initial=900, description="training", unit="step") as bar:
        bar.set_postfix({"epoch": 3, "mel": "20.10", "lr": "0.0001"}, False)
        clock[0] += 600
        bar.update(10)
    (line,) = caplog.messages
    words, _, end = line.partition(", expected end ")
    assert words == "training: 910 of 1000 steps, epoch 3, mel 20.10, lr 0.0001; 0:10:00 so far"
    left = datetime.strptime(end, "%Y-%m-%d %H:%M") - datetime.now()
    assert timedelta(minutes=88) < left <= timedelta(minutes=90)


def test_progress_within_another_is_logged_when_it_takes_minutes(clock, caplog):
    for seconds in (1, 2):
        with nested_progress("diffusion", "step") as watch:
            for done in range(50):
                clock[0] += seconds
                watch(done + 1, 50)
    assert [line.partition(", expected")[0] for line in caplog.messages] == [
        "diffusion: 30 of 50 steps; 0:01:00 so far"
    ]


def test_progress_of_unknown_length_has_no_expected_end_and_seconds_no_plural(clock, caplog):
    for _ in progress(iter("abc"), description="song.wav", unit="s"):
        clock[0] += 20
    assert caplog.messages[0] == "song.wav: 1 s; 0:00:20 so far"


def test_other_ranks_are_silent_and_terminals_have_a_bar(clock, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("svc"), "level", logging.ERROR)
    for _ in progress(range(3), description="reading"):
        clock[0] += 100
    assert not caplog.messages
    monkeypatch.setattr(logging.getLogger("svc"), "level", logging.INFO)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    for _ in progress(range(3), description="reading"):
        clock[0] += 100
    assert not caplog.messages and "reading: 100%" in terminal.getvalue()


def test_progress_lines_are_kept_out_of_a_runs_text_log(clock, tmp_path, caplog):
    text = TextLog(tmp_path / "train.log")
    with progress(total=2, description="training", unit="step") as bar:
        clock[0] += 100
        bar.update()
    get_logger("train").info("saved")
    text.close()
    assert len(caplog.messages) == 2 and (tmp_path / "train.log").read_text(encoding="utf-8") == "saved\n"
