"""What a diffusion training run writes for people: ``log_info.txt`` and TensorBoard, under the published names."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from modules.console import get_logger, printable
from modules.training.log_files import Events, TextLog
from modules.training.throughput import Report

log = get_logger("train_diff")

MEL_RANGE = (-14, 3.5)  # natural log amplitudes that the pictures' colours span


class Logbook:
    """The text log in ``expdir`` and the TensorBoard writer in ``expdir/logs`` of a run that goes on from ``step``."""

    def __init__(self, folder: Path, step: int = 0):
        self.folder, self.recorded_step = folder, step
        self.writer, self.file = Events(folder / "logs", step), TextLog(folder / "log_info.txt")
        self.began = self.recorded = time.monotonic()

    def close(self) -> None:
        self.file.close()
        self.writer.close()

    def begin(self, parameters: int) -> None:
        """The head of the text log: the model's size, and what the columns to come are."""
        log.debug("model size: %s parameters", f"{parameters:,}")
        log.debug("======= start training =======")
        log.debug("epoch|batch_idx/num_batches|output_dir|batch/s|lr|time|step")
        self.began = self.recorded = time.monotonic()

    def record(self, step: int, epoch: int, batch: int, batches: int, rate: float, loss: float) -> None:
        """A training step's loss and learning rate; ``batch`` of ``batches`` is its place in the epoch, from 1."""
        self.writer.add_scalar("train/loss", loss, step)
        self.writer.add_scalar("train/lr", rate, step)
        now = time.monotonic()
        speed = (step - self.recorded_step) / max(now - self.recorded, 1e-9)
        self.recorded, self.recorded_step = now, step
        # Nine digits are what tells any two float32 numbers apart.
        log.debug(
            "epoch: %d | %d/%d | %s | batch/s: %.2f | lr: %.6g | loss: %.9g | time: %s | step: %d",
            epoch, batch, batches, self.folder, speed, rate, loss, clock(now - self.began), step,
        )  # fmt: skip

    def pace(self, step: int, report: Report, norm: float, skipped: int) -> None:
        """How the run goes on: its speed, what it waits for, when it ends, and whether the numbers are sound."""
        for tag, value in {**report.scalars(), "train/grad_norm": norm, "pace/skipped_steps": skipped}.items():
            self.writer.add_scalar(tag, value, step)
        log.debug("pace: %s | gradient norm: %.3g | skipped steps: %d", report, norm, skipped)

    def picture(self, step: int, name: str, target: Tensor, made: Tensor) -> None:
        """A picture of a validation clip: mel spectrograms (T, n_mels) of the recording and as the model makes it."""
        from matplotlib.figure import Figure

        target, made = target.float().cpu(), made.float().cpu()
        frames = min(len(target), len(made))
        target, made = target[:frames], made[:frames]
        low, high = MEL_RANGE
        panels = torch.cat([(made - target).abs() + low, target, made], dim=1)
        figure = Figure(figsize=(12, 9), layout="constrained")
        axes = figure.add_subplot(xlabel="frame", ylabel="mel bin")
        # A name is not to be read as mathematics, which '$' would begin.
        axes.set_title(printable(f"{name}, from below: difference, recording, model"), parse_math=False)
        axes.imshow(panels.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, interpolation="nearest")
        self.writer.add_figure(f"{name}.wav", figure, step)

    def sound(self, step: int, name: str, real: Tensor, made: Tensor, sampling_rate: int) -> None:
        """A validation clip as it was sung, and as the model and the vocoder sing it; 1-D audio."""
        self.writer.add_audio(f"{name}_gt.wav", real.cpu(), step, sampling_rate)
        self.writer.add_audio(f"{name}_pred.wav", made.cpu(), step, sampling_rate)

    def validation(self, step: int, loss: float) -> None:
        """The mean loss of the validation clips."""
        self.writer.add_scalar("validation/loss", loss, step)
        log.info("--- <validation> ---")
        log.info("loss: %.9g at step %d", loss, step)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss.s"""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
