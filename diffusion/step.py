"""One optimisation step of the diffusion model, in the precision that the configuration asks for."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from diffusion.dataset import DiffusionBatch
from diffusion.unit2mel import build_unit2mel
from modules.config import DiffusionConfig, DiffusionTrain
from modules.data.sampler import derive_seed
from modules.device import autocast, grad_scaler, update_scale
from modules.training.distributed import average, average_gradients, rank
from modules.training.optimizer import AdamW, gradient_norm


class Learner:
    """The network, its optimizer and the scaler of half-precision gradients (fp16's alone; bf16 needs none)."""

    def __init__(self, config: DiffusionConfig, n_mels: int, device: torch.device):
        train = config.train
        self.train, self.device = train, device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(train.seed)
            self.model = build_unit2mel(config, n_mels).to(device)
        self.optimizer = AdamW(self.model.parameters(), train.lr, weight_decay=train.weight_decay)
        self.scaler = grad_scaler(device, enabled=train.amp_dtype == "fp16")
        self._precision()  # tells now of one that the device does not have

    def step(self, *batches: DiffusionBatch, number: int) -> tuple[Tensor, Tensor]:
        """Learn from some batches, those of other processes too, as step ``number`` of the run, from 1.

        Returns the batches' mean loss and the norm of its gradient. What is drawn for a batch is a function of the
        seed, ``number`` and its place among all batches of the step. A gradient that is not finite changes no weight.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.set_rate(learning_rate(self.train, number))
        mean = torch.zeros((), device=self.device)
        for place, batch in enumerate(batches, rank() * len(batches)):
            loss = self._loss(batch, number, place) / len(batches)
            self.scaler.scale(loss).backward()
            mean = mean + loss.detach()
        average_gradients(self.model)
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(self.model)  # not clipped, as published
        self.optimizer.step_scaled(self.scaler, norm)
        update_scale(self.scaler)
        return average(mean), norm

    def _loss(self, batch: DiffusionBatch, number: int, place: int) -> Tensor:
        # There is no epoch 0, so these are no clip's numbers; and validation has fewer in a row.
        draws = torch.Generator(self.device).manual_seed(derive_seed(self.train.seed, 0, 0, number, place))
        with self._precision():
            return self.model.loss(
                batch.units, batch.f0, batch.volume, batch.mel, batch.speaker_id, batch.aug_shift, draws
            )

    def _precision(self):
        half = self.train.amp_dtype
        return nullcontext() if half == "fp32" else autocast(self.device, half)


def learning_rate(train: DiffusionTrain, number: int) -> float:
    """The rate of step ``number``, from 1: times ``gamma`` after each ``decay_step`` steps.

    As published the first step counts for none of them: the first decayed one is ``decay_step + 2``.
    """
    return train.lr * train.gamma ** (max(number - 2, 0) // train.decay_step)
