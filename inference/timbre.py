"""Blends content with the speaker's own from training: the nearest cluster centre, or nearest neighbours."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from inference.voices import Voices


class Timbre:
    """The cluster centres of ``kmeans_10000.pt`` or, with ``retrieval``, the index of ``feature_and_index.pkl``.

    ``nprobe`` is how many lists of the index a search visits; None for as many as it needs. Raises UserError if the
    file is missing, damaged, of another kind or of other voices.
    """

    def __init__(self, path: str | Path, voices: Voices, retrieval: bool = False, nprobe: int | None = 1):
        self.voices = voices
        self.index = self.clusters = None
        if retrieval:  # imported here: it needs faiss, which most conversions do not use
            from cluster.retrieval import load_feature_index

            self.index = load_feature_index(path, nprobe)
            self.index.check_speakers(voices.spk2id)
        else:
            from cluster.centres import load_cluster_model

            self.clusters = load_cluster_model(path)

    def blend(self, units: Tensor, speaker: str | int, ratio: float) -> Tensor:
        """Move content units (C, T) towards the speaker's own by the share ``ratio``, 0 to 1.

        Raises UserError if the file has no features of this speaker, or features of another size.
        """
        frames = units.t()
        if self.index is not None:
            own = self.index.neighbours(frames, self.voices.id_of(speaker))
        else:
            own = self.clusters.nearest(frames, self.voices.name_of(speaker))
        return (ratio * own + (1 - ratio) * frames).t()
