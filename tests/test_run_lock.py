"""modules/run_lock.py: two runs never train in one folder, and a killed one leaves it free."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from modules import run_lock
from modules.console import UserError
from modules.run_lock import sole_run
from tests.another_run import another_run, needs_locks
from tests.tiny import tiny_config, write_dataset
from vits import training

pytestmark = needs_locks


def test_a_folder_is_one_runs_until_that_is_killed(tmp_path):
    with another_run(tmp_path / "logs"):
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
    with another_run(Path("logs/44k")):
        with pytest.raises(UserError, match="another run is training in logs/44k"):
            training.train("configs/config.json", "44k", "cpu")
        assert [path.name for path in Path("logs/44k").iterdir()] == ["run.lock"]


def take_and_give_back(folder, until, overlaps, takings):
    while time.monotonic() < until:
        try:
            with sole_run(folder / "logs"):
                try:
                    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    overlaps.value += 1
                else:
                    os.unlink(folder / "inside")
                takings.value += 1
        except UserError:
            pass


def test_runs_that_begin_while_another_ends_never_meet(tmp_path):
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


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "lockf", refuse)
    with sole_run(tmp_path), sole_run(tmp_path):
        pass


@pytest.mark.parametrize("parent", ["", "logs"])
def test_a_place_where_no_folder_can_be_is_a_sentence(tmp_path, parent):
    where = tmp_path / (parent or "run")
    where.symlink_to(tmp_path / "nowhere")
    folder = where / "44k" if parent else where
    with pytest.raises(UserError, match="is a link to a folder that does not exist"), sole_run(folder):
        pass
    where.unlink()
    where.symlink_to(where)
    with pytest.raises(UserError, match="is a link to a folder that does not exist"), sole_run(folder):
        pass
    where.unlink()
    where.write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="is a file, and a folder has to be there"), sole_run(folder):
        pass
