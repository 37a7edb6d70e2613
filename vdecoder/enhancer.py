"""The enhancer: audio is analysed to mel and F0 and resynthesized by the mel vocoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.audio.files import sinc_resample
from vdecoder.mel_vocoder import RESAMPLING_WIDTH, MelVocoder


class Enhancer:
    """Enhances audio at the vocoder's sampling rate."""

    def __init__(self, vocoder: MelVocoder):
        self.vocoder = vocoder

    def fill_frames(self, audio: Tensor, sampling_rate: int, adaptive_key: float = 0) -> Tensor:
        """Pad audio (1, L) with zeros to whole frames, so that ``enhance`` does not cut off its end."""
        shifted_rate = self._shifted_rate(adaptive_key)
        slowed = -(-audio.shape[1] * shifted_rate // sampling_rate)
        lacking = -slowed % self.vocoder.hop_length
        return F.pad(audio, (0, -(-lacking * sampling_rate // shifted_rate)))

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
        """Resynthesize audio (1, L).

        Args:
            audio, f0: the audio and its F0 (1, T) in Hz, a value every ``hop_length`` samples at ``sampling_rate``.
            adaptive_key: semitones by which the vocoder's input is lowered, to bring high voices into the range of its
                training; the output is raised again.
            silence_front: seconds of silence at the start, rounded down to whole frames; they stay silent.
            generator: random generator of the sine source.

        Returns:
            Audio (L',), as long as the input up to two frames, and its rate, which is the vocoder's.
        """
        rate = self.vocoder.sampling_rate
        silent_frames = int(silence_front * sampling_rate / hop_length)
        silence = silent_frames * hop_length / sampling_rate
        audio, f0 = audio[:, round(silence * sampling_rate) :], f0[:, silent_frames:]
        shifted_rate = self._shifted_rate(adaptive_key)
        slowed = sinc_resample(audio, sampling_rate, shifted_rate, RESAMPLING_WIDTH)
        frames = slowed.shape[1] // self.vocoder.hop_length + 1
        shifted_f0 = self._f0_at(f0, hop_length / sampling_rate, frames, rate / shifted_rate)
        enhanced = self.vocoder.synthesize(self.vocoder.extract(slowed), shifted_f0, generator)
        restored = sinc_resample(enhanced, shifted_rate, rate, RESAMPLING_WIDTH)[0]
        return F.pad(restored, (round(silence * rate), 0)), rate

    def _shifted_rate(self, adaptive_key: float) -> int:
        """Return the rate to which audio is resampled, in order to be processed as at the vocoder's rate."""
        return 100 * round(self.vocoder.sampling_rate * 2 ** (adaptive_key / 12) / 100)

    def _f0_at(self, f0: Tensor, period: float, frames: int, factor: float) -> Tensor:
        """Map F0 (1, T), a value every ``period`` seconds, to F0 (1, frames) of audio ``factor`` times as fast."""
        source = np.arange(f0.shape[1]) * period / factor
        target = np.arange(frames) * self.vocoder.hop_length / self.vocoder.sampling_rate
        values = np.interp(target, source, f0[0].cpu().double().numpy() * factor)
        return torch.from_numpy(values).float().to(f0.device)[None]
