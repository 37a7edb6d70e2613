"""The log of a training run: ``train.log`` and TensorBoard, with the published file names and tags."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from modules.console import get_logger
from modules.training.log_writers import TensorBoardWriter, TextLog
from modules.training.throughput import ThroughputReport
from vits.metrics import Metrics
from vits.step import Losses, Preview

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = get_logger("train")

# Generator losses that the published TensorBoard curves, and the published line of the text log, leave out.
NOT_IN_TENSORBOARD, NOT_IN_TEXT = ("adversarial",), ("lf0",)


class TrainingLog:
    """The text log and the two TensorBoard writers (``logs/<model>`` and ``logs/<model>/eval``) of a run.

    ``step`` is the step at which the run starts or resumes.
    """

    def __init__(self, folder: Path, step: int = 0):
        self.writer, self.eval_writer = TensorBoardWriter(folder, step), TensorBoardWriter(folder / "eval", step)
        self.text = TextLog(folder / "train.log", f"%(asctime)s\t{folder.name}\t%(levelname)s\t%(message)s")

    def close(self) -> None:
        for output in (self.text, self.writer, self.eval_writer):
            output.close()

    def log_step(
        self, step: int, epoch: int, percent: float, rate: float, losses: Losses, preview: Preview, all_mel: Tensor
    ) -> None:
        """Log the scalars, pictures and text lines of a training step.

        ``all_mel`` (n_mels, T) is the mel spectrogram of the preview's whole clip.
        """
        scalars = {
            "loss/g/total": losses.total, "loss/d/total": losses.discriminator, "learning_rate": rate,
            "grad_norm_d": losses.grad_norm_d, "grad_norm_g": losses.grad_norm_g,
            **{f"loss/g/{name}": loss for name, loss in losses.generator.items() if name not in NOT_IN_TENSORBOARD},
        }  # fmt: skip
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, float(value), step)
        self._mel(self.writer, "slice/mel_org", preview.target_mel, step)
        self._mel(self.writer, "slice/mel_gen", preview.mel, step)
        self._mel(self.writer, "all/mel", all_mel, step)
        if preview.pred_lf0 is not None:
            self._curves("all/lf0", preview.lf0, preview.pred_lf0, step)
            self._curves("all/norm_lf0", preview.lf0, preview.norm_lf0, step)
        in_text = [loss for name, loss in losses.generator.items() if name not in NOT_IN_TEXT]
        values = [losses.discriminator, *in_text]
        log.debug("Train Epoch: %d [%.0f%%]", epoch, percent)
        log.debug(
            "Losses: %s, step: %d, lr: %s, reference_loss: %s", list(map(float, values)), step, rate, float(sum(values))
        )

    def log_throughput(self, step: int, report: ThroughputReport, losses: Losses, skipped: int) -> None:
        """Log the speed, the share of waiting for data, the expected end, gradient norms and skipped steps."""
        for tag, value in {**report.scalars(), "pace/skipped_steps": skipped}.items():
            self.writer.add_scalar(tag, value, step)
        norms = float(losses.grad_norm_g), float(losses.grad_norm_d)
        log.debug("Pace: %s, gradient norms g %.3g d %.3g, skipped steps %d, at step %d", report, *norms, skipped, step)

    def log_validation_clip(self, step: int, index: int, made: Tensor, real: Tensor, rate: int) -> None:
        """Log one validation clip as the model sings it and as recorded; 1-D audio."""
        self.eval_writer.add_audio(f"gen/audio_{index}", made.cpu(), step, rate)
        self.eval_writer.add_audio(f"gt/audio_{index}", real.cpu(), step, rate)

    def log_validation(self, step: int, metrics: Metrics, made: Tensor, real: Tensor) -> None:
        """Log the metrics of the validation clips, and the mel spectrograms (n_mels, T) of the last clip."""
        for name, value in vars(metrics).items():
            self.eval_writer.add_scalar(f"metric/{name}", value, step)
        log.info("validation at step %d: %s", step, metrics)
        self._mel(self.eval_writer, "gen/mel", made, step)
        self._mel(self.eval_writer, "gt/mel", real, step)

    @staticmethod
    def _mel(writer, tag: str, mel: Tensor, step: int) -> None:
        from matplotlib import colormaps

        values = mel.detach().float().cpu().numpy()[::-1]
        low, high = values.min(), values.max()
        picture = colormaps["viridis"]((values - low) / max(high - low, 1e-5))[..., :3]
        writer.add_image(tag, np.ascontiguousarray(picture), step, dataformats="HWC")

    @functools.cached_property
    def _axes(self) -> Axes:
        """Axes that are reused, because making them and computing a layout takes longer than plotting."""
        from matplotlib.figure import Figure

        axes = Figure(figsize=(10, 3)).add_axes((0.06, 0.16, 0.92, 0.8))
        axes.set_xlabel("frame")
        return axes

    def _curves(self, tag: str, target: Tensor, predicted: Tensor, step: int) -> None:
        axes = self._axes
        for former in list(axes.lines):
            former.remove()
        for curve, colour in ((target, "C0"), (predicted, "C1")):
            axes.plot(curve.detach().float().cpu().numpy().ravel(), colour)
        axes.relim()
        self.writer.add_figure(tag, axes.figure, step, close=False)
