"""Whether a companion that this program did not make, or that was edited since, fits its clip and may be kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modules.audio.files import open_audio
from modules.audio.spectrogram import VocoderMel
from modules.config import Config
from modules.console import UserError
from modules.data.features import ClipFiles, common_frames, frames

UNITS_PER_SECOND = 50  # of every speech encoder: a frame every 320 samples at 16 kHz


@dataclass(frozen=True)
class Fit:
    """The rates and widths that companions of a configuration have; ``n_mels`` is None without diffusion's."""

    sampling_rate: int
    hop_length: int
    features: int
    spec_bins: int
    n_mels: int | None

    @classmethod
    def of(cls, config: Config, mel: VocoderMel | None) -> Fit:
        data = config.data
        bins = data.filter_length // 2 + 1
        return cls(data.sampling_rate, data.hop_length, config.model.ssl_dim, bins, mel.n_mels if mel else None)

    def __call__(self, files: ClipFiles, name: str) -> bool:
        """Whether a companion can be read, is finite, and has the clip's frames (as training demands) and the width."""
        try:
            with open_audio(files.wav) as sound:
                samples, rate = sound.frames, sound.samplerate
            wanted = samples * UNITS_PER_SECOND // rate if name == "units" else frames(samples, self.hop_length)
            parts = self._parts(files, name)
            common_frames({"clip": wanted, **{str(number): len(part) for number, part in enumerate(parts)}}, files.wav)
        except (UserError, OSError):
            return False
        return rate == self.sampling_rate and all(np.isfinite(part).all() for part in parts)

    def _parts(self, files: ClipFiles, name: str) -> list[np.ndarray]:
        """A companion's arrays, frames first. Raises UserError where one is not usable."""
        if name == "units":
            return [files.read_units(self.features)[0].T.numpy()]
        if name == "f0":
            f0, uv = files.read_f0()
            return [np.where(f0 >= 0, f0, np.nan), uv]
        if name == "spec":
            spec = files.read_spec().numpy()
            if len(spec) != self.spec_bins:
                raise UserError(f"{files.spec} has {len(spec)} bins, the configuration {self.spec_bins}")
            return [spec.T]
        if name == "volume":
            return [files.read_volume()]
        if name == "mel":
            return [files.read_mel(self.n_mels)]
        augmented = files.read_augmented(self.n_mels)
        return [augmented.mel, augmented.volume + 0 * augmented.shift]  # not finite where the shift is not
