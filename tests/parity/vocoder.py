"""Adapters for the mel vocoder and the enhancer (G_)."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.parity.recipe import fill, undrawn
from vdecoder.enhancer import Enhancer
from vdecoder.mel_vocoder import MelVocoder, load_mel_vocoder
from vdecoder.nsf_hifigan import NsfHifigan
from vdecoder.vocoder_config import VocoderConfig

Arrays = dict[str, np.ndarray]


def vocoder(meta: dict, kind: str = "nsf-hifigan") -> MelVocoder:
    """The fixture's network, written to a file of the published form and loaded from there."""
    return _vocoder(json.dumps(dict(meta["constructor"])), meta["recipe_seed"], kind)


@functools.lru_cache(maxsize=2)
def _vocoder(constructor: str, seed: int, kind: str) -> MelVocoder:
    with undrawn():
        network = _build(json.loads(constructor))
    fill(network, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        torch.save({"generator": network.state_dict()}, path)
        path.with_name("config.json").write_text(constructor, encoding="utf-8")
        return load_mel_vocoder(path, kind=kind)


def _build(constructor: dict) -> NsfHifigan:
    config = VocoderConfig.from_dict(constructor)
    return NsfHifigan(config, config.num_mels, phases_per_frame=True)


def mel_vocoder(ins: Arrays, meta: dict) -> dict:
    net = vocoder(meta)
    mel, f0, audio, audio_48k = (torch.from_numpy(ins[name]) for name in ("mel", "f0", "audio", "audio_48k"))
    source = net.network.m_source
    sines = source.sines(source.phases(f0, torch.zeros(len(f0), source.tracks)))
    voiced = (f0 > 0).repeat_interleave(source.hop_length, dim=1)[:, :, None]
    longer = torch.cat((f0, f0[:, :3]), dim=1)
    return {
        "wav": net.network(mel, f0),
        "har_source": source(f0).transpose(1, 2),
        "sine_first_two_harmonics": (sines * voiced)[:, :, :2],
        "uv": voiced.float(),
        "extract": net.extract(audio),
        "extract_key2": net.extract(audio, keyshift=2),
        "extract_48k": net.extract(audio_48k, sampling_rate=48000),
        "wav_infer": net.synthesize(mel.transpose(1, 2), longer)[:, None],
        "wav_infer_log10": vocoder(meta, "nsf-hifigan-log10").synthesize(mel.transpose(1, 2), longer)[:, None],
    }


def enhancer(ins: Arrays, meta: dict) -> dict:
    audio, f0 = torch.from_numpy(ins["audio"]), torch.from_numpy(ins["f0"])[:, :, 0]
    size, front = meta["constructor"], float(re.search(r"silence_front=([\d.]+)", meta["call"])[1])
    outputs = {}
    for name in (name for name in meta["arrays"] if name.startswith("out_")):
        key, silent = re.fullmatch(r"out_key_(-?\d+)(_silence_front)?", name).groups()
        enhanced, rate = Enhancer(vocoder(meta)).enhance(
            audio, size["sampling_rate"], f0, size["hop_size"], int(key), front if silent else 0
        )
        assert rate == size["sampling_rate"]
        outputs[name.removeprefix("out_")] = enhanced
    return outputs


def vocoder_shapes(meta: dict) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in _build(meta["constructor"]).state_dict().items()}


ADAPTERS = {
    "G_enhancer": enhancer,
    "G_nsf_hifigan": mel_vocoder,
}

STATE_DICTS = {
    "G_": vocoder_shapes,
}
