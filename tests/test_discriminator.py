from __future__ import annotations

import pytest
import torch

from vits.discriminator import MultiPeriodDiscriminator, scores_of
from vits.losses import discriminator_loss, feature_loss, generator_loss, kl_loss


def test_published_sizes():
    with torch.device("meta"):
        net = MultiPeriodDiscriminator()
        spectral = MultiPeriodDiscriminator(use_spectral_norm=True)
        maps = net(torch.empty(2, 1, 10240))
    assert sum(p.numel() for p in net.parameters()) == 46_747_132
    assert len(spectral.state_dict()) == 148 and sum(p.numel() for p in spectral.parameters()) == 46_730_118
    assert {name.rsplit(".")[-1] for name in spectral.state_dict()} == {"bias", "weight_orig", "weight_u", "weight_v"}
    assert [score.shape[1] for score in scores_of(maps)] == [40, 128, 129, 130, 133, 132]
    assert [len(features) for features in maps] == [7, 6, 6, 6, 6, 6]


@pytest.mark.parametrize("width", [0.01, 0.1, 0.3, 0.55])
@pytest.mark.parametrize("use_spectral_norm", [False, True])
def test_any_width_and_periods_give_scores_and_gradients(width, use_spectral_norm):
    net = MultiPeriodDiscriminator(use_spectral_norm, (2, 5), width)
    scores = scores_of(net(torch.randn(2, 1, 1001)))
    assert len(scores) == 3
    sum(score.sum() for score in scores).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    halved = MultiPeriodDiscriminator(use_spectral_norm, (2, 5), width / 2)
    assert sum(p.numel() for p in halved.parameters()) <= sum(p.numel() for p in net.parameters())


def test_a_period_discriminator_compares_only_samples_a_period_apart():
    judge = MultiPeriodDiscriminator(periods=(5,), width=0.1).discriminators[1]
    y = torch.randn(1, 1, 2500, requires_grad=True)
    judge(y)[-1][0, 0, 3, 2].backward()
    assert set((y.grad[0, 0].nonzero().flatten() % 5).tolist()) == {2}


def test_every_layer_of_a_discriminator_but_the_last_has_the_slope_of_hifi_gan():
    """The slope is 0.1: layers with a constant output of -1 give -0.1."""
    net = MultiPeriodDiscriminator(False, (2, 5), 0.1).requires_grad_(False)
    for name, parameter in net.named_parameters():
        parameter.fill_(-1 if name.endswith("bias") else 0 if name.endswith("weight_g") else 1)
    for *features, scores in net(torch.randn(1, 1, 1000)):
        for layer in features:
            torch.testing.assert_close(layer, torch.full_like(layer, -0.1))
        torch.testing.assert_close(scores, torch.full_like(scores, -1))


def test_discriminators_with_spectral_norm_have_the_same_slope():
    net = MultiPeriodDiscriminator(True, (2, 5), 0.1).requires_grad_(False).eval()
    for judge in net.discriminators:
        before = []
        for conv in judge.convs:
            conv.register_forward_hook(lambda conv, inputs, output, before=before: before.append(output))
        features = judge(torch.randn(1, 1, 1000))[:-1]
        for layer, x in zip(features, before, strict=True):
            torch.testing.assert_close(layer, torch.where(x > 0, x, 0.1 * x))


def test_losses_of_known_scores():
    loss, real, fake = discriminator_loss([torch.tensor([[0.5]])], [torch.tensor([[0.25]])])
    assert loss.item() == pytest.approx(0.3125)
    assert real.tolist() == [0.25] and fake.tolist() == [0.0625]
    assert generator_loss([torch.tensor([[0.25]])])[0].item() == pytest.approx(0.5625)
    assert feature_loss([[torch.ones(3)]], [[torch.full((3,), 0.5)]]).item() == pytest.approx(1.0)


def test_feature_loss_has_gradients_for_the_fake_only():
    real, fake = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    feature_loss([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad.abs().sum() > 0


def test_kl_is_the_gaussians_divergence_on_average_and_ignores_padding():
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 200_000)
    m_q, logs_q, m_p, logs_p = 0.4, -0.3, -0.2, 0.1
    z = m_q + torch.randn(shape, generator=generator) * torch.tensor(logs_q).exp()
    mask = torch.ones(shape)
    mask[:, :, 150_000:] = 0
    z[:, :, 150_000:] = 99
    got = kl_loss(z, torch.full(shape, logs_q), torch.full(shape, m_p), torch.full(shape, logs_p), mask)
    p, q = (torch.distributions.Normal(m, torch.tensor(s).exp()) for m, s in ((m_p, logs_p), (m_q, logs_q)))
    assert got.item() == pytest.approx(torch.distributions.kl_divergence(q, p).item(), abs=0.01)


def test_losses_are_float32_for_half_precision_scores():
    half = [torch.full((2, 4), 300.0, dtype=torch.float16)]
    assert discriminator_loss(half, half)[0].isfinite() and generator_loss(half)[0].dtype == torch.float32
