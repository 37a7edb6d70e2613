"""Temporary files of killed runs are deleted, those of a running write are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modules.atomic_file import write_text
from modules.temporary_file import DAY, delete_unfinished, locked_temporary, temporary_name

KILLED = """
import os, sys
from modules.atomic_file import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half", encoding="utf-8")
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_writer(path):
    """Start a process that stays inside the write of ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_write_into_a_folder_deletes_what_a_killed_process_left_there(tmp_path):
    with start_writer(tmp_path / "a.npy") as process:
        process.kill()
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "b.txt", "whole")
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_what_another_process_is_writing_stays_and_takes_its_name(tmp_path):
    with start_writer(tmp_path / "a.txt") as process:
        delete_unfinished(tmp_path)
        assert len(names(tmp_path)) == 1
        process.stdin.close()
    assert process.returncode == 0 and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", [".0a1b2c3d.partial.npy", ".0a1b2c3d4e5f6071.partial.wav"])
def test_files_of_another_machine_or_of_unknown_origin_stay_for_a_day(tmp_path, name):
    (tmp_path / name).touch()
    delete_unfinished(tmp_path)
    assert names(tmp_path) == [name]
    os.utime(tmp_path / name, (0, time.time() - DAY - 1))
    delete_unfinished(tmp_path)
    assert names(tmp_path) == []


def test_no_other_file_is_touched_however_old(tmp_path):
    others = ("a.partial.npy", ".a.partial.npy", ".0a1b2c3d.saving.pth", ".0a1b2c3d.partial.npy.bak", ".hidden")
    for name in others:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".0a1b2c3d.partial.d").mkdir()
    delete_unfinished(tmp_path)
    delete_unfinished(tmp_path / "absent")
    assert names(tmp_path) == sorted([*others, ".0a1b2c3d.partial.d"])


def test_without_locks_only_age_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("modules.temporary_file.fcntl", None)
    with locked_temporary(tmp_path / "a.txt", "partial") as temporary:
        delete_unfinished(tmp_path)
        assert temporary.exists()
        os.utime(temporary, (0, 0))
        delete_unfinished(tmp_path)
        assert not temporary.exists()


@pytest.mark.parametrize("name", ["n" * 255, "n" * 250 + ".json", "." + "n" * 254, "a." + "\u540d" * 84, "a.", ". a"])
def test_any_name_that_a_file_can_have_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "whole")
    assert names(tmp_path) == [name]


def test_a_temporary_name_keeps_the_suffix_by_which_writers_choose_a_format(tmp_path):
    for suffix in (".npy", ".safetensors", ".flac", ".pth"):
        assert temporary_name(tmp_path / f"{'n' * 200}{suffix}", "partial").suffix == suffix
