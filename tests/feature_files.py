"""Speakers' folders with only feature files, for tests of clusters and indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from modules.data.features import ClipFiles


def write_features(folder: Path, features: np.ndarray, clips: int = 2) -> None:
    """The rows of ``features`` (N, C) as the units of a few clips."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(features, clips)):
        ClipFiles(folder / f"空 {index}.wav").write_units(torch.from_numpy(part.T.copy())[None])
