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
from vencoder.whisper_network import WhisperEncoder

N_FFT, MEL_HOP, MEL_BANDS = 400, 160, 80
WINDOW = 1500  # frames; the network takes exactly 30 s
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
    """The encoder's output. Audio longer than 30 s is encoded in overlapping windows, which are blended.

    Args:
        key, ssl_dim: as in the table of encoders; ``layer`` is ignored.
        path: the weight file.
        device, half: as for every encoder.

    Raises UserError when the file is of another family or another Whisper, or is incomplete.
    """

    padding = 40  # n hops give n frames

    bounds_memory = True

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: None,
        path: str | Path,
        device: str | torch.device = "cpu",
        half: bool = False,
    ):
        super().__init__(key, ssl_dim, device, half)
        weights, settings = read_weights_and_settings(path, "Whisper", "dims")
        _refuse_other_sizes(key, ssl_dim, settings, path)
        self.network = _network(rename(weights, TO_TRANSFORMERS, path), settings, path).to(self.device)
        self.mel_basis = mel_filters(SAMPLING_RATE, N_FFT, MEL_BANDS, 0, None, self.device)

    def features(self, audio: Tensor) -> Tensor:
        frames = self.frames(len(audio))
        starts = window_starts(frames)
        windows = [audio[start * HOP_LENGTH : (start + WINDOW) * HOP_LENGTH] for start in starts]
        encoded = [one for some in _groups(windows) for one in self._encode_windows(some)]
        return blend(encoded, starts, frames).T

    def _encode_windows(self, windows: list[Tensor]) -> Tensor:
        """Encode B windows (L,) of at most 30 s, padded with silence, to (B, WINDOW, C)."""
        length = WINDOW * HOP_LENGTH
        audio = torch.stack([nn.functional.pad(window, (0, length - len(window))) for window in windows])
        return self.network(log_mel(audio, self.mel_basis)).float()


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


def window_starts(frames: int) -> list[int]:
    """Return the first frames of windows that cover the audio, evenly spaced, overlapping by OVERLAP or more."""
    if frames <= WINDOW:
        return [0]
    count = math.ceil((frames - OVERLAP) / (WINDOW - OVERLAP))
    return [round(index * (frames - WINDOW) / (count - 1)) for index in range(count)]


def blend(windows: list[Tensor], starts: list[int], frames: int) -> Tensor:
    """Blend windows (WINDOW, C) into (frames, C). Weights fall towards a window's ends, where it has less context."""
    if len(windows) == 1:
        return windows[0][:frames]
    numbers = torch.arange(1, WINDOW + 1, device=windows[0].device)
    weight = torch.minimum(numbers, numbers.flip(0)).clamp_max(OVERLAP).float()[:, None]
    total, weights = windows[0].new_zeros(frames, windows[0].shape[1]), windows[0].new_zeros(frames, 1)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + WINDOW] += window * weight
        weights[start : start + WINDOW] += weight
    return total / weights


def _groups(windows: list[Tensor]) -> list[list[Tensor]]:
    return [windows[i : i + WINDOWS_AT_ONCE] for i in range(0, len(windows), WINDOWS_AT_ONCE)]


def _refuse_other_sizes(key: str, ssl_dim: int, settings: Settings, path: str | Path) -> None:
    width, bands = settings.get("n_audio_state", 0), settings.get("n_mels", MEL_BANDS)
    name = NAMES_BY_WIDTH.get(width, f"of width {width}")
    if bands != MEL_BANDS:
        name += "-v3 or a model made from it"
    elif settings.get("n_vocab", 0) == ENGLISH_VOCABULARY:
        name += ".en"
    elif width == ssl_dim:
        return
    raise UserError(f"{path} is not the file of the speech encoder '{key}': it looks like Whisper {name}")


def _network(weights: Mapping[str, Tensor], settings: Settings, path: str | Path) -> WhisperEncoder:
    width, layers = settings.get("n_audio_state", 0), settings.get("n_audio_layer", 0)
    try:
        if not 0 <= layers <= len(weights):
            raise ValueError(f"{layers} layers of {len(weights)} tensors")
        heads, inner = settings.get("n_audio_head", 0), len(weights["layers.0.fc1.weight"])
        with torch.device("meta"):  # skips the initialisation, which the file's weights replace
            network = WhisperEncoder(MEL_BANDS, WINDOW, width, layers, heads, inner)
    except (KeyError, ValueError, ArithmeticError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is not a Whisper of a known shape: {error}") from None
    assign(network, weights, path, "Whisper encoder")
    return network.eval().requires_grad_(False)
