import pytest
import torch

from diffusion.denoiser import Denoiser, step_embedding

LAYERS, FRAMES = 3, 20


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = Denoiser(n_mels=5, n_layers=LAYERS, n_chans=8, n_hidden=6)
    torch.nn.init.normal_(net.output_projection.weight)
    return net.requires_grad_(False)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(4)
    x, condition = (torch.randn(2, size, FRAMES, generator=generator) for size in (5, 6))
    return x, torch.tensor([3.0, 700.5]), condition


def test_the_step_embedding_is_the_published_one():
    published = [0.141120, 0.138798, 0.006463, 0.000300, -0.989992, 0.990321, 0.999979, 1.000000]
    assert step_embedding(torch.tensor([3]), 8)[0].tolist() == pytest.approx(published, abs=1e-6)


def test_integer_and_fractional_steps_are_one_scale(net, inputs):
    x, _, condition = inputs
    assert torch.equal(net(x, torch.tensor([3, 700]), condition), net(x, torch.tensor([3.0, 700.0]), condition))


def test_an_untrained_network_predicts_its_bias(inputs):
    net = Denoiser(5, LAYERS, 8, 6)
    assert torch.equal(net(*inputs), net.output_projection.bias[:, None].expand(2, 5, FRAMES))


def test_projections_can_be_reused_for_every_step(net, inputs):
    x, step, condition = inputs
    projections = net.project(condition)
    for label in (step, step / 2):
        assert torch.equal(net.denoise(x, label, projections), net(x, label, condition))


def test_the_sum_of_the_skips_is_divided_by_the_root_of_their_number(inputs):
    """Each layer's skip is a constant, and the following layers pass the sum on."""
    net = Denoiser(8, LAYERS, 8, 6).requires_grad_(False)
    for layer in net.residual_layers:
        torch.nn.init.zeros_(layer.output_projection.weight)
        torch.nn.init.constant_(layer.output_projection.bias, 0.5)
    for projection in (net.skip_projection, net.output_projection):
        projection.weight.copy_(torch.eye(8)[:, :, None])
        projection.bias.zero_()
    _, step, condition = inputs
    found = net(torch.randn(2, 8, FRAMES), step, condition)
    torch.testing.assert_close(found, torch.full_like(found, 0.5 * LAYERS / LAYERS**0.5))


def test_the_receptive_field_grows_by_one_frame_to_each_side_with_every_layer(net, inputs):
    x, step, condition = inputs
    changed = x.clone()
    changed[:, :, 10] += 1
    heard = (net(x, step, condition) != net(changed, step, condition)).any(dim=1).all(dim=0)
    assert heard.nonzero().flatten().tolist() == list(range(10 - LAYERS, 10 + LAYERS + 1))


def test_step_and_condition_affect_only_their_own_item(net, inputs):
    x, step, condition = inputs
    before = net(x, step, condition)
    later, louder = step + torch.tensor([0, 1]), condition * torch.tensor([1, 2])[:, None, None]
    for other in (net(x, later, condition), net(x, step, louder)):
        assert torch.equal(before[0], other[0])
        assert not torch.allclose(before[1], other[1])
