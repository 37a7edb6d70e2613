"""modules/training/run_lock.py: two runs never train in one folder, and a killed run releases its lock."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from modules.console import UserError
from modules.training.run_lock import exclusive_run
from tests.another_run import another_run, needs_locks
from tests.tiny import tiny_config, write_dataset
from vits import training

pytestmark = needs_locks


def test_a_folder_is_locked_until_its_run_is_killed(tmp_path):
    with another_run(tmp_path / "logs"):
        with pytest.raises(UserError, match="another run is training in"), exclusive_run(tmp_path / "logs"):
            pytest.fail("two runs have the folder")
        with exclusive_run(tmp_path / "other"):
            pass
    for _ in range(2):
        with exclusive_run(tmp_path / "logs"):
            pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "logs"], "locks and new folders are deleted"


def test_a_second_run_of_the_same_name_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path, tiny_config())
    with another_run(Path("logs/44k")):
        with pytest.raises(UserError, match="another run is training in logs/44k"):
            training.train("configs/config.json", "44k", "cpu")
        assert [path.name for path in Path("logs/44k").iterdir()] == ["run.lock"]


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


# The run is named 44k, as in logs/44k/diffusion of train_diff.py.
OBSTACLES = {
    "a dangling link for all runs": (lambda: link(Path("logs"), "gone"), "logs is a link whose target does not exist"),
    "a dangling link": (lambda: link(Path("logs/44k"), "gone"), "logs/44k is a link whose target does not exist"),
    "links in a circle": (lambda: link(Path("logs"), "logs"), "logs is a link whose target does not exist"),
    "a file for all runs": (lambda: Path("logs").write_bytes(b""), "logs is a file, and a folder is needed there"),
    "a file": (lambda: link(Path("logs/44k"), __file__), "logs/44k is a file, and a folder is needed there"),
    "a folder for the lock": (lambda: Path("logs/44k/run.lock").mkdir(parents=True), "run.lock is a folder or a link"),
    "a dangling lock": (lambda: link(Path("logs/44k/run.lock"), "gone/away"), "run.lock is a folder or a link"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_to_the_folder_or_its_lock_is_named(tmp_path, monkeypatch, obstacle):
    monkeypatch.chdir(tmp_path)
    put, sentence = OBSTACLES[obstacle]
    put()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=sentence), exclusive_run(Path("logs/44k")):
        pytest.fail("the folder cannot be there")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_another_run_deletes_meanwhile_is_a_user_error(tmp_path, monkeypatch):
    def deleted(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(FileLock, "acquire", deleted)
    with pytest.raises(UserError, match="another run is training in"), exclusive_run(tmp_path / "logs"):
        pytest.fail("the lock is in no folder")


def test_a_killed_runs_workers_do_not_hold_its_lock(tmp_path):
    """A loader's workers are forked and outlive a killed run by seconds."""
    workers_pid = tmp_path / "worker"
    with another_run(tmp_path / "logs", workers_pid) as run:
        run.kill()
        run.join()
        worker = int(workers_pid.read_text(encoding="utf-8"))
        os.kill(worker, 0)  # raises unless the worker lives
        with exclusive_run(tmp_path / "logs"):
            os.kill(worker, signal.SIGKILL)


def take_and_give_back(folder, until, overlaps, takings):
    while time.monotonic() < until:
        try:
            with exclusive_run(folder / "logs"):
                try:
                    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    overlaps.value += 1
                else:
                    os.unlink(folder / "inside")
                takings.value += 1
        except UserError:
            pass


def test_runs_that_start_while_another_ends_never_overlap(tmp_path):
    context = multiprocessing.get_context("fork")
    overlaps, takings, until = context.Value("i", 0), context.Value("i", 0), time.monotonic() + 2
    arguments = tmp_path, until, overlaps, takings
    processes = [context.Process(target=take_and_give_back, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert takings.value > 0 and overlaps.value == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch, number):
    import fcntl

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive_run(tmp_path), exclusive_run(tmp_path):
        pass


def test_an_error_other_than_missing_locks_is_raised(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(PermissionError), exclusive_run(tmp_path):
        pytest.fail("the folder is not locked")
