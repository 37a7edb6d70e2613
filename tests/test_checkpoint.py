"""modules/checkpoint.py: what is written is whole, what is found is good, what is kept is right."""

import errno
import os

import pytest
import torch
from torch import nn

from modules import checkpoint
from modules.console import UserError


def write_pair(folder, step, state=True):
    pair = checkpoint.Pair(folder, step)
    for path in (pair.generator, pair.discriminator):
        checkpoint.save_checkpoint(path, {"model": {"w": torch.full((3,), float(step))}, "iteration": 1})
    if state:
        checkpoint.save_checkpoint(pair.state, {"epoch": 1})
    return pair


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_pair_is_chosen_by_number_not_by_name_or_time(tmp_path):
    for step in (1000, 200, 30):
        write_pair(tmp_path, step)
    pair, (of_g, _, state) = checkpoint.read_newest(tmp_path)
    assert pair.step == 1000 and of_g["model"]["w"][0] == 1000 and state == {"epoch": 1}


@pytest.mark.parametrize("broken", ["generator", "discriminator", "state"])
def test_a_truncated_newest_pair_is_passed_over_with_a_warning(tmp_path, caplog, broken):
    write_pair(tmp_path, 10)
    truncate(getattr(write_pair(tmp_path, 20), broken))
    pair, _ = checkpoint.read_newest(tmp_path)
    assert pair.step == 10
    assert "20.pth" in caplog.text and "passing it over" in caplog.text
    assert checkpoint.newest_generator(tmp_path).name == "G_10.pth", "a conversion would take the broken one"
    assert (tmp_path / "G_20.pth.broken").exists()


def test_a_run_does_not_quietly_begin_from_nothing(tmp_path):
    assert checkpoint.read_newest(tmp_path) is None
    truncate(write_pair(tmp_path, 10).generator)
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        checkpoint.read_newest(tmp_path)
    write_pair(tmp_path, 0).discriminator.unlink()
    with pytest.raises(UserError, match=r"holds G_0\.pth alone"):
        checkpoint.read_newest(tmp_path)


def test_a_new_pair_is_never_deleted_for_the_sake_of_one_with_a_higher_number(tmp_path):
    for step in (12, 100):
        write_pair(tmp_path, step)
    checkpoint.delete_old(tmp_path, keep=1, newest=12)
    assert [pair.step for pair in checkpoint.pairs(tmp_path)] == [100, 12]


def test_a_file_that_is_no_checkpoint_of_a_model_is_named(tmp_path):
    torch.save({"weights": {}}, tmp_path / "G_1.pth")
    with pytest.raises(UserError, match=r"G_1\.pth holds no 'model'"):
        checkpoint.model_of(checkpoint.load_checkpoint(tmp_path / "G_1.pth"), tmp_path / "G_1.pth")


def test_a_generator_without_its_discriminator_is_no_pair(tmp_path):
    write_pair(tmp_path, 10)
    write_pair(tmp_path, 20).discriminator.unlink()
    assert checkpoint.read_newest(tmp_path)[0].step == 10


def test_retention_keeps_the_newest_pairs_the_base_model_and_foreign_files(tmp_path):
    for step in (0, 800, 1600, 2400, 3200):
        write_pair(tmp_path, step, state=step > 0)
    (tmp_path / "G_800_release.pth").write_bytes(b"kept")
    checkpoint.delete_old(tmp_path, keep=2, newest=3200)
    assert sorted(p.name for p in tmp_path.glob("G*")) == ["G_0.pth", "G_2400.pth", "G_3200.pth", "G_800_release.pth"]
    assert sorted(p.name for p in tmp_path.glob("state*")) == ["state_2400.pth", "state_3200.pth"]
    checkpoint.delete_old(tmp_path, keep=0, newest=3200)
    assert (tmp_path / "D_2400.pth").exists()


def test_a_full_disk_leaves_the_former_checkpoint_whole(tmp_path, monkeypatch):
    pair = write_pair(tmp_path, 10)
    before = pair.generator.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"G_10\.pth could not be written .*No space left.* intact"):
        checkpoint.save_checkpoint(pair.generator, {"model": {"w": torch.zeros(3)}})
    assert pair.generator.read_bytes() == before
    assert not list(tmp_path.glob(".*")), "the half-written file was left behind"


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"model": Payload()}, tmp_path / "G_1.pth")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "G_1.pth")
    assert not (tmp_path / "owned").exists()


def test_weights_that_do_not_fit_are_named_with_their_shapes():
    module = nn.Linear(3, 2)
    with pytest.raises(UserError, match=r"weight is \[2, 5\] in the file and \[2, 3\] by the config"):
        checkpoint.load_weights(module, nn.Linear(5, 2).state_dict(), "G_1.pth")
    with pytest.raises(UserError, match="bias is not in the file"):
        checkpoint.load_weights(module, {"weight": module.weight}, "G_1.pth")


def test_a_base_model_gives_what_fits_and_the_rest_stays_fresh():
    module = nn.Sequential(nn.Linear(3, 2), nn.Embedding(2, 4))
    fresh = module[1].weight.detach().clone()
    base = nn.Sequential(nn.Linear(3, 2), nn.Embedding(200, 4)).state_dict()
    assert checkpoint.load_base_weights(module, base, "G_0.pth") == ["1.weight"]
    assert torch.equal(module[0].weight, base["0.weight"]) and torch.equal(module[1].weight, fresh)
    with pytest.raises(UserError, match="not a base model for this configuration"):
        checkpoint.load_base_weights(module, {"0.bias": torch.zeros(2)}, "G_0.pth")


# -- the diffusion model's --------------------------------------------------------------------------------------------


def write_diffusion(folder, *steps):
    for step in steps:
        saved = checkpoint.DiffusionCheckpoint(folder, step)
        checkpoint.save_checkpoint(saved.model, {"global_step": step, "model": {"w": torch.full((3,), float(step))}})
        checkpoint.save_checkpoint(saved.state, {"optimizer": step})


def diffusion_steps(folder):
    return [saved.step for saved in checkpoint.diffusion_checkpoints(folder)]


def test_the_newest_diffusion_checkpoint_is_chosen_by_number_and_other_files_are_none(tmp_path):
    assert checkpoint.read_newest_diffusion(tmp_path) is None
    write_diffusion(tmp_path, 30, 200, 1000, 0)
    for name in ("model_best.pt", "model_2000_release.pt", "encoder.pt", "model_3000.pth"):
        (tmp_path / name).write_bytes(b"foreign")
    assert diffusion_steps(tmp_path) == [1000, 200, 30, 0]
    saved, (content, state) = checkpoint.read_newest_diffusion(tmp_path)
    assert saved.step == content["global_step"] == state["optimizer"] == 1000


def test_no_extra_state_is_taken_for_a_model_by_its_name(tmp_path):
    """The original takes the ``.pt`` file of the highest number, below any folder."""
    write_diffusion(tmp_path, 5)
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["model_5.pt"]


def test_a_broken_diffusion_checkpoint_is_passed_over_but_a_broken_state_costs_no_weights(tmp_path, caplog):
    write_diffusion(tmp_path, 10, 20, 30)
    truncate(tmp_path / "model_30.pt")
    truncate(tmp_path / "model_20.state.pth")
    saved, (content, state) = checkpoint.read_newest_diffusion(tmp_path)
    assert (saved.step, content["global_step"], state) == (20, 20, None)
    assert "going on with the weights of model_20.pt alone" in caplog.text
    broken = {path.name for path in tmp_path.glob("*.broken")}
    assert broken == {"model_30.pt.broken", "model_30.state.pth.broken", "model_20.state.pth.broken"}
    for step in (10, 20):
        truncate(tmp_path / f"model_{step}.pt")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        checkpoint.read_newest_diffusion(tmp_path)


def test_diffusion_keeps_the_permanent_the_base_and_what_lies_before_the_last_interval(tmp_path):
    write_diffusion(tmp_path, 0, 700, 2000, 4000, 4321, 5000, 6000, 9000)
    checkpoint.delete_old_diffusion(tmp_path, newest=6000, interval=2000, permanent=5000)
    assert diffusion_steps(tmp_path) == [9000, 6000, 5000, 2000, 700, 0], "another interval's are not ours to delete"
    states = sorted(path.name for path in tmp_path.glob("*.state.pth"))
    assert states == ["model_5000.state.pth", "model_6000.state.pth", "model_9000.state.pth"]


def test_nothing_is_deleted_for_a_newest_checkpoint_that_cannot_be_read_back(tmp_path):
    write_diffusion(tmp_path, 2000, 4000)
    truncate(tmp_path / "model_4000.pt")
    with pytest.raises(UserError, match=r"model_4000\.pt .* cannot be read"):
        checkpoint.delete_old_diffusion(tmp_path, newest=4000, interval=2000, permanent=5000)
    assert diffusion_steps(tmp_path) == [4000, 2000] and (tmp_path / "model_2000.state.pth").exists()
