"""Similarity of voices, by the speaker encoder of Resemblyzer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from evaluation.judges import JUDGE_RATE, Judge

SILENCE_DB = 40.0  # sound this far below the loudest frame is cut out before embedding
SHORTEST = 0.4  # seconds; if less is left, nothing is cut out


class SpeakerEncoder(Judge):
    """L. Wan et al., "Generalized end-to-end loss for speaker verification" (2018), with the weights of Resemblyzer.

    An opinion is the embedding (256,) of the sound's voice. Silence is cut out by level, not by the package's voice
    activity detector, which is made for speech and cuts out sung notes. The network rates artefacts of a vocoder as
    another voice, so the ceiling of a model is its target converted to itself.
    """

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that its dependencies deprecate
            from resemblyzer import VoiceEncoder
        self.encoder = VoiceEncoder("cpu", verbose=False)

    def __call__(self, audio: np.ndarray) -> list[float]:
        import librosa

        spans = librosa.effects.split(audio, top_db=SILENCE_DB, frame_length=1024, hop_length=256)
        sounding = np.concatenate([audio[start:end] for start, end in spans]) if len(spans) else audio[:0]
        if len(sounding) < SHORTEST * JUDGE_RATE:
            sounding = audio
        return [round(float(value), 7) for value in self.encoder.embed_utterance(sounding)]


def mean_embedding(embeddings: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the mean of embeddings (N, D), scaled to length 1 (D,)."""
    mean = np.mean(np.asarray(embeddings, np.float64), axis=0)
    return mean / max(np.linalg.norm(mean), 1e-12)


def similarity(embedding: Sequence[float], target: Sequence[float]) -> float:
    """Return the cosine of the angle between two embeddings (D,)."""
    first, second = np.asarray(embedding, np.float64), np.asarray(target, np.float64)
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12))


def leave_one_out(embeddings: Sequence[Sequence[float]]) -> list[float]:
    """Return each embedding's similarity to the mean of the others; nothing for fewer than two."""
    if len(embeddings) < 2:
        return []
    array = np.asarray(embeddings, np.float64)
    return [similarity(array[i], mean_embedding(np.delete(array, i, axis=0))) for i in range(len(array))]


def split_half(embeddings: Sequence[Sequence[float]]) -> float | None:
    """Return the similarity of the means of every other embedding and of the rest; None for fewer than two."""
    if len(embeddings) < 2:
        return None
    return similarity(mean_embedding(embeddings[0::2]), mean_embedding(embeddings[1::2]))
