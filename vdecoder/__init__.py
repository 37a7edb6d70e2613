"""Waveform generators that train together with the synthesizer, by the config's ``vocoder_name``."""

from __future__ import annotations

from modules.registry import Registry, Row

DECODERS: Registry[Row] = Registry(
    "decoder",
    {
        "nsf-hifigan": Row("vdecoder.nsf_hifigan:NsfHifigan"),
    },
)
