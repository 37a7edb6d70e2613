"""The parts of the streaming converter: history, units, gate, noise, rates."""

import numpy as np
import pytest
import torch

from live.gate import Gate
from live.history import History
from live.pitch import PitchStream
from live.rates import RateConverter, in_step
from live.units import UnitStream
from live.voice import FrameNoise
from modules.audio.files import sinc_resample
from modules.console import UserError
from modules.data.features import stretch_units
from tests.live_stands import LocalEncoder
from vencoder import build_encoder


def test_a_history_holds_what_an_endless_tensor_would():
    rng = np.random.default_rng(0)
    history, endless = History(2, 50), torch.zeros(2, 4000)
    end = 0
    while end < 3500:
        kind = rng.integers(3)
        if kind == 0:  # a gap, sometimes longer than the history
            end += int(rng.integers(120))
            history.skip(end)
        else:
            first = max(0, end - int(rng.integers(20))) if kind == 1 else end + int(rng.integers(5))
            columns = torch.from_numpy(rng.standard_normal((2, int(rng.integers(1, 90)))).astype(np.float32))
            history.write(first, columns)
            endless[:, first : first + columns.shape[1]] = columns
            end = max(end, first + columns.shape[1])
        assert history.end == end
        oldest = max(0, end - 50)
        assert torch.equal(history.view(oldest, end), endless[:, oldest:end])
    with pytest.raises(IndexError):
        history.view(end - 51, end)
    with pytest.raises(IndexError):
        history.view(end - 5, end + 1)


def test_before_the_stream_there_is_silence():
    history = History(1, 10)
    history.write(0, torch.ones(1, 3))
    assert torch.equal(history.view(-7, 3)[0], torch.tensor([0.0] * 7 + [1.0] * 3))


@pytest.mark.parametrize("mode", ["left", "nearest", "nearest-exact", "linear", "area"])
def test_units_are_resampled_to_frames_as_offline(mode):
    """5.12 s are 256 units and 441 frames exactly, so that the two ratios are the same."""
    sound = History(1, 7 * 44100)
    sound.write(0, 0.3 * torch.randn(1, 6 * 44100, generator=torch.Generator().manual_seed(0)))
    encoder = LocalEncoder(6)
    stream = UnitStream(encoder, 44100, 512, mode, 560, torch.device("cpu"))
    stream.update(sound, 500)
    units = encoder(sinc_resample(sound.view(0, 6 * 44100)[0], 44100, 16000))[0]
    wanted = stretch_units(units[:, :256], 441, mode)
    torch.testing.assert_close(stream.at(5, 430), wanted[:, 5:430], rtol=0, atol=1e-4)


def test_final_units_never_change():
    """The encoder mfcc normalises over its window, so that each window gives other values."""
    encoder = build_encoder("mfcc")
    sound = History(1, 3 * 44100)
    stream = UnitStream(encoder, 44100, 512, "nearest", 180, torch.device("cpu"))
    noise = torch.Generator().manual_seed(0)
    before = None
    for step in range(1, 60):
        sound.write(sound.end, torch.randn(1, 5 * 512, generator=noise))
        final = 5 * step - 4
        stream.update(sound, final)
        if before is not None:
            assert torch.equal(stream.at(final - 40, final - 5), before)
        before = stream.at(final - 35, final).clone()


def test_units_must_begin_on_whole_samples():
    with pytest.raises(UserError, match="multiple of 50 Hz"):
        UnitStream(LocalEncoder(), 22051, 512, "nearest", 100, torch.device("cpu"))


def test_final_f0_never_changes_and_a_gap_keeps_the_last():
    """The predictor here gives each time another F0, and no voice in the third window."""
    calls = []

    def predictor(audio):
        calls.append(len(calls) + 1)
        frames = len(audio) // 512
        voiced = calls[-1] != 3
        return np.full(frames, 100.0 * calls[-1] * voiced, np.float32), np.full(frames, float(voiced), np.float32)

    sound = History(1, 512 * 40)
    stream = PitchStream(512, 20, 30, torch.device("cpu"))
    for step in range(1, 5):
        sound.write(sound.end, torch.ones(1, 5 * 512))
        stream.update(predictor, 12, sound, 5 * step - 2)
    f0, uv = stream.f0(0, 20)[0], stream.uv(0, 20)[0]
    wanted = [200.0] * 3 + [400.0] * 10 + [800.0] * 7  # each window's F0 an octave up, the third held
    assert f0.tolist() == wanted
    assert uv[8:13].tolist() == [0.0] * 5 and uv[:8].all() and uv[13:].all()


def test_the_gate_opens_before_a_sound_and_closes_after_it():
    gate = Gate(0.0116)
    levels = torch.full((200,), 1e-5)
    levels[100:110] = 0.1
    gains = gate.gains(levels, -60)
    assert len(gains) == 200 - gate.behind - gate.ahead + 1
    at = {frame: float(gains[frame - gate.behind]) for frame in range(gate.behind, 200 - gate.ahead)}
    assert at[95] == 0 and at[96] == 0.25 and at[99] == 1  # fully open at the first loud frame
    assert at[109 + gate.hold] == 1 and at[109 + gate.hold + 4] == 0
    assert np.abs(np.diff(list(at.values()))).max() <= 0.25


def test_the_gate_is_a_function_of_absolute_frames():
    gate = Gate(0.0116)
    levels = torch.rand(300, generator=torch.Generator().manual_seed(0)) ** 8
    whole = gate.gains(levels, -6)
    part = gate.gains(levels[40:240], -6)
    assert torch.equal(part, whole[40 : 40 + len(part)])


def test_noise_is_a_function_of_the_frame():
    noise = FrameNoise(7)
    whole = noise.normal(-5, 30, 40)
    assert torch.equal(noise.normal(10, 12, 40), whole[15:17])
    assert not torch.equal(noise.normal(10, 12, 40, stream=1), whole[15:17])
    assert not torch.equal(FrameNoise(8).normal(10, 12, 40), whole[15:17])
    assert abs(float(noise.normal(0, 500, 100).std()) - 1) < 0.02
    neighbours = noise.normal(0, 500, 100)
    assert abs(float((neighbours[1:] * neighbours[:-1]).mean())) < 0.02


@pytest.mark.parametrize(("source", "target"), [(48000, 44100), (44100, 48000), (16000, 44100), (44100, 44100)])
def test_resampling_a_stream_equals_resampling_the_whole_without_a_shift(source, target):
    t = np.arange(source) / source
    sound = (np.sin(2 * np.pi * 1000 * t) * np.sin(2 * np.pi * 3 * t) ** 2).astype(np.float32)
    convert = RateConverter(source, target)
    rng, parts, given, taken = np.random.default_rng(0), [], 0, 0
    while given < len(sound):
        part = sound[given : given + int(rng.integers(1, 700))]
        given += len(part)
        parts.append(convert(part))
        taken += len(parts[-1])
        assert given - taken * source / target <= convert.lag + 1e-6
    output = np.concatenate(parts)
    u = np.arange(len(output)) / target
    wanted = np.sin(2 * np.pi * 1000 * u) * np.sin(2 * np.pi * 3 * u) ** 2
    assert np.abs(output - wanted).max() < 2e-3


def test_rates_that_are_seldom_in_step_are_refused_for_a_device():
    usual = 16000, 22050, 32000, 44100, 48000, 88200, 96000, 192000
    assert all(in_step(one, other) for one in usual for other in usual)
    with pytest.raises(UserError, match="22051 Hz cannot be converted live.*44100 or 48000 Hz"):
        RateConverter(22051, 44100)
