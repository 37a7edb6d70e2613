"""The streaming converter: blocks of any length give the offline conversion, without seams and without the future."""

import dataclasses

import numpy as np
import pytest
import torch

from inference.conversion import Conversion
from live.converter import StreamingConverter
from live.session import CALIBRATION, Session, calibrate
from modules.audio.files import sinc_resample
from modules.console import UserError
from tests.live_stands import RATE, PassThrough, convert_all, durations, simulate, small_svc, vowel

HOP = 512
EARLY = 20  # frames
SETTINGS = Conversion("alto", f0_predictor="pm", slice_db=-60)


@pytest.fixture(scope="module")
def svc(tmp_path_factory):
    """A small model without attention, whose encoder has no context."""
    return small_svc(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole_svc(tmp_path_factory):
    """A small model with attention and the encoder mfcc, which normalises over its window."""
    return small_svc(tmp_path_factory.mktemp("whole"), local=False, seed=1)


def decibels(error, reference):
    return 10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(reference)))


def early_f0(svc, sound, seconds):
    """The F0 of the first frames as the converter finds it, for ``offline``."""
    converter = StreamingConverter(svc, SETTINGS, seconds)
    convert_all(converter, sound[: max(converter.block, 40 * HOP // converter.block * converter.block)])
    return converter.pitch.f0(0, min(EARLY, converter.pitch.final)).clone()


@torch.inference_mode()
def offline(svc, sound, converter):
    """Convert a whole sound by one pass of each network, with the converter's noise.

    At the onset, where a predictor sees half a window of silence, F0 is the converter's: a difference there turns the
    phase of the whole sound.
    """
    net, voice = svc.synthesizer, converter.voice
    wav = torch.from_numpy(sound[: len(sound) // HOP * HOP])
    features = svc.feature_extractor.extract(wav, "pm", SETTINGS.cr_threshold)
    frames = features.f0.shape[1]
    early = early_f0(svc, sound, converter.block / RATE)
    features.f0[:, : early.shape[1]] = early
    encoded = svc.feature_extractor.encoder(sinc_resample(wav, RATE, 16000))
    units = encoded[:, :, (torch.arange(frames) * HOP // 882).clamp(max=encoded.shape[2] - 1)]
    g = net.speaker_condition(torch.tensor([[0]]))
    volume = features.volume if svc.config.model.vol_embedding else None
    x = net.content(units, features.uv, torch.ones(1, 1, frames), volume)
    noise = voice._noise.normal(0, frames, voice.inter).t()[None]
    z = net.latent(x, features.f0, torch.ones(1, 1, frames), g, noise, SETTINGS.noice_scale)
    source = net.dec.m_source
    phases = source.phases(features.f0, voice._noise.uniform(source.tracks))
    noise = voice._noise.normal(0, frames, HOP * source.tracks, stream=1).view(1, -1, source.tracks)
    return net.dec.generate(z, source.mix(features.f0, phases, noise), g)[0, 0].numpy()


@pytest.mark.parametrize("seconds", [0.03, 0.1, 0.25, 0.5])
def test_blocks_of_any_length_give_the_offline_conversion(svc, seconds):
    """But for the first second, in which the context is missing."""
    sound = vowel(4)
    converter = StreamingConverter(svc, SETTINGS, seconds)
    heard = convert_all(converter, sound)[converter.look_ahead :]
    wanted = offline(svc, sound, converter)[: len(heard)]
    assert decibels((heard - wanted)[RATE:], wanted[RATE:]) < -40


def test_a_model_with_loudness_and_snakes_gives_the_offline_conversion_too(tmp_path):
    svc = small_svc(tmp_path, vol_embedding=True, vocoder_name="nsf-snake-hifigan")
    sound = vowel(4)
    converter = StreamingConverter(svc, SETTINGS, 0.25)
    heard = convert_all(converter, sound)[converter.look_ahead :]
    wanted = offline(svc, sound, converter)[: len(heard)]
    assert decibels((heard - wanted)[RATE:], wanted[RATE:]) < -40


def test_a_tone_has_no_seams(svc, monkeypatch):
    """Against one block, whose F0 is the same."""

    def predictor(audio):
        return np.full(len(audio) // HOP, 220, np.float32), np.ones(len(audio) // HOP, np.float32)

    monkeypatch.setattr(svc.feature_extractor, "predictor", lambda key, threshold: predictor)
    t = np.arange(4 * RATE) / RATE
    tone = sum(0.1 / k * np.sin(2 * np.pi * 220 * k * t) for k in range(1, 8)).astype(np.float32)
    one_block = StreamingConverter(svc, SETTINGS, 3.9)
    wanted = convert_all(one_block, tone)
    converter = StreamingConverter(svc, SETTINGS, 0.1)
    heard = convert_all(converter, tone)[: len(wanted)]
    borders = np.arange(2 * RATE // converter.block, len(heard) // converter.block) * converter.block
    around = (borders[:, None] + np.arange(-64, 64)).ravel()
    assert decibels((heard - wanted)[around], wanted[around]) < -60


def test_the_spectrum_changes_at_the_borders_of_blocks_as_elsewhere(whole_svc):
    """With attention and normalisation over the window, whose values jump at the borders."""
    converter = StreamingConverter(whole_svc, SETTINGS, 0.1)
    heard = convert_all(converter, vowel(8))[RATE:]
    spectra = np.abs(np.fft.rfft(heard[: len(heard) // HOP * HOP].reshape(-1, HOP) * np.hanning(HOP), axis=1))
    flux = np.abs(np.diff(np.log(spectra + 1e-3), axis=0)).mean(1)
    position = (np.arange(len(flux)) + 1 + RATE // HOP) % converter.frames
    means = np.array([flux[position == place].mean() for place in range(converter.frames)])
    assert means.max() < 1.3 * np.median(means)


@pytest.mark.parametrize("model", ["svc", "whole_svc"])
def test_future_sound_changes_no_earlier_output(model, request):
    svc = request.getfixturevalue(model)
    one = vowel(3)
    other = np.concatenate((one[: 2 * RATE], vowel(1, hz=300)))
    outputs = [convert_all(StreamingConverter(svc, SETTINGS, 0.1), sound) for sound in (one, other)]
    same = 2 * RATE // 4608 * 4608
    assert np.array_equal(outputs[0][:same], outputs[1][:same])
    assert not np.array_equal(*outputs)


def test_the_devices_buffers_change_no_bit(svc):
    sound = vowel(3)
    heard = []
    for buffer in (128, 441, 5000):
        converter = StreamingConverter(svc, SETTINGS, 0.1)
        output, session = simulate(sound, lambda number: 0.01, converter, buffer=buffer)
        delay = session.scheduler.delay
        heard.append(output[delay : delay + 2 * RATE])
    assert np.array_equal(heard[0], heard[1]) and np.array_equal(heard[0], heard[2])


def test_the_delay_of_a_model_is_the_printed_sum_to_the_sample(svc):
    """By correlating the live output with the offline conversion."""
    sound = vowel(3, glide=40)
    converter = StreamingConverter(svc, SETTINGS, 0.25)
    output, session = simulate(sound, lambda number: 0.02, converter)
    wanted = offline(svc, sound, converter)
    size = 1 << 18
    product = np.fft.rfft(output, size) * np.fft.rfft(wanted[RATE : 2 * RATE], size).conj()
    assert np.fft.irfft(product).argmax() - RATE == round(session.delays().total * RATE)


def test_the_final_latent_and_excitation_never_change(whole_svc):
    """With attention over the window, each window gives another latent."""
    converter, sound = StreamingConverter(whole_svc, SETTINGS, 0.1), vowel(3)
    before, last = None, 0
    for first in range(0, len(sound) - converter.block, converter.block):
        converter(sound[first : first + converter.block])
        voice = converter.voice
        if before is not None:
            frames = last - 20, last
            assert torch.equal(voice._latent.view(*frames), before[0])
            assert torch.equal(voice._excitation.view(*frames), before[1])
        last = voice.final
        before = voice._latent.view(last - 20, last).clone(), voice._excitation.view(last - 20, last).clone()


# -- silence ----------------------------------------------------------------------------------------------------------


def test_silence_is_silence_and_computes_no_network(svc):
    converter = StreamingConverter(svc, SETTINGS, 0.1)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    assert not convert_all(converter, noise).any()
    assert all(stage.count == 0 for stage in converter.stages.stages.values())


def test_an_onset_after_silence_is_not_cut_and_the_end_fades(svc):
    sound = np.concatenate((np.zeros(3 * RATE, np.float32), vowel(2), np.zeros(2 * RATE, np.float32)))
    gated = StreamingConverter(svc, SETTINGS, 0.1)
    heard = convert_all(gated, sound)[gated.look_ahead :]
    free = StreamingConverter(svc, dataclasses.replace(SETTINGS, slice_db=-120), 0.1)
    wanted = convert_all(free, sound)[free.look_ahead :]
    onset = slice(3 * RATE, 3 * RATE + RATE // 10)
    assert abs(decibels(heard[onset], wanted[onset])) < 1
    assert not heard[: 3 * RATE - 6 * HOP].any() and not heard[5 * RATE + RATE // 2 :].any()
    assert heard[5 * RATE : 5 * RATE + 20 * HOP].any()  # it stays open for a while


@pytest.mark.parametrize("block", [0.03, 0.25])
def test_calibration_computes_every_block_whatever_the_level_of_silence_is(svc, block, monkeypatch):
    converter = StreamingConverter(svc, dataclasses.replace(SETTINGS, slice_db=-1), block)
    outputs, real = [], StreamingConverter.__call__
    monkeypatch.setattr(StreamingConverter, "__call__", lambda *given: outputs.append(real(*given)))
    assert calibrate(converter).count == CALIBRATION
    assert len(outputs) == CALIBRATION + 1 and all(output.any() for output in outputs)
    assert all(stage.count == 0 for stage in converter.stages.stages.values())  # the table is about the sound


# -- changes ----------------------------------------------------------------------------------------------------------


def steepest(audio):
    return np.abs(np.diff(audio)).max()


CHANGES = {
    "key": {"tran": 7},
    "speaker": {"spk": "tenor"},
    "predictor": {"f0_predictor": "dio"},
    "noise": {"noice_scale": 1.0},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_changes_without_a_gap_or_click(svc, change):
    converter = StreamingConverter(svc, SETTINGS, 0.1)
    sound = vowel(4)
    count = len(sound) // converter.block
    heard = []
    for number in range(count):
        if number == count // 2:
            converter.change(dataclasses.replace(SETTINGS, **CHANGES[change]))
        heard.append(converter(sound[number * converter.block : (number + 1) * converter.block]))
    heard = np.concatenate(heard)
    moment = count // 2 * converter.block - converter.look_ahead
    around = heard[moment - 4 * HOP : moment + converter.block]
    rest = np.concatenate((heard[RATE : moment - 4 * HOP], heard[moment + 2 * converter.block :]))
    assert steepest(around) < steepest(rest) + 0.01 * np.abs(rest).max()
    frames = around[: len(around) // 256 * 256].reshape(-1, 256)
    assert np.sqrt(np.square(frames).mean(1)).min() > 0.1 * np.sqrt(np.square(rest).mean())  # no gap


def test_another_model_takes_over_while_sound_plays(svc, tmp_path):
    """It hears the sound before the change, so that it has its context at once."""
    other = small_svc(tmp_path, seed=5)
    session = Session(StreamingConverter(svc, SETTINGS, 0.1), RATE, 441, durations(0.01))
    alone = StreamingConverter(other, SETTINGS, 0.1)
    sound, heard = vowel(4), []
    for first in range(0, len(sound) - 441, 441):
        if first == 200 * 441:
            session.replace(StreamingConverter(other, SETTINGS, 0.1))
        heard.append(session.exchange(sound[first : first + 441]))
        while (task := session.take()) is not None:
            session.give(task, session.convert(task), 0.01)
    assert session.converter.svc is other and session.scheduler.underruns == 0
    assert session.converter.sound.end >= session.converter.sound.length - HOP  # context from before the change
    wanted = convert_all(alone, sound)[-RATE:]
    assert abs(decibels(np.concatenate(heard)[-RATE:], wanted)) < 3


def test_models_change_with_a_fade_and_without_a_click():
    """The other model here gives the opposite, which is the largest jump."""

    class Opposite(PassThrough):
        def __call__(self, block):
            return -super().__call__(block)

    tone = (0.5 * np.sin(2 * np.pi * 220 * np.arange(4 * RATE) / RATE)).astype(np.float32)
    session = Session(PassThrough(), RATE, 441, durations(0.01))
    heard = []
    for first in range(0, len(tone) - 441, 441):
        if first == 200 * 441:
            session.replace(Opposite())
        heard.append(session.exchange(tone[first : first + 441]))
        while (task := session.take()) is not None:
            session.give(task, session.convert(task), 0.01)
    heard, delay = np.concatenate(heard), session.scheduler.delay
    assert np.array_equal(heard[-RATE:], -tone[len(heard) - RATE - delay : len(heard) - delay])
    assert steepest(heard) < steepest(tone) + 0.005 * 0.5  # a jump of -40 dB below the tone
    with pytest.raises(ValueError, match="other blocks"):
        session.replace(PassThrough(block=512))


def test_what_would_fail_every_block_is_refused_at_once(svc):
    converter = StreamingConverter(svc, SETTINGS, 0.1)
    with pytest.raises(UserError, match="no speaker 'bass'"):
        converter.change(dataclasses.replace(SETTINGS, spk="bass"))
    with pytest.raises(ValueError, match="4608"):
        converter(np.zeros(100, np.float32))


def test_buffers_keep_their_size(whole_svc):
    converter = StreamingConverter(whole_svc, SETTINGS, 0.1)

    def buffers():
        parts = (converter, converter.units, converter.pitch, converter.voice)
        found = [value for part in parts for value in vars(part).values() if hasattr(value, "_store")]
        return sorted((history._store.data_ptr(), history._store.numel()) for history in found)

    before = buffers()
    assert len(before) >= 6
    convert_all(converter, vowel(8))
    assert buffers() == before
