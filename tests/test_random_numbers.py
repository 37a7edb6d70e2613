"""Random numbers of a conversion are sampled in the original's order: one generator for every stage of a piece.

The original seeds torch before the synthesizer, and its diffusion, vocoder and enhancer go on with the same generator.
The tests write out this order with torch's own generator.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.svc import Svc
from tests.diffusion_files import MELS, write_diffusion
from tests.parity import load_meta
from tests.test_svc import HOP, RATE, write_model, write_song
from tests.vocoder_files import write_vocoder

LATENT, TRACKS = 8, 9  # channels of the tiny synthesizer; sines of a source
SECONDS = 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_model(folder)
    write_diffusion(folder / "diffusion")
    write_vocoder(folder / "pretrain" / "nsf_hifigan")
    write_song(folder / "song.wav", SECONDS)
    return folder


def published(*samples: tuple) -> list[torch.Tensor]:
    torch.manual_seed(52468)
    return [kind(*shape) for kind, *shape in samples]


def source(frames: int) -> list[tuple]:
    return [(torch.rand, 1, TRACKS), (torch.randn, 1, HOP * frames, TRACKS)]


def synthesizer(frames: int) -> list[tuple]:
    """The last noise belongs to a branch of the decoder that the original discards; the fixtures count it too."""
    return [(torch.randn, 1, LATENT, frames), *source(frames), (torch.randn, 1, HOP * frames, 1)]


@pytest.mark.parametrize(
    ("fixture", "calls", "samples"),
    [("A_default_infer", 5, synthesizer(1)), ("A_snake_infer", 5, synthesizer(1)), ("G_nsf_hifigan", 5, source(1))],
)
def test_the_original_samples_as_often(fixture, calls, samples):
    counted = load_meta(fixture)["draws_zeroed"]
    kinds = [kind for kind, *_ in samples]
    assert counted["torch.rand"] == calls * kinds.count(torch.rand)
    assert counted["torch.randn_like"] == calls * kinds.count(torch.randn)


def sampled(folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict, **conversion) -> list[torch.Tensor]:
    """The random numbers of a conversion by this program."""
    svc = Svc(
        *(folder / "G_1.pth", folder / "config.json", "cpu"),
        diffusion_model_path=folder / "diffusion" / "model_0.pt",
        diffusion_config_path=folder / "diffusion" / "config.yaml",
        pretrain_folder=folder / "pretrain",
        **options,
    )
    numbers = []

    def recorded(kind, shape, device, generator):
        numbers.append(kind(shape, generator=generator))
        return numbers[-1]

    for module in ("vits.synthesizer", "vdecoder.source", "diffusion.unit2mel"):
        monkeypatch.setattr(f"{module}.random_tensor", recorded)
    svc.slice_inference(folder / "song.wav", "alto", k_step=20, **conversion)
    return numbers


@pytest.mark.parametrize(
    ("method", "noises"), [("dpm-solver++", 0), ("dpm-solver", 0), ("unipc", 0), ("pndm", 0), ("ddim", 0), ("ddpm", 20)]
)
def test_diffusion_continues_the_synthesizers_generator(folder, monkeypatch, method, noises):
    frames = int((SECONDS + 1) * RATE) // HOP
    mel = (torch.randn, 1, 1, MELS, frames)
    wanted = published(*synthesizer(frames), mel, *[mel] * noises, *source(frames))
    options = {"shallow_diffusion": True, "diffusion_method": method}
    assert_same(sampled(folder, monkeypatch, options), wanted)


def test_the_enhancer_continues_the_synthesizers_generator(folder, monkeypatch):
    frames = int((SECONDS + 1) * RATE) // HOP
    wanted = published(*synthesizer(frames), *source(frames))
    assert_same(sampled(folder, monkeypatch, {"nsf_hifigan_enhance": True}), wanted)


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours.flatten(), theirs.flatten())
