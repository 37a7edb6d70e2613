from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from modules.config import ModelConfig
from modules.layers.weight_norm import fold_normed_weights
from vdecoder import DECODERS
from vdecoder.block_plan import plan_block
from vdecoder.nsf_snake_hifigan import AntiAliasedSnake, Downsample, Snake, Upsample, low_pass_taps

SMALL = {"inter_channels": 8, "gin_channels": 6, "upsample_initial_channel": 32}
LENGTHS = (1, 2, 3, 5, 40)


def decoder(**changes):
    torch.manual_seed(3)
    net = DECODERS["nsf-snake-hifigan"].build(ModelConfig(**{**SMALL, **changes})).eval()
    for name, parameter in net.named_parameters():
        if name.endswith(("alpha", "beta")):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def inputs(frames):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 8, frames, generator=generator)
    f0 = torch.rand(1, frames, generator=generator) * 300 + 100
    return z, f0, torch.randn(1, 6, 1, generator=generator)


def noise(length, channels=3):
    return torch.randn(2, channels, length, generator=torch.Generator().manual_seed(length))


def taps():
    attenuation = scipy.signal.kaiser_atten(6, 4 * 0.3)  # half the taps are counted
    return scipy.signal.firwin(12, 0.5, window=("kaiser", scipy.signal.kaiser_beta(attenuation)))


def held(x, left, right):
    return np.pad(x, [(0, 0), (0, 0), (left, right)], mode="edge")


def test_the_filter_is_the_textbooks():
    np.testing.assert_allclose(low_pass_taps().numpy(), taps(), atol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
def test_upsampling_is_a_zero_stuffed_sound_through_the_filter(length):
    x = noise(length)
    stuffed = scipy.signal.upfirdn(2 * taps(), held(x.double().numpy(), 5, 5), up=2)
    wanted = stuffed[..., 15 : 15 + 2 * length]  # five replicated samples and half the filter's length
    np.testing.assert_allclose(Upsample()(x).numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_downsampling_is_every_second_sample_of_the_filtered_sound(length):
    x = noise(2 * length)
    filtered = scipy.signal.upfirdn(taps(), held(x.double().numpy(), 5, 6), down=1)
    np.testing.assert_allclose(Downsample()(x).numpy(), filtered[..., 11:-11:2], atol=1e-6)


def test_snake_is_its_formula_channel_by_channel():
    snake, x = Snake(3), noise(20)
    torch.nn.init.normal_(snake.alpha)
    torch.nn.init.normal_(snake.beta)
    a, b = (np.exp(p.detach().double().numpy())[:, None] for p in (snake.alpha, snake.beta))
    wanted = x.double().numpy() + np.sin(x.double().numpy() * a) ** 2 / b
    np.testing.assert_allclose(snake(x).detach().numpy(), wanted, atol=1e-5)


def test_overtones_above_half_the_rate_alias_less_than_from_a_plain_snake():
    hz = 0.3  # cycles per sample: the squared sine doubles it, to 0.6, which folds back to 0.4
    x = torch.sin(2 * torch.pi * hz * torch.arange(1000))[None, None]
    activation = AntiAliasedSnake(1)

    def folded(y):
        spectrum = torch.fft.rfft(y[0, 0] * torch.hann_window(1000)).abs()
        return spectrum[395:406].max()

    with torch.no_grad():
        assert folded(activation(x)) < 0.3 * folded(activation.act(x))


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_decoding_in_blocks_equals_one_pass(resblock):
    net = decoder(resblock=resblock)
    z, f0, g = inputs(61)
    with torch.inference_mode():
        whole = net.generate(z, net.m_source(f0, torch.Generator().manual_seed(1)), g)
        blocks = net.decode(z, f0, g, torch.Generator().manual_seed(1), block_frames=7)
    assert whole.shape == (1, 1, 61 * net.hop_length)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_convolving_in_the_frequency_domain_changes_no_value(resblock):
    net = decoder(resblock=resblock)
    z, f0, g = inputs(61)
    with torch.inference_mode():
        wanted = net.decode(z, f0, g, torch.Generator().manual_seed(1))
        net.prepare_for_conversion()
        torch.testing.assert_close(net.decode(z, f0, g, torch.Generator().manual_seed(1)), wanted, rtol=0, atol=2e-6)
        blocks = net.decode(z, f0, g, torch.Generator().manual_seed(1), block_frames=7)
    torch.testing.assert_close(blocks, wanted, rtol=0, atol=2e-6)


def test_a_block_reads_the_frames_that_its_samples_depend_on_and_hardly_more():
    net = decoder()
    z, f0, g = inputs(61)
    z.requires_grad_(True)
    block = slice(30 * net.hop_length, 31 * net.hop_length)
    net.generate(z, net.m_source(f0, torch.Generator().manual_seed(1)), g)[0, 0, block].sum().backward()
    used = z.grad[0].abs().amax(0).nonzero().flatten()
    window = plan_block(net, 30, 31, 61).window
    assert used.min() - 3 <= window.start <= used.min()
    assert used.max() + 1 <= window.stop <= used.max() + 1 + 3


@pytest.mark.parametrize(("resblock", "activations"), [("1", 6), ("2", 2)])
def test_parameters_are_in_the_order_of_published_optimizer_states(resblock, activations):
    net = decoder(resblock=resblock)
    parts = list(dict.fromkeys(name.split(".")[0] for name, _ in net.named_parameters()))
    published = "m_source noise_convs conv_pre ups resblocks snakes conv_post snake_post cond"
    assert parts == published.split()
    block = {name.split(".")[1] for name in net.resblocks[0].state_dict() if name.startswith("activations")}
    assert block == set(map(str, range(activations)))
    assert list(net.snake_post.state_dict()) == [
        "act.alpha",
        "act.beta",
        "upsample.filter",
        "downsample.lowpass.filter",
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_filters_follow(dtype):
    activation, x = AntiAliasedSnake(3), noise(40)
    wanted = activation(x).detach()
    halved = activation.to(dtype)(x.to(dtype)).detach()
    assert halved.dtype == dtype
    torch.testing.assert_close(halved.float(), wanted, rtol=0, atol=16 * torch.finfo(dtype).eps)


def test_mixed_precision_gives_the_same_sound_and_gradients_for_the_shapes():
    net = decoder().train()
    fold_normed_weights(net)
    z, f0, g = inputs(6)
    source = net.m_source(f0).detach()
    wanted = net.generate(z, source, g).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio = net.generate(z, source, g)
    audio.float().square().sum().backward()
    assert (audio.float() - wanted).norm() < 0.05 * wanted.norm()
    gradients = [p.grad for name, p in net.named_parameters() if name.endswith(("alpha", "beta"))]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) == len(gradients)
