"""The encoder of Whisper, from OpenAI's checkpoints, without its text decoder.

A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.audio.spectrogram import mel_filters
from modules.console import UserError
from modules.device import without_autocast
from modules.weights.weight_file import Settings, assign, read_weights_and_settings
from vencoder.encoder import HOP_LENGTH, SAMPLING_RATE, SpeechEncoder
from vencoder.renaming import rename
from vencoder.speech_like import speech_like
from vencoder.whisper_network import WhisperEncoder

N_FFT, MEL_HOP, MEL_BANDS = 400, 160, 80
WINDOW = 1500  # frames; what the network was trained with: 30 s
OVERLAP = 250  # frames; minimum overlap of neighbouring windows, over which they are blended: 5 s
WINDOWS_AT_ONCE = 8
ENGLISH_VOCABULARY = 51864  # tokens; multilingual models have more
NAMES_BY_WIDTH = {384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"}

TO_TRANSFORMERS = (
    (r"encoder\.positional_embedding", r"embed_positions.weight"),
    (r"encoder\.conv([12])\.(weight|bias)", r"conv\1.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.query\.(weight|bias)", r"layers.\1.self_attn.q_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.key\.weight", r"layers.\1.self_attn.k_proj.weight"),
    (r"encoder\.blocks\.(\d+)\.attn\.value\.(weight|bias)", r"layers.\1.self_attn.v_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn\.out\.(weight|bias)", r"layers.\1.self_attn.out_proj.\2"),
    (r"encoder\.blocks\.(\d+)\.attn_ln\.(weight|bias)", r"layers.\1.self_attn_layer_norm.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp\.0\.(weight|bias)", r"layers.\1.fc1.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp\.2\.(weight|bias)", r"layers.\1.fc2.\2"),
    (r"encoder\.blocks\.(\d+)\.mlp_ln\.(weight|bias)", r"layers.\1.final_layer_norm.\2"),
    (r"encoder\.ln_post\.(weight|bias)", r"layer_norm.\1"),
    (r"decoder\..*", None),  # the text decoder
)


class Whisper(SpeechEncoder):
    """The encoder's output. Audio longer than a window is encoded in overlapping windows, which are blended.

    Args:
        key, ssl_dim: as in the table of encoders.
        layer: the last transformer layer to compute; None for all.
        path: the weight file.
        device, half: as for every encoder.

    Raises UserError when the file is of another family or another Whisper, or is incomplete.
    """

    padding = 40  # n hops give n frames

    bounds_memory = True
    window, overlap = WINDOW, OVERLAP  # frames
    english = False  # whether the file is of a model for English only

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: int | None,
        path: str | Path,
        device: str | torch.device = "cpu",
        half: bool = False,
    ):
        super().__init__(key, ssl_dim, device, half)
        weights, settings = read_weights_and_settings(path, "Whisper", "dims")
        self._refuse_other_sizes(settings, path)
        self.network = _network(rename(weights, TO_TRANSFORMERS, path), settings, path, layer).to(self.device)
        self.mel_basis = mel_filters(SAMPLING_RATE, N_FFT, MEL_BANDS, 0, None, self.device)

    @property
    def padded_to(self) -> int:
        return self.window

    def features(self, audio: Tensor) -> Tensor:
        frames = self.frames(len(audio))
        starts = window_starts(frames, self.window, self.overlap)
        windows = [audio[start * HOP_LENGTH : (start + self.window) * HOP_LENGTH] for start in starts]
        encoded = [one for some in _groups(windows) for one in self._encode_windows(some)]
        return blend(encoded, starts, frames, self.overlap).T

    def _encode_windows(self, windows: list[Tensor]) -> Tensor:
        """Encode B windows (L,), padded with silence, to (B, window, C)."""
        length = self.window * HOP_LENGTH
        audio = torch.stack([nn.functional.pad(window, (0, length - len(window))) for window in windows])
        return self.network(log_mel(audio, self.mel_basis)).float()

    def _refuse_other_sizes(self, settings: Settings, path: str | Path) -> None:
        width, bands = settings.get("n_audio_state", 0), settings.get("n_mels", MEL_BANDS)
        english = settings.get("n_vocab", 0) == ENGLISH_VOCABULARY
        name = NAMES_BY_WIDTH.get(width, f"of width {width}")
        if bands != MEL_BANDS:
            name += "-v3 or a model made from it"
        elif english:
            name += ".en"
        if bands == MEL_BANDS and width == self.ssl_dim and english == self.english:
            return
        raise UserError(f"{path} is not the file of the speech encoder '{self.key}': it looks like Whisper {name}")


class SmallWhisper(Whisper):
    """The output of one layer, each feature with mean 0 and deviation 1 on a fixed signal.

    An early layer (the third of tiny and base, the sixth of small), after the network's last norm, holds words better
    than the last one, and windows of ten seconds cost a third of Whisper's own thirty. Without standardisation the
    deviations of the features differ twentyfold.

    Arguments and errors are those of ``Whisper``; ``layer`` is the last one that is computed.
    """

    window, overlap = 500, 100  # frames: 10 s and 2 s

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: int,
        path: str | Path,
        device: str | torch.device = "cpu",
        half: bool = False,
    ):
        super().__init__(key, ssl_dim, layer, path, device, half)
        self._standardise()

    @torch.inference_mode()
    def _standardise(self) -> None:
        """Fold the mean and the deviation of each feature into the last norm."""
        audio = speech_like(self.window * HOP_LENGTH / SAMPLING_RATE)
        features = self.features(torch.from_numpy(audio).to(self.device))
        deviation, mean = torch.std_mean(features, dim=1)
        norm = self.network.layer_norm
        norm.weight.copy_(norm.weight / deviation)
        norm.bias.copy_((norm.bias - mean) / deviation)


class EnglishWhisper(SmallWhisper):
    """The same of a model for English only."""

    english = True


def log_mel(audio: Tensor, mel_basis: Tensor) -> Tensor:
    """Map (B, L) at 16 kHz to (B, bands, L // MEL_HOP): log power of the top 8 decades, scaled to a range of 2."""
    with without_autocast(audio.device):
        window = torch.hann_window(N_FFT, device=audio.device)
        spectrum = torch.stft(audio, N_FFT, MEL_HOP, window=window, return_complex=True)
        return scaled_decades(spectrum[..., :-1].abs().square(), mel_basis)


def scaled_decades(power: Tensor, mel_basis: Tensor) -> Tensor:
    """Compute ``log_mel`` from the power spectrum (B, N_FFT // 2 + 1, frames)."""
    decades = (mel_basis @ power).clamp_min(1e-10).log10()
    loudest = decades.amax(dim=(-2, -1), keepdim=True)
    return (torch.maximum(decades, loudest - 8) + 4) / 4


def window_starts(frames: int, window: int = WINDOW, overlap: int = OVERLAP) -> list[int]:
    """Return the first frames of windows that cover the audio, evenly spaced, with ``overlap`` frames or more."""
    if frames <= window:
        return [0]
    count = math.ceil((frames - overlap) / (window - overlap))
    return [round(index * (frames - window) / (count - 1)) for index in range(count)]


def window_weight(window: int, overlap: int) -> Tensor:
    """Return the weight of each frame of a window (window, 1), which falls towards its ends with their context."""
    numbers = torch.arange(1, window + 1)
    return torch.minimum(numbers, numbers.flip(0)).clamp_max(overlap).float()[:, None]


def blend(windows: list[Tensor], starts: list[int], frames: int, overlap: int = OVERLAP) -> Tensor:
    """Blend windows (window, C), which begin at ``starts``, into (frames, C)."""
    if len(windows) == 1:
        return windows[0][:frames]
    window, channels = windows[0].shape
    weight = window_weight(window, overlap).to(windows[0].device)
    total, weights = windows[0].new_zeros(frames, channels), windows[0].new_zeros(frames, 1)
    for start, features in zip(starts, windows, strict=True):
        total[start : start + window] += features * weight
        weights[start : start + window] += weight
    return total / weights


def _groups(windows: list[Tensor]) -> list[list[Tensor]]:
    return [windows[i : i + WINDOWS_AT_ONCE] for i in range(0, len(windows), WINDOWS_AT_ONCE)]


def _network(weights: Mapping[str, Tensor], settings: Settings, path: str | Path, last: int | None) -> WhisperEncoder:
    """Build the network with its layers up to the ``last``, or with all."""
    width, layers = settings.get("n_audio_state", 0), settings.get("n_audio_layer", 0)
    try:
        if not (last or 0) <= layers <= len(weights):
            raise ValueError(f"{layers} layers of {len(weights)} tensors")
        if last:
            unused = tuple(f"layers.{layer}." for layer in range(last, layers))
            weights, layers = {name: one for name, one in weights.items() if not name.startswith(unused)}, last
        heads, inner = settings.get("n_audio_head", 0), len(weights["layers.0.fc1.weight"])
        with torch.device("meta"):  # skips the initialisation, which the file's weights replace
            network = WhisperEncoder(MEL_BANDS, WINDOW, width, layers, heads, inner)
    except (KeyError, ValueError, ArithmeticError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is not a Whisper of a known shape: {error}") from None
    assign(network, weights, path, "Whisper encoder")
    return network.eval().requires_grad_(False)
