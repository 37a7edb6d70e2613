"""vits/batch_size.py: the largest batch that fits is found, by steps that would be trained so, and only said."""

import pytest
import torch

from modules.config import load_config, save_config
from modules.console import UserError
from modules.data.sampler import EpochBatches
from modules.device import grad_scaler
from modules.memory import GIB
from tests.tiny import tiny_config, write_clip, write_dataset
from vits import batch_size
from vits.batch_size import Trials, find_batch_size, largest_fitting, longest_item
from vits.dataset import ClipDataset, collate
from vits.step import FRAMES_APART, Learner

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The path of a configuration whose data set has 9 clips."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path, tiny_config())
    return tmp_path / "configs" / "config.json"


def write_clips(root, lengths):
    """The paths of clips of so many frames."""
    paths = [root / "dataset" / "44k" / "alto" / f"of_{frames}.wav" for frames in lengths]
    for number, (path, frames) in enumerate(zip(paths, lengths, strict=True)):
        write_clip(path, (frames + 0.5) * 512 / 44100, seed=number)
    return paths


def test_the_largest_number_that_fits_is_found_for_every_limit():
    for most in range(1, 40):
        for limit in range(45):
            tried = []
            found = largest_fitting(lambda size, limit=limit, tried=tried: tried.append(size) or size <= limit, most)
            assert found == min(limit, most)
            assert len(tried) == len(set(tried)) <= 12 and max(tried) <= most


def test_the_size_is_said_with_its_memory_and_its_key_and_the_configuration_stays(config, caplog):
    before = config.read_bytes()
    with caplog.at_level("INFO", "svc"):
        assert find_batch_size(config, "cpu") == 0
    assert "the largest batch that fits is 9, all the clips that there are: it takes" in caplog.text
    assert f"write it into {config} as train.batch_size" in caplog.text
    assert config.read_bytes() == before and not (config.parent.parent / "logs").exists()


def test_where_steps_are_recorded_every_shape_that_a_run_can_have_is_tried(config, tmp_path):
    values = load_config(config)
    paths = write_clips(tmp_path, (30, 60, 68, 190, 210))
    (tmp_path / "filelists" / "train.txt").write_text("\n".join(map(str, paths)), encoding="utf-8")
    values.train.batch_size = 2
    dataset = ClipDataset(values.data.training_files, values, training=True)
    batches = EpochBatches(len(dataset), 2, values.train.seed, frames=dataset.frames())
    met = {
        tuple(collate([dataset[epoch, clip] for clip in clips]).padded(FRAMES_APART).f0.shape)
        for epoch in range(1, 40)
        for clips in batches.epoch_batches(epoch)
    }
    trials = Trials(values, CPU)
    shapes = [tuple(batch.padded(FRAMES_APART).f0.shape) for batch in trials._batches(2, recorded=True)]
    # Those of a longer one that comes later would drop the ones before.
    assert shapes == [(2, 256), (1, 256), *((clips, frames) for frames in (256, 192, 128, 64) for clips in (2, 1))]
    assert met <= set(shapes[2:])
    assert {batch.f0.shape[0] for batch in trials._batches(1, recorded=True)} == {1}
    learner = Learner(trials.config, CPU)
    for number, batch in enumerate(trials._batches(2, recorded=True)):
        assert learner.step(batch, number=number)[1].generator["mel"].isfinite()


def test_what_the_driver_keeps_counts_too(config, monkeypatch):
    trials = Trials(load_config(config), CPU)
    trials.device, trials.total = torch.device("cuda"), 8.0
    for name, value in (("peak_memory", 3.0), ("free_memory", 4.0)):
        monkeypatch.setattr(batch_size, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2.5 * GIB)
    assert trials._taken() == 3.0 + (8.0 - 4.0 - 2.5)


def test_an_error_that_is_no_lack_of_memory_is_not_taken_for_one(config, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Learner, "step", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        find_batch_size(config, "cpu")


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_where_memory_runs_out_the_search_goes_on_below(config, caplog, monkeypatch, error):
    class LearnerOfLittleMemory(Learner):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.scaler = grad_scaler(self.device, enabled=True)  # as fp16 has one on a GPU

        def generator_losses(self, generated, **options):  # when the discriminator's half of the step is done
            if len(generated.target_audio) > 5:
                raise error
            return super().generator_losses(generated, **options)

    monkeypatch.setattr(batch_size, "Learner", LearnerOfLittleMemory)
    with caplog.at_level("INFO", "svc"):
        find_batch_size(config, "cpu")
    assert "the largest batch that fits is 5:" in caplog.text


def test_what_would_go_over_the_limit_by_what_less_has_taken_is_not_tried(config, monkeypatch):
    trials, tried = Trials(load_config(config), CPU), []
    monkeypatch.setattr(trials, "_try", lambda size: tried.append(size) or 1 + size / 2)
    trials.limit = 4.6  # a batch of seven
    assert largest_fitting(trials.fits, 100) == 7
    assert max(tried) == 7 and trials.peaks[7] == 4.5
    trials.device = torch.device("cuda")
    assert not trials.fits(100) and tried[-1] == 100, "a GPU only says that it has no memory left"


def test_when_nothing_fits_a_sentence_says_what_to_change(config, monkeypatch):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 0.0)
    monkeypatch.setattr(batch_size, "peak_memory", lambda device, peaks=[1.0, 2.0]: peaks.pop(0))
    with pytest.raises(UserError, match=r"not even a batch of one clip fits into 1\.00 GiB; lower train\.crop_frames"):
        find_batch_size(config, "cpu")
    monkeypatch.setattr(batch_size, "free_memory", lambda device: None)
    monkeypatch.setattr(batch_size, "peak_memory", lambda device: None)
    with pytest.raises(UserError, match="does not tell how much memory"):
        find_batch_size(config, "cpu")


def test_one_process_alone_tries(config, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="find_batch_size works in one process"):
        find_batch_size(config, "cpu")


def test_the_clip_that_is_tried_is_the_longest_that_training_can_have(config, tmp_path):
    values = load_config(config)
    values.train.crop_frames = 60
    listed = tmp_path / "filelists" / "train.txt"
    paths = write_clips(tmp_path, (30, 69, 200, 71))  # up to 70 frames are kept whole, more are cropped to 60
    listed.write_text("\n".join(map(str, paths)), encoding="utf-8")
    save_config(values, config)
    assert longest_item(ClipDataset(listed, values, training=True)).frames == 69
    assert Trials(values, CPU).item.frames == 69
