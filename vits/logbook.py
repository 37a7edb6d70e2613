"""What a training run writes for people: ``train.log`` and TensorBoard, under the published names and tags."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from torch import Tensor

from modules.console import get_logger
from vits.step import Generated, Losses

log = get_logger("train")


class Logbook:
    """The text log and the two TensorBoard writers (``logs/<model>`` and ``logs/<model>/eval``) of a run."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(folder)
        self.eval_writer = SummaryWriter(folder / "eval")
        self.file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        self.file.setFormatter(logging.Formatter(f"%(asctime)s\t{folder.name}\t%(levelname)s\t%(message)s"))
        logging.getLogger("svc").addHandler(self.file)
        logging.getLogger("svc").setLevel(logging.DEBUG)

    def close(self) -> None:
        logging.getLogger("svc").removeHandler(self.file)
        self.file.close()
        self.writer.close()
        self.eval_writer.close()

    def record(self, step: int, epoch: int, percent: float, rate: float, losses: Losses, generated: Generated) -> None:
        """Scalars and pictures of a training step, and its lines in the text log."""
        scalars = {
            "loss/g/total": losses.total, "loss/d/total": losses.discriminator, "learning_rate": rate,
            "grad_norm_d": losses.grad_norm_d, "grad_norm_g": losses.grad_norm_g, "loss/g/fm": losses.feature,
            "loss/g/mel": losses.mel, "loss/g/kl": losses.kl, "loss/g/lf0": losses.lf0,
        }  # fmt: skip
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, float(value), step)
        self._mel(self.writer, "slice/mel_org", generated.target_mel[0], step)
        self._mel(self.writer, "slice/mel_gen", generated.mel[0], step)
        self._mel(self.writer, "all/mel", generated.all_mel[0], step)
        if generated.output.pred_lf0 is not None:
            output = generated.output
            self._curves("all/lf0", output.lf0[0], output.pred_lf0[0], step)
            self._curves("all/norm_lf0", output.lf0[0], output.norm_lf0[0], step)
        shown = [losses.discriminator, losses.adversarial, losses.feature, losses.mel, losses.kl]
        log.debug("Train Epoch: %d [%.0f%%]", epoch, percent)
        log.debug(
            "Losses: %s, step: %d, lr: %s, reference_loss: %s", list(map(float, shown)), step, rate, float(sum(shown))
        )

    def evaluation(self, step: int, index: int, made: Tensor, real: Tensor, rate: int) -> None:
        """One validation clip as the model sings it, and as it was sung; 1-D audio."""
        self.eval_writer.add_audio(f"gen/audio_{index}", made.cpu(), step, rate)
        self.eval_writer.add_audio(f"gt/audio_{index}", real.cpu(), step, rate)

    def evaluation_mels(self, step: int, made: Tensor, real: Tensor) -> None:
        """The mel spectrograms (n_mels, T) of the last validation clip."""
        self._mel(self.eval_writer, "gen/mel", made, step)
        self._mel(self.eval_writer, "gt/mel", real, step)

    @staticmethod
    def _mel(writer, tag: str, mel: Tensor, step: int) -> None:
        from matplotlib import colormaps

        values = mel.detach().float().cpu().numpy()[::-1]
        low, high = values.min(), values.max()
        picture = colormaps["viridis"]((values - low) / max(high - low, 1e-5))[..., :3]
        writer.add_image(tag, np.ascontiguousarray(picture), step, dataformats="HWC")

    def _curves(self, tag: str, target: Tensor, predicted: Tensor, step: int) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3), layout="constrained")
        axes = figure.add_subplot()
        for curve in (target, predicted):
            axes.plot(curve.detach().float().cpu().numpy().ravel())
        axes.set_xlabel("frame")
        self.writer.add_figure(tag, figure, step)
