"""WavLM equals torchaudio's on the same weights; no expression of a checkpoint is evaluated."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from modules.console import UserError
from tests.checkpoint_files import wavlm_checkpoint
from tests.torchaudio_networks import from_fairseq, torchaudio_network
from vencoder.wavlm import WavLM, convolutions

SMALL = {"layers": 3, "width": 128, "inner": 96, "convolutions": 24}
DISTANCE = 40


def written(tmp_path, **settings):
    checkpoint = wavlm_checkpoint(4, max_distance=DISTANCE, **SMALL)
    checkpoint["cfg"] |= settings
    torch.save(checkpoint, tmp_path / "wavlm.pt")
    return checkpoint["model"], tmp_path / "wavlm.pt"


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("normalize", [False, True])
def test_layers_equal_an_independent_implementation(tmp_path, layer, normalize):
    """62 frames exceed the exact buckets of relative position, and the last one."""
    weights, path = written(tmp_path, normalize=normalize)
    del weights["mask_emb"]
    network = torchaudio_network(from_fairseq(weights), max_distance=DISTANCE)
    audio = 0.1 + 0.3 * torch.randn(20000, generator=torch.Generator().manual_seed(1))
    normalised = F.layer_norm(audio, audio.shape) if normalize else audio
    with torch.inference_mode():
        wanted = network.extract_features(normalised[None], num_layers=layer)[0][layer - 1][0]
    found = WavLM("small", SMALL["width"], layer, path)(audio)[0].T
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_the_published_way_to_write_convolutions_is_understood():
    published = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    assert convolutions(published, "a.pt") == [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch ran')",
        "[(512, 10, 5)] * 10**9",
        "[(512, 10, 5)] * 999999999",
        "([(512,10,5)] * 100) * 100",
        "[(512, 10)]",
        "[(512, 10, open('x'))]",
        "[lambda: 1]",
        "[" * 5000,
        "",
    ],
)
def test_any_other_text_is_refused_and_not_evaluated(tmp_path, monkeypatch, expression):
    monkeypatch.chdir(tmp_path)
    _, path = written(tmp_path, conv_feature_layers=expression)
    with pytest.raises(UserError, match=r"wavlm\.pt describes its convolutions in a way that is not understood"):
        WavLM("small", SMALL["width"], 3, path)
    assert [file.name for file in tmp_path.iterdir()] == ["wavlm.pt"]


def test_settings_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(UserError, match="its frames are not 20 ms apart"):
        WavLM("small", 128, 3, written(tmp_path, conv_feature_layers="[(24,10,4)] + [(24,3,2)] * 6")[1])
    with pytest.raises(UserError, match="wavlm.pt is damaged: its setting max_distance is a str"):
        WavLM("small", 128, 3, written(tmp_path, max_distance="800")[1])
    torch.save({"model": wavlm_checkpoint(**SMALL)["model"]}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="bare.pt holds WavLM weights without their settings"):
        WavLM("small", 128, 3, tmp_path / "bare.pt")


@pytest.mark.parametrize(
    "expression", ["[(1,2,3)]" + " + [(1,2,3)]" * 50_000, "-" * 200_000 + "1", "(" * 5000, "[" * 10**6]
)
def test_an_endless_expression_is_refused(expression):
    with pytest.raises(UserError, match="not understood") as refused:
        convolutions(expression, "a.pt")
    assert len(str(refused.value)) < 300
