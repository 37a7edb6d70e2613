"""The order of all random draws of a conversion, which is the original's: one generator for every part of a piece.

The original seeds torch when the synthesizer begins and draws on from there, in the diffusion, its vocoder and the
enhancer. The order is written out here with torch's own generator.
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


def published(*draws: tuple) -> list[torch.Tensor]:
    torch.manual_seed(52468)
    return [kind(*shape) for kind, *shape in draws]


def source(frames: int) -> list[tuple]:
    return [(torch.rand, 1, TRACKS), (torch.randn, 1, HOP * frames, TRACKS)]


def synthesizer(frames: int) -> list[tuple]:
    """The last noise is for a branch of the decoder that the original drops; the fixtures count it too."""
    return [(torch.randn, 1, LATENT, frames), *source(frames), (torch.randn, 1, HOP * frames, 1)]


@pytest.mark.parametrize(
    ("fixture", "calls", "draws"),
    [("A_default_infer", 5, synthesizer(1)), ("A_snake_infer", 5, synthesizer(1)), ("G_nsf_hifigan", 5, source(1))],
)
def test_the_original_draws_as_often(fixture, calls, draws):
    counted = load_meta(fixture)["draws_zeroed"]
    kinds = [kind for kind, *_ in draws]
    assert counted["torch.rand"] == calls * kinds.count(torch.rand)
    assert counted["torch.randn_like"] == calls * kinds.count(torch.randn)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict, **conversion) -> list[torch.Tensor]:
    """What our conversion draws."""
    svc = Svc(
        *(folder / "G_1.pth", folder / "config.json", "cpu"),
        diffusion_model_path=folder / "diffusion" / "model_0.pt",
        diffusion_config_path=folder / "diffusion" / "config.yaml",
        pretrain_folder=folder / "pretrain",
        **options,
    )
    drawn = []

    def recorded(kind, shape, device, generator):
        drawn.append(kind(shape, generator=generator))
        return drawn[-1]

    for module in ("vits.synthesizer", "vdecoder.source", "diffusion.unit2mel"):
        monkeypatch.setattr(f"{module}.random_tensor", recorded)
    svc.slice_inference(folder / "song.wav", "alto", k_step=20, **conversion)
    return drawn


@pytest.mark.parametrize(
    ("method", "noises"), [("dpm-solver++", 0), ("dpm-solver", 0), ("unipc", 0), ("pndm", 0), ("ddim", 0), ("ddpm", 20)]
)
def test_diffusion_draws_on_where_the_synthesizer_ended(folder, monkeypatch, method, noises):
    frames = int((SECONDS + 1) * RATE) // HOP
    mel = (torch.randn, 1, 1, MELS, frames)
    wanted = published(*synthesizer(frames), mel, *[mel] * noises, *source(frames))
    options = {"shallow_diffusion": True, "diffusion_method": method}
    assert_same(made(folder, monkeypatch, options), wanted)


def test_the_enhancer_draws_on_where_the_synthesizer_ended(folder, monkeypatch):
    frames = int((SECONDS + 1) * RATE) // HOP
    wanted = published(*synthesizer(frames), *source(frames))
    assert_same(made(folder, monkeypatch, {"nsf_hifigan_enhance": True}), wanted)


def assert_same(drawn: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert len(drawn) == len(wanted)
    for ours, theirs in zip(drawn, wanted, strict=True):
        assert torch.equal(ours.flatten(), theirs.flatten())
