"""Adapters for the F0 fixtures: predictors (E_), and what becomes of their curves (D_)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from modules.audio.files import sinc_resample
from modules.audio.torchaudio_guard import import_torchaudio
from modules.f0 import F0_MAX, F0_MIN, build_f0_predictor, crepe, fcpe, rmvpe, salience
from modules.f0.contour import interpolate_unvoiced, resize_linear, resize_nearest
from modules.f0.crepe import FILTER
from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
from modules.f0.rmvpe_network import BLOCKS_A_LEVEL, RmvpeNetwork
from tests.parity.recipe import fill, undrawn

Arrays = dict[str, np.ndarray]


def interpolate_f0(ins: Arrays, meta: dict) -> dict:
    """The original computes with times of frames; hop and sampling rate cancel, whatever they are."""
    meta["constructor"].without_effect("hop_length", "sampling_rate")
    outputs = {}
    for name in _outputs(meta):
        if resized := re.fullmatch(r"(?:dio|harvest)_resize_(\w+)_(\d+)", name):
            outputs[name] = resize_linear(ins[resized[1]], int(resized[2]))
        else:
            case, which = re.fullmatch(r"(?:pm|dio|harvest)_interpolate_(\w+)_(f0|uv)", name).groups()
            outputs[name] = interpolate_unvoiced(ins[case])[which == "uv"]
            if case == "one_middle" and which == "f0":
                outputs[name] = _one_voiced_frame(ins[case], outputs[name])
    return outputs


def _one_voiced_frame(f0: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The original gives the first frame's value, a defect; ours must be the voiced one everywhere, in its place."""
    np.testing.assert_array_equal(drawn, np.full_like(drawn, f0[f0 > 0][0]))
    return np.full_like(drawn, f0[0])


def post_process(ins: Arrays, meta: dict) -> dict:
    """Hop and sampling rate cancel, as in ``interpolate_f0``."""
    meta["constructor"].without_effect("hop_length", "sampling_rate")
    outputs = {}
    for name in _outputs(meta):
        case, frames, which = re.fullmatch(r"(?:rmvpe|fcpe|crepe)_(\w+)_(\d+)_(f0|uv)", name).groups()
        outputs[name] = interpolate_unvoiced(resize_nearest(ins[case], int(frames)))[which == "uv"]
    return outputs


def masked_pool(ins: Arrays, meta: dict) -> dict:
    import_torchaudio()
    import torchcrepe

    filters = {"median": torchcrepe.filter.median, "mean": torchcrepe.filter.mean}
    outputs = {}
    for name in _outputs(meta):
        which, *case = name.split("_")
        outputs[name] = filters[which](torch.from_numpy(ins["_".join(["x", *case])]), FILTER)
    return outputs


def predictor(ins: Arrays, meta: dict) -> dict:
    """``compute_f0_uv`` and ``compute_f0`` of one predictor: the pair, and its first half."""
    size = meta["constructor"]
    assert (size["f0_min"], size["f0_max"], size.get("model", "full")) == (F0_MIN, F0_MAX, "full")
    key = meta["name"].removeprefix("E_")
    outputs, curves = {}, {}
    for name in _outputs(meta):
        case, frames, which = re.fullmatch(r"(\w+?|thr[\d.]+)_plen_(none|\d+)_(f0|uv|compute_f0)", name).groups()
        if (case, frames) not in curves:
            threshold = float(case.removeprefix("thr")) if case.startswith("thr") else 0.05
            predict = build_f0_predictor(key, size["sampling_rate"], size["hop_length"], threshold=threshold)
            audio = ins["wav"] if case != "silence" else ins.get("silence", _silence_in_words(meta))
            curves[case, frames] = predict(audio, None if frames == "none" else int(frames))
        outputs[name] = curves[case, frames][which == "uv"]
    return outputs


def crepe_predictor(ins: Arrays, meta: dict) -> dict:
    """As ``predictor``; the network, which does not depend on threshold and length, sees each sound once."""
    network, seen = crepe._network(torch.device("cpu")), {}

    def remembered(windows: torch.Tensor) -> torch.Tensor:
        key = windows.numpy().tobytes()
        if key not in seen:
            seen[key] = network(windows)
        return seen[key]

    with mock.patch.object(crepe, "_network", lambda device: remembered):
        return predictor(ins, meta)


def _silence_in_words(meta: dict) -> np.ndarray:
    """Some fixtures say "silence: N zeros" in place of an array."""
    length = re.search(r"silence: (\d+) zeros", meta["call"])
    return np.zeros(int(length[1]) if length else 0, np.float32)


# -- the networks: recipe weights in a file as it is published, read back by the predictor ----------------------------


def rmvpe_network(ins: Arrays, meta: dict) -> dict:
    with undrawn():
        network = RmvpeNetwork()
    size = meta["constructor"]
    assert size["hop_length"] == rmvpe.HOP_LENGTH
    assert size["E2E0"] == str((BLOCKS_A_LEVEL, 1, (2, 2)))  # residual blocks, recurrent layers, pooling
    outputs = _predicted("rmvpe", {"model": _filled(network, meta)}, ins, meta)
    network.fold()
    mel = rmvpe.log_mel(torch.from_numpy(ins["wav_16000"])[None])
    outputs |= {"mel": mel, "salience": network(mel)}
    return outputs | {"salience_of_mel_in": network(torch.from_numpy(ins["mel_in"]))}


def rmvpe_decoding(ins: Arrays, meta: dict) -> dict:
    bins = rmvpe.BIN_WIDTH * torch.arange(360) + rmvpe.FIRST_BIN
    outputs = {}
    for name in _outputs(meta):
        which, threshold = re.fullmatch(r"(f0|cents)_thr([\d.]+)", name).groups()
        f0 = salience.decode(torch.from_numpy(ins["salience"]), bins, float(threshold))
        outputs[name] = f0 if which == "f0" else torch.where(f0 > 0, 1200 * torch.log2(f0 / 10), 0.0)
    return outputs


def fcpe_network(ins: Arrays, meta: dict) -> dict:
    with undrawn():
        network = _fcpe(meta)
    config = dict(meta["constructor"])
    assert (config["model"]["type"], config["model"]["use_siren"]) == ("ConfNaiveMelPE", False)
    assert not config["model"]["use_full"] and not config["model"]["confidence"]
    outputs = _predicted("fcpe", {"config": config, "model": _filled(network, meta)}, ins, meta)
    mel_of = fcpe._read_mel_settings(config["mel"])
    outputs["wav2mel_16k"] = fcpe.log_mel(torch.from_numpy(ins["wav_16000"])[None], mel_of).mT
    wave = sinc_resample(torch.from_numpy(ins["wav_44100"]), 44100, mel_of.sampling_rate, salience.ZERO_CROSSINGS)
    outputs["wav2mel_44k"] = fcpe.log_mel(wave[None], mel_of).mT
    found = network(torch.from_numpy(ins["mel"]).mT)
    f0 = _fcpe_decoded(found, network.cent_table)
    outputs |= {"salience": found, "f0_hz": f0, "f0_log": torch.log(1 + f0 / 700)}
    outputs["f0_hz_argmax_decoder"] = _fcpe_mean(found, network.cent_table, 0.05)
    middle = meta["threshold_mid"]
    outputs[f"f0_hz_thr{middle}"] = _fcpe_decoded(found, network.cent_table, middle)
    outputs["train_loss"] = _fcpe_loss(found, torch.from_numpy(ins["gt_f0"]), network.cent_table, config["loss"])
    for name in _outputs(meta):
        if decoding := re.fullmatch(r"decode_(local|mean)_thr([\d.]+)", name):
            decoder = {"local": _fcpe_decoded, "mean": _fcpe_mean}[decoding[1]]
            outputs[name] = decoder(torch.from_numpy(ins["salience"]), network.cent_table, float(decoding[2]))
    return outputs


def _fcpe(meta: dict) -> FcpeNetwork:
    size = meta["constructor"]["model"]
    return FcpeNetwork(
        FcpeSizes(
            mels=size["input_channel"],
            channels=size["n_chans"],
            layers=size["n_layers"],
            bins=size["out_dims"],
            f0_min=size["f0_min"],
            f0_max=size["f0_max"],
        )
    )


def _fcpe_decoded(found: torch.Tensor, cents: torch.Tensor, threshold: float = 0.05) -> torch.Tensor:
    return salience.decode(found, cents, threshold, edges_count_twice=True)[..., None]


def _fcpe_mean(found: torch.Tensor, cents: torch.Tensor, threshold: float) -> torch.Tensor:
    """The original's other decoder, the mean over all bins, which nothing uses."""
    f0 = 10 * 2 ** ((found * cents).sum(-1) / found.sum(-1) / 1200)
    return torch.where(found.amax(-1) > threshold, f0, 0.0)[..., None]


def _fcpe_loss(found: torch.Tensor, f0: torch.Tensor, cents: torch.Tensor, settings: dict) -> torch.Tensor:
    """The loss that FCPE was trained with: we train no FCPE, but the original's number proves the bins' pitches."""
    wanted = torch.exp(-((cents - 1200 * torch.log2(f0 / 10)) ** 2) / 1250) * (f0 > 0)
    return settings["loss_mse_scale"] * torch.nn.functional.binary_cross_entropy(found, wanted)


def _filled(network: torch.nn.Module, meta: dict) -> dict[str, torch.Tensor]:
    fill(network.eval(), meta["recipe_seed"])
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _predicted(key: str, checkpoint: dict, ins: Arrays, meta: dict) -> dict:
    """What the predictor makes of the sound, with the checkpoint lying where a user would have put it."""
    rate, hop = map(int, re.search(r"Predictor\(hop (\d+), (\d+),", meta["call"]).groups()[::-1])
    outputs, curves = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(checkpoint, Path(folder) / f"{key}.pt")
        for name in _outputs(meta):
            if case := re.fullmatch(r"(thr[\d.]+)_plen_(none|\d+)_(f0|uv|compute_f0)", name):
                threshold, frames, which = case.groups()
                if (threshold, frames) not in curves:
                    predict = build_f0_predictor(key, rate, hop, threshold=float(threshold[3:]), folder=folder)
                    audio = ins[f"wav_{rate}"]
                    curves[threshold, frames] = predict(audio, None if frames == "none" else int(frames))
                outputs[name] = curves[threshold, frames][which == "uv"]
    return outputs


def _shapes(build: Callable[[], torch.nn.Module]) -> dict[str, list[int]]:
    with undrawn():
        network = build()
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def _outputs(meta: dict) -> list[str]:
    return [name.removeprefix("out_") for name in meta["arrays"] if name.startswith("out_")]


ADAPTERS = {
    "D_interpolate_f0": interpolate_f0,
    "D_masked_pool": masked_pool,
    "D_post_process": post_process,
    "E_pm": predictor,
    "E_dio": predictor,
    "E_harvest": predictor,
    "E_crepe": crepe_predictor,
    "E_rmvpe_net": rmvpe_network,
    "E_rmvpe_decode": rmvpe_decoding,
    "E_fcpe": fcpe_network,
}
STATE_DICTS = {
    "E_rmvpe_net": lambda meta: _shapes(RmvpeNetwork),
    "E_fcpe": lambda meta: _shapes(lambda: _fcpe(meta)),
}
