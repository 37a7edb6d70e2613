"""vits/checkpoints.py: the best generator has a file of its own, under a name that means nothing to the original."""

import fnmatch

import pytest
import torch

from modules import checkpoint
from tests.run_files import write_pair
from vits import checkpoints


def test_the_best_generator_outlives_its_pair_and_is_never_the_newest(tmp_path):
    for step in (10, 20):
        write_pair(tmp_path, step)
    generator = checkpoint.load_checkpoint(tmp_path / "G_10.pth") | {"optimizer": {"state": {}}}
    checkpoints.write_best(tmp_path, generator, checkpoints.Best(0.5, 10))
    assert checkpoints.newest_generator(tmp_path).name == "G_20.pth"
    checkpoints.delete_old(tmp_path, keep=1, newest=20)
    assert not (tmp_path / "G_10.pth").exists() and checkpoints.read_newest(tmp_path)[0].step == 20
    best = checkpoint.load_checkpoint(checkpoints.best_generator(tmp_path))
    assert best["model"]["w"][0] == 10 and best["optimizer"] is None
    assert checkpoints.read_best(tmp_path) == (0.5, 10)


def test_the_best_generator_is_none_of_the_files_that_the_original_counts_or_takes_for_a_step(tmp_path):
    """It looks for G_*.pth, D_*.pth and, below any folder, *.pt; it counts what starts with G or D when it deletes."""
    name = checkpoints.best_generator(tmp_path).name
    assert not any(fnmatch.fnmatch(name.upper(), pattern) for pattern in ("G*", "D*", "MODEL_*", "*.PT"))


def test_a_best_generator_under_its_former_name_is_found_and_takes_the_new_one(tmp_path):
    former = tmp_path / "G_best.pth"
    checkpoint.save_checkpoint(former, {"model": {"w": torch.ones(1)}, "mel_distance": 0.5, "step": 10})
    assert checkpoints.read_best(tmp_path) == (0.5, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["best_G.pth"]
    checkpoint.save_checkpoint(former, {"model": {"w": torch.ones(1)}, "mel_distance": 0.7, "step": 5})
    assert checkpoints.read_best(tmp_path) == (0.5, 10) and former.exists(), "a file is never renamed over another"


@pytest.mark.parametrize("content", [{"model": {"w": torch.ones(1)}}, {"model": {}, "mel_distance": "low", "step": 1}])
def test_a_file_of_that_name_that_no_validation_made_stays(tmp_path, content):
    checkpoint.save_checkpoint(tmp_path / "G_best.pth", content)
    assert checkpoints.read_best(tmp_path) == checkpoints.Best()
    assert [path.name for path in tmp_path.iterdir()] == ["G_best.pth"]
