"""A synthetic singer (source and formant filter) whose F0, voicing and words are known exactly.

A harmonic source (Fant's source-filter theory, 1960) with a known F0 excites the resonances of a vocal tract, which
move from phone to phone; fricatives, plosive bursts and breath are shaped noise. Voices differ in tract length, source
tilt and breath, not in timing or F0: if two voices sing the same notes with the same seed, one song is the perfect
conversion of the other.

    notes = random_phrase(np.random.default_rng(7), seconds=6, low=52, high=64)
    song = sing(BRIGHT, notes, seed=7)          # song.audio, song.f0, song.voiced
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import istft, oaconvolve

SAMPLING_RATE = 44100
HOP_LENGTH = 512  # samples; of the known F0
CONTROL_HOP = 128  # samples between control points, which are interpolated linearly
CONTROL_RATE = SAMPLING_RATE / CONTROL_HOP
ROOM_NOISE = 6e-3  # standard deviation; harmonics have about 1
TOP_HZ = 20000.0  # the harmonics fade out below this, so nothing aliases


@dataclass(frozen=True)
class Voice:
    """The timbre of a singer; independent of the timing and the F0 of a song."""

    formant_scale: float = 1.0  # factor of all resonances; 1 is a tract of 17.5 cm, a shorter tract has more
    tilt: float = 6.0  # dB per octave by which the source falls
    breath: float = 0.2  # aspiration noise: 0 is none, 1 is mostly whisper


DARK = Voice(formant_scale=0.92, tilt=11.0, breath=0.15)
BRIGHT = Voice(formant_scale=1.12, tilt=7.5, breath=0.4)


@dataclass(frozen=True)
class Note:
    """One syllable on one pitch, or a rest if the syllable is empty."""

    pitch: float  # MIDI number; 69 is 440 Hz
    duration: float  # seconds
    syllable: str = "a"  # phones of PHONES: consonants, one vowel, consonants
    vibrato: float = 0.3  # semitones to either side
    gain: float = 1.0


@dataclass(frozen=True)
class Song:
    """A recording and its true F0 and voicing; frame t is at sample t * HOP_LENGTH."""

    audio: np.ndarray  # (L,) float32
    f0: np.ndarray  # (T,) float32 Hz, 0 where unvoiced, T = L // HOP_LENGTH
    voiced: np.ndarray  # (T,) bool
    sampling_rate: int = SAMPLING_RATE


@dataclass(frozen=True)
class Phone:
    """Target values of one phone. Without formants it uses those of the syllable's vowel."""

    formants: tuple[float, ...] = ()  # Hz of the first four resonances at scale 1
    voicing: float = 0.0  # level of the harmonics
    aspiration: float = 0.0  # level of noise filtered by the resonances
    noise: float = 0.0  # level of noise at the constriction, not filtered by the resonances
    centre: float = 1000.0  # Hz; centre frequency of that noise
    width: float = 0.5  # octaves (standard deviation) of that noise
    seconds: float = 0.0  # 0: a vowel, which lasts for the rest of the note
    closed: float = 0.0  # share of the duration that is silent, before the burst of a plosive


PHONES = {
    "a": Phone((750, 1200, 2500, 3500), 0.8),
    "e": Phone((480, 1900, 2600, 3600), 1.0),
    "i": Phone((310, 2250, 2950, 3650), 1.0),
    "o": Phone((470, 850, 2450, 3400), 0.8),
    "u": Phone((340, 720, 2300, 3300), 0.9),
    "m": Phone((280, 1000, 2200, 3300), 0.35, seconds=0.09),
    "n": Phone((280, 1600, 2550, 3400), 0.35, seconds=0.08),
    "l": Phone((380, 1150, 2700, 3500), 0.6, seconds=0.07),
    "y": Phone((290, 2300, 3000, 3700), 0.7, seconds=0.07),
    "w": Phone((320, 650, 2250, 3300), 0.7, seconds=0.07),
    "v": Phone((300, 1200, 2400, 3400), 0.35, noise=0.15, centre=7000, width=1.2, seconds=0.07),
    "z": Phone((300, 1700, 2500, 3500), 0.35, noise=0.4, centre=6500, width=0.35, seconds=0.08),
    "s": Phone(noise=1.2, centre=6500, width=0.35, seconds=0.12),
    "sh": Phone(noise=1.2, centre=3200, width=0.4, seconds=0.12),
    "f": Phone(noise=0.4, centre=7000, width=1.2, seconds=0.10),
    "h": Phone(aspiration=0.8, seconds=0.08),
    "p": Phone(noise=1.0, centre=900, width=0.8, seconds=0.09, closed=0.7),
    "t": Phone(noise=1.5, centre=4500, width=0.6, seconds=0.09, closed=0.7),
    "k": Phone(noise=1.2, centre=1900, width=0.45, seconds=0.09, closed=0.65),
}
VOWELS = "aeiou"
ONSETS = ("", "m", "n", "l", "y", "w", "v", "z", "s", "sh", "f", "h", "p", "t", "k")
CODAS = ("", "", "", "n", "m", "s", "t")
# D major: none of its notes is near a multiple of 86 Hz, the frame rate of the models, where a note could not be
# distinguished from a model's buzz at that rate.
SCALE = (1, 2, 4, 6, 7, 9, 11)


def random_phrase(rng: np.random.Generator, seconds: float, low: float, high: float) -> list[Note]:
    """Make random syllables on a random walk over D major between the MIDI numbers ``low`` and ``high``.

    Lasts at least ``seconds``, with a short rest after every few notes and at both ends.
    """
    pitches = [p for p in range(int(np.ceil(low)), int(high) + 1) if p % 12 in SCALE]
    index = int(rng.integers(len(pitches)))
    notes = [Note(pitches[index], 0.15, "")]
    while sum(note.duration for note in notes) < seconds:
        for _ in range(rng.integers(4, 8)):
            index = int(np.clip(index + rng.integers(-3, 4), 0, len(pitches) - 1))
            syllable = rng.choice(ONSETS) + rng.choice(list(VOWELS)) + rng.choice(CODAS)
            notes.append(
                Note(pitches[index], rng.uniform(0.3, 0.8), syllable, rng.uniform(0.1, 0.5), rng.uniform(0.85, 1.15))
            )
        notes.append(Note(pitches[index], rng.uniform(0.15, 0.35), ""))
    return notes


def sing(voice: Voice, notes: Sequence[Note], seed: int = 0) -> Song:
    """Sing the notes. ``seed`` determines the noises, the vibrato's rate and the drift of the pitch.

    Raises ValueError for a syllable with an unknown phone or not exactly one vowel.
    """
    rng = np.random.default_rng(seed)
    score = _Score(notes)
    f0 = _pitch_contour(notes, score.frames, rng)
    phase, f0_fine = _phase(f0)
    harmonics = _harmonic_sound(voice, score, f0, phase)
    audio = harmonics + _noise_sound(voice, score, phase, rng)
    audio *= 0.6 / max(np.abs(audio).max(), 1e-9)
    samples = np.arange(len(audio) // HOP_LENGTH) * HOP_LENGTH
    voiced = score.voicing[samples // CONTROL_HOP] > 0.1
    known = np.where(voiced, f0_fine[samples], 0.0)
    return Song(audio.astype(np.float32), known.astype(np.float32), voiced)


class _Score:
    """The notes as smooth curves at the control rate: levels (frames,) and resonances (frames, 4) at scale 1."""

    def __init__(self, notes: Sequence[Note]):
        self.frames = max(int(round(sum(note.duration for note in notes) * CONTROL_RATE)), 8)
        self.formants = np.tile(np.asarray(PHONES["a"].formants, float), (self.frames, 1))
        self.voicing, self.aspiration = np.zeros((2, self.frames))
        self.noises: dict[tuple[float, float], np.ndarray] = {}  # (centre, width) -> level
        start = 0.0
        for note in notes:
            if note.syllable:
                self._add(note, start)
            start += note.duration
        self.formants = smooth(self.formants, 0.06)
        self.voicing, self.aspiration = smooth(self.voicing, 0.025), smooth(self.aspiration, 0.02)
        self.noises = {shape: smooth(level, 0.012) for shape, level in self.noises.items()}

    def _add(self, note: Note, start: float) -> None:
        names = spell(note.syllable)
        vowel = next(PHONES[name] for name in names if name in VOWELS)
        consonants = sum(PHONES[name].seconds for name in names)
        squeeze = min(1.0, 0.6 * note.duration / consonants) if consonants else 1.0
        for name in names:
            phone = PHONES[name]
            length = phone.seconds * squeeze or note.duration - consonants * squeeze
            begin, opening, end = (
                int(round((start + length * share) * CONTROL_RATE)) for share in (0.0, phone.closed, 1.0)
            )
            self.formants[begin:] = phone.formants or vowel.formants
            self.voicing[begin:end] = phone.voicing * note.gain
            self.aspiration[begin:end] = phone.aspiration * note.gain
            if phone.noise:
                level = self.noises.setdefault((phone.centre, phone.width), np.zeros(self.frames))
                level[opening:end] = phone.noise * note.gain
            start += length


def spell(syllable: str) -> list[str]:
    """Split a syllable into phones: ``"shon"`` is sh, o, n.

    Raises ValueError unless all are known and exactly one is a vowel.
    """
    names = re.findall("sh|.", syllable)
    unknown = [name for name in names if name not in PHONES]
    if unknown or sum(name in VOWELS for name in names) != 1:
        raise ValueError(f"'{syllable}' is not a syllable of one vowel and the phones {' '.join(PHONES)}")
    return names


def smooth(curve: np.ndarray, seconds: float) -> np.ndarray:
    """Smooth along the first axis with a Hann window of ``seconds``; the ends are padded with the edge values."""
    half = max(int(seconds * CONTROL_RATE / 2), 1)
    window = np.hanning(2 * half + 3)[1:-1]
    padding = [(half, half)] + [(0, 0)] * (curve.ndim - 1)
    padded = np.pad(curve, padding, mode="edge")
    kernel = (window / window.sum()).reshape(-1, *[1] * (curve.ndim - 1))
    return oaconvolve(padded, kernel, mode="valid", axes=0)


def _pitch_contour(notes: Sequence[Note], frames: int, rng: np.random.Generator) -> np.ndarray:
    """Compute F0 (frames,) in Hz at the control rate: smoothed steps, a delayed vibrato, a slow drift."""
    pitch, vibrato = np.zeros(frames), np.zeros(frames)
    begin = 0.0
    for note in notes:
        rows = slice(int(round(begin * CONTROL_RATE)), None)
        pitch[rows] = note.pitch
        age = np.arange(frames)[rows] / CONTROL_RATE - begin
        vibrato[rows] = note.vibrato * np.clip((age - 0.15) / 0.25, 0, 1)
        begin += note.duration
    rate = rng.uniform(5.0, 6.0)
    wave = np.sin(2 * np.pi * (rate * np.arange(frames) / CONTROL_RATE + rng.uniform()))
    drift = smooth(rng.normal(0, 0.3, frames), 0.4)
    semitones = smooth(pitch, 0.09) + smooth(vibrato, 0.05) * wave + drift
    return 440.0 * 2 ** ((semitones - 69) / 12)


def _phase(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the source's phase in cycles and its F0, both per sample (frames * CONTROL_HOP,)."""
    samples = len(f0) * CONTROL_HOP
    fine = np.interp(np.arange(samples) / CONTROL_HOP, np.arange(len(f0)), f0)
    return np.cumsum(fine) / SAMPLING_RATE, fine


@functools.lru_cache(maxsize=8)
def _fixed_response(voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """Compute the response that does not depend on the phones, source tilt and resonances above the fourth.

    Returns frequencies in Hz and complex values.
    """
    frequencies = np.linspace(0, SAMPLING_RATE / 2, 2048)
    response = (1 + 1j * frequencies / 250.0) ** (-voice.tilt / 6.02)
    for number in range(5, 24):
        response = response * _resonance(frequencies, voice.formant_scale * (1000.0 * number - 500.0))
    return frequencies, response / (1 + (frequencies / 14000.0) ** 6)


def _resonance(frequencies: np.ndarray, centre: np.ndarray | float) -> np.ndarray:
    """Compute the transfer function of one pole pair, 1 at 0 Hz; the bandwidth grows with the resonance."""
    bandwidth = 50.0 + 0.04 * centre + 4e-6 * centre**2
    square = centre**2 + bandwidth**2 / 4
    return square / (square - frequencies**2 + 1j * frequencies * bandwidth)


def _tract(voice: Voice, formants: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Compute the complex response (frames, N) of source and tract at ``frequencies`` (frames or 1, N) in Hz."""
    grid, fixed = _fixed_response(voice)
    response = np.interp(frequencies, grid, fixed.real) + 1j * np.interp(frequencies, grid, fixed.imag)
    for column in formants.T:
        response = response * _resonance(frequencies, voice.formant_scale * column[:, None])
    return response


def _harmonic_sound(voice: Voice, score: _Score, f0: np.ndarray, phase: np.ndarray, block: int = 64) -> np.ndarray:
    """Compute the harmonics (L,): a polynomial in e^(2 pi i phase) by Horner's rule, with interpolated coefficients."""
    audio = np.zeros((score.frames, CONTROL_HOP), np.float32)
    turn = np.exp(2j * np.pi * phase).astype(np.complex64).reshape(audio.shape)
    across = np.linspace(0, 1, CONTROL_HOP, endpoint=False, dtype=np.float32)
    for first in range(0, score.frames, block):
        # one more row than the block, as the end of its last interpolation
        rows = np.minimum(np.arange(first, min(first + block, score.frames) + 1), score.frames - 1)
        if not score.voicing[rows].any():
            continue
        numbers = np.arange(1, int(TOP_HZ / f0[rows].min()) + 1)
        frequencies = f0[rows, None] * numbers
        fade = np.clip((TOP_HZ - frequencies) / 2000.0, 0, 1) * score.voicing[rows, None]
        levels = (_tract(voice, score.formants[rows], frequencies) * fade).astype(np.complex64)
        steps = np.diff(levels, axis=0)
        z = turn[rows[:-1]]
        total = np.zeros_like(z)
        for k in reversed(range(len(numbers))):
            total += levels[:-1, k, None] + steps[:, k, None] * across
            total *= z
        audio[rows[:-1]] = total.real
    return audio.reshape(-1)


def _noise_sound(voice: Voice, score: _Score, phase: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compute the noises (L,): breath, modulated by the glottis and filtered by the tract; constrictions; the room."""
    bins = np.fft.rfftfreq(4 * CONTROL_HOP, 1 / SAMPLING_RATE)
    flow = replace(voice, tilt=3.0)  # noise at the glottis does not have the tilt of the harmonics
    tract = np.abs(_tract(flow, score.formants, bins[None]))
    breath = _shaped_noise(tract * voice.breath * score.voicing[:, None], rng)
    power = np.square(tract * score.aspiration[:, None])
    for (centre, width), level in score.noises.items():
        octaves = np.log2(np.maximum(bins, 20.0) / (centre * voice.formant_scale**0.7))
        power += np.square(np.exp(-0.5 * (octaves / width) ** 2) * level[:, None])
    audio = breath * (1 + 0.7 * np.cos(2 * np.pi * phase)) + _shaped_noise(np.sqrt(power), rng)
    return audio + ROOM_NOISE * rng.standard_normal(len(audio), dtype=np.float32)


def _shaped_noise(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make Gaussian noise (frames * CONTROL_HOP,) with the spectrum ``magnitude`` (frames, bins); 1 is variance 1."""
    normal = rng.standard_normal((2, *magnitude.shape), dtype=np.float32)
    size = 2 * (magnitude.shape[1] - 1)
    spectrum = magnitude * (normal[0] + 1j * normal[1]) * np.sqrt(3 / size)
    _, audio = istft(spectrum.T, nperseg=size, noverlap=size - CONTROL_HOP)
    return np.pad(audio, (0, CONTROL_HOP))[: len(magnitude) * CONTROL_HOP]
