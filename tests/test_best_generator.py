"""vits/saved_models.py: the best generator has its own file, under a name that the original ignores."""

import fnmatch

import pytest
import torch

from modules.training import checkpoint
from tests.run_files import write_pair
from vits import saved_models


def test_the_best_generator_outlives_its_pair_and_is_never_the_newest(tmp_path):
    for step in (10, 20):
        write_pair(tmp_path, step)
    generator = checkpoint.load_checkpoint(tmp_path / "G_10.pth") | {"optimizer": {"state": {}}}
    saved_models.write_best(tmp_path, generator, saved_models.Best(0.5, 10))
    assert saved_models.newest_generator(tmp_path).name == "G_20.pth"
    saved_models.delete_old(tmp_path, keep=1, newest=20)
    assert not (tmp_path / "G_10.pth").exists() and saved_models.read_newest(tmp_path)[0].step == 20
    best = checkpoint.load_checkpoint(saved_models.best_generator(tmp_path))
    assert best["model"]["w"][0] == 10 and best["optimizer"] is None
    assert saved_models.read_best(tmp_path) == (0.5, 10)


def test_the_original_neither_counts_the_best_generator_nor_resumes_from_it(tmp_path):
    """It searches for G_*.pth, D_*.pth and, in subfolders, *.pt; when deleting it counts names starting with G or D."""
    name = saved_models.best_generator(tmp_path).name
    assert not any(fnmatch.fnmatch(name.upper(), pattern) for pattern in ("G*", "D*", "MODEL_*", "*.PT"))


@pytest.mark.parametrize("content", [{"model": {"w": torch.ones(1)}}, {"model": {}, "mel_distance": "low", "step": 1}])
def test_a_file_of_that_name_without_a_validation_is_ignored(tmp_path, content):
    checkpoint.save_checkpoint(saved_models.best_generator(tmp_path), content)
    assert saved_models.read_best(tmp_path) == saved_models.Best()
