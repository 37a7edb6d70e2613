"""vits/saved_models.py: what a kill leaves of a pair is deleted, and no file that may be somebody's own."""

import os
from pathlib import Path

import pytest
import torch

from modules.training import checkpoint, saving
from tests.run_files import write_pair
from vits import saved_models


class Killed(BaseException):
    """No handler may mend what it finds: a killed process has none."""


def kill_at(moment, function, counter):
    def call(*arguments, **options):
        counter.append(function)
        if len(counter) >= moment:  # from then on it does nothing more
            raise Killed
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("action", ["save", "deletion"])
def test_whatever_moment_a_kill_comes_at_the_next_save_leaves_nothing_of_it(tmp_path, monkeypatch, action):
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
def test_a_lone_network_that_no_kill_has_left_is_somebodys_and_stays(tmp_path, files, killed):
    write_pair(tmp_path, 10)
    for name in files:
        torch.save({"model": {"w": torch.ones(1)}}, tmp_path / name)
    if killed:
        (tmp_path / f".0a1b2c3d.{saving.MARK}.pth").write_bytes(b"")
    content = {"model": {"w": torch.ones(1)}}
    saved_models.Pair(tmp_path, 20).write(content, content, {"step": 20})
    assert (tmp_path / files[0]).exists()


def test_a_runs_save_leaves_a_file_that_another_program_writes_there_alone(tmp_path, monkeypatch):
    """compress_model.py and mix_model.py may write into the folder of a run that trains."""
    write_pair(tmp_path, 5)
    unfinished, write = [], saving._write

    def slow_write(path, content):
        write(path, content)
        unfinished.extend(saving.unfinished(tmp_path))
        saving.delete_unfinished(tmp_path)

    monkeypatch.setattr(saving, "_write", slow_write)
    checkpoint.save_checkpoint(tmp_path / "small.pth", {"model": {"w": torch.ones(1)}})
    assert (tmp_path / "small.pth").exists() and not unfinished


def test_a_discriminator_whose_generator_was_taken_away_stays(tmp_path):
    write_pair(tmp_path, 5).generator.unlink()
    content = {"model": {"w": torch.ones(1)}}
    saved_models.Pair(tmp_path, 20).write(content, content, {"step": 20})
    assert (tmp_path / "D_5.pth").exists()
