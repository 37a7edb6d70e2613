"""modules/training/checkpoint.py: files are written completely, read safely, chosen and deleted correctly."""

import errno
import os
import shutil

import pytest
import torch
from torch import nn

from diffusion.saved_models import (
    DiffusionCheckpoint,
    delete_old_diffusion,
    diffusion_checkpoints,
    read_newest_diffusion,
)
from modules.console import UserError
from modules.training import checkpoint, saving
from tests.run_files import HARMLESS, truncate, write_diffusion, write_pair
from vits import saved_models

# torch's message.
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def test_the_newest_pair_is_chosen_by_number_not_by_name_or_time(tmp_path):
    for step in (1000, 200, 30):
        write_pair(tmp_path, step)
    pair, (of_g, _, state) = saved_models.read_newest(tmp_path)
    assert pair.step == 1000 and of_g["model"]["w"][0] == 1000 and state == {"epoch": 1}


@pytest.mark.parametrize("broken", ["generator", "discriminator"])
def test_a_truncated_newest_pair_is_skipped_with_a_warning_and_no_intact_file_is_renamed(tmp_path, caplog, broken):
    write_pair(tmp_path, 10)
    newest = write_pair(tmp_path, 20)
    truncate(file := getattr(newest, broken))
    pair, _ = saved_models.read_newest(tmp_path)
    assert pair.step == 10
    assert "20.pth" in caplog.text and "using the checkpoint before it" in caplog.text
    assert [path.name for path in tmp_path.glob("*.broken")] == [f"{file.name}.broken"]
    left = "G_10.pth" if broken == "generator" else "G_20.pth"
    assert saved_models.newest_generator(tmp_path).name == left, "a conversion would take a broken one"
    for path in tmp_path.glob("[GD]_10.pth"):
        truncate(path)
    with pytest.raises(UserError, match="run the same command to begin anew"):
        saved_models.read_newest(tmp_path)
    assert saved_models.read_newest(tmp_path) is None


@pytest.mark.parametrize("name", ["G_20.pth", "D_20.pth", "state_20.pth", "model_20.pt", "model_20.state.pth"])
@pytest.mark.parametrize("refused", [True, False])
def test_an_intact_file_that_cannot_be_read_stays_and_the_run_stops(tmp_path, monkeypatch, name, refused):
    write_pair(tmp_path, 10), write_pair(tmp_path, 20), write_diffusion(tmp_path, 10, 20)
    content = {"model": {"w": torch.ones(1)}, "epoch": 1, "args": HARMLESS}
    if refused:
        torch.save(content, tmp_path / name)
        sentence = rf"{name} .*it holds more than tensors \(argparse.Namespace\).*it stays where it is"
    else:
        load, newer = torch.load, RuntimeError("Attempted to read a PyTorch file with version 99")

        def load_but_one(path, **options):
            if path.name == name:
                raise newer
            return load(path, **options)

        monkeypatch.setattr(torch, "load", load_but_one)
        sentence = rf"{name} .*cannot be read as a checkpoint by PyTorch .*version 99.*it stays where it is"
    before = sorted(tmp_path.iterdir())
    read = read_newest_diffusion if name.startswith("model") else saved_models.read_newest
    with pytest.raises(UserError, match=sentence):
        read(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_truncated_state_is_set_aside_and_the_weights_are_used(tmp_path, caplog):
    truncate(write_pair(tmp_path, 20).state)
    pair, (of_g, _, state) = saved_models.read_newest(tmp_path)
    assert pair.step == 20 and of_g["model"]["w"][0] == 20 and state is None
    assert "continuing with only the weights of G_20.pth" in caplog.text and (tmp_path / "state_20.pth.broken").exists()


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "I/O error"), RuntimeError(NO_MEMORY)])
def test_an_error_that_is_not_the_files_fault_leaves_the_file_in_place(tmp_path, monkeypatch, fault):
    pair = write_pair(tmp_path, 10)

    def load(*_, **__):
        raise fault

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises((OSError, MemoryError)):
        saved_models.read_newest(tmp_path)
    assert all(path.exists() for path in pair.files)


def test_a_first_save_interrupted_between_its_files_is_ignored(tmp_path, caplog):
    pair = write_pair(tmp_path, 4)
    pair.generator.rename(tmp_path / f".0123abcd.{saving.MARK}.pth")  # its name until it is complete
    assert saved_models.read_newest(tmp_path) is None
    assert "holds D_4.pth of an interrupted first save" in caplog.text
    content = {"model": {"w": torch.ones(1)}}
    saved_models.Pair(tmp_path, 6).write(content, content, {"step": 6})
    assert [found.step for found in saved_models.pairs(tmp_path)] == [6] and not saving.unfinished(tmp_path)


def test_a_missing_generator_is_an_error(tmp_path):
    write_pair(tmp_path, 4).generator.unlink()
    with pytest.raises(UserError, match=r"holds only D_4\.pth"):
        saved_models.read_newest(tmp_path)


def test_a_save_that_cannot_be_read_back_for_lack_of_memory_stays_with_an_error(tmp_path, monkeypatch):
    def load(*_, **__):
        raise RuntimeError(NO_MEMORY)

    monkeypatch.setattr(torch, "load", load)
    content = {"model": {"w": torch.ones(1)}}
    with pytest.raises(UserError, match=r"G_6\.pth is written, but could not be read back"):
        saved_models.Pair(tmp_path, 6).write(content, content, {"step": 6})
    assert [found.step for found in saved_models.pairs(tmp_path)] == [6]


def test_a_run_does_not_silently_start_from_nothing(tmp_path):
    assert saved_models.read_newest(tmp_path) is None
    truncate(write_pair(tmp_path, 10).generator)
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        saved_models.read_newest(tmp_path)
    write_pair(tmp_path, 0, state=False).discriminator.unlink()
    with pytest.raises(UserError, match=r"holds only G_0\.pth"):
        saved_models.read_newest(tmp_path)


def test_a_new_pair_is_never_deleted_in_favour_of_a_higher_step(tmp_path):
    for step in (12, 100):
        write_pair(tmp_path, step)
    saved_models.delete_old(tmp_path, keep=1, newest=12)
    assert [pair.step for pair in saved_models.pairs(tmp_path)] == [100, 12]


def test_a_file_that_is_no_checkpoint_of_a_model_is_named(tmp_path):
    torch.save({"weights": {}}, tmp_path / "G_1.pth")
    with pytest.raises(UserError, match=r"G_1\.pth holds no 'model'"):
        checkpoint.model_of(checkpoint.load_checkpoint(tmp_path / "G_1.pth"), tmp_path / "G_1.pth")


def test_a_generator_without_its_discriminator_is_no_pair(tmp_path):
    write_pair(tmp_path, 10)
    write_pair(tmp_path, 20).discriminator.unlink()
    assert saved_models.read_newest(tmp_path)[0].step == 10


def test_retention_keeps_the_newest_pairs_the_base_model_and_foreign_files(tmp_path):
    for step in (0, 800, 1600, 2400, 3200):
        write_pair(tmp_path, step, state=step > 0)
    (tmp_path / "G_800_release.pth").write_bytes(b"kept")
    saved_models.delete_old(tmp_path, keep=2, newest=3200)
    assert sorted(p.name for p in tmp_path.glob("G*")) == ["G_0.pth", "G_2400.pth", "G_3200.pth", "G_800_release.pth"]
    assert sorted(p.name for p in tmp_path.glob("state*")) == ["state_2400.pth", "state_3200.pth"]
    saved_models.delete_old(tmp_path, keep=0, newest=3200)
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


def test_a_base_model_is_recognised_by_its_name_and_never_the_newest(tmp_path):
    for step in (800, 1600):
        write_pair(tmp_path, step)
    write_pair(tmp_path, 0, state=False)
    checkpoint.save_checkpoint(tmp_path / "state_0.pth", {"step": 5000})
    assert [pair.step for pair in saved_models.pairs(tmp_path)] == [1600, 800, 0]
    pair, (of_g, *_) = saved_models.read_newest(tmp_path)
    assert pair.step == 1600 and of_g["model"]["w"][0] == 1600


def test_a_save_is_complete_or_absent(tmp_path, monkeypatch):
    """Whenever a save is killed, the folder holds the former pair or both, and never a part of one."""
    former, pair = write_pair(tmp_path, 1), saved_models.Pair(tmp_path, 2)
    contents = [{"model": {"w": torch.zeros(3)}}] * 2 + [{"step": 2}]
    moments, seen = 0, []

    class Killed(BaseException):
        """No handler may catch it: a killed process runs none."""

    def kill_at(moment, function):
        def call(*arguments):
            nonlocal moments
            moments += 1
            if moments == moment:
                raise Killed
            return function(*arguments)

        return call

    for moment in range(1, 20):
        moments = 0
        with monkeypatch.context() as patch:
            for owner, name in ((torch, "save"), (os, "fsync"), (os, "replace")):
                patch.setattr(owner, name, kill_at(moment, getattr(owner, name)))
            try:
                pair.write(*contents)
            except Killed:
                pass
            else:
                break
        newest, (*_, state) = saved_models.read_newest(tmp_path)
        seen.append(newest.step)
        assert state == ({"epoch": 1} if newest == former else {"step": 2})
        pair.delete()
    assert seen == [1] * (3 + 3 + 3) + [2], "three files written, flushed and named, and then the folder flushed"


def test_the_next_save_deletes_the_remains_of_a_killed_one_and_nothing_else(tmp_path):
    write_pair(tmp_path, 10)
    checkpoint.save_checkpoint(tmp_path / "state_15.pth", {"step": 15})
    checkpoint.save_checkpoint(tmp_path / "model_15.state.pth", {"step": 15})
    for name in (".0a1b2c3d.saving.pth", ".0a1b2c3d.partial.pth", "G_12.pth", "state_of_mind.pth"):
        (tmp_path / name).write_bytes(b"")
    write = {"model": {"w": torch.zeros(3)}}
    saved_models.Pair(tmp_path, 20).write(write, write, {"step": 20})
    left = sorted(path.name for path in tmp_path.iterdir() if "10" not in path.name and "20" not in path.name)
    assert left == [".0a1b2c3d.partial.pth", "G_12.pth", "model_15.state.pth", "state_of_mind.pth"]
    DiffusionCheckpoint(tmp_path, 20).write(write, {"step": 20})
    assert not (tmp_path / "model_15.state.pth").exists() and (tmp_path / "state_20.pth").exists()


def test_a_save_that_cannot_be_read_back_is_set_aside_and_deletes_nothing(tmp_path, monkeypatch):
    write_pair(tmp_path, 10)
    save = torch.save

    def bad_disk(content, file):
        save(content, file)
        file.truncate(file.tell() // 2)

    monkeypatch.setattr(torch, "save", bad_disk)
    write = {"model": {"w": torch.zeros(3)}}
    with pytest.raises(UserError, match=r"G_20\.pth .* cannot be read"):
        saved_models.Pair(tmp_path, 20).write(write, write, {"step": 20})
    assert [pair.step for pair in saved_models.pairs(tmp_path)] == [10]
    assert (tmp_path / "G_20.pth.broken").exists()


def test_too_little_free_space_is_detected_before_anything_is_written(tmp_path, monkeypatch):
    former, pair = write_pair(tmp_path, 10), saved_models.Pair(tmp_path, 20)
    room = [saving.SPARE + 12_000_000 - 1]  # three tensors of a million float32, one of them under two names
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, room[0]))
    one, two, three = (torch.zeros(1_000_000) for _ in range(3))
    of_g = {"model": {"w": one, "alias": one[:10]}, "optimizer": {"state": [{"m": two}]}}
    of_d = {"model": {"w": three}}
    with pytest.raises(UserError, match="room for 29 MB and a checkpoint needs 29; make room there, .* intact"):
        pair.write(of_g, of_d, {"step": 20})
    assert set(tmp_path.iterdir()) == set(former.files)
    room[0] += 1
    pair.write(of_g, of_d, {"step": 20})
    assert saved_models.read_newest(tmp_path)[0].step == 20


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


# -- the diffusion model's --------------------------------------------------------------------------------------------


def diffusion_steps(folder):
    return [saved.step for saved in diffusion_checkpoints(folder)]


def test_the_newest_diffusion_checkpoint_is_chosen_by_number_and_other_files_are_ignored(tmp_path):
    assert read_newest_diffusion(tmp_path) is None
    write_diffusion(tmp_path, 30, 200, 1000, 0)
    for name in ("model_best.pt", "model_2000_release.pt", "encoder.pt", "model_3000.pth"):
        (tmp_path / name).write_bytes(b"foreign")
    assert diffusion_steps(tmp_path) == [1000, 200, 30, 0]
    saved, (content, state) = read_newest_diffusion(tmp_path)
    assert saved.step == content["global_step"] == state["optimizer"] == 1000


def test_no_extra_state_is_taken_for_a_model_by_its_name(tmp_path):
    """The original takes the ``.pt`` file of the highest number, below any folder."""
    write_diffusion(tmp_path, 5)
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["model_5.pt"]


def test_a_truncated_diffusion_checkpoint_is_skipped_but_with_a_truncated_state_the_weights_are_used(tmp_path, caplog):
    write_diffusion(tmp_path, 10, 20, 30)
    truncate(tmp_path / "model_30.pt")
    truncate(tmp_path / "model_20.state.pth")
    saved, (content, state) = read_newest_diffusion(tmp_path)
    assert (saved.step, content["global_step"], state) == (20, 20, None)
    assert "continuing with only the weights of model_20.pt" in caplog.text
    broken = {path.name for path in tmp_path.glob("*.broken")}
    assert broken == {"model_30.pt.broken", "model_20.state.pth.broken"}
    for step in (10, 20):
        truncate(tmp_path / f"model_{step}.pt")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        read_newest_diffusion(tmp_path)


def test_diffusion_keeps_the_permanent_the_base_and_what_lies_before_the_last_interval(tmp_path):
    write_diffusion(tmp_path, 0, 700, 2000, 4000, 4321, 5000, 6000, 9000)
    delete_old_diffusion(tmp_path, newest=6000, interval=2000, permanent=5000)
    assert diffusion_steps(tmp_path) == [9000, 6000, 5000, 2000, 700, 0], "other intervals stay"
    states = sorted(path.name for path in tmp_path.glob("*.state.pth") if path.name != "model_0.state.pth")
    assert states == ["model_5000.state.pth", "model_6000.state.pth", "model_9000.state.pth"]


@pytest.mark.parametrize("junk", ["three", None, -1, 10**30, float("nan"), float("inf"), [1], torch.ones(2), {}])
def test_an_invalid_count_is_a_user_error(junk):
    with pytest.raises(UserError, match=r"state_3\.pth is damaged: its epoch is .* and should be a count"):
        checkpoint.whole_number({"epoch": junk}, "epoch", "state_3.pth")
    assert checkpoint.whole_number({"epoch": 3.0}, "epoch", "x") == checkpoint.whole_number({}, "epoch", "x", 3) == 3


def test_an_invalid_best_validation_is_ignored():
    for junk in (None, 5, "ab", [1.0], [1.0, 2.0], [1, 2], {"a": 1.0, "b": 2}, [torch.ones(1), 3]):
        assert saved_models.Best.of(junk) is None
    assert saved_models.Best.of([1.5, 3]) == saved_models.Best(1.5, 3)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_prefix_of_a_wrapped_network_is_no_part_of_the_names(prefix):
    content = {"model": {f"{prefix}enc.module.weight": torch.ones(2)}}
    assert list(checkpoint.model_of(content, "G_1.pth")) == ["enc.module.weight"] == list(content["model"])
    mixed = {"model": {f"{prefix}a": torch.ones(2), "b": torch.ones(2)}}
    assert list(checkpoint.model_of(mixed, "G_1.pth")) == [f"{prefix}a", "b"]
