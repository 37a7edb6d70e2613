"""The mel vocoder, NSF-HiFiGAN with published weights: audio to log-mel, and log-mel with F0 to audio."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.audio.files import sinc_resample
from modules.layers.weight_norm import fold_normed_weights
from modules.shared import shared
from modules.weights.weight_file import assign, find_weight_file, read_weight_file
from vdecoder import MEL_VOCODERS
from vdecoder.nsf_hifigan import NsfHifigan
from vdecoder.vocoder_config import VocoderConfig, load_vocoder_config

DEFAULT_PATH = "pretrain/nsf_hifigan/model"
RESAMPLING_WIDTH = 128  # zero crossings of the filter, as in the published program


class MelVocoder:
    """A network ready for inference. ``mel_scale`` converts mels in natural logarithms to those of the training.

    Mels are passed as (B, T, n_mels) in natural logarithms, T = L // hop_length.
    """

    def __init__(self, network: NsfHifigan, config: VocoderConfig, mel_scale: float = 1.0):
        self.network = network
        self.mel = config.mel
        self.mel_scale = mel_scale
        self.sampling_rate = config.sampling_rate
        self.hop_length = config.hop_size
        self.n_mels = config.num_mels

    @property
    def device(self) -> torch.device:
        return self.network.conv_post.bias.device

    @torch.no_grad()
    def extract(
        self, audio: Tensor, keyshift: float = 0.0, speed: float = 1.0, sampling_rate: int | None = None
    ) -> Tensor:
        """Map audio (B, L) to mel (B, T, n_mels), ``keyshift`` semitones higher and ``speed`` times faster.

        The audio may be on any device. ``sampling_rate`` is the audio's; None means the vocoder's.
        """
        audio = sinc_resample(audio, sampling_rate or self.sampling_rate, self.sampling_rate, RESAMPLING_WIDTH)
        return self.mel(audio, keyshift, speed).transpose(1, 2)

    @torch.inference_mode()
    def synthesize(self, mel: Tensor, f0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Generate audio (B, hop_length·T) from mel (B, T, n_mels) and F0 (B, T or more) in Hz, 0 where unvoiced.

        Both are on the vocoder's device. Long songs are decoded in blocks, with the same result. Raises ValueError when
        F0 has fewer frames than the mel.
        """
        frames = mel.shape[1]
        if f0.shape[1] < frames:
            raise ValueError(f"the mel has {frames} frames and F0 only {f0.shape[1]}")
        scaled = mel.transpose(1, 2) * self.mel_scale
        return self.network.decode(scaled, f0[:, :frames], generator=generator)[:, 0]


def load_mel_vocoder(
    path: str | Path = DEFAULT_PATH, device: str | torch.device = "cpu", kind: str = "nsf-hifigan"
) -> MelVocoder:
    """Load a vocoder from a weight file with its ``config.json`` beside it; ``kind`` is a key of MEL_VOCODERS.

    Raises UserError when a file is missing, of another kind or size, or of an unsupported network.
    """
    path, row = Path(path), MEL_VOCODERS[kind]
    command = "python download_pretrain.py --vocoder"
    find_weight_file(path.name, path.parent, f"the vocoder '{kind}'", "the weights of an NSF-HiFiGAN", command)
    config = load_vocoder_config(path.with_name("config.json"))
    weights = read_weight_file(path, "NSF-HiFiGAN")
    with torch.device("meta"):
        network = row.load()(config, config.num_mels, phases_per_frame=True)
    assign(network, weights, path, "NSF-HiFiGAN of the sizes in its config.json")
    fold_normed_weights(network)
    return MelVocoder(network.eval().to(device), config, row.mel_scale)


@shared
def load_conversion_vocoder(path: Path, device: torch.device, kind: str, dtype: torch.dtype) -> MelVocoder:
    """Load a vocoder as ``load_mel_vocoder``, in its fastest form; converters share it. Raises UserError as that."""
    vocoder = load_mel_vocoder(path, device, kind)
    vocoder.network.prepare_for_conversion(dtype)
    return vocoder
