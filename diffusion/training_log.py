"""The log of a diffusion training run: ``log_info.txt`` and TensorBoard, with the published names and tags."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from modules.console import get_logger, printable
from modules.training.log_writers import TensorBoardWriter, TextLog
from modules.training.throughput import ThroughputReport

log = get_logger("train_diff")

MEL_RANGE = (-14, 3.5)  # natural log amplitudes at the ends of the pictures' colour scale


class TrainingLog:
    """The text log in ``expdir`` and the TensorBoard writer in ``expdir/logs`` of a run that starts at ``step``."""

    def __init__(self, folder: Path, step: int = 0):
        self.folder, self.logged_step = folder, step
        self.writer, self.text = TensorBoardWriter(folder / "logs", step), TextLog(folder / "log_info.txt")
        self.began = self.logged = time.monotonic()

    def close(self) -> None:
        self.text.close()
        self.writer.close()

    def log_start(self, parameters: int) -> None:
        """Write the head of the text log: the model's size and the names of the columns."""
        log.debug("model size: %s parameters", f"{parameters:,}")
        log.debug("======= start training =======")
        log.debug("epoch|batch_idx/num_batches|output_dir|batch/s|lr|time|step")
        self.began = self.logged = time.monotonic()

    def log_step(self, step: int, epoch: int, batch: int, batches: int, rate: float, loss: float) -> None:
        """Log a step's loss and learning rate; it is step ``batch`` of ``batches`` of the epoch, from 1."""
        self.writer.add_scalar("train/loss", loss, step)
        self.writer.add_scalar("train/lr", rate, step)
        now = time.monotonic()
        speed = (step - self.logged_step) / max(now - self.logged, 1e-9)
        self.logged, self.logged_step = now, step
        # Nine digits distinguish any two float32 numbers.
        log.debug(
            "epoch: %d | %d/%d | %s | batch/s: %.2f | lr: %.6g | loss: %.9g | time: %s | step: %d",
            epoch, batch, batches, self.folder, speed, rate, loss, clock(now - self.began), step,
        )  # fmt: skip

    def log_throughput(self, step: int, report: ThroughputReport, norm: float, skipped: int) -> None:
        """Log the speed, the share of waiting for data, the expected end, the gradient norm and skipped steps."""
        for tag, value in {**report.scalars(), "train/grad_norm": norm, "pace/skipped_steps": skipped}.items():
            self.writer.add_scalar(tag, value, step)
        log.debug("pace: %s | gradient norm: %.3g | skipped steps: %d", report, norm, skipped)

    def log_clip_picture(self, step: int, name: str, target: Tensor, made: Tensor) -> None:
        """Log a picture of a validation clip: its mel spectrograms (T, n_mels), recorded and made by the model."""
        from matplotlib.figure import Figure

        target, made = target.float().cpu(), made.float().cpu()
        frames = min(len(target), len(made))
        target, made = target[:frames], made[:frames]
        low, high = MEL_RANGE
        panels = torch.cat([(made - target).abs() + low, target, made], dim=1)
        figure = Figure(figsize=(12, 9), layout="constrained")
        axes = figure.add_subplot(xlabel="frame", ylabel="mel bin")
        # Without this, matplotlib reads '$' in a name as the start of mathematics.
        axes.set_title(printable(f"{name}, from below: difference, recording, model"), parse_math=False)
        axes.imshow(panels.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, interpolation="nearest")
        self.writer.add_figure(f"{name}.wav", figure, step)

    def log_clip_audio(self, step: int, name: str, real: Tensor, made: Tensor, sampling_rate: int) -> None:
        """Log a validation clip as recorded, and as made by model and vocoder; 1-D audio."""
        self.writer.add_audio(f"{name}_gt.wav", real.cpu(), step, sampling_rate)
        self.writer.add_audio(f"{name}_pred.wav", made.cpu(), step, sampling_rate)

    def log_validation(self, step: int, loss: float) -> None:
        """Log the mean loss of the validation clips."""
        self.writer.add_scalar("validation/loss", loss, step)
        log.info("--- <validation> ---")
        log.info("loss: %.9g at step %d", loss, step)


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss.s."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
