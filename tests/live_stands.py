"""Stand-ins for tests of the live conversion."""

from __future__ import annotations

import numpy as np
import torch

from inference.svc import Svc
from live.durations import Durations
from live.session import Session
from live.simulation import Simulation
from tests.generator_files import config_of, stirred, write_generator_file
from vencoder.encoder import HOP_LENGTH, WINDOW_LENGTH, SpeechEncoder

RATE, BLOCK, BUFFER = 44100, 11264, 441


class PassThrough:
    """A converter that returns its input, without look-ahead."""

    def __init__(self, rate=RATE, block=BLOCK, look_ahead=0):
        self.rate, self.block, self.look_ahead = rate, block, look_ahead
        self.skipped = 0
        self._late = np.zeros(look_ahead, np.float32)

    def __call__(self, block):
        self._late = np.concatenate((self._late, block))
        out, self._late = self._late[: len(block)], self._late[len(block) :]
        return out

    def skip(self, sound):
        self.skipped += len(sound)

    def recent_sound(self):
        return np.zeros(0, np.float32)

    def reset(self):
        pass


def durations(*seconds):
    measured = Durations()
    for one in seconds:
        measured.add(one)
    return measured


def simulate(sound, seconds, converter=None, rate=RATE, buffer=BUFFER, calibration=(0.05,), **options):
    """Run a pass-through in virtual time, ``seconds(number)`` per block; returns the output and the session."""
    session = Session(converter or PassThrough(), rate, buffer, durations(*calibration), **options)
    simulation = Simulation(session, rate, buffer, lambda number, measured: seconds(number))
    return np.concatenate(list(simulation.run(sound))), session


class LocalEncoder(SpeechEncoder):
    """An encoder whose units depend on their 25 ms alone: a fixed random projection."""

    def __init__(self, ssl_dim=72):
        super().__init__("local", ssl_dim)
        generator = torch.Generator().manual_seed(0)
        window = torch.hann_window(WINDOW_LENGTH)
        self.matrix = torch.randn(ssl_dim, WINDOW_LENGTH, generator=generator) * window / 4

    def features(self, audio):
        return torch.tanh(self.matrix @ audio.unfold(0, WINDOW_LENGTH, HOP_LENGTH).T)


def small_svc(folder, local=True, seed=0, **model):
    """Load a small model with random weights that change the sound strongly.

    With ``local`` nothing in it reaches further than its convolutions: its attention is off, and its encoder is a
    LocalEncoder.
    """
    config = config_of(ssl_dim=72, **model)
    weights = stirred(write_generator_file(folder / "G_0.pth", config, seed))
    if local:
        for name, tensor in weights.items():
            if name.startswith("enc_p.enc_.attn_layers") and ".conv_o." in name:
                tensor.zero_()
    torch.save({"model": weights, "iteration": 1, "optimizer": None, "learning_rate": 1e-4}, folder / "G_0.pth")
    svc = Svc(folder / "G_0.pth", folder / "config.json", "cpu")
    if local:
        svc.feature_extractor.encoder = LocalEncoder()
    return svc


def vowel(seconds, hz=180.0, vibrato=0.02, rate=RATE, glide=0.0):
    """A voiced sound: ten harmonics with vibrato, ``glide`` Hz higher after each second."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (hz * (t - vibrato / (2 * np.pi * 5) * np.cos(2 * np.pi * 5 * t)) + glide / 2 * t**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 11))
    return (0.15 * tone * (1 + 0.3 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def convert_all(converter, sound):
    """Convert a whole sound in blocks; what does not fill a block is left out."""
    count = len(sound) // converter.block
    return np.concatenate([converter(block) for block in sound[: count * converter.block].reshape(count, -1)])
