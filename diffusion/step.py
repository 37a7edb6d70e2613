"""One optimisation step of the diffusion model, in the configured precision."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from diffusion.dataset import DiffusionBatch
from diffusion.unit2mel import build_unit2mel
from modules.config import DiffusionConfig, DiffusionTrain
from modules.data.sampler import derive_seed
from modules.device import autocast, grad_scaler, update_scale
from modules.training.distributed import all_reduce_mean, average_gradients, rank
from modules.training.optimizer import AdamW, gradient_norm


class Learner:
    """The network, its optimizer and the scaler of half-precision gradients (enabled for fp16 only)."""

    def __init__(self, config: DiffusionConfig, n_mels: int, device: torch.device):
        train = config.train
        self.train, self.device = train, device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(train.seed)
            self.model = build_unit2mel(config, n_mels).to(device)
        self.optimizer = AdamW(self.model.parameters(), train.lr, weight_decay=train.weight_decay)
        self.scaler = grad_scaler(device, enabled=train.amp_dtype == "fp16")
        self._precision()  # raises UserError at once if the device lacks the precision

    def step(self, *batches: DiffusionBatch, number: int) -> tuple[Tensor, Tensor]:
        """Train on this rank's batches, as step ``number`` of the run, from 1.

        Returns the mean loss of all ranks' batches and its gradient norm. The random numbers for a batch are a function
        of the seed, ``number`` and the batch's index in the step. A gradient that is not finite changes no weight.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.set_rate(learning_rate(self.train, number))
        mean = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches, rank() * len(batches)):
            loss = self._loss(batch, number, index) / len(batches)
            self.scaler.scale(loss).backward()
            mean = mean + loss.detach()
        average_gradients(self.model)
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(self.model)  # not clipped, as published
        self.optimizer.step_scaled(self.scaler, norm)
        update_scale(self.scaler)
        return all_reduce_mean(mean), norm

    def _loss(self, batch: DiffusionBatch, number: int, index: int) -> Tensor:
        # Distinct from the seeds of clips, as there is no epoch 0, and of validation, which are shorter.
        generator = torch.Generator(self.device).manual_seed(derive_seed(self.train.seed, 0, 0, number, index))
        with self._precision():
            return self.model.loss(
                batch.units, batch.f0, batch.volume, batch.mel, batch.speaker_id, batch.aug_shift, generator
            )

    def _precision(self):
        half = self.train.amp_dtype
        return nullcontext() if half == "fp32" else autocast(self.device, half)


def learning_rate(train: DiffusionTrain, number: int) -> float:
    """Return the learning rate of step ``number``, from 1: multiplied by ``gamma`` after each ``decay_step`` steps.

    As published, the first step does not count: the first decayed step is ``decay_step + 2``.
    """
    return train.lr * train.gamma ** (max(number - 2, 0) // train.decay_step)
