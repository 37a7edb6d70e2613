"""Pruning equals multiplying by zero: DPHuBERT equals torchaudio's full network with zeros."""

from __future__ import annotations

import pytest
import torch

from modules.console import UserError
from tests.checkpoint_files import dphubert_checkpoint
from tests.torchaudio_networks import torchaudio_network
from vencoder.dphubert import DPHubert

WIDTH, HEADS, INNER = 256, 4, 40
REMAINING = ([1, 3], [], [0, 1, 2])  # heads of three layers
MIDDLE = (40, 24, 0)  # widths of their feed-forward


def whole_and_pruned(wavlm):
    """Return weights of a full network whose parts outside REMAINING add nothing, and a checkpoint without them."""
    all_heads = tuple(list(range(HEADS)) for _ in REMAINING) if wavlm else None
    checkpoint = dphubert_checkpoint(5, WIDTH, (HEADS,) * 3, (INNER,) * 3, remaining=all_heads)
    whole, pruned = dict(checkpoint["state_dict"]), dict(checkpoint["state_dict"])
    for index, (heads, middle) in enumerate(zip(REMAINING, MIDDLE, strict=True)):
        layer = f"encoder.transformer.layers.{index}."
        rows = torch.tensor([64 * head + i for head in heads for i in range(64)], dtype=torch.long)
        _prune(whole, pruned, f"{layer}attention.", "qkv", "out_proj", rows)
        _prune(whole, pruned, f"{layer}feed_forward.", None, "output_dense", torch.arange(middle))
    settings = checkpoint["config"] | ({"encoder_remaining_heads": list(REMAINING)} if wavlm else {})
    return whole, {"state_dict": pruned, "config": settings}


def _prune(whole, pruned, part, letters, out, rows):
    inner = [f"{letter}_proj" for letter in letters] if letters else ["intermediate_dense"]
    zeros = torch.zeros_like(whole[f"{part}{out}.weight"])
    zeros[:, rows] = whole[f"{part}{out}.weight"][:, rows]
    whole[f"{part}{out}.weight"] = zeros
    if len(rows) == 0:
        whole[f"{part}{out}.bias"] = torch.zeros_like(whole[f"{part}{out}.bias"])
        for name in [name for name in pruned if name.startswith(part) and "rel_attn_embed" not in name]:
            del pruned[name]
        return
    pruned[f"{part}{out}.weight"] = pruned[f"{part}{out}.weight"][:, rows]
    for name in inner:
        for kind in ("weight", "bias"):
            pruned[f"{part}{name}.{kind}"] = pruned[f"{part}{name}.{kind}"][rows]


def oracle(whole, audio, wavlm):
    scale = whole.pop("feature_extractor.dummy_weight")
    network = torchaudio_network(whole, max_distance=40 if wavlm else 0)
    network.feature_extractor.register_forward_hook(lambda module, inputs, output: (output[0] * scale, output[1]))
    with torch.inference_mode():
        return network(audio[None])[0][0]


@pytest.mark.parametrize("wavlm", [False, True])
def test_both_flavours_equal_an_independent_implementation(tmp_path, wavlm):
    whole, checkpoint = whole_and_pruned(wavlm)
    torch.save(checkpoint, tmp_path / "dp.pth")
    audio = 0.3 * torch.randn(20000, generator=torch.Generator().manual_seed(1))
    found, wanted = DPHubert("small", WIDTH, None, tmp_path / "dp.pth")(audio)[0].T, oracle(whole, audio, wavlm)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_gates_that_training_left_behind_are_not_used(tmp_path):
    checkpoint = dphubert_checkpoint(width=WIDTH)
    torch.save(checkpoint, tmp_path / "dp.pth")
    gate = "encoder.transformer.layers.0.attention.hard_concrete_for_heads.log_alpha"
    torch.save(checkpoint | {"state_dict": checkpoint["state_dict"] | {gate: torch.ones(4)}}, tmp_path / "gates.pth")
    audio = torch.sin(torch.arange(3000) * 0.1)
    features = [DPHubert("small", WIDTH, None, tmp_path / name)(audio) for name in ("dp.pth", "gates.pth")]
    assert torch.equal(*features)


def test_no_dropout_is_applied_for_any_training_settings(tmp_path):
    checkpoint = dphubert_checkpoint(width=WIDTH)
    checkpoint["config"] |= {"encoder_dropout": 0.5, "encoder_layer_drop": 0.9, "encoder_attention_dropout": 0.5}
    torch.save(checkpoint, tmp_path / "dp.pth")
    encoder = DPHubert("small", WIDTH, None, tmp_path / "dp.pth")
    audio = torch.sin(torch.arange(3000) * 0.1)
    assert torch.equal(encoder(audio), encoder(audio))


@pytest.mark.parametrize(
    ("weights", "settings", "sentence"),
    [
        ({}, {"extractor_mode": "layer_norm"}, "of another kind .extractor_mode is layer_norm"),
        ({}, {"encoder_layer_norm_first": True}, "of another kind .encoder_layer_norm_first is True"),
        ({"encoder.transformer.layers.0.attention.q_proj.weight": torch.zeros(65, WIDTH)}, {}, "65 wide, no multiple"),
        ({"encoder.transformer.layer_norm.bias": None}, {}, "layer_norm.bias is missing"),
        ({"encoder.transformer.pos_conv_embed.conv.weight_g": None}, {}, "the tensor that becomes encoder.pos_conv"),
        ({"encoder.gate": torch.zeros(3)}, {}, r"does not have: encoder.gate \[3\]"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_reason(tmp_path, weights, settings, sentence):
    checkpoint = dphubert_checkpoint(width=WIDTH)
    changed = {k: v for k, v in (checkpoint["state_dict"] | weights).items() if v is not None}
    torch.save({"state_dict": changed, "config": checkpoint["config"] | settings}, tmp_path / "dp.pth")
    with pytest.raises(UserError, match=rf"dp\.pth .*{sentence}"):
        DPHubert("small", WIDTH, None, tmp_path / "dp.pth")


def test_remaining_heads_must_fit_the_tensors(tmp_path):
    _, checkpoint = whole_and_pruned(True)
    checkpoint["config"]["encoder_remaining_heads"] = [[1], [], [0, 1, 2]]
    torch.save(checkpoint, tmp_path / "dp.pth")
    with pytest.raises(UserError, match=r"layer 0 has 2 heads, and its settings name \[1\]"):
        DPHubert("small", WIDTH, None, tmp_path / "dp.pth")
