"""One optimisation step of the synthesizer and its discriminators (VITS, Kim et al. 2021, section 2), as in 4.1.

The discriminator trains first, on a slice that the generator made; then the generator trains against the updated
discriminator.

A step may take several batches, on this rank (``train.accumulate_steps``) and on others. Its gradient is then the mean
of the gradients of the single batches. It differs from the gradient of one large batch: the KL and F0 losses are means
over the frames of a batch, so a frame of a short batch weighs a little more.

On a CUDA device a step of one batch in one process is captured and replayed (modules/cuda_graph.py), so it
must not wait for the device.
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
from modules.cuda_graph import GraphedFunction
from modules.data.sampler import derive_seed
from modules.device import autocast, grad_scaler, update_scale
from modules.layers.weight_norm import cached_weights
from modules.training.distributed import all_reduce_mean, average_gradients, rank, world_size
from modules.training.optimizer import AdamW, gradient_norm
from vits.dataset import Batch
from vits.discriminator import MultiPeriodDiscriminator, scores_of
from vits.losses import discriminator_loss, feature_loss, generator_loss, kl_loss, lf0_loss
from vits.synthesizer import Synthesizer, SynthesizerOutput, cut_slices

# A CUDA graph has fixed shapes: batches are padded to a multiple of so many frames, which gives at most 13 lengths of
# clips that are cropped at 800. The padding is masked, like the padding of a batch's shorter clips.
FRAME_MULTIPLE = 64


@dataclass
class Generated:
    """The generator's output for a batch, and the real slices that it is compared with.

    audio, target_audio: (B, 1, segment); mel, target_mel: (B, n_mels, frames).
    """

    output: SynthesizerOutput
    target_audio: Tensor
    mel: Tensor
    target_mel: Tensor


@dataclass
class Preview:
    """A step's output for the first clip of its batch, for the training log.

    mel, target_mel (n_mels, frames): of the slice. spec (bins, T): of the clip. lf0, pred_lf0, norm_lf0 (1, T): of a
    model that predicts F0, otherwise None. All are detached.
    """

    mel: Tensor
    target_mel: Tensor
    spec: Tensor
    lf0: Tensor | None = None
    pred_lf0: Tensor | None = None
    norm_lf0: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, generated: Generated) -> Preview:
        output = generated.output
        curves = (output.lf0, output.pred_lf0, output.norm_lf0) if output.pred_lf0 is not None else ()
        return cls(*(x[0].detach() for x in (generated.mel, generated.target_mel, batch.spec, *curves)))


@dataclass
class Losses:
    """The losses and gradient norms of one step, as 0-dimensional tensors on the training device.

    ``generator`` holds the generator's losses by name, times their weights.
    """

    discriminator: Tensor
    generator: dict[str, Tensor]
    grad_norm_d: Tensor
    grad_norm_g: Tensor

    @property
    def total(self) -> Tensor:
        """The generator's loss: the sum of its weighted losses."""
        return sum(self.generator.values())

    def by_name(self) -> dict[str, Tensor]:
        """Return all losses and gradient norms in one dictionary."""
        norms = {"grad_norm_d": self.grad_norm_d, "grad_norm_g": self.grad_norm_g}
        return {"discriminator": self.discriminator, **self.generator, **norms}


class Learner:
    """The two networks, their optimizers and the precision of training.

    ``cuda_graphs`` False disables the capture of steps on a CUDA device.
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
        self._autocast()  # raises UserError at once if the device lacks the precision
        one_batch_a_step = world_size() == train.accumulate_steps == 1
        self.graphed_step = GraphedFunction(
            self._single_batch_step, device, enabled=cuda_graphs and one_batch_a_step
        )

    def _optimizer(self, net: nn.Module) -> AdamW:
        train = self.config.train
        optimizer = AdamW(net.parameters(), train.learning_rate, tuple(train.betas), train.eps)
        for group in optimizer.param_groups:  # the original's scheduler reads it from the checkpoint
            group["initial_lr"] = train.learning_rate
        return optimizer

    def set_learning_rate(self, epoch: int) -> None:
        for optimizer in (self.optim_g, self.optim_d):
            optimizer.set_rate(learning_rate(self.config, epoch))

    def step(
        self, *batches: Batch, number: int | None = None, adversarial: bool = True
    ) -> tuple[Preview, Losses]:
        """Train on one or several batches.

        A network whose gradient norm is not finite keeps its weights in this step, on all ranks.

        Args:
            batches: this rank's batches.
            number: the step's number. With the seed and the batch's index among all ranks' batches it determines the
                random numbers for a batch. None leaves torch's generator unchanged, and is for a single batch only.
            adversarial: False trains the generator on its reconstruction losses, and not the discriminator.

        Returns a preview of the last batch, and the losses, averaged over all ranks. The next step may overwrite both.
        """
        if len(batches) > 1:
            return self._multi_batch_step(batches, number, adversarial)
        (batch,) = batches
        if self.graphed_step.enabled:
            batch = batch.padded(FRAME_MULTIPLE)
        self._seed(number, rank())
        return self.graphed_step(batch.tensors(), adversarial)

    def _single_batch_step(self, tensors: Sequence[Tensor | None], adversarial: bool) -> tuple[Preview, Losses]:
        """Train on one batch, with one forward pass of the generator for both networks."""
        batch = Batch(*tensors)
        generated = self.generate(batch)
        return self._train_networks([generated], [generated], batch, 1, adversarial)

    def _multi_batch_step(
        self, batches: Sequence[Batch], number: int | None, adversarial: bool
    ) -> tuple[Preview, Losses]:
        """Train on several batches. Each is generated twice, because all autograd graphs would not fit into memory."""
        for_d, for_g = self._generated(batches, number, with_grad=False), self._generated(batches, number)
        return self._train_networks(for_d, for_g, batches[-1], len(batches), adversarial)

    def _train_networks(
        self, for_d: Iterable[Generated], for_g: Iterable[Generated], last: Batch, count: int, adversarial: bool
    ) -> tuple[Preview, Losses]:
        loss_d = norm_d = torch.zeros((), device=self.device)
        if adversarial:
            loss_d, norm_d = self.discriminator_step(for_d, count)
        generated, losses, norm_g = self.generator_step(for_g, count, adversarial=adversarial)
        update_scale(self.scaler)
        loss_d, *means = all_reduce_mean(torch.stack([loss_d, *losses.values()]))
        return Preview.of(last, generated), Losses(loss_d, dict(zip(losses, means, strict=True)), norm_d, norm_g)

    def _generated(self, batches: Sequence[Batch], number: int | None, with_grad: bool = True) -> Iterator[Generated]:
        """Yield the generator's output for each batch; the same ``number`` gives the same output."""
        for index, batch in enumerate(batches, rank() * len(batches)):
            self._seed(number, index)
            with torch.set_grad_enabled(with_grad):
                generated = self.generate(batch)
            yield generated

    def _seed(self, number: int | None, index: int) -> None:
        if number is not None:
            torch.manual_seed(derive_seed(self.config.train.seed, 0, number, index))

    def compile(self) -> None:
        """Compile the decoder and the discriminator, whose inputs always have the length of a segment."""
        options = {"fallback_random": True}  # the same random numbers as the uncompiled step
        self.net_g.dec.compile(dynamic=False, options=options)
        self.net_d.compile(dynamic=False, options=options)

    def generate(self, batch: Batch) -> Generated:
        """Run the generator on a batch and compute the mel spectrograms for the losses (float32)."""
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

    def discriminator_step(self, generated: Iterable[Generated], count: int = 1) -> tuple[Tensor, Tensor]:
        """Train the discriminator on ``count`` batches; returns its mean loss and gradient norm."""
        self.optim_d.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for output in generated:
            loss = self.discriminator_loss(output) / count
            self.scaler.scale(loss).backward()
            mean = mean + loss.detach()
        return mean, self._update(self.net_d, self.optim_d)

    def discriminator_loss(self, generated: Generated) -> Tensor:
        with self._autocast():
            real, fake = self.net_d.scores(generated.target_audio, generated.output.audio.detach())
        loss, *_ = discriminator_loss(real, fake)
        return loss

    def generator_step(
        self, generated: Iterable[Generated], count: int = 1, *, adversarial: bool
    ) -> tuple[Generated, dict[str, Tensor], Tensor]:
        """Train the generator on ``count`` batches; returns its last output, mean losses by name and gradient norm."""
        self.optim_g.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        for output in generated:
            losses = self.generator_losses(output, adversarial=adversarial)
            values = torch.stack(list(losses.values())) / count
            self.scaler.scale(values.sum()).backward()
            mean = mean + values.detach()
        return output, dict(zip(losses, mean, strict=True)), self._update(self.net_g, self.optim_g)

    def generator_losses(self, generated: Generated, *, adversarial: bool) -> dict[str, Tensor]:
        """Return the losses by name, times their weights. All of them are trained on, averaged and logged."""
        output, zero = generated.output, torch.zeros((), device=self.device)
        loss_adversarial, loss_feature = self._adversarial_losses(generated) if adversarial else (zero, zero)
        loss_kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask)
        return {
            "adversarial": loss_adversarial,
            "fm": loss_feature,
            "mel": F.l1_loss(generated.target_mel, generated.mel) * self.config.train.c_mel,
            "kl": loss_kl * self.config.train.c_kl,
            "lf0": zero if output.pred_lf0 is None else lf0_loss(output.pred_lf0, output.lf0, output.mask),
        }

    def _adversarial_losses(self, generated: Generated) -> tuple[Tensor, Tensor]:
        """Compute the adversarial and the feature matching loss. The discriminator's weights get no gradient."""
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

    def _update(self, net: nn.Module, optimizer: AdamW) -> Tensor:
        """Make the optimizer's step if the gradient norm is finite; returns the norm. No clipping, as published."""
        average_gradients(net)
        self.scaler.unscale_(optimizer)
        norm = gradient_norm(net)
        optimizer.step_scaled(self.scaler, norm)
        return norm

    def _autocast(self):
        train = self.config.train
        return autocast(self.device, train.half_type) if train.fp16_run else nullcontext()


def mel_of(audio: Tensor, data: DataConfig) -> Tensor:
    """Compute the log-mel (B, n_mels, T) of audio (B, 1, L), with the configuration's sizes."""
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
    """Compute the log-mel (..., n_mels, T) of a linear spectrogram (..., bins, T), with the configuration's sizes."""
    return mel_from_linear(
        spec, data.sampling_rate, data.filter_length, data.n_mel_channels, data.mel_fmin, data.mel_fmax
    )


def learning_rate(config: Config, epoch: int) -> float:
    """Return the learning rate of an epoch, from 1: linear warm-up over ``warmup_epochs``, then ``lr_decay`` per epoch.

    With ``cosine_end``, half a cosine replaces ``lr_decay``: it reaches that share of ``learning_rate`` at the last of
    ``epochs`` (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, equation 5, without restarts).
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
