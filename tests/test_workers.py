"""Worker processes: each sets up once, a dead one is replaced, and none outlives its parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modules.console import UserError
from preparation import workers
from preparation.workers import _Worker, cpu_count, run_job, worker_count


class Squares:
    """Squares numbers; 13 kills the worker, and ``refused`` is a rank that cannot be set up."""

    def __init__(self, refused=None):
        self.refused = refused

    def set_up(self, rank, workers):
        if rank == self.refused:
            raise UserError("there is no weight file x.pt")
        self.set_ups = getattr(self, "set_ups", 0) + 1
        self.rank = rank

    def __call__(self, item):
        if item == 13:
            os._exit(9)
        return item, item * item, self.rank, self.set_ups, os.getpid()

    def worker_died(self, item, reason):
        return item, reason, None, None, None


@pytest.mark.parametrize("processes", [1, 2])
def test_every_item_is_done_once_by_workers_that_set_up_once(processes):
    results = list(run_job(Squares(), range(10), processes))
    assert sorted((item, square) for item, square, *_ in results) == [(item, item * item) for item in range(10)]
    assert {set_ups for *_, set_ups, _ in results} == {1}
    assert len({pid for *_, pid in results}) <= processes
    assert (os.getpid() in {pid for *_, pid in results}) == (processes == 1)


def test_an_item_that_kills_its_worker_is_reported_and_the_rest_is_done():
    results = {item: outcome for item, outcome, *_ in run_job(Squares(), range(10, 17), 2)}
    assert "died (exit code 9" in results.pop(13)
    assert results == {item: item * item for item in (10, 11, 12, 14, 15, 16)}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_set_up_ends_the_run_with_its_sentence(processes):
    with pytest.raises(UserError, match="^there is no weight file x.pt$"):
        list(run_job(Squares(refused=0), range(10), processes))


def test_the_ends_of_finished_and_of_dead_workers_are_closed(monkeypatch):
    made = []
    monkeypatch.setattr(workers, "_Worker", lambda *args: made.append(_Worker(*args)) or made[-1])
    assert len(list(run_job(Squares(), [1, 13, 2], 2))) == 3
    assert len(made) == 3
    assert all(worker.pipe.closed and not worker.process.is_alive() for worker in made)


class Stubborn(Squares):
    """Ignores SIGTERM."""

    def set_up(self, rank, workers):
        super().set_up(rank, workers)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_workers_that_do_not_end_are_waited_for_together(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_TO_END", 1)
    results = run_job(Stubborn(), range(100, 100_000), 3)
    ranks = set()
    while ranks != {0, 1, 2}:  # until all are set up
        ranks.add(next(results)[2])
    began = time.monotonic()
    results.close()
    assert 0.9 < time.monotonic() - began < 2.5  # not 3


def test_zero_processes_stand_for_the_cpus_and_fewer_are_refused():
    assert worker_count(0) == cpu_count() >= 1
    assert worker_count(3) == 3
    with pytest.raises(UserError, match="num_processes is"):
        worker_count(-1)


SLOW_WRITER = """
import contextlib, os, time
from modules.atomic_file import atomic_path
from modules.console import script
from preparation.termination import unwind_on_signals
from preparation.workers import run_job

class SlowWriter:
    def set_up(self, rank, workers):
        pass
    def __call__(self, item):
        with atomic_path(item) as temporary:
            temporary.write_text(str(os.getpid()), encoding="utf-8")
            time.sleep(30)
    def worker_died(self, item, reason):
        pass

@script
def main(argv=None):
    files = ["out/a.txt", "out/b.txt", "out/c.txt"]
    with unwind_on_signals(), contextlib.closing(run_job(SlowWriter(), files, 2)) as results:
        list(results)

if __name__ == "__main__":
    raise SystemExit(main())
"""


def start_slow_writers(folder):
    """Start a run of two workers that are writing files; returns the process and the workers' ids."""
    (folder / "slow.py").write_text(SLOW_WRITER, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "slow.py"], cwd=folder, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(pids := [path.read_text("utf-8") for path in folder.glob("out/.*")]) < 2 or "" in pids:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, [int(pid) for pid in pids]


def is_running(pid):
    with contextlib.suppress(FileNotFoundError):  # a zombie has ended but is not reaped yet
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text("utf-8")
    return False


def test_ctrl_c_ends_the_workers_and_leaves_no_half_written_file(tmp_path):
    process, pids = start_slow_writers(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to the workers as well
    assert process.wait(20) == 130
    assert list((tmp_path / "out").iterdir()) == []
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_to_the_parent_or_to_all_ends_the_workers_first(tmp_path, number, send):
    process, pids = start_slow_writers(tmp_path)
    send(process.pid, number)
    assert process.wait(20) == -number
    assert list((tmp_path / "out").iterdir()) == []
    assert not any(map(is_running, pids))


def test_workers_end_by_themselves_when_their_parent_is_killed(tmp_path):
    process, pids = start_slow_writers(tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20  # the write itself takes 30 s
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list((tmp_path / "out").iterdir()) == []
