"""What a training run writes for people: ``train.log`` and TensorBoard, under the published names and tags."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from modules.console import get_logger
from modules.training.log_files import Events, TextLog
from modules.training.throughput import Report
from vits.step import Losses, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vits.validation import Metrics

log = get_logger("train")

# The generator's losses that the published curves, and the published line of the text log, lack.
NOT_DRAWN, NOT_LISTED = ("adversarial",), ("lf0",)


class Logbook:
    """The text log and the two TensorBoard writers (``logs/<model>`` and ``logs/<model>/eval``) of a run that goes on
    from ``step``."""

    def __init__(self, folder: Path, step: int = 0):
        self.writer, self.eval_writer = Events(folder, step), Events(folder / "eval", step)
        self.file = TextLog(folder / "train.log", f"%(asctime)s\t{folder.name}\t%(levelname)s\t%(message)s")

    def close(self) -> None:
        for part in (self.file, self.writer, self.eval_writer):
            part.close()

    def record(
        self, step: int, epoch: int, percent: float, rate: float, losses: Losses, sample: Sample, all_mel: Tensor
    ) -> None:
        """Scalars and pictures of a training step, and its lines in the text log; ``all_mel`` (n_mels, T) is the
        sample's whole clip."""
        scalars = {
            "loss/g/total": losses.total, "loss/d/total": losses.discriminator, "learning_rate": rate,
            "grad_norm_d": losses.grad_norm_d, "grad_norm_g": losses.grad_norm_g,
            **{f"loss/g/{name}": loss for name, loss in losses.generator.items() if name not in NOT_DRAWN},
        }  # fmt: skip
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, float(value), step)
        self._mel(self.writer, "slice/mel_org", sample.target_mel, step)
        self._mel(self.writer, "slice/mel_gen", sample.mel, step)
        self._mel(self.writer, "all/mel", all_mel, step)
        if sample.pred_lf0 is not None:
            self._curves("all/lf0", sample.lf0, sample.pred_lf0, step)
            self._curves("all/norm_lf0", sample.lf0, sample.norm_lf0, step)
        listed = [loss for name, loss in losses.generator.items() if name not in NOT_LISTED]
        shown = [losses.discriminator, *listed]
        log.debug("Train Epoch: %d [%.0f%%]", epoch, percent)
        log.debug(
            "Losses: %s, step: %d, lr: %s, reference_loss: %s", list(map(float, shown)), step, rate, float(sum(shown))
        )

    def pace(self, step: int, report: Report, losses: Losses, skipped: int) -> None:
        """How the run goes on: its speed, what it waits for, when it ends, and whether the numbers are sound."""
        for tag, value in {**report.scalars(), "pace/skipped_steps": skipped}.items():
            self.writer.add_scalar(tag, value, step)
        norms = float(losses.grad_norm_g), float(losses.grad_norm_d)
        log.debug("Pace: %s, gradient norms g %.3g d %.3g, skipped steps %d, at step %d", report, *norms, skipped, step)

    def evaluation(self, step: int, index: int, made: Tensor, real: Tensor, rate: int) -> None:
        """One validation clip as the model sings it, and as it was sung; 1-D audio."""
        self.eval_writer.add_audio(f"gen/audio_{index}", made.cpu(), step, rate)
        self.eval_writer.add_audio(f"gt/audio_{index}", real.cpu(), step, rate)

    def evaluated(self, step: int, metrics: Metrics, made: Tensor, real: Tensor) -> None:
        """What all validation clips together say, and the mel spectrograms (n_mels, T) of the last."""
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
        """To draw on again and again: to make them, or to find a layout, takes longer than to draw."""
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
