"""The mel graph ``MelOps.onnx``, by which MoeVoiceStudio refines a synthesizer's sound with a diffusion model.

=============  ====================  =============================================================================
``waveform``   float32 (1, 1, L)     sound at 16 kHz; L is at least 400 samples
``aligment``   int64 (1, T)          spelt so; only T, the number of the vocoder's frames, is used
``mel``        float32 (1, M, T)     the vocoder's mel spectrogram in natural logarithms
=============  ====================  =============================================================================

The host gives the sound at 16 kHz whatever the vocoder's rate, and numbers for each frame the one that is due in a grid
of 10 ms. Frames on that grid would be up to 10 ms off, so this graph centres each frame where the vocoder's is. Bands
above 8 kHz are empty; the diffusion model fills them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.audio.spectrogram import FLOOR, VOCODER_EPSILON, VocoderMel, mel_filters
from onnxexport.graph import Graph

FILE = "MelOps.onnx"
RATE = 16000  # of the host's sound
EXAMPLE_FRAMES = 50


class MelGraph(nn.Module):
    """``VocoderMel`` of sound whose rate is another: the same windows in seconds, and the same bins in Hz below 8 kHz.

    Each bin is a product with a cosine and a sine of its frequency, in double precision as in ``PowerSpectrum``.
    """

    def __init__(self, mel: VocoderMel):
        super().__init__()
        self.step = mel.hop_length * RATE / mel.sampling_rate  # samples at 16 kHz between frames
        self.first = (mel.n_fft / 2 - (mel.win_length - mel.hop_length) // 2) * RATE / mel.sampling_rate
        self.reach = int(mel.win_length / 2 * RATE / mel.sampling_rate)  # samples on each side of a frame's centre
        seconds = torch.arange(-self.reach, self.reach + 1).double() / RATE
        window = 0.5 + 0.5 * torch.cos(2 * torch.pi * seconds * mel.sampling_rate / mel.win_length)
        hertz = torch.arange(mel.n_fft // 2 + 1).double() * mel.sampling_rate / mel.n_fft
        angles = 2 * torch.pi * seconds[:, None] * hertz[hertz < RATE / 2]
        basis = torch.cat((angles.cos(), angles.sin()), dim=1) * window[:, None]
        self.register_buffer("basis", basis * mel.sampling_rate / RATE)  # a sum over as many samples as the vocoder's
        filters = mel_filters(mel.sampling_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax, torch.device("cpu"))
        self.register_buffer("filters", filters[:, : basis.shape[1] // 2].T.contiguous())

    def forward(self, waveform: Tensor, aligment: Tensor) -> Tensor:
        """Compute the mel (1, M, T) of sound (1, 1, L); of ``aligment`` (1, T) only the length counts."""
        padded = F.pad(waveform.double(), (self.reach, self.reach), mode="reflect")[0, 0]
        numbers = torch.arange(aligment.shape[1], device=waveform.device)
        starts = (numbers.double() * self.step + self.first + 0.5).floor().long()
        starts = starts.clamp(max=waveform.shape[2] - 1)
        frames = padded[starts[:, None] + torch.arange(2 * self.reach + 1, device=waveform.device)]
        parts = (frames @ self.basis).square()
        bins = self.basis.shape[1] // 2
        spec = (parts[:, :bins] + parts[:, bins:] + VOCODER_EPSILON).sqrt().float()
        return (spec @ self.filters).clamp(min=FLOOR).log().T[None]


def mel_graph(mel: VocoderMel) -> Graph:
    """Build the graph of a vocoder's mel spectrogram; a smaller precision would make it worse, not smaller."""
    noise = torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0))
    inputs = {"waveform": 0.1 * noise, "aligment": torch.arange(1, EXAMPLE_FRAMES + 1)[None]}
    axes = {"waveform": {2: "samples"}, "aligment": {1: "frames"}, "mel": {2: "frames"}}
    return Graph(MelGraph(mel), inputs, ("mel",), axes, reducible=False)
