"""One optimisation step of the synthesizer and its discriminators (VITS, Kim et al. 2021, section 2; spec of 4.1).

The discriminator learns first, on a slice the generator made; then the generator, against the updated discriminator.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.config import Config, DataConfig
from modules.device import autocast, grad_scaler
from modules.spectrogram import mel_from_linear, mel_spectrogram
from vits.dataset import Batch
from vits.discriminator import MultiPeriodDiscriminator
from vits.losses import discriminator_loss, feature_loss, generator_loss, kl_loss
from vits.synthesizer import Synthesizer, SynthesizerOutput, cut_slices


@dataclass
class Generated:
    """What the generator made of a batch, and the slices of the recording it is compared with.

    audio, target_audio: (B, 1, segment); mel, target_mel: (B, n_mels, frames); all_mel: of the whole clips.
    """

    output: SynthesizerOutput
    target_audio: Tensor
    mel: Tensor
    target_mel: Tensor
    all_mel: Tensor


@dataclass
class Losses:
    """The losses and gradient norms of one step: 0-dimensional tensors on the training device, not yet waited for."""

    discriminator: Tensor
    adversarial: Tensor
    feature: Tensor
    mel: Tensor
    kl: Tensor
    lf0: Tensor
    grad_norm_d: Tensor
    grad_norm_g: Tensor

    @property
    def total(self) -> Tensor:
        return self.adversarial + self.feature + self.mel + self.kl + self.lf0


class Learner:
    """The two networks, their optimizers and the precision they learn in."""

    def __init__(self, config: Config, device: torch.device):
        train, data, model = config.train, config.data, config.model
        self.config, self.device = config, device
        segment_frames = train.segment_size // data.hop_length
        self.net_g = Synthesizer(model, data.filter_length // 2 + 1, segment_frames).to(device)
        self.net_d = MultiPeriodDiscriminator(
            model.use_spectral_norm, tuple(model.discriminator_periods), model.discriminator_width
        ).to(device)
        self.optim_g, self.optim_d = self._optimizer(self.net_g), self._optimizer(self.net_d)
        self.scaler = grad_scaler(device, enabled=train.fp16_run and train.half_type == "fp16")

    def _optimizer(self, net: nn.Module) -> torch.optim.AdamW:
        train = self.config.train
        optimizer = torch.optim.AdamW(net.parameters(), train.learning_rate, tuple(train.betas), train.eps)
        for group in optimizer.param_groups:  # the original's scheduler looks for it in the checkpoint
            group["initial_lr"] = train.learning_rate
        return optimizer

    def set_learning_rate(self, epoch: int) -> None:
        for optimizer in (self.optim_g, self.optim_d):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, epoch)

    def step(self, batch: Batch, *, adversarial: bool = True) -> tuple[Generated, Losses]:
        """Learn from one batch; without ``adversarial`` only reconstruction counts and the discriminator rests.

        A network whose gradient is not finite keeps its weights for this step; the gradient norm tells.
        """
        generated = self.generate(batch)
        zero = torch.zeros((), device=self.device)
        loss_d, norm_d = self.discriminator_step(generated) if adversarial else (zero, zero)
        losses, norm_g = self.generator_step(generated, adversarial=adversarial)
        self.scaler.update()
        return generated, Losses(loss_d, *losses, grad_norm_d=norm_d, grad_norm_g=norm_g)

    def generate(self, batch: Batch) -> Generated:
        """The generator's forward pass on a batch, with the mel spectrograms the losses need (float32)."""
        train, data = self.config.train, self.config.data
        with self._autocast():
            output = self.net_g(batch.c, batch.f0, batch.uv, batch.spec, batch.speaker_id, batch.lengths, batch.volume)
        all_mel = mel_from_linear(
            batch.spec, data.sampling_rate, data.filter_length, data.n_mel_channels, data.mel_fmin, data.mel_fmax
        )
        starts, hop = output.slice_starts, data.hop_length
        return Generated(
            output=output,
            target_audio=cut_slices(batch.audio, starts * hop, train.segment_size),
            mel=mel_of(output.audio, data),
            target_mel=cut_slices(all_mel, starts, train.segment_size // hop),
            all_mel=all_mel,
        )

    def discriminator_step(self, generated: Generated) -> tuple[Tensor, Tensor]:
        """Teach the discriminator; returns its loss and the norm of its gradient."""
        with self._autocast():
            real, _ = self.net_d(generated.target_audio)
            fake, _ = self.net_d(generated.output.audio.detach())
        loss, *_ = discriminator_loss(real, fake)
        return loss.detach(), self._descend(self.net_d, self.optim_d, loss)

    def generator_step(self, generated: Generated, *, adversarial: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        """Teach the generator; returns its losses (adversarial, feature, mel, kl, lf0) and the norm of its gradient."""
        output, zero = generated.output, torch.zeros((), device=self.device)
        loss_adversarial, loss_feature = self._judge(generated) if adversarial else (zero, zero)
        loss_mel = F.l1_loss(generated.target_mel, generated.mel) * self.config.train.c_mel
        loss_kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask) * self.config.train.c_kl
        loss_lf0 = zero if output.pred_lf0 is None else F.mse_loss(output.pred_lf0.float(), output.lf0.float())
        losses = (loss_adversarial, loss_feature, loss_mel, loss_kl, loss_lf0)
        norm = self._descend(self.net_g, self.optim_g, sum(losses))
        return tuple(loss.detach() for loss in losses), norm

    def _judge(self, generated: Generated) -> tuple[Tensor, Tensor]:
        """What the discriminator says: its weights need no gradient now, and the real signal's pass no graph."""
        self.net_d.requires_grad_(False)
        try:
            with self._autocast():
                with torch.no_grad():
                    _, real_maps = self.net_d(generated.target_audio)
                fake, fake_maps = self.net_d(generated.output.audio)
        finally:
            self.net_d.requires_grad_(True)
        loss, *_ = generator_loss(fake)
        return loss, feature_loss(real_maps, fake_maps)

    def _descend(self, net: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Backward, gradient norm (not clipped, as published), step; the step is left out if the norm is not finite."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(net.parameters(), float("inf"))
        if self.scaler.is_enabled() or torch.isfinite(norm):
            self.scaler.step(optimizer)
        return norm.detach()

    def _autocast(self):
        train = self.config.train
        return autocast(self.device, train.half_type) if train.fp16_run else nullcontext()


def mel_of(audio: Tensor, data: DataConfig) -> Tensor:
    """Log-mel (B, n_mels, T) of (B, 1, L), by the configuration's sizes."""
    return mel_spectrogram(
        audio.squeeze(1).float(),
        data.sampling_rate,
        data.filter_length,
        data.n_mel_channels,
        data.hop_length,
        data.win_length,
        data.mel_fmin,
        data.mel_fmax,
    )


def learning_rate(config: Config, epoch: int) -> float:
    """The rate of an epoch (from 1): a linear warm-up over ``warmup_epochs``, then ``lr_decay`` once an epoch."""
    train = config.train
    if epoch <= train.warmup_epochs:
        return train.learning_rate * epoch / train.warmup_epochs
    return train.learning_rate * train.lr_decay ** (epoch - max(train.warmup_epochs, 1))
