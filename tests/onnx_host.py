"""An independent host that converts with exported graphs; it uses only ONNX Runtime, numpy and the signatures.

    python onnx_host.py encoder.onnx f0.onnx synthesizer.onnx model.json speaker noise song.wav converted.wav
"""

import json
import sys
import wave
from math import gcd

import numpy as np
import onnxruntime

ENCODER_RATE = 16000


def read_wav(path):
    """Read 16-bit mono: samples in [-1, 1], and the rate."""
    with wave.open(path) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        data = file.readframes(file.getnframes())
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768, file.getframerate()


def write_wav(path, audio, rate):
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(audio * 32768), -32768, 32767).astype("<i2").tobytes())


def resample(audio, rate, target, crossings):
    """Resample with a Hann-windowed sinc that has ``crossings`` zero crossings on each side."""
    cutoff = 0.99 * min(1, target / rate)  # share of the source's bandwidth
    up, down = target // gcd(rate, target), rate // gcd(rate, target)
    reach = int(np.ceil(crossings / cutoff))
    padded = np.pad(audio.astype(np.float64), (reach + 1, reach + 1 + down))
    out = np.empty(-(-len(audio) * up // down))
    offsets = np.arange(-reach, reach + 2)
    for phase in range(up):
        indices = np.arange(phase, len(out), up)
        whole, rest = divmod(phase * down, up)
        t = np.clip((offsets - rest / up) * cutoff, -crossings, crossings)
        kernel = np.sinc(t) * np.cos(t * np.pi / crossings / 2) ** 2 * cutoff
        first = whole + np.arange(len(indices)) * down
        out[indices] = padded[first[:, None] + offsets + reach + 1] @ kernel
    return out.astype(np.float32)


def nearest(count, source):
    """For each of ``count`` frames, the index of the ``source`` frame at its time."""
    return np.arange(count) * source // count


def volume(audio, hop, frames):
    """Root of the mean square around each frame's first sample."""
    power = np.pad(audio**2, (hop // 2, (hop + 1) // 2), mode="reflect")
    return np.sqrt(power[: frames * hop].reshape(frames, hop).mean(1))


class Host:
    def __init__(self, encoder, f0, synthesizer, facts):
        self.encoder, self.pitch, self.synthesizer = map(onnxruntime.InferenceSession, (encoder, f0, synthesizer))
        with open(facts, encoding="utf-8") as file:
            self.facts = json.load(file)

    def f0(self, audio, rate, frames):
        """F0 in Hz, interpolated across unvoiced frames, and voicing."""
        resampled = resample(audio, rate, ENCODER_RATE, 128)[None]
        (curve,) = self.pitch.run(["f0"], {"waveform": resampled})
        curve = curve[0, nearest(frames, curve.shape[1])]
        voiced = np.flatnonzero(curve)
        if not len(voiced):
            return curve, curve
        return np.interp(np.arange(frames), voiced, curve[voiced]), curve > 0

    def convert(self, audio, rate, speaker, noise_scale):
        assert rate == self.facts["Rate"]
        frames = len(audio) // self.facts["Hop"]
        units = self.encoder.run(None, {"source": resample(audio, rate, ENCODER_RATE, 6)[None, None]})[0]
        f0, voiced = self.f0(audio, rate, frames)
        channels = next(one.shape[1] for one in self.synthesizer.get_inputs() if one.name == "noise")
        inputs = {
            "c": units,
            "f0": f0[None].astype(np.float32),
            "mel2ph": 1 + nearest(frames, units.shape[1])[None],
            "uv": voiced[None].astype(np.float32),
            "noise": (noise_scale * np.random.default_rng(0).standard_normal((1, channels, frames))).astype(np.float32),
            "sid": np.array([0], np.int64),
        }
        names = self.facts["Characters"]
        if self.facts["CharaMix"]:
            inputs["sid"] = np.tile(np.array([name == speaker for name in names], np.float32), (frames, 1))
        if self.facts["Volume"]:
            inputs["vol"] = volume(audio, self.facts["Hop"], frames)[None].astype(np.float32)
        return self.synthesizer.run(["audio"], inputs)[0][0, 0]


if __name__ == "__main__":
    *graphs, facts, speaker, noise, song, converted = sys.argv[1:]
    sound, song_rate = read_wav(song)
    write_wav(converted, Host(*graphs, facts).convert(sound, song_rate, speaker, float(noise)), song_rate)
