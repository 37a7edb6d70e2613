from __future__ import annotations

import pytest
import torch

from tests.vocoder_files import write_vocoder
from vdecoder.enhancer import Enhancer
from vdecoder.mel_vocoder import load_mel_vocoder

RATE, HOP = 44100, 512
KEYS = (-12, -5, 0, 3, 12)


class Echo:
    """A vocoder whose mel is the audio and whose output is its input, to test the enhancer's own processing."""

    sampling_rate, hop_length = RATE, HOP

    def extract(self, audio):
        return audio[:, : audio.shape[1] // HOP * HOP]

    def synthesize(self, mel, f0, generator=None):
        self.f0 = f0[:, : mel.shape[1] // HOP]
        return mel


def tone(seconds: float, rate: int, hz: float = 440) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(int(seconds * rate)) / rate)[None]


def falling_f0(seconds: float, rate: int, hop: int) -> torch.Tensor:
    """F0 that encodes time: 600 Hz, falling by 100 Hz per second."""
    return 600 - 100 * torch.arange(int(seconds * rate) // hop)[None] * hop / rate


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("rate", "hop"), [(RATE, HOP), (32000, 320)])
def test_with_an_identity_vocoder_the_output_is_the_input(key, rate, hop):
    audio, given = Enhancer(Echo()).enhance(tone(1, rate), rate, falling_f0(1, rate, hop), hop, key)
    assert given == RATE
    # The output is cut to whole frames of the slowed audio.
    assert RATE - 2 ** (-key / 12) * HOP - 2 <= len(audio) <= RATE
    inner = slice(3000, len(audio) - 3000)
    torch.testing.assert_close(audio[inner], tone(1, RATE)[0, inner], rtol=0, atol=2e-3)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("rate", "hop"), [(RATE, HOP), (32000, 320)])
def test_the_vocoder_gets_f0_lowered_by_the_key_at_its_own_frames(key, rate, hop):
    echo = Echo()
    Enhancer(echo).enhance(tone(1, rate), rate, falling_f0(1, rate, hop), hop, key)
    slowness = 100 * round(RATE * 2 ** (key / 12) / 100) / RATE
    times = torch.arange(echo.f0.shape[1]) * HOP / RATE
    wanted = (600 - 100 * times / slowness) / slowness
    known = times < slowness * (1 - 2 * hop / rate)  # the last value repeats at the end
    assert known.sum() > len(known) * 0.9
    torch.testing.assert_close(echo.f0[0, known], wanted[known], rtol=1e-4, atol=0)


@pytest.mark.parametrize("key", [0, 3])
def test_a_silent_start_stays_silent_and_the_rest_is_enhanced_without_it(tmp_path, key):
    enhancer = Enhancer(load_mel_vocoder(write_vocoder(tmp_path)))
    audio, f0 = tone(0.6, RATE), falling_f0(0.6, RATE, HOP)
    cut = int(0.2 * RATE / HOP)

    def enhance(audio, f0, **settings):
        generator = torch.Generator().manual_seed(5)
        return enhancer.enhance(audio, RATE, f0, HOP, key, generator=generator, **settings)[0]

    whole, rest = enhance(audio, f0, silence_front=0.2), enhance(audio[:, cut * HOP :], f0[:, cut:])
    assert not whole[: cut * HOP].any()
    assert torch.equal(whole[cut * HOP :], rest)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_sound_of_a_frame_or_two_is_enhanced(tmp_path, frames):
    enhancer = Enhancer(load_mel_vocoder(write_vocoder(tmp_path)))
    audio, _ = enhancer.enhance(tone(1, RATE)[:, : frames * HOP + 9], RATE, torch.full((1, frames), 300.0), HOP)
    assert len(audio) == frames * HOP and audio.isfinite().all()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("rate", "samples"), [(RATE, 20 * HOP), (32000, 9999)])
def test_sound_that_fills_whole_frames_keeps_its_end(key, rate, samples):
    enhancer = Enhancer(Echo())
    filled = enhancer.fill_frames(tone(1, rate)[:, :samples], rate, key)
    audio, _ = enhancer.enhance(filled, rate, torch.full((1, 40), 300.0), HOP, key)
    assert len(audio) >= samples * RATE // rate
    if key == 0 and rate == RATE:
        assert filled.shape[1] == samples
