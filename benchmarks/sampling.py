"""Measure the distance of the fast samplers' results from slow sampling, with a small diffusion model.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --steps 3000 --device cuda

The model is trained first, on a synthetic singer: to generate the voice's mel spectrogram from mel cepstra (the encoder
mfcc), F0 and loudness. It then generates a phrase outside the training data from noise. The distance is the mean
absolute difference of the log-mel (natural logarithm) from the result of DDIM with 1000 steps and the same noise. ddpm
("plain") samples noise in every step, so the distance between two of its results shows the effect of chance. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from demonstration.singer import DARK, HOP_LENGTH, SAMPLING_RATE, random_phrase, sing
from diffusion.samplers import SAMPLERS
from diffusion.unit2mel import Unit2Mel
from modules.audio.files import sinc_resample
from modules.audio.loudness import volume
from modules.audio.spectrogram import VocoderMel
from modules.data.features import stretch_units
from modules.device import pick_device
from vencoder import ENCODERS, build_encoder

STEPS_OF_DIFFUSION = 1000
SPEEDUPS = (5, 10, 20, 50, 100)
N_MELS, CHANNELS = 32, 128  # the network needs several channels per band to predict the noise
CROP = 86  # frames of a training example: one second

Phrase = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--phrases", type=int, default=12, help="training phrases of six seconds (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: %(default)s)")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    *learnt, unheard = (sing_phrase(seed, device) for seed in range(arguments.phrases + 1))
    net = Unit2Mel(
        ENCODERS["mfcc"].ssl_dim, n_spk=1, out_dims=N_MELS, n_layers=6, n_chans=CHANNELS, n_hidden=64
    ).to(device)
    loss = train(net, learnt, arguments.steps)
    print(f"trained {arguments.steps} steps, loss {loss:.3f}")
    unheard = {name: value[:, : 2 * CROP] for name, value in unheard.items()}
    result = compare(net.eval(), unheard)
    print(json.dumps({"benchmark": "sampling", "steps": arguments.steps, "loss": loss, **result}))


def sing_phrase(seed: int, device: torch.device) -> Phrase:
    """Sing a phrase and return it as Unit2Mel takes it: units (1, T, C), f0 and volume (1, T, 1), mel (1, T, M)."""
    song = sing(DARK, random_phrase(np.random.default_rng(seed), seconds=6, low=57, high=69), seed=seed)
    audio, frames = torch.from_numpy(song.audio), len(song.f0)
    units = build_encoder("mfcc")(sinc_resample(audio, SAMPLING_RATE, 16000))[0]
    times = np.arange(frames)
    phrase = {
        "units": stretch_units(units, frames, "linear").T,
        "f0": torch.from_numpy(np.interp(times, times[song.voiced], song.f0[song.voiced])).float()[:, None],
        "volume": volume(audio, HOP_LENGTH)[:, None],
        "mel": VocoderMel(n_mels=N_MELS)(audio[None])[0].T,
    }
    return {name: value[None, :frames].to(device) for name, value in phrase.items()}


def train(net: Unit2Mel, phrases: Sequence[Phrase], steps: int, batch_size: int = 8) -> float:
    """Train on random seconds of the phrases; returns the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        chosen = [phrases[i] for i in rng.integers(len(phrases), size=batch_size)]
        starts = [rng.integers(phrase["mel"].shape[1] - CROP) for phrase in chosen]
        crops = {
            name: torch.cat([p[name][:, at : at + CROP] for p, at in zip(chosen, starts, strict=True)])
            for name in chosen[0]
        }
        loss = net.loss(**crops)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses[-max(1, steps // 10) :]).mean().item()


@torch.inference_mode()
def compare(net: Unit2Mel, phrase: Phrase) -> dict:
    """Print the table and return its figures."""
    condition = net.condition(phrase["units"], phrase["f0"], phrase["volume"])

    def sample(method: str, speedup: int, seed: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return net.decoder.sample(condition, None, STEPS_OF_DIFFUSION, method, speedup, generator)

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return (a - b).abs().mean().item()

    exact, *plain = sample("ddim", 1), sample("ddpm", 1), sample("ddpm", 1, seed=2)
    chance = distance(*plain)
    truth = {"ddpm": distance(plain[0], phrase["mel"]), "ddim": distance(exact, phrase["mel"])}
    print(f"to the real sound: plain {truth['ddpm']:.3f}, DDIM in 1000 steps {truth['ddim']:.3f}")
    print(f"two plain results differ by {chance:.3f}")
    print(f"\n{'evaluations':14s}" + "".join(f"{STEPS_OF_DIFFUSION // speedup:9d}" for speedup in SPEEDUPS))
    distances = {}
    for method in (name for name in SAMPLERS if name != "ddpm"):
        distances[method] = [distance(sample(method, speedup), exact) for speedup in SPEEDUPS]
        print(f"{method:14s}" + "".join(f"{value:9.4f}" for value in distances[method]))
    return {"to_truth": truth, "chance": chance, "speedups": SPEEDUPS, "to_1000_steps": distances}


if __name__ == "__main__":
    main()
