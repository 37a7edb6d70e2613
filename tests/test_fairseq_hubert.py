"""HuBERT from a fairseq checkpoint equals torchaudio's HuBERT on the same weights; wrong files are named."""

from __future__ import annotations

import pytest
import torch

from modules.console import UserError
from tests.checkpoint_files import LAYOUTS, contentvec_weights, write_fairseq_checkpoint
from tests.torchaudio_networks import from_fairseq, torchaudio_network
from vencoder import build_encoder
from vencoder.encoder import frame_count
from vencoder.fairseq_hubert import FairseqHubert, ProjectedFairseqHubert

SMALL = {"layers": 12, "width": 128, "inner": 96, "convolutions": 24, "positions": 16, "final": 256}
FILE = "checkpoint_best_legacy_500.pt"


@pytest.fixture(scope="module")
def weights():
    return contentvec_weights(5, **SMALL)


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
    return write_fairseq_checkpoint(tmp_path_factory.mktemp("pretrain") / FILE, weights)


def without_training(weights):
    unused = ("mask_emb", "label_embs_concat", "final_proj")
    return {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}


@pytest.fixture(scope="module")
def oracle(weights):
    """torchaudio's network with the same weights: audio (L,), layer -> (N, C)."""
    network = torchaudio_network(from_fairseq(without_training(weights)))

    @torch.inference_mode()
    def features(audio, layer):
        return network.extract_features(audio[None], num_layers=layer)[0][layer - 1][0]

    return features


@pytest.mark.parametrize(("samples", "loudness"), [(400, 0.3), (5000, 0.003), (16000, 0.3)])
@pytest.mark.parametrize("layer", [1, 9, 12])
def test_layers_equal_an_independent_implementation(path, oracle, layer, samples, loudness):
    audio = loudness * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    encoder = FairseqHubert("small", SMALL["width"], layer, path)
    found, wanted = encoder(audio)[0].T, oracle(audio, layer)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_the_large_layout_ends_with_its_final_norm(tmp_path):
    sizes = {"layers": 3, "width": 128, "inner": 96, "convolutions": 24, "large": True}
    weights = contentvec_weights(7, **sizes)
    audio = 0.3 * torch.randn(9000, generator=torch.Generator().manual_seed(2))
    path = write_fairseq_checkpoint(tmp_path / "large.pt", weights)
    found = FairseqHubert("cnhubertlarge", sizes["width"], sizes["layers"], path)(audio)[0].T
    with torch.inference_mode():
        wanted = torchaudio_network(from_fairseq(without_training(weights)), large=True)(audio[None])[0][0]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_layer_9_is_projected_by_the_files_own_matrix(path, oracle, weights):
    audio = 0.3 * torch.randn(8000, generator=torch.Generator().manual_seed(1))
    encoder = build_encoder("vec256l9", folder=path.parent)
    wanted = oracle(audio, 9) @ weights["final_proj.weight"].T + weights["final_proj.bias"]
    assert (encoder.key, encoder.ssl_dim, encoder.sampling_rate) == ("vec256l9", 256, 16000)
    assert (encoder(audio)[0].T - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_only_the_layers_that_are_needed_are_kept(path):
    assert len(FairseqHubert("small", SMALL["width"], 9, path).network.encoder.layers) == 9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_half_precision_storage_give_the_same_features(tmp_path, weights, layout):
    audio = torch.sin(torch.arange(3000) * 0.1)
    half = {name: tensor.half() for name, tensor in weights.items()}
    stored_half = write_fairseq_checkpoint(tmp_path / "half.pt", half, layout)
    same_values = write_fairseq_checkpoint(tmp_path / "float.pt", {name: t.float() for name, t in half.items()})
    features = [FairseqHubert("small", SMALL["width"], 2, path)(audio) for path in (stored_half, same_values)]
    assert features[0].dtype == torch.float32
    assert torch.equal(*features)


@pytest.mark.parametrize("samples", [1, 399, 400, 719, 720, 16000])
def test_frame_counts_follow_the_rule_and_short_sound_gives_one_frame(path, samples):
    audio = torch.ones(samples) * 0.1
    frames = FairseqHubert("small", SMALL["width"], 1, path)(audio)
    assert frames.shape == (1, SMALL["width"], frame_count(samples))
    assert frames.isfinite().all()


def test_sound_that_cannot_be_encoded_is_refused(path):
    encoder = FairseqHubert("small", SMALL["width"], 1, path)
    with pytest.raises(UserError, match="no samples"):
        encoder(torch.zeros(0))
    with pytest.raises(UserError, match="not finite"):
        encoder(torch.tensor([0.0, float("nan")] * 300))
    with pytest.raises(ValueError, match="mono"):
        encoder(torch.zeros(2, 800))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoder.layers.1.fc1.bias": None}, "does not hold a whole HuBERT: .*1.feed_forward.*bias is missing"),
        ({"encoder.pos_conv.0.weight_v": None}, "lacks the tensor that becomes encoder.pos_conv_embed"),
        ({"encoder.layers.0.gate": torch.zeros(2)}, r"does not have: encoder.layers.0.gate \[2\]"),
        ({"layer_norm.weight": torch.zeros(7)}, r"layer_norm.weight is \[7\] and should be \[24\]"),
        ({"final_proj.bias": None}, "no final_proj"),
        ({"final_proj.weight": torch.zeros(40, 128), "final_proj.bias": torch.zeros(40)}, "40 features .*, not 256"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_tensor(tmp_path, weights, change, sentence):
    changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    path = write_fairseq_checkpoint(tmp_path / "a.pt", changed)
    with pytest.raises(UserError, match=rf"a\.pt .*{sentence}"):
        ProjectedFairseqHubert("vec256l9", 256, 9, path)


def test_too_few_layers_and_another_size_are_named(path):
    with pytest.raises(UserError, match="has 12 transformer layers; this encoder takes the features of layer 13"):
        FairseqHubert("small", SMALL["width"], 13, path)
    with pytest.raises(UserError, match="speech encoder 'vec768l12': it gives 128 features a frame, not 768"):
        build_encoder("vec768l12", folder=path.parent)
