"""modules/run_lock.py: two runs never train in one folder, and a killed one leaves it free."""

import contextlib
import multiprocessing
from pathlib import Path

import pytest

from modules.console import UserError
from modules.run_lock import sole_run
from tests.tiny import tiny_config, write_dataset
from vits import training

fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")


@contextlib.contextmanager
def another_process(folder):
    """A process that has the folder, until it is killed at the block's end or before."""
    context = multiprocessing.get_context("fork")
    there = context.Event()

    def hold():
        with sole_run(folder):
            there.set()
            context.Event().wait()

    process = context.Process(target=hold)
    process.start()
    assert there.wait(60)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_folder_is_one_runs_until_that_is_killed(tmp_path):
    with another_process(tmp_path / "logs"):
        with pytest.raises(UserError, match="another run is training in"), sole_run(tmp_path / "logs"):
            pytest.fail("two runs have the folder")
        with sole_run(tmp_path / "other"):
            pass
    for _ in range(2):
        with sole_run(tmp_path / "logs"):
            pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "logs"], "no locks are left, nor the folder that was made for one"


def test_a_second_run_of_the_same_name_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path, tiny_config())
    with another_process(Path("logs/44k")):
        with pytest.raises(UserError, match="another run is training in logs/44k"):
            training.train("configs/config.json", "44k", "cpu")
        assert [path.name for path in Path("logs/44k").iterdir()] == ["run.lock"]


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with sole_run(tmp_path), sole_run(tmp_path):
        pass
