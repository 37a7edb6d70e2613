"""Adapters for the F0 fixtures: predictors (E_), and what becomes of their curves (D_)."""

from __future__ import annotations

import re

import numpy as np

from modules.f0 import build_f0_predictor
from modules.f0.contour import interpolate_unvoiced, resize_linear, resize_nearest
from modules.f0.crepe import masked_mean, masked_median

Arrays = dict[str, np.ndarray]


def interpolate_f0(ins: Arrays, meta: dict) -> dict:
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
    outputs = {}
    for name in _outputs(meta):
        case, frames, which = re.fullmatch(r"(?:rmvpe|fcpe|crepe)_(\w+)_(\d+)_(f0|uv)", name).groups()
        outputs[name] = interpolate_unvoiced(resize_nearest(ins[case], int(frames)))[which == "uv"]
    return outputs


def masked_pool(ins: Arrays, meta: dict) -> dict:
    filters = {"median": masked_median, "mean": masked_mean}
    outputs = {}
    for name in _outputs(meta):
        which, *case = name.split("_")
        outputs[name] = filters[which](ins["_".join(["x", *case])])
    return outputs


def predictor(ins: Arrays, meta: dict) -> dict:
    """``compute_f0_uv`` and ``compute_f0`` of one predictor: the pair, and its first half."""
    size = meta["constructor"]
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


def _silence_in_words(meta: dict) -> np.ndarray:
    """Some fixtures say "silence: N zeros" in place of an array."""
    length = re.search(r"silence: (\d+) zeros", meta["call"])
    return np.zeros(int(length[1]) if length else 0, np.float32)


def _outputs(meta: dict) -> list[str]:
    return [name.removeprefix("out_") for name in meta["arrays"] if name.startswith("out_")]


ADAPTERS = {
    "D_interpolate_f0": interpolate_f0,
    "D_masked_pool": masked_pool,
    "D_post_process": post_process,
    "E_pm": predictor,
    "E_dio": predictor,
    "E_harvest": predictor,
    "E_crepe": predictor,
}
