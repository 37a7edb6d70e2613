"""HuBERT-Soft equals a network put together here from torch's own transformer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modules.console import UserError
from tests.checkpoint_files import hubertsoft_weights
from vencoder import ENCODERS, build_encoder
from vencoder.hubertsoft import HubertSoft

STRIDES = (5, 2, 2, 2, 2, 2, 2)


@torch.inference_mode()
def soft_units(weights, audio, width=64, layers=12):
    """(L,) -> (N, 256), as B. van Niekerk et al. describe it."""
    x = F.pad(audio, (40, 40))[None, None]
    for i, stride in enumerate(STRIDES):
        x = F.conv1d(x, weights[f"feature_extractor.conv{i}.weight"], stride=stride)
        if i == 0:
            scale, shift = (weights[f"feature_extractor.norm0.{kind}"] for kind in ("weight", "bias"))
            x = F.group_norm(x, x.shape[1], scale, shift)
        x = F.gelu(x)
    x = x.transpose(1, 2)
    part = "feature_projection"
    x = F.layer_norm(x, x.shape[-1:], weights[f"{part}.norm.weight"], weights[f"{part}.norm.bias"])
    x = F.linear(x, weights[f"{part}.projection.weight"], weights[f"{part}.projection.bias"])
    kernel = torch._weight_norm(*(weights[f"positional_embedding.conv.weight_{letter}"] for letter in "vg"), dim=2)
    padding, groups = kernel.shape[2] // 2, width // kernel.shape[1]
    shift = weights["positional_embedding.conv.bias"]
    places = F.conv1d(x.transpose(1, 2), kernel, shift, padding=padding, groups=groups)
    x = x + F.gelu(places[..., :-1]).transpose(1, 2)
    x = F.layer_norm(x, (width,), weights["norm.weight"], weights["norm.bias"])
    layer = nn.TransformerEncoderLayer(width, width // 64, 64, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()
    own = {name[8:]: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    encoder.load_state_dict(own)
    return F.linear(encoder(x)[0], weights["proj.weight"], weights["proj.bias"])


@pytest.mark.parametrize("samples", [330, 640, 8000])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_units_equal_an_independent_implementation(tmp_path, samples, prefix):
    weights = hubertsoft_weights(3)
    saved = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    torch.save(saved, tmp_path / ENCODERS["hubertsoft"].weight)
    audio = 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    found, wanted = build_encoder("hubertsoft", folder=tmp_path)(audio)[0].T, soft_units(weights, audio)
    assert found.shape == wanted.shape == (samples // 320, 256)
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"proj.weight": None}, "no final_proj"),
        ({"encoder.layers.3.norm1.bias": None}, "layers.3.layer_norm.bias is missing"),
        ({"encoder.layers.3.norm3.bias": torch.zeros(2)}, r"does not have: encoder.layers.3.norm3.bias \[2\]"),
        ({"proj.weight": torch.zeros(40, 64), "proj.bias": torch.zeros(40)}, "40 features a frame, not 256"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_tensor(tmp_path, change, sentence):
    changed = {name: tensor for name, tensor in (hubertsoft_weights() | change).items() if tensor is not None}
    torch.save(changed, tmp_path / "soft.pt")
    with pytest.raises(UserError, match=rf"soft\.pt .*{sentence}"):
        HubertSoft("hubertsoft", 256, 12, tmp_path / "soft.pt")
