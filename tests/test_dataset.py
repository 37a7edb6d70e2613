"""vits/dataset.py: items are whole, in step and repeatable; wrong files are named."""

import numpy as np
import pytest
import torch

from modules.audio import write_audio
from modules.clip_files import ClipFiles
from modules.console import UserError
from tests.tiny import HOP, tiny_config, write_clip, write_dataset
from vits.dataset import ClipDataset, EpochBatches, collate


@pytest.fixture
def config(tmp_path):
    config = tiny_config()
    write_dataset(tmp_path, config)
    return config


def training_set(config):
    return ClipDataset(config.data.training_files, config, crop=True)


def test_a_batch_is_the_items_padded_with_zeros_longest_first(config):
    dataset = training_set(config)
    items = [dataset[1, index] for index in (0, 3, 1)]
    batch = collate(items)
    assert batch.lengths.tolist() == sorted((item.frames for item in items), reverse=True)
    longest = max(items, key=lambda item: item.frames)
    assert torch.equal(batch.spec[0], longest.clip.spec) and torch.equal(batch.audio[0, 0], longest.clip.audio)
    for row, length in enumerate(batch.lengths):
        assert batch.c[row, :, length:].abs().sum() == batch.audio[row, :, length * HOP :].abs().sum() == 0
        assert batch.spec[row, :, :length].min() > 0


def test_every_epoch_has_every_clip_once_in_an_order_of_its_own():
    batches = EpochBatches(clips=10, batch_size=3, seed=1)
    orders = []
    for epoch in (1, 2):
        batches.start(epoch)
        given = [key for batch in batches for key in batch]
        assert {e for e, _ in given} == {epoch}
        orders.append([index for _, index in given])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_an_epoch_can_be_entered_at_any_batch():
    batches = EpochBatches(clips=10, batch_size=3, seed=1)
    batches.start(7)
    whole = list(batches)
    batches.start(7, first_batch=2)
    assert list(batches) == whole[2:]


def test_a_long_clip_gives_a_crop_of_its_own_each_epoch_and_the_same_one_again(config):
    config.train.crop_frames = 20
    dataset = training_set(config)
    index = max(range(len(dataset)), key=lambda i: dataset.read(dataset.paths[i]).frames)
    first, again, later = dataset[1, index], dataset[1, index], dataset[2, index]
    assert first.frames == 20 and first.clip.audio.shape == (20 * HOP,)
    assert torch.equal(first.clip.spec, again.clip.spec) and not torch.equal(first.clip.spec, later.clip.spec)
    whole = dataset.read(dataset.paths[index]).clip
    start = next(s for s in range(whole.f0.shape[0]) if torch.equal(whole.spec[:, s], first.clip.spec[:, 0]))
    assert torch.equal(whole.audio[start * HOP : (start + 20) * HOP], first.clip.audio)


def test_items_in_memory_equal_items_from_disk(config):
    from_disk = training_set(config)[1, 2]
    config.train.all_in_mem = True
    in_memory = training_set(config)[1, 2]
    assert torch.equal(from_disk.clip.units, in_memory.clip.units)
    assert torch.equal(from_disk.clip.audio, in_memory.clip.audio)


def test_a_missing_spectrogram_is_made_and_kept(config):
    dataset = training_set(config)
    files = ClipFiles(dataset.paths[0])
    made_before = files.read_spec()
    files.spec.unlink()
    assert torch.allclose(dataset.read(dataset.paths[0]).clip.spec, made_before, atol=0.02) and files.spec.exists()


def test_units_of_another_encoder_are_named(config):
    dataset = training_set(config)
    write_clip(dataset.paths[0], 0.5, seed=1, features=5)
    with pytest.raises(UserError, match=r"soft\.pt has 5 features and the config's ssl_dim is 8"):
        dataset.read(dataset.paths[0])


def test_an_error_comes_through_a_loader_as_itself(config):
    dataset = training_set(config)
    write_clip(dataset.paths[0], 0.5, seed=1, features=5)
    batch = collate([dataset[1, 1], dataset[1, 0]])
    assert isinstance(batch, UserError) and "has 5 features" in str(batch)


def test_companions_of_another_recording_are_named(config):
    dataset = training_set(config)
    long, short = ClipFiles(dataset.paths[3]), ClipFiles(dataset.paths[0])
    short.write_f0(*long.read_f0())
    with pytest.raises(UserError, match="files of other audio"):
        dataset.read(dataset.paths[0])


def test_clips_that_cannot_be_used_are_left_out_with_the_reason(config, caplog):
    paths = training_set(config).paths
    config.train.segment_size = 50 * HOP
    assert 0 < len(training_set(config)) < len(paths)
    assert "shorter than a training slice" in caplog.text
    config.train.segment_size = 8 * HOP
    write_audio(paths[0], np.zeros(96000, np.float32), 96000)
    paths[1].write_bytes(b"damaged")
    assert training_set(config).paths == paths[2:]
    assert "it has 96000 Hz and the config 44100" in caplog.text and f"{paths[1]} is left out" in caplog.text
    config.train.segment_size = 500 * HOP
    with pytest.raises(UserError, match=r"none of the 9 clips can be used, the first because"):
        training_set(config)


def test_a_filelist_that_names_missing_files_says_which(config):
    training_set(config).paths[0].unlink()
    with pytest.raises(UserError, match="1 missing files, first"):
        training_set(config)
    with pytest.raises(UserError, match="there is no nowhere.txt; run 'python preprocess_flist_config.py' first"):
        ClipDataset("nowhere.txt", config, crop=True)
