"""The encoders' networks equal those of the transformers library with the same random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.transformers_library import transformers
from vencoder.wave_convolutions import BLOCK
from vencoder.wave_transformer import Variant, build_network
from vencoder.whisper import MEL_BANDS, WINDOW
from vencoder.whisper_network import WhisperEncoder

TOLERANCE = 1e-5
LAYERS, WIDTH, DISTANCE = 3, 128, 40
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "conv_dim": [24, 20, 16, 24, 28, 20, 32],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 8,
    "attn_implementation": "eager",
}
SAMPLES = 320 * (BLOCK + DISTANCE) + 100


def sound(*shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1]))


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def randomised(network: nn.Module) -> nn.Module:
    """Add noise to every parameter, also to norms and biases, which start at 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def theirs(wavlm: bool, layers: int, **settings: object) -> nn.Module:
    if wavlm:
        settings |= {"num_buckets": 32, "max_bucket_distance": DISTANCE}
    name = "WavLM" if wavlm else "Hubert"
    config = getattr(transformers, f"{name}Config")(**SIZES, num_hidden_layers=layers, **settings)
    return getattr(transformers, f"{name}Model")(config)


@pytest.mark.parametrize("conv_bias", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("wavlm", [False, True])
@torch.inference_mode()
def test_hubert_and_wavlm_equal_transformers_after_every_layer(wavlm, pre_norm, norm, conv_bias):
    """The sound is longer than a block of convolutions, and than WavLM's largest distance."""
    settings = {"feat_extract_norm": norm, "do_stable_layer_norm": pre_norm, "conv_bias": conv_bias}
    weights = randomised(theirs(wavlm, LAYERS, **settings)).state_dict()
    del weights["masked_spec_embed"]
    for layers in range(1, LAYERS + 1):
        oracle = theirs(wavlm, layers, **settings).eval()
        oracle.load_state_dict(weights, strict=False)
        network = build_network(weights, Variant(layers, pre_norm=pre_norm, max_distance=DISTANCE), "a.pt", "HuBERT")
        assert error(network(sound(1, SAMPLES)), oracle(sound(1, SAMPLES)).last_hidden_state) <= TOLERANCE


@torch.inference_mode()
def test_whispers_encoder_equals_transformers():
    sizes = {"d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 96}
    config = transformers.WhisperConfig(num_mel_bins=MEL_BANDS, max_source_positions=WINDOW, **sizes)
    oracle = randomised(transformers.models.whisper.modeling_whisper.WhisperEncoder(config))
    network = WhisperEncoder(MEL_BANDS, WINDOW, WIDTH, layers=2, heads=2, inner=96)
    network.load_state_dict(oracle.state_dict())
    mel = sound(2, MEL_BANDS, 2 * WINDOW)
    assert error(network(mel), oracle(mel).last_hidden_state) <= TOLERANCE
