from __future__ import annotations

import torch
from torch.nn import functional as F

from modules.layers.wavenet import WN, DepthwiseConv, gated
from modules.layers.weight_norm import WeightNormConv1d


def test_a_depthwise_convolution_is_the_dense_one_whose_weight_is_the_product_of_both():
    net = DepthwiseConv(6, 10, 5)
    depth, point = net.depth_conv.normed_weight()[:, 0], net.point_conv.normed_weight()[:, :, 0]
    weight = point[:, :, None] * depth
    bias = net.point_conv.bias + point @ net.depth_conv.bias
    x = torch.randn(2, 6, 17)
    torch.testing.assert_close(net(x), F.conv1d(x, weight, bias, padding=2), rtol=1e-5, atol=1e-6)


def test_stacks_of_both_kinds_work_in_one_process():
    kinds = {depthwise: WN(8, 5, 2, 3, depthwise=depthwise) for depthwise in (True, False)}
    x, mask, g = torch.randn(1, 8, 12), torch.ones(1, 1, 12), torch.randn(1, 3, 1)
    for depthwise, net in kinds.items():
        assert all(isinstance(conv, DepthwiseConv if depthwise else WeightNormConv1d) for conv in net.in_layers)
        assert net(x, mask, g).shape == x.shape
    weights = [sum(p.numel() for p in net.in_layers.parameters()) for net in kinds.values()]
    assert weights[0] < 0.5 * weights[1]


def test_a_gate_opens_and_closes():
    signal = torch.tensor([[[-3.0, 0.5, 2.0]]])
    for gate, share in ((50.0, 1), (-50.0, 0), (0.0, 0.5)):
        got = gated(torch.cat([signal, torch.full_like(signal, gate)], dim=1))
        torch.testing.assert_close(got, share * signal.tanh())


def test_padding_changes_no_real_frame_and_stays_silent():
    net = WN(8, 5, 3, 4, depthwise=True)
    x, g = torch.randn(1, 8, 15), torch.randn(1, 4, 1)
    alone = net(x, torch.ones(1, 1, 15), g)
    mask = (torch.arange(22) < 15).float()[None, None]
    got = net(F.pad(x, (0, 7)), mask, g)
    torch.testing.assert_close(got[:, :, :15], alone, rtol=1e-5, atol=1e-6)
    assert not got[:, :, 15:].any()
