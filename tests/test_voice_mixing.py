"""A mix of two voices lies between them, in the sound and not only in the weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from demonstration.singer import BRIGHT, DARK, Note, sing
from modules.config import DataConfig
from tests.generator_files import SPECTRUM, config_of
from vits.f0_decoder import f0_to_coarse
from vits.step import mel_of
from vits.synthesizer import Synthesizer, cut_slices

HOP, FRAMES = 512, 200
HELD = 20  # the frame from which on the note sounds as it goes on
STEPS, SLICE = 160, 8
PARTS = 10  # of the song, in each of which the mix is measured


def spectra(audio: torch.Tensor) -> torch.Tensor:
    """Log-mel frames (B, bands, T) of (B, L)."""
    return mel_of(audio[:, None], DataConfig())


@pytest.fixture(scope="module")
def recordings() -> tuple[torch.Tensor, torch.Tensor]:
    """The dark and the bright voice on one held note, (2, L), and its F0 (1, T)."""
    songs = [sing(voice, [Note(47, 2.8, "a", vibrato=0.0)], seed=1) for voice in (DARK, BRIGHT)]
    samples, frames = slice(HELD * HOP, (HELD + FRAMES) * HOP), slice(HELD, HELD + FRAMES)
    audio = torch.stack([torch.from_numpy(song.audio[samples]) for song in songs])
    return audio, torch.from_numpy(songs[0].f0[frames])[None]


@pytest.fixture(scope="module")
def model(recordings) -> Synthesizer:
    """What has learnt both voices: the decoder and the speakers' table, all else being the same for both."""
    audio, f0 = recordings
    torch.manual_seed(5)  # with some first weights so small a network learns nothing in so few steps
    net = Synthesizer(config_of(use_automatic_f0_prediction=False).model, SPECTRUM).eval()
    torch.nn.init.normal_(net.emb_g.weight, std=0.1)
    optimizer = torch.optim.AdamW([*net.dec.parameters(), *net.emb_g.parameters()], 6e-3, (0.8, 0.99))
    z = latents(net, f0)
    for _ in range(STEPS):
        starts = torch.randint(4, FRAMES - SLICE - 4, (2,))
        latent, pitch = (cut_slices(x.expand(2, *x.shape[1:]), starts, SLICE) for x in (z, f0))
        out = net.dec(latent, pitch, net.emb_g.weight[:, :, None])
        target = cut_slices(audio, starts * HOP, SLICE * HOP)
        optimizer.zero_grad()
        F.l1_loss(spectra(out[:, 0]), spectra(target)).backward()
        optimizer.step()
    return net


@torch.no_grad()
def latents(net: Synthesizer, f0: torch.Tensor) -> torch.Tensor:
    """What the decoder gets in a conversion without noise and content; the flow is the identity but for its flips."""
    mask = torch.ones(1, 1, FRAMES)
    x = net.content(torch.zeros(1, 8, FRAMES), torch.ones(1, FRAMES), mask, None)
    return net.enc_p(x, mask, f0_to_coarse(f0))[0]


def envelope(net: Synthesizer, f0: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
    """The spectral envelope (bands, PARTS) of the note sung by a speaker or a mix, in parts of the song."""
    c, uv = torch.zeros(1, 8, FRAMES), torch.ones(1, FRAMES)
    audio, _ = net.infer(c, f0, uv, speaker, noice_scale=0.0)
    return spectra(audio[:, 0])[0].unflatten(1, (PARTS, -1)).mean(dim=2)


def test_the_model_has_learnt_two_voices(model, recordings):
    audio, f0 = recordings
    own = [spectra(voice[None])[0].mean(dim=1) for voice in audio]
    for row in (0, 1):
        sung = envelope(model, f0, torch.tensor([[row]])).mean(dim=1)
        distances = [(sung - voice).abs().mean() for voice in own]
        assert distances[row] < 0.6 * distances[1 - row]


def test_a_mix_that_goes_from_one_voice_to_the_other_moves_the_envelope_all_the_way_and_never_back(model, recordings):
    _, f0 = recordings
    dark, bright = (envelope(model, f0, torch.tensor([[row]])) for row in (0, 1))
    apart = bright - dark
    ramp = torch.linspace(1, 0, FRAMES)
    mixed = envelope(model, f0, torch.stack([ramp, 1 - ramp], dim=1))
    place = ((mixed - dark) * apart).sum(dim=0) / apart.square().sum(dim=0)  # 0: the dark voice, 1: the bright one
    assert place.diff().min() > -0.03  # within the accuracy of so small a model
    assert place[0] < 0.2 and place[-1] > 0.8
