"""vits/validation.py and vits/metrics.py: the metrics are right, and the best model by them is kept."""

import contextlib
import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modules.config import load_config
from modules.console import UserError
from modules.training import checkpoint
from modules.training.interruption import StopSignal
from tests.tiny import HOP, RATE, tiny_config, write_dataset
from vits import saved_models, training
from vits.compression import compress
from vits.metrics import Metrics, compare_pitch
from vits.saved_models import Best, read_best
from vits.training_log import TrainingLog
from vits.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path, tiny_config(batch_size=4, eval_interval=2, epochs=2, keep_ckpts=1))
    return tmp_path


class Singer(torch.nn.Module):
    """A fake model that returns the given sound."""

    def __init__(self, sound):
        super().__init__()
        self.sound = sound

    def infer(self, c, f0, uv, speaker, volume=None):
        return self.sound[: f0.shape[1] * HOP].view(1, 1, -1), f0


def metrics_of(sound, work, step=1):
    config = load_config(work / "configs" / "config.json")
    with contextlib.closing(TrainingLog(work / "log")) as training_log:
        return Validation(config, CPU).run(Singer(sound), training_log, step, StopSignal())


def recording(work):
    config = load_config(work / "configs" / "config.json")
    return Validation(config, CPU).dataset[0, 0].clip.audio


def test_the_mel_distance_of_a_perfect_model_is_zero_and_of_another_loudness_its_logarithm(work):
    real = recording(work)
    assert (perfect := metrics_of(real, work)).mel_distance == perfect.vuv_error == 0
    assert metrics_of(2 * real, work).mel_distance == pytest.approx(math.log(2), rel=1e-3)
    silent = metrics_of(torch.zeros_like(real), work)
    assert silent.mel_distance > 2 and silent.vuv_error > 0.8 and math.isnan(silent.f0_correlation)


def test_a_nan_distance_is_never_the_best():
    clips = [Metrics(math.nan, math.nan, 1.0), Metrics(0.3, 0.5, 0.0)]
    mean = Metrics.mean(clips)
    assert math.isnan(mean.mel_distance) and (mean.f0_correlation, mean.vuv_error) == (0.5, 0.5)


def test_pitch_is_compared_where_both_are_voiced_and_voicing_everywhere():
    time = np.arange(200)
    real = (200 * 2 ** (np.sin(time / 20) / 12)).astype(np.float32), np.ones(200, np.float32)
    octave_up = real[0] * 2, real[1]
    assert compare_pitch(octave_up, real) == (pytest.approx(1), 0)
    mirrored = (200 * 2 ** (-np.sin(time / 20) / 12)).astype(np.float32), real[1]
    assert compare_pitch(mirrored, real) == (pytest.approx(-1), 0)
    half = real[1].copy()
    half[:50] = 0
    wild = np.where(half > 0, real[0], 1000.0)
    assert compare_pitch((wild, half), real) == (pytest.approx(1), 0.25)


def test_curves_that_cannot_be_compared_have_a_nan_correlation():
    held = np.full(100, 220.0, np.float32), np.ones(100, np.float32)
    sung = np.linspace(200, 300, 100, dtype=np.float32), np.ones(100, np.float32)
    barely = sung[0], np.r_[np.ones(9), np.zeros(91)].astype(np.float32)
    rounded = np.where(np.arange(100) % 3, held[0], np.nextafter(held[0], np.float32(221))), held[1]
    for made, error in ((held, 0), (rounded, 0), (barely, 0.91)):
        correlation, found = compare_pitch(made, sung)
        assert math.isnan(correlation) and found == pytest.approx(error)


def test_the_mean_is_over_the_clips_that_have_a_value():
    nan = float("nan")
    mean = Metrics.mean([Metrics(1.0, nan, 0.5), Metrics(3.0, 0.5, 0.0)])
    assert mean == Metrics(2.0, 0.5, 0.25)
    assert math.isnan(Metrics.mean([Metrics(1.0, nan, 0.5)]).f0_correlation)


def test_a_run_logs_its_metrics_and_keeps_the_best_generator_which_can_be_compressed(work, caplog):
    assert training.train(work / "configs" / "config.json", "44k", "cpu") == 0
    folder = work / "logs" / "44k"
    events = EventAccumulator(str(folder / "eval")).Reload()
    assert {"metric/mel_distance", "metric/f0_correlation", "metric/vuv_error"} <= set(events.Tags()["scalars"])
    distances = {event.step: event.value for event in events.Scalars("metric/mel_distance")}
    assert list(distances) == [2, 4, 6] and "validation at step 6: mel distance" in caplog.text
    best = min(distances, key=distances.get)
    kept = checkpoint.load_checkpoint(folder / "state_6.pth")["best"]
    assert kept == [pytest.approx(distances[best], rel=1e-5), best]
    content = checkpoint.load_checkpoint(folder / "best_G.pth")
    assert (content["optimizer"], content["step"]) == (None, best)
    assert set(content) == {"model", "iteration", "optimizer", "learning_rate", "mel_distance", "step"}
    assert sorted(path.name for path in folder.glob("G_*.pth")) == ["G_6.pth"]
    assert saved_models.newest_generator(folder).name == "G_6.pth"
    compress(folder / "best_G.pth", load_config(folder / "config.json"), work / "release.pth")


def run_in(work):
    return training.Run(load_config(work / "configs" / "config.json"), work / "logs" / "44k", CPU)


def test_a_resumed_run_knows_the_best_and_writes_it_again_after_a_crash(work):
    run = run_in(work)
    run.step = 2
    for run.step, distance, best in ((2, 1.0, 2), (4, 0.5, 4), (6, 0.7, 4), (8, float("nan"), 4)):
        run.validation.run = lambda *_, distance=distance: Metrics(distance, 1.0, 0.0)
        run.validate(None, StopSignal())
        assert run.best[1] == best
    assert run_in(work).best == (0.5, 4)
    (work / "logs" / "44k" / "best_G.pth").unlink()
    assert run_in(work).best == Best(), "a best model deleted by the user is forgotten"
    run.step, run.validation.run = 10, lambda *_: Metrics(0.25, 1.0, 0.0)
    run.validate(None, StopSignal())
    (work / "logs" / "44k" / "best_G.pth").unlink()  # a crash before it was written
    assert run_in(work).best == (0.25, 10) and (work / "logs" / "44k" / "best_G.pth").exists()


def test_a_truncated_extra_state_or_pair_does_not_forget_the_best(work):
    folder, run = work / "logs" / "44k", run_in(work)
    for run.step, distance in ((2, 0.9), (4, 0.5), (6, 0.2)):
        run.validation.run = lambda *_, distance=distance: Metrics(distance, 1.0, 0.0)
        run.validate(None, StopSignal())
    (folder / "state_6.pth").write_bytes(b"")
    resumed = run_in(work)
    assert (resumed.step, resumed.best) == (6, (0.2, 6))
    with open(folder / "G_6.pth", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="no checkpoint in"):
        run_in(work)
    assert read_best(folder) == (0.2, 6), "its own file, independent of the others"
    (folder / "best_G.pth").write_bytes(b"broken")
    assert read_best(folder) == Best()


def test_a_best_model_that_could_not_be_saved_is_not_the_best(work, monkeypatch, no_room, caplog):
    run = run_in(work)
    run.step, run.validation.run = 2, lambda *_: Metrics(1.0, 1.0, 0.0)
    with no_room():
        run.validate(None, StopSignal())
    assert run.best == Best() and run.saved_step == 0 and "step 2 is not saved" in caplog.text
    run.step, run.validation.run = 4, lambda *_: Metrics(2.0, 1.0, 0.0)
    run.validate(None, StopSignal())
    assert run.best == (2.0, 4) and (work / "logs" / "44k" / "best_G.pth").exists()


def test_the_tone_of_the_tiny_data_set_is_found_by_the_predictor(work):
    f0, uv = Validation(load_config(work / "configs" / "config.json"), CPU)._track(recording(work))
    assert uv.mean() > 0.8 and 140 < np.median(f0) < 410 and RATE == 44100
