"""Adapters for the diffusion model (F_): schedule, denoiser, condition, losses and every way to sample."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from diffusion.denoiser import step_embedding
from diffusion.samplers import ddim, ddpm, pndm
from diffusion.schedule import LAST_BETA
from diffusion.unit2mel import LOUDEST, QUIETEST, Unit2Mel
from tests.parity.recipe import fill, undrawn

Arrays = dict[str, np.ndarray]


def network(meta: dict) -> Unit2Mel:
    """The fixture's network in evaluation mode; kept, because neighbouring fixtures share theirs."""
    return _network(json.dumps(dict(meta["constructor"])), meta["recipe_seed"]).eval()


@functools.lru_cache(maxsize=1)
def _network(constructor: str, seed: int) -> Unit2Mel:
    with undrawn():
        net = Unit2Mel(**json.loads(constructor))
    fill(net, seed)
    return net


def schedule(ins: Arrays, meta: dict) -> dict:
    """The buffers of a network with the smallest layers: its tables depend on the schedule alone."""
    size = meta["constructor"]
    assert (size["max_beta"], size["spec_min"], size["spec_max"]) == (LAST_BETA, QUIETEST, LOUDEST)  # as built in
    sizes = {"n_layers": 1, "n_chans": 2, "n_hidden": 2, "timesteps": size["timesteps"], "k_step_max": size["k_step"]}
    return dict(Unit2Mel(1, 1, out_dims=size["out_dims"], **sizes).decoder.named_buffers())


def conditioning(ins: Arrays, meta: dict) -> dict:
    net = network(meta)
    inputs = {name: torch.from_numpy(array) for name, array in ins.items()}
    song = inputs["units"], inputs["f0"], inputs["volume"]
    mix = torch.zeros(1, meta["constructor"]["n_spk"])
    for speaker, weight in re.findall(r"(\d+): ([\d.]+)", re.search(r"spk_mix_dict \{(.*?)\}", meta["call"])[1]):
        mix[0, int(speaker)] = float(weight)
    return {
        "cond_spk": net.condition(*song, inputs["spk_id"]).transpose(1, 2),
        "cond_spk_shift": net.condition(*song, inputs["spk_id"], inputs["aug_shift"]).transpose(1, 2),
        "cond_mix_dict": net.condition(*song, mix).transpose(1, 2),
        "track_embedding_intended_BNH": (net.condition(*song, inputs["track"]) - net.condition(*song)).transpose(1, 2),
    }


def denoiser(ins: Arrays, meta: dict) -> dict:
    net = network(meta).decoder.denoise_fn
    x, cond, step, float_step = (torch.from_numpy(ins[name]) for name in ("x", "cond", "step", "float_step"))
    return {
        "eps": net(x[:, 0], step, cond)[:, None],
        "eps_float_step": net(x[:, 0], float_step, cond)[:, None],
        "step_embedding": step_embedding(step, meta["constructor"]["n_chans"]),
    }


# -- sampling: the outputs' names say what to do ----------------------------------------------------------------------


def sampling(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for name in (name.removeprefix("out_") for name in meta["arrays"] if name.startswith("out_")):
        for pattern, function in KINDS.items():
            if match := re.fullmatch(pattern, name):
                outputs[name] = function(network(meta), ins, meta, *match.groups())
    return outputs


def whole(net: Unit2Mel, ins: Arrays, meta: dict, start: str, method: str, speedup: str | None) -> torch.Tensor:
    """A spectrogram sampled from the given one or, in full, from the given noise."""
    settings = {"method": "ddpm"} if method == "None" else {"method": method, "speedup": int(speedup or 10)}
    if start == "shallow":
        k_step = int(re.search(r"\bk_step[= ](\d+)", meta["call"])[1])
        return net.infer(*song(ins), mel=torch.from_numpy(ins["gt_spec"]), k_step=k_step, **settings)
    noise = torch.from_numpy(ins["noise"])
    with mock.patch.object(torch, "randn", lambda shape, **settings: noise.reshape(shape)):
        return net.infer(*song(ins), **settings)


def one_step(net: Unit2Mel, ins: Arrays, meta: dict, method: str, step: str, speedup: str | None) -> torch.Tensor:
    """What a sampler's first step makes of the noise: the first x that it asks the network about beyond that step."""
    projections = net.decoder.denoise_fn.project(net.condition(*song(ins)))
    x, asked = torch.from_numpy(ins["noise"])[:, 0], []

    def predict(x: torch.Tensor, label: float) -> torch.Tensor:
        asked.append(x)
        if len(asked) > calls:
            raise StopIteration
        return net.decoder.denoise_fn.denoise(x, torch.full((len(x),), label), projections)

    run, calls = {None: (ddpm, 1), "ddim_": (ddim, 1), "plms_first_": (pndm, 2)}[method]
    with contextlib.suppress(StopIteration):
        run(predict, x, net.decoder.schedule.head(int(step) + 1), int(speedup or 1), lambda: torch.zeros_like(x))
    return asked[calls][:, None]


def noisy(net: Unit2Mel, ins: Arrays, meta: dict, step: str) -> torch.Tensor:
    clean = net.decoder.normalize(torch.from_numpy(ins["gt_spec"]))
    return net.decoder.diffuse(clean, torch.tensor([int(step)]), torch.from_numpy(ins["noise"])[:, 0])[:, None]


def loss_at(net: Unit2Mel, ins: Arrays, meta: dict, norm: str, step: str) -> torch.Tensor:
    clean, noise = net.decoder.normalize(torch.from_numpy(ins["gt_spec"])), torch.from_numpy(ins["noise"])[:, 0]
    found = net.decoder.predict_noise(clean, torch.tensor([int(step)]), net.condition(*song(ins)), noise)
    return {"l1": F.l1_loss, "l2": F.mse_loss}[norm](found, noise)


def training_loss(net: Unit2Mel, ins: Arrays, meta: dict) -> torch.Tensor:
    return net.loss(*song(ins), torch.from_numpy(ins["gt_spec"]))


def condition(net: Unit2Mel, ins: Arrays, meta: dict) -> torch.Tensor:
    return net.condition(*song(ins)).transpose(1, 2)


def song(ins: Arrays) -> list[torch.Tensor]:
    return [torch.from_numpy(ins[name]) for name in ("units", "f0", "volume")]


KINDS = {
    r"(shallow|full)_(.+?)(?:_speedup(\d+))?": whole,
    r"p_sample_(ddim_|plms_first_)?t(\d+)(?:_i(\d+))?": one_step,
    r"q_sample_(\d+)": noisy,
    r"loss_(l1|l2)_t(\d+)": loss_at,
    r"train_loss_t0_noise0": training_loss,
    r"cond": condition,
}


def shapes(meta: dict) -> dict[str, list[int]]:
    """Names and shapes of the state dict; of the denoiser's part only where the fixture lists it."""
    with torch.device("meta"):
        net = Unit2Mel(**meta["constructor"])
    part = "decoder.denoise_fn."
    lists_it = any(name.startswith(part) for name in meta["state_dict"])
    state = net.state_dict().items()
    return {name: list(value.shape) for name, value in state if lists_it or not name.startswith(part)}


ADAPTERS = {
    "F_conditioning": conditioning,
    "F_denoiser": denoiser,
    "F_sampling": sampling,
    "F_schedule": schedule,
}

STATE_DICTS = {"F_": shapes}
