"""Waveform generators: those that train together with the synthesizer, by the config's ``vocoder_name``, and the mel
vocoders, by the diffusion config's ``vocoder.type``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modules.registry import Registry, Row

if TYPE_CHECKING:
    from modules.config import ModelConfig
    from vdecoder.nsf_hifigan import NsfHifigan


@dataclass(frozen=True)
class DecoderRow(Row):
    def build(self, model: ModelConfig) -> NsfHifigan:
        """The decoder of a synthesizer of these sizes."""
        return self.load()(model, model.inter_channels, model.gin_channels)


@dataclass(frozen=True)
class VocoderRow(Row):
    """``mel_scale`` turns our mel, in natural logarithms, into the network's."""

    mel_scale: float = 1.0


DECODERS: Registry[DecoderRow] = Registry(
    "model.vocoder_name",
    {
        "nsf-hifigan": DecoderRow("vdecoder.nsf_hifigan:NsfHifigan"),
        "nsf-snake-hifigan": DecoderRow("vdecoder.nsf_snake_hifigan:NsfSnakeHifigan"),
    },
)

MEL_VOCODERS: Registry[VocoderRow] = Registry(
    "mel vocoder",
    {
        "nsf-hifigan": VocoderRow("vdecoder.nsf_hifigan:NsfHifigan"),
        "nsf-hifigan-log10": VocoderRow("vdecoder.nsf_hifigan:NsfHifigan", mel_scale=0.434294),  # log10(e), rounded
    },
)
