from __future__ import annotations

import math

import pytest
import torch

from modules.layers import attention
from modules.layers.attention import CausalEncoder, CausalSelfAttention, RelativeEncoder, WindowedSelfAttention
from modules.layers.wavenet import gated


def by_the_definition(net, x, mask):
    """Windowed relative attention, one query, key and head at a time, in float64."""
    net, x = net.double(), x.double()
    q, k, v = net.conv_q(x), net.conv_k(x), net.conv_v(x)
    batch, channels, frames = x.shape
    depth = channels // net.n_heads
    out = torch.zeros_like(x)
    for b in range(batch):
        for h in range(net.n_heads):
            rows = slice(h * depth, (h + 1) * depth)
            for i in range(frames):
                scores = torch.empty(frames, dtype=torch.float64)
                for j in range(frames):
                    key = k[b, rows, j]
                    if abs(j - i) <= net.window:
                        key = key + net.emb_rel_k[0, j - i + net.window]
                    scores[j] = q[b, rows, i] @ key / math.sqrt(depth) if mask[b, 0, j] else -1e4
                weights = scores.softmax(0)
                for j in range(frames):
                    value = v[b, rows, j]
                    if abs(j - i) <= net.window:
                        value = value + net.emb_rel_v[0, j - i + net.window]
                    out[b, rows, i] += weights[j] * value
    return net.conv_o(out)


@pytest.mark.parametrize("frames", [1, 3, 11])
def test_windowed_attention_equals_its_definition(frames):
    net = WindowedSelfAttention(8, 2, window=4).eval()
    x = torch.randn(2, 8, frames)
    mask = torch.ones(2, 1, frames)
    mask[1, :, (frames + 1) // 2 :] = 0
    got = net(x, mask)
    torch.testing.assert_close(got.double(), by_the_definition(net, x, mask), rtol=1e-5, atol=1e-5)


def test_the_window_is_the_four_frames_to_each_side_of_vits():
    net = RelativeEncoder(8, 16, 2, 2, 3, 0.0).eval()
    for layer in net.attn_layers:
        assert layer.emb_rel_k.shape == layer.emb_rel_v.shape == (1, 4 + 1 + 4, 8 // 2)


@pytest.mark.parametrize("stack", [RelativeEncoder, CausalEncoder])
def test_without_gradients_groups_of_queries_equal_one_pass(stack, monkeypatch):
    net = stack(8, 16, 2, 2, 3, 0.1).eval()
    x, mask = torch.randn(2, 8, 37), torch.ones(2, 1, 37)
    mask[1, :, 30:] = 0
    wanted = net(x, mask).detach()
    rows = []
    for kind in (WindowedSelfAttention, CausalSelfAttention):

        def noted(self, q, *rest, attend=kind.attend):
            rows.append(q.shape[2])
            return attend(self, q, *rest)

        monkeypatch.setattr(kind, "attend", noted)
    monkeypatch.setattr(attention, "MOST_SCORES", 37 * 5)
    with torch.inference_mode():
        torch.testing.assert_close(net(x, mask), wanted, rtol=1e-5, atol=1e-5)
    assert rows == [5, 5, 5, 5, 5, 5, 5, 2] * 2


@pytest.mark.parametrize("stack", [RelativeEncoder, CausalEncoder])
def test_padding_changes_no_real_frame(stack):
    net = stack(8, 16, 2, 2, 3, 0.1).eval()
    x = torch.randn(1, 8, 20)
    alone = net(x, torch.ones(1, 1, 20))
    padded = torch.cat([x, torch.randn(1, 8, 9)], dim=2)
    mask = (torch.arange(29) < 20).float()[None, None]
    got = net(padded, mask)
    torch.testing.assert_close(got[:, :, :20], alone, rtol=1e-5, atol=1e-5)
    assert not got[:, :, 20:].any()


def test_the_causal_stack_cannot_see_the_future():
    net = CausalEncoder(8, 16, 2, 2, 3, 0.0).eval()
    x, mask = torch.randn(1, 8, 20), torch.ones(1, 1, 20)
    changed = x.clone()
    changed[:, :, 12:] += 1
    assert torch.equal(net(x, mask)[:, :, :12], net(changed, mask)[:, :, :12])
    assert not torch.allclose(net(x, mask)[:, :, 12:], net(changed, mask)[:, :, 12:])


def test_the_causal_key_projection_starts_as_a_copy_of_the_query_projection():
    net = CausalSelfAttention(8, 2)
    assert torch.equal(net.conv_q.weight, net.conv_k.weight) and torch.equal(net.conv_q.bias, net.conv_k.bias)
    assert net.conv_q.weight is not net.conv_k.weight


def test_a_speaker_conditioned_stack_is_plain_layers_each_after_its_gate():
    net = CausalEncoder(8, 16, 2, 2, 5, 0.0, gin_channels=3).eval()
    x, mask, g = torch.randn(2, 8, 20), torch.ones(2, 1, 20), torch.randn(2, 3, 1)
    mask[1, :, 14:] = 0
    expected = x * mask
    for index, condition in enumerate(net.cond_layer(g).chunk(2, dim=1)):
        layer = CausalEncoder(8, 16, 2, 1, 5, 0.0).eval()
        weights = net.state_dict()
        layer.load_state_dict({name: weights[name.replace(".0.", f".{index}.", 1)] for name in layer.state_dict()})
        expected = layer(gated(net.cond_pre(expected) + condition), torch.ones(2, 1, 20))
    got = net(x, mask, g)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1, :, :14], expected[1, :, :14], rtol=1e-5, atol=1e-5)
    assert not got[1, :, 14:].any()


def test_a_later_change_of_speaker_does_not_affect_earlier_frames():
    net = CausalEncoder(8, 16, 2, 2, 5, 0.0, gin_channels=3).eval()
    x, mask, g = torch.randn(1, 8, 20), torch.ones(1, 1, 20), torch.randn(1, 3, 20)
    later = g.clone()
    later[:, :, 12:] += 1
    assert torch.equal(net(x, mask, g)[:, :, :12], net(x, mask, later)[:, :, :12])
    assert not torch.allclose(net(x, mask, g)[:, :, 12:], net(x, mask, later)[:, :, 12:])
