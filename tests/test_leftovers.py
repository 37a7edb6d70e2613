"""vits/saved_models.py: the remains of a killed save or deletion are deleted, and no user's file is."""

import os
from pathlib import Path

import pytest
import torch

from modules.training import checkpoint, saving
from tests.run_files import write_pair
from vits import saved_models


class Killed(BaseException):
    """No handler may catch it: a killed process runs none."""


def kill_at(moment, function, counter):
    def call(*arguments, **options):
        counter.append(function)
        if len(counter) >= moment:  # nothing runs from then on
            raise Killed
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("action", ["save", "deletion"])
def test_whenever_a_run_is_killed_the_next_save_deletes_the_remains(tmp_path, monkeypatch, action):
    content = {"model": {"w": torch.ones(1)}}
    for moment in range(1, 20):
        folder = tmp_path / str(moment)
        write_pair(folder, 10)
        pair, calls = saved_models.Pair(folder, 20), []
        if action == "deletion":
            write_pair(folder, 20)
        with monkeypatch.context() as patch:
            for owner, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, kill_at(moment, getattr(owner, name), calls))
            try:
                pair.write(content, content, {"step": 20}) if action == "save" else pair.delete()
                done = True
            except Killed:
                done = False
        saved_models.read_newest(folder)
        saved_models.Pair(folder, 30).write(content, content, {"step": 30})
        left = set(folder.iterdir()) - {*saved_models.Pair(folder, 10).files, *saved_models.Pair(folder, 30).files}
        assert left in (set(), set(pair.files)), f"killed at moment {moment}"
        if done:
            break
    assert done and moment > 3


@pytest.mark.parametrize("files", [["G_5.pth"], ["G_5.pth", "state_5.pth"], ["D_5.pth"], ["D_0.pth", "state_0.pth"]])
@pytest.mark.parametrize("killed", [True, False])
def test_a_single_network_that_no_killed_run_left_stays(tmp_path, files, killed):
    write_pair(tmp_path, 10)
    for name in files:
        torch.save({"model": {"w": torch.ones(1)}}, tmp_path / name)
    if killed:
        (tmp_path / f".0a1b2c3d.{saving.MARK}.pth").write_bytes(b"")
    content = {"model": {"w": torch.ones(1)}}
    saved_models.Pair(tmp_path, 20).write(content, content, {"step": 20})
    assert (tmp_path / files[0]).exists()


def test_a_save_does_not_delete_a_temporary_file_of_another_program(tmp_path, monkeypatch):
    """compress_model.py and mix_model.py may write into the folder of a training run."""
    write_pair(tmp_path, 5)
    unfinished, write = [], saving._write

    def slow_write(path, content):
        write(path, content)
        unfinished.extend(saving.unfinished(tmp_path))
        saving.delete_unfinished(tmp_path)

    monkeypatch.setattr(saving, "_write", slow_write)
    checkpoint.save_checkpoint(tmp_path / "small.pth", {"model": {"w": torch.ones(1)}})
    assert (tmp_path / "small.pth").exists() and not unfinished


def test_a_discriminator_whose_generator_was_removed_stays(tmp_path):
    write_pair(tmp_path, 5).generator.unlink()
    content = {"model": {"w": torch.ones(1)}}
    saved_models.Pair(tmp_path, 20).write(content, content, {"step": 20})
    assert (tmp_path / "D_5.pth").exists()
