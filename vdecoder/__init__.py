"""Waveform generators: decoders of the synthesizer, by the config's ``model.vocoder_name``, and mel vocoders, by the
diffusion config's ``vocoder.type``.

To add a decoder, write vdecoder/<name>.py with a subclass of NsfHifigan, a row in DECODERS below, its key in README.md
and configs_template/README.md (``model.vocoder_name``), and tests/test_<name>.py. tests/test_vdecoder.py covers every
row. A mel vocoder needs a row in MEL_VOCODERS, its key in DiffusionVocoder of
modules/config/diffusion.py, and a test in tests/test_mel_vocoder.py.
"""

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
        """Build the decoder of a synthesizer with these sizes."""
        return self.load()(model, model.inter_channels, model.gin_channels)


@dataclass(frozen=True)
class VocoderRow(Row):
    """``mel_scale`` converts our mel, in natural logarithms, to the network's."""

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
