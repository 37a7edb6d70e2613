"""diffusion/dataset.py: crops are repeatable and aligned, and augmented crops in every field."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from diffusion.dataset import DiffusionBatch, DiffusionDataset, collate_diffusion
from modules.audio.files import read_audio
from modules.audio.loudness import volume
from modules.audio.spectrogram import VocoderMel
from modules.console import UserError
from modules.data.features import ClipFiles
from modules.data.sampler import EpochBatches
from preparation.vocoder_mels import plain_mel
from tests.tiny import HOP, MEL, tiny_diffusion_config, write_clip, write_diffusion_dataset, write_mels

CROP = 17  # frames of 0.2 s


@pytest.fixture
def config(tmp_path):
    config = tiny_diffusion_config(cache_fp16=False)
    write_diffusion_dataset(tmp_path, config)
    return config


def training_set(config, **changes):
    return DiffusionDataset(config.data.training_files, config, **{"n_mels": 16, "training": True, **changes})


def validation_set(config):
    return DiffusionDataset(config.data.training_files, config, n_mels=16, training=False)


def items(dataset, epochs):
    return {(epoch, index): dataset[epoch, index] for epoch in epochs for index in range(len(dataset))}


def place_of(part, whole):
    """The frame of ``whole`` (T, ...) at which ``part`` starts."""
    starts = range(len(whole) - len(part) + 1)
    found = [start for start in starts if torch.allclose(whole[start : start + len(part)], part, rtol=1e-5)]
    assert len(found) == 1
    return found[0]


def same(one, other):
    return all(torch.equal(part, vars(other)[name]) for name, part in vars(one).items())


def test_every_field_of_an_item_has_one_row_per_frame(config):
    item = training_set(config)[1, 0]
    shapes = {name: tuple(part.shape) for name, part in vars(item).items()}
    assert shapes == {
        "units": (1, CROP, 8),
        "f0": (1, CROP, 1),
        "volume": (1, CROP, 1),
        "mel": (1, CROP, 16),
        "speaker_id": (1, 1),
        "aug_shift": (1, 1, 1),
    }
    assert {part.dtype for name, part in vars(item).items() if name != "speaker_id"} == {torch.float32}


def test_all_fields_are_cropped_at_the_same_frame_and_half_the_items_are_augmented_in_all_fields(config):
    dataset, starts, shifts = training_set(config), [], []
    for (_, index), item in items(dataset, range(12)).items():
        files = ClipFiles(dataset.paths[index])
        augmented, mel, loudness = files.read_augmented(), files.read_mel(), files.read_volume()
        f0, shift = torch.from_numpy(files.read_f0()[0]), float(item.aug_shift)
        if shift:
            mel, loudness, f0 = augmented.mel, augmented.volume, f0 * 2 ** (augmented.shift / 12)
            assert shift == pytest.approx(augmented.shift)
        start = place_of(item.mel[0], torch.from_numpy(mel))
        cut = slice(start, start + CROP)
        torch.testing.assert_close(item.volume[0, :, 0], torch.from_numpy(loudness)[cut])
        torch.testing.assert_close(item.f0[0, :, 0], f0[cut])
        frames = (np.arange(start, start + CROP) * (files.read_units().shape[2] / len(f0))).astype(int)
        torch.testing.assert_close(item.units[0].T, files.read_units()[0][:, frames])
        starts.append(start), shifts.append(shift)
    assert len(set(starts)) > 10 and min(starts) == 0
    assert 0.3 < np.mean(np.array(shifts) != 0) < 0.7


def test_crops_are_a_function_of_seed_epoch_and_clip(config):
    wanted = items(training_set(config), (1, 2))
    torch.manual_seed(5)
    other = training_set(config)
    backwards = {key: other[key] for key in reversed(wanted)}
    assert all(same(item, backwards[key]) for key, item in wanted.items())
    assert not all(same(item, wanted[2, index]) for (epoch, index), item in wanted.items() if epoch == 1)
    config.train.seed += 1
    assert not all(same(item, other[key]) for key, item in wanted.items())


def test_items_from_disk_equal_items_in_memory_also_augmented_ones(config):
    in_memory = items(training_set(config), (1, 2))
    assert any(item.aug_shift for item in in_memory.values())
    config.train.cache_all_data = False
    dataset = training_set(config)
    assert dataset.cache is None and all(same(item, dataset[key]) for key, item in in_memory.items())


def test_half_precision_applies_to_the_large_fields_but_not_to_pitch_and_loudness(config):
    whole = training_set(config)
    config.train.cache_fp16 = True
    dataset = training_set(config)
    kept = {name: getattr(dataset.cache[0], name).dtype for name in ("units", "mel", "aug_mel", "f0", "volume")}
    assert kept == dict.fromkeys(("units", "mel", "aug_mel"), torch.float16) | dict.fromkeys(
        ("f0", "volume"), torch.float32
    )
    item, wanted = dataset[1, 0], whole[1, 0]
    assert item.mel.dtype == torch.float32 and torch.equal(item.f0, wanted.f0)
    torch.testing.assert_close(item.mel, wanted.mel, rtol=1e-3, atol=0)


def test_training_clips_are_cached_on_the_configured_device(config):
    config.train.cache_device = "cuda"
    dataset = training_set(config, device="meta")
    assert dataset.device.type == dataset.cache[0].mel.device.type == "meta"
    item = dataset[1, 0]
    assert (item.mel.device.type, item.speaker_id.device.type, item.aug_shift.device.type) == ("meta", "cpu", "cpu")
    config.train.cache_device = "cpu"
    assert training_set(config, device="meta").cache[0].mel.device.type == "cpu"
    config.train.cache_device = "cuda"
    assert validation_set(config).cache[0].mel.device.type == "cpu"


def test_validation_clips_are_complete_and_unchanged_and_need_no_augmented_mel(config):
    for path in training_set(config).paths:
        ClipFiles(path).aug_mel.unlink(), ClipFiles(path).aug_volume.unlink()
    dataset = validation_set(config)
    for index, path in enumerate(dataset.paths):
        item, audio = dataset[3, index], torch.from_numpy(read_audio(path)[0])
        torch.testing.assert_close(item.mel[0], plain_mel(audio, MEL), rtol=0, atol=1e-4)
        torch.testing.assert_close(item.volume[0, :, 0], volume(audio, HOP), rtol=1e-3, atol=1e-4)
        assert item.aug_shift == 0 and item.f0.shape[1] == len(audio) // HOP


def test_batches_pass_through_a_loader_with_workers_unchanged(config):
    dataset = training_set(config)
    batches = EpochBatches(len(dataset), 4, seed=1)
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate_diffusion, num_workers=2)
    given = list(islice(loader, 4))
    assert [len(batch.mel) for batch in given] == [4, 4, 1, 4]
    first = collate_diffusion([dataset[key] for key in next(iter(batches))])
    assert same(first, given[0]) and first.mel.shape == (4, CROP, 16)
    assert isinstance(first.to(torch.device("cpu")), DiffusionBatch)


def test_speakers_are_the_folders_and_a_model_of_one_has_speaker_0(config):
    dataset = training_set(config)
    assert {int(dataset[1, i].speaker_id) for i, path in enumerate(dataset.paths) if path.parent.name == "tenor"} == {1}
    config.model.n_spk, config.spk = 1, {"somebody": 3}
    assert {int(training_set(config)[1, index].speaker_id) for index in range(9)} == {0}
    config.model.n_spk = 2
    with pytest.raises(UserError, match=r"no speaker of the config \(known: somebody\)"):
        training_set(config)
    config.spk = {"alto": 0, "tenor": 2}
    with pytest.raises(UserError, match=r"'tenor' the number 2, outside 0 to 1 \(model.n_spk\)"):
        training_set(config)


# -- what cannot be used ----------------------------------------------------------------------------------------------


def test_crops_longer_than_the_shortest_clip_are_refused_before_training(config):
    shortest = min(training_set(config).paths, key=lambda path: len(read_audio(path)[0]))
    config.data.duration = 0.5
    with pytest.raises(UserError, match=rf"{shortest} has 0\.40 s.*crops of 0\.5 s.*3 of 9 clips.*lower data.duration"):
        training_set(config)
    assert len(validation_set(config)) == 9
    config.data.duration = 0.3
    assert len(training_set(config)) == 9


def test_a_clip_of_exactly_the_crop_and_its_margin_trains(config, tmp_path):
    path = tmp_path / "dataset" / "44k" / "alto" / "9.wav"
    write_clip(path, 0.3, seed=9)
    write_mels(path)
    Path(config.data.training_files).write_text(str(path), encoding="utf-8")
    assert {training_set(config)[epoch, 0].mel.shape[1] for epoch in range(9)} == {CROP}


def test_clips_without_mels_are_skipped_naming_the_command_that_makes_them(config, caplog):
    paths = training_set(config).paths
    ClipFiles(paths[0]).mel.unlink(), ClipFiles(paths[1]).aug_mel.unlink()
    assert training_set(config).paths == paths[2:]
    assert f"{paths[0].name}.mel.npy; run 'python preprocess_hubert_f0.py --use_diff'" in caplog.text
    assert f"{paths[1]} is left out" in caplog.text


def test_damaged_and_foreign_sidecar_files_are_named(config):
    config.train.cache_all_data = False
    dataset = training_set(config)
    paths = dataset.paths
    write_mels(paths[0], VocoderMel(n_mels=20))
    ClipFiles(paths[1]).write_mel(ClipFiles(paths[2]).read_mel())
    np.save(ClipFiles(paths[2]).aug_mel, ClipFiles(paths[2]).read_mel())  # as of an earlier version, without the shift
    ClipFiles(paths[3]).mel.write_bytes(b"damaged")
    write_clip(paths[4], 0.5, seed=1, features=5)
    write_mels(paths[4])
    errors = [str(dataset[1, index]) for index in range(5)]
    assert "mel.npy has 20 bins and the vocoder 16; run" in errors[0]
    assert f"{paths[1]} has files of other audio beside it" in errors[1] and "mel" in errors[1]
    assert f"there is no {ClipFiles(paths[2]).aug_shift}" in errors[2]
    assert str(ClipFiles(paths[3]).mel) in errors[3]
    assert "has 5 features and the config's speech encoder gives 8" in errors[4]
    assert isinstance(collate_diffusion([dataset[1, 5], dataset[1, 0]]), UserError)
    with pytest.raises(UserError, match="20 bins"):
        training_set(config)
    write_mels(paths[0])
    assert len(training_set(config)) == len(paths), "the first is intact again"
    config.train.cache_all_data = True
    with pytest.raises(UserError, match="files of other audio beside it"):
        training_set(config)


def test_the_pickled_mels_of_the_original_train_too(config):
    dataset = training_set(config)
    wanted = items(dataset, (1, 2))
    for path in dataset.paths:
        files = ClipFiles(path)
        augmented = files.read_augmented()
        pair = np.empty(2, dtype=object)
        pair[:] = augmented.mel, augmented.shift
        np.save(files.aug_mel, pair, allow_pickle=True)
    again = training_set(config)
    assert all(same(item, again[key]) for key, item in wanted.items())


def test_the_crop_is_of_the_published_length_at_the_published_duration(config):
    config.data.duration = 2
    assert validation_set(config).crop_frames == 172
