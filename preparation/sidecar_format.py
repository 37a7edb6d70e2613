"""Check whether a sidecar file that another program made, or that was edited, matches its clip and may be kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modules.audio.files import open_audio
from modules.audio.spectrogram import VocoderMel
from modules.config import Config
from modules.console import UserError
from modules.data.features import ClipFiles, common_frames, frames

UNITS_PER_SECOND = 50  # all speech encoders: one frame per 320 samples at 16 kHz


@dataclass(frozen=True)
class SidecarFormat:
    """The rates and widths of a configuration's sidecar files; ``n_mels`` is None without diffusion."""

    sampling_rate: int
    hop_length: int
    features: int
    spec_bins: int
    n_mels: int | None

    @classmethod
    def of(cls, config: Config, mel: VocoderMel | None) -> SidecarFormat:
        data = config.data
        bins = data.filter_length // 2 + 1
        return cls(data.sampling_rate, data.hop_length, config.model.ssl_dim, bins, mel.n_mels if mel else None)

    def matches(self, files: ClipFiles, name: str) -> bool:
        """Return whether a file is readable and finite, and has the right width and number of frames.

        The number of frames may differ from the clip's by training's tolerance.
        """
        try:
            with open_audio(files.wav) as sound:
                samples, rate = sound.frames, sound.samplerate
            wanted = samples * UNITS_PER_SECOND // rate if name == "units" else frames(samples, self.hop_length)
            arrays = self._arrays(files, name)
            common_frames({"clip": wanted, **{str(number): len(part) for number, part in enumerate(arrays)}}, files.wav)
        except (UserError, OSError):
            return False
        return rate == self.sampling_rate and all(np.isfinite(part).all() for part in arrays)

    def _arrays(self, files: ClipFiles, name: str) -> list[np.ndarray]:
        """Read the arrays of a sidecar file, frames first. Raises UserError if one is unusable."""
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
        return [augmented.mel, augmented.volume + 0 * augmented.shift]  # not finite if the shift is not
