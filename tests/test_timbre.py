"""How far -cr moves the content towards the speaker's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cluster.centres import save_cluster_model
from cluster.index_file import write_indexes
from cluster.retrieval import build_index
from inference.timbre import Timbre
from inference.voices import Voices

SIZE, FRAMES = 6, 4
OWN = {"alto": 1.0, "tenor": 5.0}  # the value of all features that a speaker has


@pytest.fixture(params=["clusters", "retrieval"])
def timbre(request, tmp_path) -> Timbre:
    voices = Voices({"alto": 0, "tenor": 1}, 44100, 512, "", "")
    rows = {name: np.full((10, SIZE), value, np.float32) for name, value in OWN.items()}
    if request.param == "clusters":
        save_cluster_model(tmp_path / "kmeans.pt", rows)
        return Timbre(tmp_path / "kmeans.pt", voices)
    write_indexes(tmp_path / "index.pkl", ((voices.id_of(name), build_index(own)) for name, own in rows.items()))
    return Timbre(tmp_path / "index.pkl", voices, retrieval=True)


@pytest.mark.parametrize("speaker", OWN)
@pytest.mark.parametrize("ratio", [0.25, 1])
def test_content_goes_the_asked_share_of_the_way_to_the_speakers_own(timbre, speaker, ratio):
    units = torch.zeros(SIZE, FRAMES)
    blended = timbre.blend(units, speaker, ratio)
    torch.testing.assert_close(blended, torch.full((SIZE, FRAMES), ratio * OWN[speaker]))
