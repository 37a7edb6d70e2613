"""One optimisation step of the synthesizer and its discriminators (VITS, Kim et al. 2021, section 2; spec of 4.1).

The discriminator learns first, on a slice the generator made; then the generator, against the updated discriminator.

A step may take several batches, here (``train.accumulate_steps``) and in other processes. Its gradient is then the mean
of the gradients that each batch alone would give, whoever computes them. This is not that of one large batch: a batch's
KL and F0 losses are means over its own frames, so a frame of a short batch weighs a little more.

On a CUDA device a step of one batch in one process is captured and replayed (modules/training/cuda_graph.py), so
nothing in it may wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.audio.spectrogram import mel_from_linear, mel_spectrogram
from modules.config import Config, DataConfig
from modules.data.sampler import derive_seed
from modules.device import autocast, grad_scaler, update_scale
from modules.layers.weight_norm import cached_weights
from modules.training.cuda_graph import Recorder
from modules.training.distributed import average, average_gradients, rank, world_size
from modules.training.optimizer import AdamW, gradient_norm
from vits.dataset import Batch
from vits.discriminator import MultiPeriodDiscriminator, scores_of
from vits.losses import discriminator_loss, feature_loss, generator_loss, kl_loss, lf0_loss
from vits.synthesizer import Synthesizer, SynthesizerOutput, cut_slices

# Recordings are of one shape each: batches are padded to a multiple of so many frames, which makes at most 13 lengths
# of clips that are cropped at 800. Padding counts for nothing, as that of a batch's shorter clips does.
FRAMES_APART = 64


@dataclass
class Generated:
    """What the generator made of a batch, and the slices of the recording it is compared with.

    audio, target_audio: (B, 1, segment); mel, target_mel: (B, n_mels, frames).
    """

    output: SynthesizerOutput
    target_audio: Tensor
    mel: Tensor
    target_mel: Tensor


@dataclass
class Sample:
    """What a step made of its batch's first clip, for people to look at: mel, target_mel (n_mels, frames) of the slice,
    spec (bins, T) of the clip, and of a model that predicts F0 lf0, pred_lf0 and norm_lf0 (1, T). No graph is kept."""

    mel: Tensor
    target_mel: Tensor
    spec: Tensor
    lf0: Tensor | None = None
    pred_lf0: Tensor | None = None
    norm_lf0: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, generated: Generated) -> Sample:
        output = generated.output
        curves = (output.lf0, output.pred_lf0, output.norm_lf0) if output.pred_lf0 is not None else ()
        return cls(*(x[0].detach() for x in (generated.mel, generated.target_mel, batch.spec, *curves)))


@dataclass
class Losses:
    """The losses and gradient norms of one step: 0-dimensional tensors on the training device, not yet waited for.

    ``generator`` holds the generator's losses by name, times their weights.
    """

    discriminator: Tensor
    generator: dict[str, Tensor]
    grad_norm_d: Tensor
    grad_norm_g: Tensor

    @property
    def total(self) -> Tensor:
        """What the generator learns from."""
        return sum(self.generator.values())

    def by_name(self) -> dict[str, Tensor]:
        """All of them in one dictionary."""
        norms = {"grad_norm_d": self.grad_norm_d, "grad_norm_g": self.grad_norm_g}
        return {"discriminator": self.discriminator, **self.generator, **norms}


class Learner:
    """The two networks, their optimizers and the precision they learn in.

    ``cuda_graphs`` False starts every kernel by itself on a CUDA device too.
    """

    def __init__(self, config: Config, device: torch.device, *, cuda_graphs: bool = True):
        train, data, model = config.train, config.data, config.model
        self.config, self.device = config, device
        segment_frames = train.segment_size // data.hop_length
        self.net_g = Synthesizer(model, data.filter_length // 2 + 1, segment_frames).to(device)
        self.net_d = MultiPeriodDiscriminator(
            model.use_spectral_norm, tuple(model.discriminator_periods), model.discriminator_width
        ).to(device)
        self.optim_g, self.optim_d = self._optimizer(self.net_g), self._optimizer(self.net_d)
        self.scaler = grad_scaler(device, enabled=train.fp16_run and train.half_type == "fp16")
        self._autocast()  # tells now of a precision that the device does not have
        recorded = cuda_graphs and world_size() == train.accumulate_steps == 1
        self.alone = Recorder(self._learn_alone, device, enabled=recorded)

    def _optimizer(self, net: nn.Module) -> AdamW:
        train = self.config.train
        optimizer = AdamW(net.parameters(), train.learning_rate, tuple(train.betas), train.eps)
        for group in optimizer.param_groups:  # the original's scheduler looks for it in the checkpoint
            group["initial_lr"] = train.learning_rate
        return optimizer

    def set_learning_rate(self, epoch: int) -> None:
        for optimizer in (self.optim_g, self.optim_d):
            optimizer.set_rate(learning_rate(self.config, epoch))

    def step(
        self, *batches: Batch, number: int | None = None, adversarial: bool = True
    ) -> tuple[Sample, Losses]:
        """Learn from one batch or several; without ``adversarial`` only reconstruction counts and the discriminator
        rests.

        What is drawn for a batch is a function of the seed, the step's ``number``, which several batches must have, and
        the batch's place among those of all processes; without a number torch's generator is left as it is.
        A network whose gradient is not finite keeps its weights for this step, in every process; the gradient norm
        tells. Returns a sample of what was generated for the last batch, and the means of the losses over all
        processes; both may be overwritten by the next step.
        """
        if len(batches) > 1:
            return self._learn_several(batches, number, adversarial)
        (batch,) = batches
        if self.alone.enabled:
            batch = batch.padded(FRAMES_APART)
        self._seed(number, rank())
        return self.alone(batch.tensors(), adversarial)

    def _learn_alone(self, tensors: Sequence[Tensor | None], adversarial: bool) -> tuple[Sample, Losses]:
        """A step on one batch: one pass of the generator serves both networks."""
        batch = Batch(*tensors)
        generated = self.generate(batch)
        return self._learn([generated], [generated], batch, 1, adversarial)

    def _learn_several(
        self, batches: Sequence[Batch], number: int | None, adversarial: bool
    ) -> tuple[Sample, Losses]:
        """A step on several, each generated twice: their graphs would not fit into memory together."""
        for_d, for_g = self._generated(batches, number, graph=False), self._generated(batches, number)
        return self._learn(for_d, for_g, batches[-1], len(batches), adversarial)

    def _learn(
        self, for_d: Iterable[Generated], for_g: Iterable[Generated], last: Batch, parts: int, adversarial: bool
    ) -> tuple[Sample, Losses]:
        loss_d = norm_d = torch.zeros((), device=self.device)
        if adversarial:
            loss_d, norm_d = self.discriminator_step(for_d, parts)
        generated, losses, norm_g = self.generator_step(for_g, parts, adversarial=adversarial)
        update_scale(self.scaler)
        loss_d, *means = average(torch.stack([loss_d, *losses.values()]))
        return Sample.of(last, generated), Losses(loss_d, dict(zip(losses, means, strict=True)), norm_d, norm_g)

    def _generated(self, batches: Sequence[Batch], number: int | None, graph: bool = True) -> Iterator[Generated]:
        """What the generator makes of each batch, the same each time it is asked for the same ``number``."""
        for place, batch in enumerate(batches):
            self._seed(number, rank() * len(batches) + place)
            with torch.set_grad_enabled(graph):
                generated = self.generate(batch)
            yield generated

    def _seed(self, number: int | None, place: int) -> None:
        if number is not None:
            torch.manual_seed(derive_seed(self.config.train.seed, 0, number, place))

    def compile(self) -> None:
        """Let PyTorch's compiler write the kernels of decoder and discriminator, which see segments of one length."""
        options = {"fallback_random": True}  # the numbers drawn stay those of the uncompiled step
        self.net_g.dec.compile(dynamic=False, options=options)
        self.net_d.compile(dynamic=False, options=options)

    def generate(self, batch: Batch) -> Generated:
        """The generator's forward pass on a batch, with the mel spectrograms the losses need (float32)."""
        train, data = self.config.train, self.config.data
        with self._autocast():
            output = self.net_g(batch.c, batch.f0, batch.uv, batch.spec, batch.speaker_id, batch.lengths, batch.volume)
        starts, frames = output.slice_starts, train.segment_size // data.hop_length
        return Generated(
            output=output,
            target_audio=cut_slices(batch.audio, starts * data.hop_length, train.segment_size),
            mel=mel_of(output.audio, data),
            target_mel=mel_of_spec(cut_slices(batch.spec, starts, frames), data),
        )

    def discriminator_step(self, generated: Iterable[Generated], parts: int = 1) -> tuple[Tensor, Tensor]:
        """Teach the discriminator on all ``parts``; returns its mean loss and the norm of its gradient."""
        self.optim_d.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for part in generated:
            loss = self.discriminator_loss(part) / parts
            self.scaler.scale(loss).backward()
            mean = mean + loss.detach()
        return mean, self._descend(self.net_d, self.optim_d)

    def discriminator_loss(self, generated: Generated) -> Tensor:
        with self._autocast():
            real, fake = self.net_d.scores(generated.target_audio, generated.output.audio.detach())
        loss, *_ = discriminator_loss(real, fake)
        return loss

    def generator_step(
        self, generated: Iterable[Generated], parts: int = 1, *, adversarial: bool
    ) -> tuple[Generated, dict[str, Tensor], Tensor]:
        """Teach the generator on all ``parts``; returns the last, the mean losses by name and the gradient's norm."""
        self.optim_g.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for part in generated:
            losses = self.generator_losses(part, adversarial=adversarial)
            values = torch.stack(list(losses.values())) / parts
            self.scaler.scale(values.sum()).backward()
            mean = mean + values.detach()
        return part, dict(zip(losses, mean, strict=True)), self._descend(self.net_g, self.optim_g)

    def generator_losses(self, generated: Generated, *, adversarial: bool) -> dict[str, Tensor]:
        """The losses by name, times their weights. All of them are summed, averaged, logged and drawn from here."""
        output, zero = generated.output, torch.zeros((), device=self.device)
        loss_adversarial, loss_feature = self._judge(generated) if adversarial else (zero, zero)
        loss_kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask)
        return {
            "adversarial": loss_adversarial,
            "fm": loss_feature,
            "mel": F.l1_loss(generated.target_mel, generated.mel) * self.config.train.c_mel,
            "kl": loss_kl * self.config.train.c_kl,
            "lf0": zero if output.pred_lf0 is None else lf0_loss(output.pred_lf0, output.lf0, output.mask),
        }

    def _judge(self, generated: Generated) -> tuple[Tensor, Tensor]:
        """What the discriminator says: its weights need no gradient now, and the real signal's pass no graph."""
        self.net_d.requires_grad_(False)
        try:
            with self._autocast(), cached_weights(self.net_d):
                with torch.no_grad():
                    real_maps = self.net_d(generated.target_audio)
                fake_maps = self.net_d(generated.output.audio)
        finally:
            self.net_d.requires_grad_(True)
        loss, *_ = generator_loss(scores_of(fake_maps))
        return loss, feature_loss(real_maps, fake_maps)

    def _descend(self, net: nn.Module, optimizer: AdamW) -> Tensor:
        """Gradient norm (not clipped, as published) and step; the step is left out if the norm is not finite."""
        average_gradients(net)
        self.scaler.unscale_(optimizer)
        norm = gradient_norm(net)
        optimizer.step_scaled(self.scaler, norm)
        return norm

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


def mel_of_spec(spec: Tensor, data: DataConfig) -> Tensor:
    """Log-mel (..., n_mels, T) of a linear spectrogram (..., bins, T), by the configuration's sizes."""
    return mel_from_linear(
        spec, data.sampling_rate, data.filter_length, data.n_mel_channels, data.mel_fmin, data.mel_fmax
    )


def learning_rate(config: Config, epoch: int) -> float:
    """Learning rate of an epoch (from 1): a linear warm-up over ``warmup_epochs``, then ``lr_decay`` once an epoch.

    With ``cosine_end`` half a cosine takes the place of ``lr_decay``: it ends at the last of ``epochs`` at that share
    of ``learning_rate`` (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, equation 5, without restarts).
    """
    train = config.train
    if epoch <= train.warmup_epochs:
        return train.learning_rate * epoch / train.warmup_epochs
    first = max(train.warmup_epochs, 1)
    if not train.cosine_end:
        return train.learning_rate * train.lr_decay ** (epoch - first)
    progress = min((epoch - first) / max(train.epochs - first, 1), 1.0)
    fall = (1 - train.cosine_end) * (1 + math.cos(math.pi * progress)) / 2
    return train.learning_rate * (train.cosine_end + fall)
