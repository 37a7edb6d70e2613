"""The ``config.json`` beside a mel vocoder's weights: the sizes of its spectrogram and of its network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from modules.audio.spectrogram import VocoderMel
from modules.config.generator_sizes import generator_rules
from modules.config.schema import Section, choice, positive
from modules.console import UserError, short_repr
from modules.untrusted.json_file import read_json

REQUIRED = dataclasses.MISSING  # in place of a default: the file must have the key

# Keys of newer vocoders with networks that are not supported, and what each key stands for.
UNSUPPORTED = {
    "mini_nsf": "a harmonic source that enters only at one stage",
    "noise_sigma": "noise added behind the first layer",
}


@dataclass
class VocoderConfig(Section):
    """Sizes of a vocoder. Other keys, such as those of its training, are kept in ``extra``."""

    sampling_rate: int = positive(REQUIRED)
    num_mels: int = positive(REQUIRED)
    n_fft: int = positive(REQUIRED)
    win_size: int = positive(REQUIRED)
    hop_size: int = positive(REQUIRED)
    fmin: float
    fmax: float | None
    upsample_rates: list[int]
    upsample_kernel_sizes: list[int]
    upsample_initial_channel: int = positive(REQUIRED)
    resblock: str = choice(REQUIRED, "1", "2")
    resblock_kernel_sizes: list[int]
    resblock_dilation_sizes: list[list[int]]

    @property
    def mel(self) -> VocoderMel:
        """The network's input spectrogram: audio (B, L) -> (B, num_mels, T)."""
        return VocoderMel(
            sampling_rate=self.sampling_rate,
            n_mels=self.num_mels,
            n_fft=self.n_fft,
            win_length=self.win_size,
            hop_length=self.hop_size,
            fmin=self.fmin,
            fmax=self.fmax,
        )


def load_vocoder_config(path: str | Path) -> VocoderConfig:
    """Read a vocoder's ``config.json``.

    Raises UserError when it is missing, not of a vocoder, contradictory, or of an unsupported network.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}, which belongs to the vocoder; 'python download_pretrain.py --vocoder' fetches both"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); pretrain/README.md says what goes there") from None
    if isinstance(values, dict):
        _check_kind(values, path)
    config = VocoderConfig.from_dict(values, f"{path}: ")
    _check_together(config, path)
    return config


def _check_kind(values: dict, path: str | Path) -> None:
    for key, what in UNSUPPORTED.items():
        if values.get(key):
            raise UserError(
                f"{path}: {key} is {short_repr(values[key])}; this vocoder's network ({what}) is not supported, use a "
                "release without it"
            )
    needed = {field.name for field in dataclasses.fields(VocoderConfig)} - {"extra"}
    if missing := sorted(needed - values.keys()):
        raise UserError(f"{path} lacks {', '.join(missing)}: it is not the whole config.json of an NSF-HiFiGAN vocoder")


def _check_together(config: VocoderConfig, path: str | Path) -> None:
    nyquist = config.sampling_rate / 2
    rules = {
        **generator_rules(config, ("hop_size", config.hop_size)),
        f"win_size {config.win_size} exceeds n_fft {config.n_fft}": config.win_size <= config.n_fft,
        f"fmin {config.fmin} and fmax {config.fmax} are no band below {nyquist:g} Hz": (
            0 <= config.fmin < (nyquist if config.fmax is None else config.fmax) <= nyquist
        ),
    }
    for sentence, holds in rules.items():
        if not holds:
            raise UserError(f"{path}: {sentence}; get the config.json that was published with the vocoder")
