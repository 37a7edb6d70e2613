"""The speakers of a trained model, and the form of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modules.config import Config, DiffusionConfig
from modules.console import UserError, option
from modules.data.file_name import nfd
from modules.registry import nearest_first
from vencoder import encoder_key


@dataclass(frozen=True)
class Voices:
    """The speakers of a model by name, and the form of its features.

    ``encoder`` is the key of its speech encoder. ``unit_interpolate_mode`` is how content is resampled to frames of
    ``hop_length`` samples at ``sampling_rate``.
    """

    spk2id: Mapping[str, int]
    sampling_rate: int
    hop_length: int
    encoder: str
    unit_interpolate_mode: str

    def id_of(self, speaker: str | int) -> int:
        """Return the embedding row of a speaker's name or id. Raises UserError listing similar speakers first."""
        if speaker in self.spk2id:
            return self.spk2id[speaker]
        if str(speaker).isdecimal() and int(speaker) in self.spk2id.values():
            return int(speaker)
        for name, row in self.spk2id.items():
            if nfd(name) == nfd(str(speaker)):  # macOS may give folders another normal form than a keyboard
                return row
        known = ", ".join(nearest_first(str(speaker), self.spk2id))
        raise UserError(f"the model has no speaker '{speaker}'; it has: {known}")

    def name_of(self, speaker: str | int) -> str:
        """Return the name of a speaker given by name or id. Raises UserError as ``id_of``."""
        row = self.id_of(speaker)
        return next(name for name, number in self.spk2id.items() if number == row)

    def only(self) -> str:
        """Return the name of a model's only speaker. Raises UserError listing the speakers if it has several."""
        if len(self.spk2id) > 1:
            known = ", ".join(sorted(self.spk2id))
            raise UserError(f"the model has several speakers; choose with {option('spk')}: {known}")
        return next(iter(self.spk2id))


def synthesizer_voices(config: Config, path: str | Path) -> Voices:
    """Return the voices of a ``config.json`` at ``path``. Raises UserError as ``encoder_key``."""
    model, data = config.model, config.data
    return Voices(
        # Without names in the config, speakers are named by their rows.
        config.spk or {str(row): row for row in range(model.n_speakers)},
        data.sampling_rate,
        data.hop_length,
        encoder_key(model.speech_encoder, model.ssl_dim, path),
        data.unit_interpolate_mode,
    )


def diffusion_voices(config: DiffusionConfig, path: str | Path) -> Voices:
    """Return the voices of a ``diffusion.yaml`` at ``path``. Raises UserError as ``encoder_key``."""
    data = config.data
    return Voices(
        config.spk or {str(row): row for row in range(config.model.n_spk)},
        data.sampling_rate,
        data.block_size,
        encoder_key(data.encoder, data.encoder_out_channels, path),
        data.unit_interpolate_mode,
    )
