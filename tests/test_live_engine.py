"""The engine, its controller and the sound card, with stand-ins for the devices."""

import sys
import threading
import types
from dataclasses import replace

import numpy as np
import pytest

from inference.conversion import Conversion
from live import sound_card
from live.controller import Controller
from live.engine import DEAD, RETRY, Engine
from live.settings import Settings
from modules.console import UserError
from tests.live_stands import BLOCK, RATE, PassThrough, small_svc, vowel


class Clock:
    """Virtual seconds, which pass only when a test lets them."""

    now = 0.0

    def __call__(self):
        return self.now


class Stream:
    rate, buffer, delay = RATE, 441, 0.02

    def __init__(self, exchange, on_end):
        self.exchange, self.on_end, self.state = exchange, on_end, "open"

    def start(self):
        self.state = "started"

    def close(self):
        self.state = "closed"
        self.on_end()  # as PortAudio does


class Card:
    """A device that a test plays and that can be unplugged."""

    def __init__(self):
        self.streams, self.gone, self.refreshes = [], False, 0

    def refresh(self):
        self.refreshes += 1
        assert not self.streams or self.streams[-1].state == "closed"

    def open(self, rate, buffer_seconds, exchange, on_end):
        if self.gone:
            raise UserError("there is no input 'USB'")
        self.streams.append(Stream(exchange, on_end))
        return self.streams[-1]

    def play(self, engine, clock, sound):
        """Let the device capture ``sound``, in buffers, and the worker convert at once; returns what is heard."""
        heard = []
        for first in range(0, len(sound) - 440, 441):
            clock.now += 0.01
            heard.append(self.streams[-1].exchange(sound[first : first + 441, None]))
            while engine.step():
                pass
        return np.concatenate(heard)


@pytest.fixture
def clock():
    return Clock()


def test_the_engine_plays_the_sound_after_the_delay_that_it_shows(clock):
    card = Card()
    engine = Engine(card, PassThrough(), clock=clock)
    sound = vowel(2)
    heard = card.play(engine, clock, sound)
    delays = engine.status.delays
    assert delays.device == 0.02
    delay = round((delays.total - delays.device) * RATE)
    assert np.array_equal(heard[delay:], sound[: len(heard) - delay])
    assert (engine.status.underruns, engine.status.overruns) == (0, 0)
    engine.stop()
    assert card.streams[-1].state == "closed"


def test_a_lost_device_is_opened_again_without_an_exception_or_a_click(clock):
    card = Card()
    engine = Engine(card, PassThrough(), clock=clock)
    tone = (0.5 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    before = card.play(engine, clock, tone)
    card.gone = True
    card.streams[-1].on_end()
    assert not engine.step() and "USB" in engine.status.notice  # a sentence, and it goes on trying
    clock.now += RETRY / 2
    engine.step()
    assert len(card.streams) == 1
    card.gone = False
    clock.now += RETRY
    engine.step()
    assert len(card.streams) == 2 and engine.status.notice == ""
    after = card.play(engine, clock, tone)
    assert np.abs(np.diff(after)).max() < np.abs(np.diff(tone)).max() + 0.005
    assert np.array_equal(before, after)  # it begins as at first
    assert engine.status.error == ""


def test_a_model_that_was_chosen_while_the_device_was_lost_converts_afterwards(clock):
    card, new = Card(), PassThrough()
    engine = Engine(card, PassThrough(), clock=clock)
    card.gone = True
    card.streams[-1].on_end()
    engine.step()
    engine.replace(new)
    card.gone = False
    clock.now += RETRY
    engine.step()
    card.play(engine, clock, vowel(1))
    assert engine._session.converter is new


def test_a_model_that_is_chosen_while_the_device_is_opened_again_converts_afterwards(clock, monkeypatch):
    card, new = Card(), PassThrough()
    engine = Engine(card, PassThrough(), clock=clock)
    card.streams[-1].on_end()
    monkeypatch.setattr(card, "refresh", lambda: None)
    opened = card.open
    monkeypatch.setattr(card, "open", lambda *given: (engine.replace(new), opened(*given))[1])
    engine.step()
    assert engine._session.converter is new


def test_a_device_that_falls_silent_without_a_word_is_lost_too(clock):
    card = Card()
    engine = Engine(card, PassThrough(), clock=clock)
    card.play(engine, clock, vowel(1))
    clock.now += DEAD + 0.1
    engine.step()
    assert len(card.streams) == 2 and card.streams[0].state == "closed"


def test_counts_survive_a_lost_device(clock):
    card = Card()
    engine = Engine(card, PassThrough(), clock=clock)
    sound = vowel(3)
    for first in range(0, len(sound) - 440, 441):  # a worker that never works
        clock.now += 0.01
        card.streams[-1].exchange(sound[first : first + 441, None])
    engine.step()
    counted = engine.status.underruns, engine.status.overruns
    assert counted[0] == 1 and counted[1] > 5
    card.streams[-1].on_end()
    engine.step()
    card.play(engine, clock, vowel(1))
    assert (engine.status.underruns, engine.status.overruns) == counted


def test_a_computer_that_is_too_slow_gets_a_sentence(clock):
    class Slow(PassThrough):
        def __call__(self, block):
            clock.now += 2 * BLOCK / RATE
            return super().__call__(block)

    card = Card()
    engine = Engine(card, Slow(), clock=clock)
    card.play(engine, clock, vowel(2))
    assert "too slow" in engine.status.notice


def test_silence_does_not_hide_that_a_computer_is_too_slow(clock):
    class Slow(PassThrough):
        def __call__(self, block):
            clock.now += 2 * BLOCK / RATE if block.any() else 0.001
            return super().__call__(block)

    card = Card()
    engine = Engine(card, Slow(), clock=clock)
    card.play(engine, clock, np.concatenate((np.zeros(10 * RATE, np.float32), vowel(2))))
    assert engine.status.usual == pytest.approx(2 * BLOCK / RATE)
    assert "too slow" in engine.status.notice


def test_sound_that_is_not_finite_ends_the_conversion_with_a_sentence(clock):
    class Broken(PassThrough):
        def __call__(self, block):
            return np.full(len(block), np.nan, np.float32)

    card = Card()
    engine = Engine(card, Broken(), clock=clock)
    card.streams[-1].exchange(vowel(1)[:, None])
    engine._work()
    assert "not finite" in engine.status.error and card.streams[-1].state == "closed"


# -- the controller ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    for seed, folder in enumerate(folders):
        small_svc(folder, seed=seed)
    return folders


def test_the_controller_starts_changes_and_stops(models):
    card = Card()
    controller = Controller(lambda settings: card)
    settings = Settings(Conversion("", f0_predictor="pm"), str(models[0] / "G_0.pth"), block=0.1)
    try:
        controller.apply(settings)
        controller.wait()
        assert controller.error == "" and controller.is_running
        assert card.refreshes == 1  # finds a device that was plugged in after the program's start
        first = controller._converter
        settings = replace(settings, conversion=replace(settings.conversion, tran=5))
        controller.apply(settings)
        controller.wait()
        assert controller._converter is first and first._settings[0].tran == 5 and len(card.streams) == 1
        controller.apply(replace(settings, conversion=replace(settings.conversion, spk="bass")))
        controller.wait()
        assert "no speaker 'bass'" in controller.error and controller.is_running
        assert first._settings[0].spk == "alto"
        settings = replace(settings, model_path=str(models[1] / "G_0.pth"))
        controller.apply(settings)
        controller.wait()
        assert controller.error == "" and controller._converter is not first and len(card.streams) == 1
        controller.apply(replace(settings, block=0.2))
        controller.wait()
        assert len(card.streams) == 2 and card.streams[0].state == "closed"
        assert card.refreshes == 2
        controller.stop()
        controller.wait()
        assert not controller.is_running and card.streams[-1].state == "closed"
    finally:
        controller.close()


def test_a_start_is_active_from_the_request_until_it_fails_or_is_stopped(models):
    card, gate = Card(), threading.Event()

    def open_card(settings):
        gate.wait()
        return card

    controller = Controller(open_card)
    settings = Settings(Conversion("", f0_predictor="pm"), str(models[0] / "G_0.pth"), block=0.1)
    try:
        assert not controller.is_active
        controller.apply(settings)
        assert controller.is_active and not controller.is_running
        controller.stop()
        assert not controller.is_active
        card.gone = True
        controller.apply(settings)
        gate.set()
        controller.wait()
        assert controller.error and not controller.is_active
    finally:
        gate.set()
        controller.close()


def test_a_failed_start_is_a_sentence_and_can_be_repeated(models):
    card = Card()
    card.gone = True
    controller = Controller(lambda settings: card)
    settings = Settings(Conversion("", f0_predictor="pm"), str(models[0] / "G_0.pth"), block=0.1)
    try:
        controller.apply(settings)
        controller.wait()
        assert "USB" in controller.error and not controller.is_running
        card.gone = False
        controller.apply(settings)
        controller.wait()
        assert controller.error == "" and controller.is_running
    finally:
        controller.close()


def test_a_named_config_stays_with_its_model(models):
    path, config = str(models[0] / "G_0.pth"), str(models[0] / "config.json")
    settings = Settings(Conversion(""), path, config)
    assert settings.with_model(path).config_path == config
    other = str(models[1] / "G_0.pth")
    assert settings.with_model(other).model == (other, "", None, "auto")
    assert settings.with_model(other).speakers() == Settings(Conversion(""), other).speakers()


@pytest.mark.parametrize("wrong", [{"block": 0.001}, {"block": 11}, {"fixed_delay": -1}, {"fixed_delay": 1000}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} is .*; it must be from"):
        Settings(Conversion(""), **wrong)


# -- sounddevice ------------------------------------------------------------------------------------------------------


def fake_sounddevice(refused=()):
    """A module with two microphones and a loudspeaker; streams at the rates in ``refused`` cannot be opened."""
    names = [("USB mic", 1, 0, 48000), ("Built-in", 2, 2, 44100), ("USB mic two", 1, 0, 16000)]
    devices = [
        {"name": name, "hostapi": 0, "max_input_channels": i, "max_output_channels": o, "default_samplerate": float(r)}
        for name, i, o, r in names
    ]

    class PortAudioError(Exception):
        pass

    class FakeStream:
        def __init__(self, **options):
            if options["samplerate"] in refused:
                raise PortAudioError("Invalid sample rate")
            self.options, self.latency = options, (0.01, 0.02)

        def start(self):
            pass

        def close(self, ignore_errors):
            pass

    module = types.SimpleNamespace(PortAudioError=PortAudioError, Stream=FakeStream)
    module.query_devices = lambda: devices
    module.query_hostapis = lambda: [{"name": "ALSA"}]
    module.default = types.SimpleNamespace(device=(0, 1))
    return module


def test_devices_are_found_by_number_name_and_part_of_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice())
    assert sound_card.find_device(None, "input").number == 0
    assert sound_card.find_device("built", "input").number == 1
    assert sound_card.find_device("2", "input").name.startswith("USB mic two")
    assert sound_card.find_device("USB mic, ALSA", "input").number == 0  # whole names win
    with pytest.raises(UserError, match="more than one input 'usb'"):
        sound_card.find_device("usb", "input")
    with pytest.raises(UserError, match="no output 'USB'"):
        sound_card.find_device("USB", "output")


def test_a_device_stays_the_same_when_its_number_changes(monkeypatch):
    module = fake_sounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    card = sound_card.SoundCard("2", 1)

    def opened():
        numbers = card.open(44100, 0.01, lambda x: x[:, 0], lambda: None)._stream.options["device"]
        return [module.query_devices()[number]["name"] for number in numbers]

    assert opened() == ["USB mic two", "Built-in"]
    module.query_devices().insert(0, module.query_devices().pop())
    assert opened() == ["USB mic two", "Built-in"]
    del module.query_devices()[0]
    with pytest.raises(UserError, match="no input '2 USB mic two, ALSA'"):
        opened()


def test_a_label_tells_devices_of_one_name_apart(monkeypatch):
    module = fake_sounddevice()
    module.query_devices().append(module.query_devices()[0])
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert sound_card.find_device("3 USB mic, ALSA", "input").number == 3
    with pytest.raises(UserError, match="more than one"):
        sound_card.find_device("7 USB mic, ALSA", "input")


def test_a_device_that_refuses_the_models_rate_is_opened_at_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(refused=(44100, 32000)))
    stream = sound_card.SoundCard("USB mic, ALSA", "Built-in").open(32000, 0.01, lambda x: x[:, 0], lambda: None)
    assert (stream.rate, stream.buffer) == (48000, 480) and stream.delay == pytest.approx(0.03)
    played = np.zeros((480, 2), np.float32)
    stream._stream.options["callback"](np.full((480, 1), 0.5, np.float32), played, 480, None, None)
    assert (played == 0.5).all()  # both channels


def test_devices_that_cannot_be_opened_together_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(refused=(44100, 48000)))
    with pytest.raises(UserError, match="USB mic.*Built-in.*Invalid sample rate"):
        sound_card.SoundCard().open(44100, 0.01, lambda x: x, lambda: None)


def test_without_sounddevice_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match="pip install -r requirements-realtime.txt"):
        sound_card.list_devices()


def test_without_portaudio_the_package_is_named(monkeypatch):
    def refuse(name, *others):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *others)

    real = __import__
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr("builtins.__import__", refuse)
    with pytest.raises(UserError, match="libportaudio2"):
        sound_card.list_devices()
