"""A base model is the user's file: it is read in every form, never renamed, and never silently ignored."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion.saved_models import (
    DiffusionCheckpoint,
    delete_old_diffusion,
    diffusion_checkpoints,
    read_newest_diffusion,
)
from modules.console import UserError
from modules.training import checkpoint, saving
from tests.run_files import HARMLESS, truncate, write_pair
from vits import saved_models

BASE = {"w": torch.arange(3.0)}
BAD = {
    "refused": (lambda path: torch.save({"model": BASE, "args": HARMLESS}, path), "more than tensors"),
    "truncated": (lambda path: (torch.save({"model": BASE}, path), truncate(path)), "it is truncated"),
    "another kind": (lambda path: path.write_bytes(b"<html>not found"), "cannot be read as a checkpoint by PyTorch"),
    "no weights": (lambda path: torch.save({"model": 5}, path), "holds no 'model'"),
    "an empty dictionary": (lambda path: torch.save({}, path), "holds no 'model'"),
    "a dangling link": (lambda path: path.symlink_to("gone"), "there is no checkpoint"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["G_0.pth", "D_0.pth", "model_0.pt"])
def test_a_bad_base_model_stays_and_nothing_is_trained_without_it(tmp_path, bad, name):
    for path in (tmp_path / "G_0.pth", tmp_path / "D_0.pth", tmp_path / "model_0.pt"):
        torch.save({"model": BASE}, path)
    (tmp_path / name).unlink()
    write, sentence = BAD[bad]
    write(tmp_path / name)
    before = {path.name: path.is_symlink() or path.read_bytes() for path in tmp_path.iterdir()}
    read = read_newest_diffusion if name.startswith("model") else saved_models.read_newest
    for _ in range(2):
        with pytest.raises(UserError, match=rf"(?=.*{name})(?=.*{sentence}).*does not begin without its base model"):
            read(tmp_path)
    assert {path.name: path.is_symlink() or path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", ["checkpoint", "bare", "safetensors"])
def test_a_base_model_may_be_a_checkpoint_a_bare_state_dict_or_safetensors(tmp_path, kind):
    for name in ("G_0.pth", "D_0.pth", "model_0.pt"):
        path = tmp_path / name
        if kind == "safetensors":
            save_file(BASE, path.with_suffix(".safetensors"))
        else:
            torch.save(BASE if kind == "bare" else {"model": BASE}, path)
    pair, (of_g, of_d, state) = saved_models.read_newest(tmp_path)
    saved, (content, diffusion_state) = read_newest_diffusion(tmp_path)
    assert pair.step == saved.step == 0 and state is diffusion_state is None
    assert all(torch.equal(read["model"]["w"], BASE["w"]) for read in (of_g, of_d, content))
    assert pair.generator.exists() and saved.model.exists()
    write_pair(tmp_path, 5)
    assert saved_models.read_newest(tmp_path)[0].step == 5


def test_half_a_base_model_is_never_taken_for_an_interrupted_save(tmp_path):
    torch.save({"model": BASE}, tmp_path / "G_0.pth")
    (tmp_path / f".0a1b2c3d.{saving.MARK}.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds only G_0\.pth"):
        saved_models.read_newest(tmp_path)


def test_a_base_model_made_from_an_autosave_is_not_deleted_by_the_next_save(tmp_path):
    """A user renamed the three files of an autosave to step 0."""
    content = {"model": {"w": torch.ones(1)}}
    for name in ("G_0.pth", "D_0.pth", "model_0.pt"):
        torch.save(content, tmp_path / name)
    for name in ("state_0.pth", "model_0.state.pth"):
        torch.save({"passing": True, "step": 7}, tmp_path / name)
    assert not any(saved.is_autosave() for saved in (*saved_models.pairs(tmp_path), *diffusion_checkpoints(tmp_path)))
    before = set(tmp_path.iterdir())
    saved_models.Pair(tmp_path, 6).write(content, content, {"step": 6})
    DiffusionCheckpoint(tmp_path, 6).write(content, {"step": 6})
    delete_old_diffusion(tmp_path, newest=6, interval=6, permanent=100)
    assert before <= set(tmp_path.iterdir())


def test_fitting_tensors_of_a_base_model_are_loaded_and_the_others_stay_initial():
    module = nn.Sequential(nn.Linear(3, 2), nn.Embedding(2, 4))
    fresh = module[1].weight.detach().clone()
    base = nn.Sequential(nn.Linear(3, 2), nn.Embedding(200, 4)).state_dict()
    assert checkpoint.load_base_weights(module, base, "G_0.pth") == ["1.weight"]
    assert torch.equal(module[0].weight, base["0.weight"]) and torch.equal(module[1].weight, fresh)
    with pytest.raises(UserError, match="not a base model for this configuration"):
        checkpoint.load_base_weights(module, {"0.bias": torch.zeros(2)}, "G_0.pth")
