"""modules/training/log_writers.py: a full disk costs log lines, and never the run."""

import errno
import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from modules.console import get_logger
from modules.training import log_writers
from modules.training.log_writers import TensorBoardWriter, TextLog
from modules.training.saving import SPARE


def scalars(folder):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


@pytest.fixture
def free(monkeypatch):
    """Fake free disk space, bytes; tests change the first item."""
    room = [10 * SPARE]

    class Usage:
        @property
        def free(self):
            return room[0]

    monkeypatch.setattr(log_writers.shutil, "disk_usage", lambda folder: Usage())
    return room


def test_a_full_disk_leaves_a_gap_and_warns_once(tmp_path, free, caplog):
    events = TensorBoardWriter(tmp_path)
    for step, room in enumerate((SPARE, SPARE - 1, 0, SPARE)):
        free[0] = room
        events.add_scalar("loss", 1.0, step)
    events.close()
    assert scalars(tmp_path) == [(0, 1.0), (3, 1.0)]
    assert caplog.text.count("have gaps from now on: the disk is full") == 1


def test_a_failed_write_loses_only_its_own_event(tmp_path, caplog, monkeypatch):
    events = TensorBoardWriter(tmp_path)
    add, calls = SummaryWriter.add_scalar, []

    def failing_once(writer, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.EIO, "Input/output error")
        add(writer, *arguments)

    monkeypatch.setattr(SummaryWriter, "add_scalar", failing_once)
    for step in range(4):
        events.add_scalar("loss", 1.0, step)
    events.close()
    assert sorted(step for step, _ in scalars(tmp_path)) == [0, 1, 3]
    assert "Input/output error" in caplog.text


def test_the_text_log_has_everything_until_it_is_closed_and_hides_write_errors(tmp_path, capsys, monkeypatch):
    text, log = TextLog(tmp_path / "new" / "train.log", "%(levelname)s %(message)s"), get_logger("train")
    log.debug("one")
    flush = text.stream.flush

    def no_room():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(text.stream, "flush", no_room)
    log.debug("two, without room")
    monkeypatch.setattr(text.stream, "flush", flush)
    log.debug("three")
    text.close()
    log.debug("four")
    written = (tmp_path / "new" / "train.log").read_text(encoding="utf-8").splitlines()
    assert written == ["DEBUG one", "DEBUG two, without room", "DEBUG three"]
    assert capsys.readouterr().err == "" and text not in logging.getLogger("svc").handlers
