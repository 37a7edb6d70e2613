"""Adapters for the synthesizer (A_), its discriminators (B_), its small parts (D_) and five training steps (Z_)."""

from __future__ import annotations

import functools
import json
import re
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from modules.audio.spectrogram import mel_from_linear, mel_spectrogram
from modules.config import DataConfig, ModelConfig, TrainConfig
from modules.training.optimizer import AdamW
from tests.parity.recipe import fill, recipe_values, undrawn
from vits.discriminator import MultiPeriodDiscriminator, scores_of
from vits.f0_decoder import f0_to_coarse, normalize_lf0
from vits.losses import discriminator_loss, feature_loss, generator_loss, kl_loss
from vits.mixing import mixed, shares
from vits.synthesizer import Synthesizer, SynthesizerOutput, cut_slices, random_slice_starts, sequence_mask

Arrays = dict[str, np.ndarray]


# -- the synthesizer --------------------------------------------------------------------------------------------------


def synthesizer(meta: dict) -> Synthesizer:
    """The fixture's network in evaluation mode; kept, because neighbouring fixtures share theirs."""
    return _synthesizer(json.dumps(dict(meta["constructor"])), meta["recipe_seed"]).eval()


@functools.lru_cache(maxsize=1)
def _synthesizer(constructor: str, seed: int) -> Synthesizer:
    with undrawn():
        net = _build(json.loads(constructor))
    fill(net, seed, _remembered)
    return net


_remembered = functools.cache(recipe_values)  # the variants have most tensors in common


def _build(constructor: dict) -> Synthesizer:
    sizes = dict(constructor)
    spec_channels, segment_frames = sizes.pop("spec_channels"), sizes.pop("segment_size")
    config = ModelConfig.from_dict(sizes)
    assert not config.extra, "constructor arguments that nobody here knows"
    return Synthesizer(config, spec_channels, segment_frames)


def decoder(ins: Arrays, meta: dict) -> dict:
    dec = synthesizer(meta).dec
    z, f0, g = (torch.from_numpy(ins[name]) for name in ("z", "f0", "g"))
    source = dec.m_source
    sines = source.sines(source.phases(f0, torch.zeros(len(f0), source.tracks)))
    voiced = (f0 > 0).repeat_interleave(source.hop_length, dim=1)[:, :, None]
    return {
        "wav": dec(z, f0, g),
        "har_source": source(f0).transpose(1, 2),
        "sine_first_two_harmonics": (sines * voiced)[:, :, :2],
        "uv": voiced.float(),
    }


def speaker_embedding(ins: Arrays, meta: dict) -> dict:
    return {"g": synthesizer(meta).speaker_condition(torch.from_numpy(ins["ids"]))}


def prior_encoder(ins: Arrays, meta: dict) -> dict:
    net = synthesizer(meta).enc_p
    x, mask = torch.from_numpy(ins["x"]), torch.from_numpy(ins["x_mask"])
    m, logs = net(x, mask, torch.from_numpy(ins["f0_coarse"]))
    return {"z": m * mask, "m": m, "logs": logs, "attn_encoder_of_x": net.enc_(x, mask)}


def posterior_encoder(ins: Arrays, meta: dict) -> dict:
    spec = torch.from_numpy(ins["spec"])
    mask = sequence_mask(torch.from_numpy(ins["lengths"]), spec.shape[2])
    z, m, logs = synthesizer(meta).enc_q(spec, mask, torch.from_numpy(ins["g"]))
    return {"z": z, "m": m, "logs": logs, "mask": mask}


def f0_decoder(ins: Arrays, meta: dict) -> dict:
    inputs = (torch.from_numpy(ins[name]) for name in ("x", "norm_f0", "x_mask", "spk_emb"))
    return {"lf0": synthesizer(meta).f0_decoder(*inputs)}


def flow(ins: Arrays, meta: dict) -> dict:
    net = synthesizer(meta).flow
    z, mask, g, g_per_frame = (torch.from_numpy(ins[name]) for name in ("z", "mask", "g", "g_per_frame"))
    return {
        "forward": net(z, mask, g),
        "reverse": net(z, mask, g, reverse=True),
        "reverse_g_per_frame": net(z, mask, g_per_frame, reverse=True),
    }


def infer(ins: Arrays, meta: dict) -> dict:
    net = synthesizer(meta)
    c, f0, uv, speaker, mix = (torch.from_numpy(ins[name]) for name in ("c", "f0", "uv", "sid", "mix"))
    volume = torch.from_numpy(ins["vol"]) if "vol" in ins else None
    outputs = {}
    for prefix, who in {"": speaker, "mix_": mix}.items():
        for predict in (False, True):
            wav, pitch = net.infer(c, f0, uv, who, predict_f0=predict, volume=volume)
            outputs[f"wav_{prefix}predict_{predict}"], outputs[f"f0_{prefix}predict_{predict}"] = wav, pitch
    outputs["wav_f0_zeros"], _ = net.infer(c, torch.from_numpy(ins["f0_with_zeros"]), uv, speaker, volume=volume)
    return outputs


def train(ins: Arrays, meta: dict) -> dict:
    net = synthesizer(meta).train()
    batch = {name: torch.from_numpy(array) for name, array in ins.items()}
    with torch.no_grad():
        out = net(*(batch[name] for name in ("c", "f0", "uv", "spec", "sid", "lengths", "vol")))
    losses = generator_losses(out, batch["spec"], meta)
    outputs = {name: value for name, value in vars(out).items() if name not in ("audio", "slice_starts", "mask")}
    return {
        **outputs,
        "wav": out.audio,
        "ids_slice": out.slice_starts,
        "z_mask": out.mask,
        **{f"loss_{name}": loss for name, loss in losses.items()},
    }


def generator_losses(out: SynthesizerOutput, spec: torch.Tensor, meta: dict) -> dict[str, torch.Tensor]:
    """The losses that need no discriminator, with the published settings."""
    data = DataConfig()
    bands = (data.n_mel_channels, data.mel_fmin, data.mel_fmax)
    target = mel_from_linear(spec, data.sampling_rate, data.filter_length, *bands)
    target = cut_slices(target, out.slice_starts, meta["constructor"]["segment_size"])
    sizes = (data.filter_length, data.n_mel_channels, data.hop_length, data.win_length, data.mel_fmin, data.mel_fmax)
    mel = mel_spectrogram(out.audio.squeeze(1), data.sampling_rate, *sizes)
    return {
        "mel": TrainConfig().c_mel * F.l1_loss(target, mel),
        "kl": kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask),
        "lf0": torch.zeros(()) if out.lf0 is None else F.mse_loss(out.pred_lf0, out.lf0),
    }


def synthesizer_shapes(meta: dict) -> dict[str, list[int]]:
    """Names and shapes of the whole state dict, or of the part that the fixture is about."""
    part = meta.get("source", "").rpartition(".")[2]
    prefix = "" if part in ("infer", "forward", "") else f"{part}."
    with torch.device("meta"):
        net = _build(meta["constructor"])
    return {name: list(value.shape) for name, value in net.state_dict().items() if name.startswith(prefix)}


# -- the discriminators -----------------------------------------------------------------------------------------------


def discriminator(ins: Arrays, meta: dict) -> dict:
    with undrawn():
        net = MultiPeriodDiscriminator(**meta["constructor"])
    fill(net, meta["recipe_seed"])
    inputs = {name: torch.from_numpy(array) for name, array in ins.items()}
    with torch.no_grad():
        real_maps, fake_maps = net(inputs["y"]), net(inputs["y_hat"])
    real, fake = scores_of(real_maps), scores_of(fake_maps)
    outputs = {}
    for i, (real_map, fake_map) in enumerate(zip(real_maps, fake_maps, strict=True)):
        outputs[f"score_real_{i}"], outputs[f"score_fake_{i}"] = real[i], fake[i]
        outputs[f"fmap_shapes_{i}"] = [[*m.shape, 0][:4] for m in real_map]
        outputs[f"fmap_real_sums_{i}"] = [m.double().sum() for m in real_map]
        outputs[f"fmap_real_abs_sums_{i}"] = [m.double().abs().sum() for m in real_map]
        outputs[f"fmap_fake_abs_sums_{i}"] = [m.double().abs().sum() for m in fake_map]
    outputs["loss_disc"], outputs["losses_disc_r"], outputs["losses_disc_g"] = discriminator_loss(real, fake)
    outputs["loss_gen"], outputs["losses_gen"] = generator_loss(fake)
    outputs["loss_fm"] = feature_loss(real_maps, fake_maps)
    outputs["loss_kl"] = kl_loss(*(inputs[name] for name in ("z_p", "logs_q", "m_p", "logs_p", "z_mask")))
    return outputs


def discriminator_shapes(meta: dict) -> dict[str, list[int]]:
    net = MultiPeriodDiscriminator(**meta["constructor"])
    return {name: list(value.shape) for name, value in net.state_dict().items()}


# -- small parts ------------------------------------------------------------------------------------------------------


def coarse(ins: Arrays, meta: dict) -> dict:
    return {"coarse": f0_to_coarse(torch.from_numpy(ins["f0"]))}


def normalisation(ins: Arrays, meta: dict) -> dict:
    inputs = [torch.from_numpy(ins[name]) for name in ("lf0", "x_mask", "uv")]
    return {
        "norm": normalize_lf0(*inputs),
        "norm_random_scale_zero_draw": normalize_lf0(*inputs, random_scale=True),
    }


def random_slices(ins: Arrays, meta: dict) -> dict:
    size, drawn = re.search(r"lengths, (\d+)\) with torch\.rand\(\[\d+\]\) = (\[.*?\])", meta["call"]).groups()
    x, pitch, lengths = (torch.from_numpy(ins[name]) for name in ("x", "pitch", "lengths"))
    with mock.patch.object(torch, "rand", lambda *shape, **settings: torch.tensor(json.loads(drawn))):
        starts = random_slice_starts(lengths, int(size))
    return {
        "slice": cut_slices(x, starts, int(size)),
        "slice_pitch": cut_slices(pitch, starts, int(size)),
        "ids": starts,
        "sequence_mask": sequence_mask(lengths, x.shape[2]).squeeze(1),
    }


def mixing(ins: Arrays, meta: dict) -> dict:
    models: dict[str, dict[str, torch.Tensor]] = {}
    for key, array in ins.items():
        if key.startswith("model"):
            number, _, name = key.removeprefix("model").partition("_")
            models.setdefault(number, {})[name] = torch.from_numpy(array)
    ordered = [models[number] for number in sorted(models, key=int)]
    rates = ins["rates"].tolist()
    return {
        f"mode{number}_{name}": tensor
        for number, mode in enumerate(("convex", "linear"))
        for name, tensor in mixed(ordered, shares(rates, mode)).items()
    }


# -- training ---------------------------------------------------------------------------------------------------------


def trajectory(ins: Arrays, meta: dict) -> dict:
    """Whole optimisation steps, discriminator first, on one batch."""
    with undrawn():
        net, judges = _build(meta["constructor"]).train(), MultiPeriodDiscriminator()
    fill(net, meta["recipe_seed"], _remembered)
    fill(judges, meta["recipe_seed_discriminator"])
    settings = TrainConfig()
    optimizers = [
        AdamW(part.parameters(), settings.learning_rate, tuple(settings.betas), settings.eps)
        for part in (judges, net)
    ]
    batch = {name: torch.from_numpy(array) for name, array in ins.items()}
    losses, norms = zip(*(_step(net, judges, *optimizers, batch, meta) for _ in range(meta["steps"])), strict=True)
    outputs = {"losses": losses, "grad_norms": norms}
    state = net.state_dict()
    for name in (name for name in meta["tolerance_for"] if name.startswith("delta_")):
        key = name.removeprefix("delta_").replace("/", ".")
        delta = state[key].numpy() - _remembered(key, tuple(state[key].shape), meta["recipe_seed"])
        outputs[name] = delta[[1, 3], :32].ravel() if key == "emb_g.weight" else delta.ravel()[:64]
    return outputs


def _step(net, judges, judges_optimizer, optimizer, batch, meta) -> tuple[list[float], list[float]]:
    out = net(*(batch[name] for name in ("c", "f0", "uv", "spec", "speaker", "lengths")))
    y = cut_slices(batch["audio"], out.slice_starts * net.dec.hop_length, out.audio.shape[2])
    loss_d, *_ = discriminator_loss(scores_of(judges(y)), scores_of(judges(out.audio.detach())))
    norm_d = _update(judges_optimizer, judges, loss_d)
    judges.requires_grad_(False)
    real_maps, fake_maps = judges(y), judges(out.audio)
    judges.requires_grad_(True)
    parts = [generator_loss(scores_of(fake_maps))[0], feature_loss(real_maps, fake_maps)]
    parts += generator_losses(out, batch["spec"], meta).values()
    norm_g = _update(optimizer, net, sum(parts))
    return [loss.item() for loss in (loss_d, *parts)], [norm_d, norm_g]


def _update(optimizer: torch.optim.Optimizer, net: torch.nn.Module, loss: torch.Tensor) -> float:
    """One optimizer step; returns the norm of the gradient before it."""
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), float("inf"))
    optimizer.step()
    return norm.item()


VARIANTS = ("default", "tiny", "vol", "transflow", "transflow_shared", "snake", "v40", "noautof0")

ADAPTERS = {
    **{f"A_{variant}_infer": infer for variant in VARIANTS},
    **{f"A_{variant}_train": train for variant in VARIANTS},
    **{f"A_{variant}_flow": flow for variant in VARIANTS},
    **{f"A_{variant}_enc_q": posterior_encoder for variant in VARIANTS},
    **{f"A_{variant}_dec": decoder for variant in VARIANTS},
    "A_default_emb_g": speaker_embedding,
    "A_default_enc_p": prior_encoder,
    "A_default_f0_decoder": f0_decoder,
    "B_mpd": discriminator,
    "D_f0_to_coarse": coarse,
    "D_mix_model": mixing,
    "D_normalize_f0": normalisation,
    "D_rand_slice": random_slices,
    "Z_trajectory": trajectory,
}

STATE_DICTS = {
    "A_": synthesizer_shapes,
    "B_": discriminator_shapes,
    "Z_": synthesizer_shapes,
}
