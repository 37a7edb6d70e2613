"""The excitation of the waveform generators: sines at the fundamental and its harmonics, with noise.

Neural source-filter model: Wang et al., https://arxiv.org/abs/1904.12088.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

AMPLITUDE = 0.1
VOICED_NOISE = 0.003  # standard deviation beside the sines
UNVOICED_NOISE = AMPLITUDE / 3

# Phases are integers in units of 2^-40 turns. From 6 Hz up, a step frac(f0·h / sr) in float32 is exactly such a number,
# and integer sums do not round: phases are equal on every device, for any length of song.
TURN_BITS = 40
TURN = 1 << TURN_BITS
# Without gradients, the nine tracks are computed in blocks of this many frames, and only their mix is kept.
BLOCK_FRAMES = 256


class Phases(NamedTuple):
    """Phases of the tracks in each frame: integers in units of 2^-40 turns, (B, T, tracks) each.

    The published decoder subtracts each whole turn in float32. The rounding error is a small constant per frequency
    (``slip``); without it the phases of a long song would slowly drift from the published ones. The published mel
    vocoder subtracts in float64, without an error.
    """

    step: Tensor  # advance per sample
    start: Tensor  # phase before the frame's first sample
    slip: Tensor  # rounding error per whole turn
    slipped: Tensor  # sum of the rounding errors before the frame

    def __getitem__(self, frames: slice) -> Phases:
        return Phases(*(value[:, frames] for value in self))

    def end(self, hop_length: int) -> tuple[Tensor, Tensor]:
        """Return ``start`` and ``slipped`` of the frame after the last, (B, 1, tracks) each."""
        step, start, slip, slipped = (value[:, -1:] for value in self)
        turns = start + step * hop_length
        return fraction(turns), slipped + slip * (turns >> TURN_BITS)


class HarmonicSource(nn.Module):
    """Frame-rate F0 to one channel of excitation at the sampling rate: a learned mix of noisy harmonic sines.

    Args:
        sampling_rate: Hz.
        hop_length: samples per frame.
        harmonics: number of sines above the fundamental.
        phases_per_frame: accumulate as the mel vocoders do: without rounding, and with each overtone's initial phase
            added to every step of the first frame instead of once before it.
    """

    def __init__(self, sampling_rate: int, hop_length: int, harmonics: int = 8, phases_per_frame: bool = False):
        super().__init__()
        self.sampling_rate = sampling_rate
        self.hop_length = hop_length
        self.phases_per_frame = phases_per_frame
        self.tracks = harmonics + 1
        self.l_linear = nn.Linear(self.tracks, 1)

    def forward(self, f0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map ``f0`` (B, T) in Hz, 0 where unvoiced, to the excitation (B, 1, hop_length·T).

        Random numbers come from ``generator`` on its device, or from torch's default generator on f0's. Their order is
        the published program's: uniform (B, tracks) for the initial phases, then normal (B, samples, tracks) for the
        noise.
        """
        first = random_tensor(torch.rand, (len(f0), self.tracks), f0.device, generator)
        phases = self.phases(f0.float(), first)
        frames = max(1, f0.shape[1]) if torch.is_grad_enabled() else BLOCK_FRAMES
        mixes = []
        for at in range(0, f0.shape[1], frames):
            block = f0[:, at : at + frames]
            noise = random_tensor(torch.randn, self.noise_shape(block), f0.device, generator)
            mixes.append(self.mix(block, phases[at : at + frames], noise))
        return torch.cat(mixes, dim=2)

    def noise_shape(self, f0: Tensor) -> tuple[int, int, int]:
        """Return the shape of the noise for ``f0`` (B, T): (B, hop_length·T, tracks)."""
        return len(f0), f0.shape[1] * self.hop_length, self.tracks

    def mix(self, f0: Tensor, phases: Phases, noise: Tensor) -> Tensor:
        """Mix the excitation (B, 1, hop_length·T) from F0 (B, T), phases and standard normal noise."""
        voiced = (f0[:, :, None] > 0).repeat_interleave(self.hop_length, dim=1)
        noise = noise * torch.where(voiced, VOICED_NOISE, UNVOICED_NOISE)
        tracks = (self.sines(phases) * voiced + noise).to(self.l_linear.weight.dtype)
        return torch.tanh(self.l_linear(tracks)).transpose(1, 2)

    @torch.no_grad()
    def phases(self, f0: Tensor, first: Tensor, before: Phases | None = None) -> Phases:
        """Compute the tracks' phases at every frame of ``f0`` (B, T).

        ``first`` (B, tracks) are the overtones' initial phases in turns; the fundamental starts at 0. With the phases
        of the frames ``before``, of which only the last counts, they continue instead, as in one pass.
        """
        numbers = torch.arange(1, self.tracks + 1, device=f0.device)
        # Multiplied first and divided second, in float32, for the rounding of the trained models.
        turns = ((f0[:, :, None] * numbers) / self.sampling_rate) % 1
        first = first.float() * (numbers > 1)
        if self.phases_per_frame and before is None:
            turns = torch.cat((turns[:, :1] + first[:, None], turns[:, 1:]), dim=1)
            first = torch.zeros_like(first)
        step = (turns * TURN).long()
        slip = torch.zeros_like(step) if self.phases_per_frame else ((turns - 1) * TURN).long() + TURN - step
        advance = step * self.hop_length
        start, slipped = ((first * TURN).long()[:, None], 0) if before is None else before.end(self.hop_length)
        start = fraction(start + fraction(advance).cumsum(dim=1) - advance)
        slips = slip * ((start + advance) >> TURN_BITS)
        return Phases(step, start, slip, slipped + slips.cumsum(dim=1) - slips)

    @torch.no_grad()
    def sines(self, phases: Phases) -> Tensor:
        """Return the sines (B, hop_length·T, tracks), without regard to voicing."""
        samples = torch.arange(1, self.hop_length + 1, device=phases.step.device)[:, None]
        step, start, slip, slipped = (value[:, :, None] for value in phases)
        turns = start + step * samples
        turns = fraction(turns + slip * (turns >> TURN_BITS) + slipped)
        # A float32 holds 24 bits without rounding.
        turns = (turns >> (TURN_BITS - 24)).float() * 2.0**-24
        return AMPLITUDE * torch.sin(2 * torch.pi * turns.flatten(1, 2))


def skip_unused_noise(samples: int, generator: torch.Generator) -> None:
    """Advance ``generator`` by normal (1, samples, 1), which the published synthesizer samples for an unused branch.

    Call it after the synthesizer's source, so that later parts get the published random numbers. Mel vocoders have no
    such branch.
    """
    random_tensor(torch.randn, (1, samples, 1), generator.device, generator)


def fraction(turns: Tensor) -> Tensor:
    """Return the fractional part of turns, in units of 2^-40. ONNX has only the slower of the two operations."""
    return turns % TURN if torch.onnx.is_in_onnx_export() else turns & (TURN - 1)


def random_tensor(kind, shape, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Sample a tensor by ``kind`` (torch.rand, torch.randn), float32, from ``generator`` or the device's default."""
    if generator is None:
        return kind(shape, device=device)
    return kind(shape, generator=generator, device=generator.device).to(device)
