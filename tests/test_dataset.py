"""vits/dataset.py: items are complete, aligned and repeatable; wrong files are named."""

import pytest
import torch

from modules.audio.files import read_audio
from modules.audio.loudness import volume
from modules.audio.spectrogram import linear_spectrogram
from modules.console import UserError
from modules.data.features import ClipFiles
from tests.tiny import HOP, tiny_config, write_clip, write_dataset
from vits.dataset import ClipDataset, collate


@pytest.fixture
def config(tmp_path):
    config = tiny_config()
    write_dataset(tmp_path, config)
    return config


def training_set(config):
    return ClipDataset(config.data.training_files, config, training=True)


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


def test_a_long_clip_has_another_crop_each_epoch_repeatably(config):
    config.train.crop_frames = 20
    dataset = training_set(config)
    index = max(range(len(dataset)), key=lambda i: dataset.read(dataset.paths[i]).frames)
    first, again, later = dataset[1, index], dataset[1, index], dataset[2, index]
    assert first.frames == 20 and first.clip.audio.shape == (20 * HOP,)
    assert torch.equal(first.clip.spec, again.clip.spec) and not torch.equal(first.clip.spec, later.clip.spec)
    whole = dataset.read(dataset.paths[index]).clip
    start = next(s for s in range(whole.f0.shape[0]) if torch.equal(whole.spec[:, s], first.clip.spec[:, 0]))
    assert torch.equal(whole.audio[start * HOP : (start + 20) * HOP], first.clip.audio)


def test_clips_up_to_ten_frames_over_the_limit_are_not_cropped(config):
    frames = training_set(config).frames()
    for surplus, cropped in ((10, frames[0]), (11, frames[0] - 11)):
        config.train.crop_frames = frames[0] - surplus
        dataset = training_set(config)
        assert dataset.frames()[0] == dataset[1, 0].frames == cropped


def test_items_in_memory_equal_items_from_disk(config):
    from_disk = training_set(config)[1, 2]
    config.train.all_in_mem = True
    in_memory = training_set(config)[1, 2]
    assert torch.equal(from_disk.clip.units, in_memory.clip.units)
    assert torch.equal(from_disk.clip.audio, in_memory.clip.audio)


def test_a_missing_spectrogram_is_computed_and_written(config):
    dataset = training_set(config)
    files = ClipFiles(dataset.paths[0])
    made_before = files.read_spec()
    files.spec.unlink()
    assert torch.allclose(dataset.read(dataset.paths[0]).clip.spec, made_before, atol=0.02) and files.spec.exists()


def test_units_of_another_encoder_are_named(config):
    dataset = training_set(config)
    write_clip(dataset.paths[0], 0.5, seed=1, features=5)
    with pytest.raises(UserError, match=r"soft\.pt has 5 features and the config's speech encoder gives 8"):
        dataset.read(dataset.paths[0])


def test_an_error_passes_through_a_loader_unchanged(config):
    dataset = training_set(config)
    write_clip(dataset.paths[0], 0.5, seed=1, features=5)
    batch = collate([dataset[1, 1], dataset[1, 0]])
    assert isinstance(batch, UserError) and "has 5 features" in str(batch)


def test_sidecar_files_of_another_recording_are_named(config):
    dataset = training_set(config)
    long, short = ClipFiles(dataset.paths[3]), ClipFiles(dataset.paths[0])
    short.write_f0(*long.read_f0())
    with pytest.raises(UserError, match="files of other audio"):
        dataset.read(dataset.paths[0])


def test_clips_shorter_than_a_training_slice_only_validate(config, caplog):
    whole = len(training_set(config))
    config.train.segment_size = 50 * HOP
    assert 0 < len(training_set(config)) < whole
    assert "shorter than a training slice" in caplog.text
    assert len(ClipDataset(config.data.training_files, config, training=False)) == whole


# -- loudness ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def loud_config(config):
    """The configuration of a model with loudness embedding and vol_aug."""
    config.model.vol_embedding = config.train.vol_aug = True
    return config


def test_a_model_without_loudness_embedding_has_no_volume(config):
    dataset = training_set(config)
    assert collate([dataset[1, 0], dataset[1, 1]]).volume is None


def test_an_item_of_changed_loudness_equals_a_clip_written_that_loud(loud_config):
    dataset = training_set(loud_config)
    for path in dataset.paths:
        ClipFiles(path).spec.unlink()  # computed again from the samples in the file
    recordings = [torch.from_numpy(read_audio(path)[0]) for path in dataset.paths]
    gains = []
    for epoch in range(1, 9):
        for index, recording in enumerate(recordings):
            clip = dataset[epoch, index].clip
            gain = float(clip.audio.abs().max() / recording.abs().max())
            louder, frames = recording * gain, clip.f0.shape[0]
            torch.testing.assert_close(clip.audio, louder[: frames * HOP])
            torch.testing.assert_close(clip.volume, volume(louder, HOP)[:frames], rtol=1e-3, atol=1e-5)
            wanted = linear_spectrogram(louder[None], 2048, HOP, 2048)[0, :, :frames]
            torch.testing.assert_close(clip.spec, wanted, rtol=1e-3, atol=1e-4)
            assert clip.audio.abs().max() <= 1 and gain > 0.0999
            gains.append(gain)
    changed = [gain for gain in gains if gain != pytest.approx(1, abs=1e-4)]
    assert 0.3 < len(changed) / len(gains) < 0.7 and len(set(changed)) == len(changed)
    assert min(changed) < 0.3 and max(changed) > 1.5


def test_loudness_is_a_function_of_seed_epoch_and_clip(loud_config):
    loud_config.train.crop_frames = 20
    one, other = training_set(loud_config), training_set(loud_config)
    loud_config.train.all_in_mem = True
    in_memory = training_set(loud_config)
    keys = [(epoch, index) for epoch in (1, 2) for index in range(len(one))]
    backwards = {key: other[key] for key in reversed(keys)}
    for key in keys:
        for again in (one[key], backwards[key], in_memory[key]):
            assert torch.equal(one[key].clip.audio, again.clip.audio)
            assert torch.equal(one[key].clip.volume, again.clip.volume)
    before = [one[key].clip.audio for key in keys]
    loud_config.train.seed += 1
    assert not all(torch.equal(one[key].clip.audio, audio) for key, audio in zip(keys, before, strict=True))


def test_validation_clips_are_unchanged(loud_config):
    loud_config.train.crop_frames = 20
    dataset = ClipDataset(loud_config.data.training_files, loud_config, training=False)
    for index, path in enumerate(dataset.paths):
        assert torch.equal(dataset[1, index].clip.audio, dataset.read(path).clip.audio)


def test_volume_is_padded_and_cropped_like_the_other_fields(loud_config):
    loud_config.train.vol_aug = False
    dataset = training_set(loud_config)
    batch = collate([dataset[1, index] for index in (0, 3)]).to(torch.device("cpu"))
    for row, length in enumerate(batch.lengths):
        heard = volume(batch.audio[row, 0, : length * HOP], HOP)
        torch.testing.assert_close(batch.volume[row, :length], heard, rtol=1e-3, atol=1e-3)
        assert batch.volume[row, length:].sum() == 0
    loud_config.train.crop_frames = 20
    assert training_set(loud_config)[1, 3].clip.volume.shape == (20,)


def test_clips_without_a_volume_are_skipped_if_the_model_needs_it(loud_config, caplog):
    path = training_set(loud_config).paths[0]
    ClipFiles(path).volume.unlink()
    assert path not in training_set(loud_config).paths
    assert f"{path} is left out: there is no {path.name}.vol.npy; run 'python preprocess_hubert_f0.py'" in caplog.text
