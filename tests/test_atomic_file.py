"""Files that belong together are written together or not at all, and errors name what is in the way."""

from __future__ import annotations

import os
import stat

import pytest

from modules.atomic_file import output_paths, write_text
from modules.console import UserError


def write(*paths):
    with output_paths(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new", encoding="utf-8")


def test_all_files_are_renamed_or_none(tmp_path):
    first, second = tmp_path / "a" / "1.txt", tmp_path / "b" / "2.txt"
    write(first, second)
    assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8") == "new"
    first.write_text("old", encoding="utf-8")
    with pytest.raises(ValueError), output_paths(first, second) as temporaries:
        temporaries[0].write_text("new", encoding="utf-8")
        raise ValueError
    assert first.read_text(encoding="utf-8") == "old"
    assert {path.name for path in tmp_path.rglob("*.*")} == {"1.txt", "2.txt"}


def test_a_folder_in_the_place_of_the_second_is_named_and_the_first_is_not_written(tmp_path):
    (tmp_path / "2.txt").mkdir()
    with pytest.raises(UserError, match="2.txt cannot be written: it is a folder"):
        write(tmp_path / "1.txt", tmp_path / "2.txt")
    assert os.listdir(tmp_path) == ["2.txt"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "b").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="2.txt cannot be written: .*b is a file, and a folder is needed there"):
        write(tmp_path / "1.txt", tmp_path / "b" / "2.txt")
    assert os.listdir(tmp_path) == ["b"]


def test_every_file_is_flushed_through_a_writable_descriptor(tmp_path, monkeypatch):
    """Windows requires this. Folders, which have no writable descriptors, are flushed only on POSIX."""
    fcntl, torch = pytest.importorskip("fcntl"), pytest.importorskip("torch")
    from modules.training.saving import save_together

    modes = []

    def watch(descriptor):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", watch)
    write_text(tmp_path / "a.json", "{}")
    write(tmp_path / "1.txt", tmp_path / "2.txt")
    save_together([tmp_path / "D_1.pth", tmp_path / "G_1.pth"], [{"model": torch.zeros(2)}] * 2)
    assert len(modes) == 5 and os.O_RDONLY not in modes
