"""The enhancer: sound taken apart into mel and F0 and made anew by the mel vocoder, which knows good voices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.audio.files import sinc_resample
from vdecoder.mel_vocoder import RESAMPLING_WIDTH, MelVocoder


class Enhancer:
    """Enhances at the vocoder's sampling rate."""

    def __init__(self, vocoder: MelVocoder):
        self.vocoder = vocoder

    def fill_frames(self, audio: Tensor, sampling_rate: int, adaptive_key: float = 0) -> Tensor:
        """Add zeros to audio (1, L) until ``enhance`` makes whole frames of it and loses nothing of its end."""
        heard_rate = self._heard_rate(adaptive_key)
        slowed = -(-audio.shape[1] * heard_rate // sampling_rate)
        lacking = -slowed % self.vocoder.hop_length
        return F.pad(audio, (0, -(-lacking * sampling_rate // heard_rate)))

    @torch.inference_mode()
    def enhance(
        self,
        audio: Tensor,
        sampling_rate: int,
        f0: Tensor,
        hop_length: int,
        adaptive_key: float = 0,
        silence_front: float = 0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, int]:
        """Make audio (1, L) anew.

        Args:
            audio, f0: the sound and its F0 (1, T) in Hz, a value every ``hop_length`` samples at ``sampling_rate``.
            adaptive_key: the vocoder hears everything this many semitones lower (what lies above the voices that it
                was trained on comes into their range), and its sound is raised again.
            silence_front: seconds at the start, rounded down to whole frames, that are silent and stay so.
            generator: of the sine source's random numbers.

        Returns:
            Audio (L',), as long as the input to a frame or two, and its rate, which is the vocoder's.
        """
        rate = self.vocoder.sampling_rate
        silent_frames = int(silence_front * sampling_rate / hop_length)
        silence = silent_frames * hop_length / sampling_rate
        audio, f0 = audio[:, round(silence * sampling_rate) :], f0[:, silent_frames:]
        heard_rate = self._heard_rate(adaptive_key)
        slowed = sinc_resample(audio, sampling_rate, heard_rate, RESAMPLING_WIDTH)
        frames = slowed.shape[1] // self.vocoder.hop_length + 1
        heard_f0 = self._f0_at(f0, hop_length / sampling_rate, frames, rate / heard_rate)
        made = self.vocoder.synthesize(self.vocoder.extract(slowed), heard_f0, generator)
        restored = sinc_resample(made, heard_rate, rate, RESAMPLING_WIDTH)[0]
        return F.pad(restored, (round(silence * rate), 0)), rate

    def _heard_rate(self, adaptive_key: float) -> int:
        """What the sound is resampled to, which the vocoder takes for its own rate."""
        return 100 * round(self.vocoder.sampling_rate * 2 ** (adaptive_key / 12) / 100)

    def _f0_at(self, f0: Tensor, period: float, frames: int, factor: float) -> Tensor:
        """F0 (1, T), a value every ``period`` seconds, of the sound played at ``factor`` its speed: (1, frames)."""
        source = np.arange(f0.shape[1]) * period / factor
        target = np.arange(frames) * self.vocoder.hop_length / self.vocoder.sampling_rate
        heard = np.interp(target, source, f0[0].cpu().double().numpy() * factor)
        return torch.from_numpy(heard).float().to(f0.device)[None]
