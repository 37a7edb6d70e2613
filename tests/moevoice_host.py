"""A host with the calls of MoeVoiceStudio: its folders, file names, inputs, their order, types and shapes.

Written from a description of that program's calls, as an oracle that is independent of this program: it imports ONNX
Runtime, numpy, and faiss for indexes. Where the description leaves the way open, it is plain: resampling is linear
interpolation, and the volume is the RMS of equal parts.
"""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import onnxruntime

RATE = 48000  # of songs
NETWORK_RATE = 16000  # of what the encoder, the pitch networks and the mel graph read
NOISE_CHANNELS = 192  # fixed in the program
KMEANS_HEADER = 128  # bytes
MEL_FRAMES = 100  # a second; the places that aligment numbers


# -- arrays -----------------------------------------------------------------------------------------------------------


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    count = len(audio) * target // rate
    return np.interp(np.arange(count) * rate / target, np.arange(len(audio)), audio).astype(np.float32)


def linear(curve: np.ndarray, count: int) -> np.ndarray:
    """Interpolate a curve linearly over the number of its values."""
    return np.interp(np.linspace(0, len(curve) - 1, count), np.arange(len(curve)), curve).astype(np.float32)


def places(frames: int, units: int) -> np.ndarray:
    """Number the unit of each frame from 1 on: unit i + 1 ends with frame round(i * d + d), d = frames / units."""
    vector, first, d = np.zeros(frames + 1, np.int64), 0, frames / units
    for unit in range(units):
        last = int(np.floor(unit * d + d + 0.5))
        vector[first : last + 1] = unit + 1
        first = last + 1
    return vector[:frames]


def interpolated(f0: np.ndarray) -> np.ndarray:
    """Interpolate F0 across unvoiced frames."""
    voiced = np.flatnonzero(f0)
    return np.interp(np.arange(len(f0)), voiced, f0[voiced]).astype(np.float32) if len(voiced) else f0


def volume(audio: np.ndarray, frames: int) -> np.ndarray:
    parts = np.array_split(audio.astype(np.float64), frames)
    return np.array([np.sqrt(np.mean(part**2)) for part in parts], np.float32)


def call(session: onnxruntime.InferenceSession, output: str, **inputs: np.ndarray) -> np.ndarray:
    return session.run([output], inputs)[0]


def load(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# -- pitch networks ---------------------------------------------------------------------------------------------------


def f0_of(root: Path, method: str, audio: np.ndarray, frames: int) -> np.ndarray:
    """Return F0 in Hz, 0 where unvoiced, in ``frames`` frames of a song; ``method`` is RMVPE or MELPE."""
    waveform = resample(audio, RATE, NETWORK_RATE)[None]
    threshold = {"threshold": np.array([0.03], np.float32)} if method == "RMVPE" else {}
    f0 = call(load(root / "F0Predictor" / f"{method}.onnx"), "f0", waveform=waveform, **threshold)
    return linear(f0.reshape(-1), frames)


# -- timbre -----------------------------------------------------------------------------------------------------------


class KMeans:
    """``KMeans.npy``: ``length`` centres a speaker, one speaker after the other."""

    def __init__(self, folder: Path, size: int, length: int):
        data = (folder / "KMeans.npy").read_bytes()[KMEANS_HEADER:]
        self.centres = np.frombuffer(data, "<f4").reshape(-1, length, size)

    def find(self, units: np.ndarray, speaker: int) -> np.ndarray:
        centres = self.centres[speaker]
        return centres[((units[:, None] - centres) ** 2).sum(-1).argmin(1)]


class Index:
    """``Index-0.index``, ``Index-1.index``, ... until one is missing; the number is the speaker's place."""

    def __init__(self, folder: Path, size: int, length: int):
        self.indexes = []
        while (path := folder / f"Index-{len(self.indexes)}.index").is_file():
            index = faiss.read_index(str(path))
            assert index.d == size
            self.indexes.append((index, index.reconstruct_n(0, index.ntotal)))

    def find(self, units: np.ndarray, speaker: int) -> np.ndarray:
        index, vectors = self.indexes[speaker]
        distances, numbers = index.search(units, 8)
        found = numbers >= 0
        weights = np.where(found, 1 / np.where(found, distances, 1) ** 2, 0)
        return np.einsum("tk,tkc->tc", weights / weights.sum(1, keepdims=True), vectors[numbers]).astype(np.float32)


TIMBRES = {"KMeans": KMeans, "Index": Index}


# -- models -----------------------------------------------------------------------------------------------------------


class Model:
    """What synthesizer and diffusion model have in common: the JSON, and the encoder of the units."""

    def __init__(self, root: Path, name: str):
        self.root, self.name = root, name
        self.facts = facts = json.loads((root / "Models" / f"{name}.json").read_text(encoding="utf-8"))
        self.folder = root / "Models" / facts["Folder"]
        self.encoder = load(root / "hubert" / f"{facts['Hubert']}.onnx")
        self.size = facts.get("HiddenSize", 256)
        self.speakers = len(facts["Characters"])

    def part(self, ending: str) -> onnxruntime.InferenceSession:
        return load(self.folder / f"{self.facts['Folder']}_{ending}.onnx")

    def frames(self, samples: int) -> int:
        return samples * self.facts["Rate"] // RATE // self.facts["Hop"]

    def units(self, audio: np.ndarray) -> np.ndarray:
        units = call(self.encoder, "embed", source=resample(audio, RATE, NETWORK_RATE)[None, None])
        assert units.shape[2] == self.size, "HiddenUnitKDims UnMatch"
        return units

    def speaker(self, speaker: int | np.ndarray, frames: int) -> np.ndarray:
        """Return the speaker's number, or with ``CharaMix`` the weights of all; ``speaker`` may be weights."""
        if not self.facts["CharaMix"]:
            return np.array([speaker], np.int64)
        weights = np.eye(self.speakers)[speaker] if isinstance(speaker, int) else speaker
        return np.tile(weights.astype(np.float32), (frames, 1))


class Synthesizer(Model):
    def __init__(self, root: Path, name: str):
        super().__init__(root, name)
        self.graph = self.part("SoVits")
        assert len(self.graph.get_inputs()) > 4, "a graph with four inputs is taken for so-vits 2"
        kind = self.facts["Cluster"]
        length = self.facts.get("KMeansLength", 10000)
        self.timbre = TIMBRES[kind](self.folder, self.size, length) if kind else None

    def sing(
        self,
        audio: np.ndarray,
        f0: np.ndarray,
        speaker: int | np.ndarray = 0,
        noise_scale: float = 0.0,
        timbre_rate: float = 0.0,
    ) -> np.ndarray:
        """Convert a slice of 48 kHz with the F0 of its frames: audio (1, 1, L)."""
        units, frames = self.units(audio), self.frames(len(audio))
        if self.timbre and timbre_rate > 0.001:
            units = (1 - timbre_rate) * units + timbre_rate * self.timbre.find(units[0], speaker)[None]
        noise = np.random.default_rng(0).standard_normal((1, NOISE_CHANNELS, frames)) * noise_scale
        inputs = {
            "c": units.astype(np.float32),
            "f0": interpolated(f0)[None],
            "mel2ph": places(frames, units.shape[1])[None],
            "uv": (f0 > 0.001).astype(np.float32)[None],
            "noise": noise.astype(np.float32),
            "sid": self.speaker(speaker, frames),
        }
        if self.facts["Volume"]:
            inputs["vol"] = volume(audio, frames)[None]
        return call(self.graph, "audio", **inputs)

    def song(self, audio: np.ndarray, slices: list[tuple[int, int, bool]], method: str, speaker: int = 0) -> np.ndarray:
        """Convert the slices (first sample, last, whether it sings) one by one; the others are silence."""
        parts = []
        for first, last, sings in slices:
            length = (last - first) * self.facts["Rate"] // RATE
            part = np.zeros(length, np.float32)
            if sings:
                piece = audio[first:last]
                sound = self.sing(piece, f0_of(self.root, method, piece, self.frames(len(piece))), speaker)[0, 0]
                part[: len(sound)] = sound[:length]
            parts.append(part)
        return np.concatenate(parts)

    def refine(self, audio: np.ndarray, sound: np.ndarray, f0: np.ndarray, steps: int, speaker: int = 0) -> np.ndarray:
        """Refine the ``sound`` of a slice by the model that ``ShallowDiffusion`` names."""
        diffusion = Diffusion(self.root, self.facts["ShallowDiffusion"])
        rate, hop = diffusion.facts["Rate"], diffusion.facts["Hop"]
        waveform = resample(sound[0, 0], self.facts["Rate"], NETWORK_RATE)
        frames = len(waveform) * rate // NETWORK_RATE // hop
        aligment = places(frames, -(-len(waveform) * MEL_FRAMES // NETWORK_RATE))
        graph = load(self.root / f"MelOps{self.facts.get('MelOperator', '')}.onnx")
        mel = call(graph, "mel", waveform=waveform[None, None], aligment=aligment[None])
        return diffusion.sing(audio, linear(f0, frames), speaker, steps, mel)


class Diffusion(Model):
    def __init__(self, root: Path, name: str):
        super().__init__(root, name)
        assert self.facts["Diffusion"] is True
        self.graphs = {ending: self.part(ending) for ending in ("encoder", "denoise", "pred", "after")}
        self.vocoder = load(root / "hifigan" / f"{self.facts['Hifigan']}.onnx")

    def sing(
        self,
        audio: np.ndarray,
        f0: np.ndarray,
        speaker: int | np.ndarray = 0,
        steps: int = 1000,
        mel: np.ndarray | None = None,
        speedup: int = 10,
    ) -> np.ndarray:
        """Convert a slice of 48 kHz, from noise or from a ``mel`` spectrogram: audio (1, 1, L)."""
        condition = self.condition(self.units(audio), audio, interpolated(f0), speaker)
        if mel is None:
            x = np.random.default_rng(0).standard_normal((1, 1, self.facts["MelBins"], len(f0))).astype(np.float32)
        else:
            low, high = self.facts["SpecMin"], self.facts["SpecMax"]
            x = ((mel - low) / (high - low) * 2 - 1).reshape(1, 1, self.facts["MelBins"], len(f0))
        mel = call(self.graphs["after"], "mel_out", x=self.sample(x, condition, steps, speedup))
        return call(self.vocoder, "audio", c=mel, f0=interpolated(f0)[None])

    def condition(self, units: np.ndarray, audio: np.ndarray, f0: np.ndarray, speaker: int | np.ndarray) -> np.ndarray:
        inputs = {"hubert": units, "mel2ph": places(len(f0), units.shape[1])[None], "f0": f0[None]}
        if self.facts["Volume"]:
            inputs["volume"] = volume(audio, len(f0))[None]
        inputs["spk_mix"] = self.speaker(speaker, len(f0))
        graph = self.graphs["encoder"]
        passed = dict(list(inputs.items())[: len(graph.get_inputs())])  # at most as many as the graph has
        return call(graph, "mel_pred", **passed)

    def sample(self, x: np.ndarray, condition: np.ndarray, steps: int, speedup: int) -> np.ndarray:
        """Run PLMS from ``steps`` down to 0."""

        def denoise(x: np.ndarray, step: int) -> np.ndarray:
            return call(self.graphs["denoise"], "noise_pred", noise=x, time=np.array([step]), condition=condition)

        def move(x: np.ndarray, noise: np.ndarray, step: int, there: int) -> np.ndarray:
            times = {"time": np.array([step]), "time_prev": np.array([there])}
            return call(self.graphs["pred"], "noise_pred_o", noise=x, noise_pred=noise.astype(np.float32), **times)

        history = []
        for step in range(steps - speedup, -1, -speedup):
            there = max(step - speedup, 0)
            history = [denoise(x, step), *history[:3]]
            if len(history) == 1:
                noise = (history[0] + denoise(move(x, history[0], step, there), there)) / 2
            elif len(history) == 2:
                noise = (3 * history[0] - history[1]) / 2
            elif len(history) == 3:
                noise = (23 * history[0] - 16 * history[1] + 5 * history[2]) / 12
            else:
                noise = (55 * history[0] - 59 * history[1] + 37 * history[2] - 9 * history[3]) / 24
            x = move(x, noise, step, there)
        return x
