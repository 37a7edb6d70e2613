from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.config import ModelConfig
from vdecoder import DECODERS
from vdecoder.block_plan import plan_block
from vdecoder.nsf_hifigan import NsfHifigan
from vdecoder.source import HarmonicSource

SMALL = {"inter_channels": 8, "gin_channels": 6, "upsample_initial_channel": 32}
SHAPES = {
    "published": {},
    "resblock 2": {"resblock": "2"},
    "hop 441": {"upsample_rates": [7, 7, 3, 3], "upsample_kernel_sizes": [14, 14, 6, 6]},
    "hop 512 in three": {"upsample_rates": [16, 8, 4], "upsample_kernel_sizes": [32, 16, 8]},
}


def decoder(**changes):
    torch.manual_seed(3)
    return DECODERS["nsf-hifigan"].build(ModelConfig(**{**SMALL, **changes})).eval()


def inputs(frames, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, 8, frames, generator=generator)
    f0 = torch.rand(batch, frames, generator=generator) * 300 + 100
    f0[:, frames // 2 : frames // 2 + 3] = 0
    return z, f0, torch.randn(batch, 6, 1, generator=generator)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_frame_speaker", [False, True])
def test_decoding_in_blocks_equals_one_pass(shape, per_frame_speaker):
    net = decoder(**SHAPES[shape])
    z, f0, g = inputs(61)
    if per_frame_speaker:
        g = g + 0.3 * torch.randn(1, 6, 61)
    with torch.inference_mode():
        whole = net.generate(z, net.m_source(f0, seeded()), g)
        assert whole.shape == (1, 1, 61 * net.hop_length)
        blocks = net.decode(z, f0, g, seeded(), block_frames=7)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_convolving_in_the_frequency_domain_changes_no_value(resblock):
    net = decoder(resblock=resblock)
    z, f0, g = inputs(61)
    with torch.inference_mode():
        wanted = net.decode(z, f0, g, seeded())
        net.prepare_for_conversion()
        torch.testing.assert_close(net.decode(z, f0, g, seeded()), wanted, rtol=0, atol=2e-6)
        blocks = net.decode(z, f0, g, seeded(), block_frames=7)
    torch.testing.assert_close(blocks, wanted, rtol=0, atol=2e-6)


def test_a_block_reads_the_frames_that_its_samples_depend_on_and_hardly_more():
    net = decoder()
    z, f0, g = inputs(61)
    z.requires_grad_(True)
    block = slice(30 * net.hop_length, 31 * net.hop_length)
    net.generate(z, net.m_source(f0, seeded()), g)[0, 0, block].sum().backward()
    used = z.grad[0].abs().amax(0).nonzero().flatten()
    window = plan_block(net, 30, 31, 61).window
    assert used.min() - 1 <= window.start <= used.min()
    assert used.max() + 1 <= window.stop <= used.max() + 2


def test_a_generator_without_a_speaker_has_no_weights_for_one():
    net = NsfHifigan(ModelConfig(**SMALL), 5).eval()
    assert not any(name.startswith("cond") for name in net.state_dict())
    z, f0, _ = inputs(9)
    assert net(z[:, :5], f0).shape == (1, 1, 9 * 512)


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_slopes_are_those_of_hifi_gan(resblock):
    """0.1 everywhere but before the last convolution, where HiFi-GAN's code has PyTorch's default of 0.01."""
    net, one = decoder(resblock=resblock), torch.tensor([1.0, -1.0])
    inner = [activate for block in net.resblocks for activate in block.activations]
    for activate in (*net.snakes, *inner):
        assert activate(one).tolist() == pytest.approx([1, -0.1])
    assert net.snake_post(one).tolist() == pytest.approx([1, -0.01])


def turns_in_float64(f0, source):
    """Return each track's phase: a float64 sum of the float32 steps."""
    numbers = np.arange(1, source.tracks + 1, dtype=np.float32)
    steps = np.repeat(f0.numpy(), source.hop_length, axis=1)[:, :, None] * numbers / np.float32(source.sampling_rate)
    return np.cumsum(np.float64(steps % np.float32(1)), axis=1) % 1


def sines_of(source, f0):
    return source.sines(source.phases(f0, torch.zeros(len(f0), source.tracks)))


def test_sines_have_the_phase_of_the_summed_frequency():
    source = HarmonicSource(44100, 64)
    f0 = torch.rand(2, 200, generator=seeded()) * 900 + 60
    wanted = 0.1 * np.sin(2 * np.pi * turns_in_float64(f0, source))
    np.testing.assert_allclose(sines_of(source, f0).numpy(), wanted, atol=1e-5)


def test_after_five_minutes_the_pitch_is_still_right():
    source = HarmonicSource(44100, 512, harmonics=0)
    frames = 5 * 60 * 44100 // 512
    f0 = torch.full((1, frames), 440.0)
    phases = source.phases(f0, torch.zeros(1, 1))
    tail = source.sines(phases[-20:])[0, :, 0].double().numpy()
    sample = np.arange((frames - 20) * 512, frames * 512) + 1
    wanted = 0.1 * np.sin(2 * np.pi * ((440 * sample / 44100) % 1))
    # By now the float32 rounding of the step adds up to a few hundredths of a turn at most.
    assert np.abs(tail - wanted).max() < 0.1 * 2 * np.pi * 0.05


def test_initial_weights_bring_the_source_to_every_stage_about_as_loud_as_the_latent():
    """So training finds the pitch early; PyTorch's default weights leave the source at 0.1 to 0.5."""
    torch.manual_seed(0)
    network = NsfHifigan(ModelConfig(), 192, 768)
    with torch.no_grad():
        source = network.m_source(torch.full((1, 40), 220.0))
        x = network.conv_pre(torch.randn(1, 192, 40)) + network.cond(torch.randn(1, 768, 1))
        for stage, (up, noise_conv) in enumerate(zip(network.ups, network.noise_convs, strict=True)):
            latent, brought = up(network.snakes[stage](x)), noise_conv(source)
            levels = [(part - part.mean(dim=2, keepdim=True)).std() for part in (brought, latent)]
            assert 0.5 * levels[1] < levels[0] < 4 * levels[1]
            blocks = network.resblocks[stage * network.blocks_per_stage : (stage + 1) * network.blocks_per_stage]
            x = sum(block(latent + brought) for block in blocks) / len(blocks)


def test_no_initial_bias_adds_a_dc_offset():
    """No mel band holds 0 Hz, so a short training leaves an offset in place."""
    network = NsfHifigan(ModelConfig(), 192, 768)
    assert not network.conv_post.bias.any() and not network.m_source.l_linear.bias.any()


def test_each_wrap_has_the_float32_rounding_error():
    """The published order: steps are summed, and a whole turn is subtracted at the step where the sum exceeds one."""
    source = HarmonicSource(44100, 64)
    f0 = torch.rand(1, 400, generator=seeded()) * 900 + 60
    numbers = torch.arange(1, source.tracks + 1)
    steps = (f0.repeat_interleave(64, 1)[:, :, None] * numbers / 44100) % 1
    passed = steps.double().cumsum(1).floor()
    corrected = steps - torch.diff(passed, dim=1, prepend=torch.zeros_like(passed[:, :1])).float()
    wanted = 0.1 * torch.sin(2 * torch.pi * corrected.double().cumsum(1))
    torch.testing.assert_close(sines_of(source, f0).double(), wanted, rtol=0, atol=2e-7)


@pytest.mark.parametrize("phases_per_frame", [False, True])
def test_phases_that_continue_are_those_of_one_pass_to_the_bit(phases_per_frame):
    source = HarmonicSource(44100, 64, phases_per_frame=phases_per_frame)
    f0 = torch.rand(2, 300, generator=seeded()) * 900 + 60
    f0[:, 90:110] = 0
    first = torch.rand(2, source.tracks, generator=seeded(2))
    parts, before = [], None
    for begin, end in ((0, 1), (1, 8), (8, 100), (100, 300)):
        before = source.phases(f0[:, begin:end], first, before)
        parts.append(before)
    whole = source.phases(f0, first)
    for value, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(value, torch.cat(pieces, dim=1))


def test_initial_phases_shift_the_overtones_and_not_the_fundamental():
    source = HarmonicSource(44100, 64)
    f0 = torch.full((1, 10), 200.0)
    still, turned = (source.phases(f0, torch.full((1, source.tracks), first)) for first in (0.0, 0.25))
    assert torch.equal(still.start[:, :, 0], turned.start[:, :, 0])
    moved = (turned.start - still.start) % (1 << 40)
    assert torch.equal(moved[:, :, 1:], torch.full_like(moved[:, :, 1:], 1 << 38))


def test_a_mel_vocoders_overtones_reach_their_initial_phases_within_the_first_frame():
    """Sums in float64 of float32 steps; the initial phase is added to every step of the first frame."""
    source = HarmonicSource(44100, 64, phases_per_frame=True)
    f0 = torch.rand(2, 300, generator=seeded()) * 900 + 60
    first = torch.rand(2, source.tracks, generator=seeded(2))
    numbers = torch.arange(1, source.tracks + 1)
    steps = (f0[:, :, None] * numbers / 44100) % 1
    steps[:, 0, 1:] += first[:, 1:]
    phases = steps.repeat_interleave(64, dim=1).double().cumsum(1)
    wanted = 0.1 * torch.sin(2 * torch.pi * phases)
    torch.testing.assert_close(source.sines(source.phases(f0, first)).double(), wanted, rtol=0, atol=2e-7)


def test_the_source_is_sines_where_voiced_and_louder_noise_where_not():
    source = HarmonicSource(44100, 512)
    torch.nn.init.ones_(source.l_linear.weight)
    torch.nn.init.zeros_(source.l_linear.bias)
    f0 = torch.cat([torch.full((1, 50), 220.0), torch.zeros(1, 50)], dim=1)
    with torch.no_grad():
        excitation = torch.atanh(source(f0, seeded()).clamp(-0.999, 0.999))[0, 0]
    unvoiced = excitation[50 * 512 :]
    assert unvoiced.std().item() == pytest.approx(3 * 0.1 / 3, rel=0.02)  # nine tracks of noise
    spectrum = torch.fft.rfft(excitation[: 50 * 512] * torch.hann_window(50 * 512)).abs()
    peak = spectrum.argmax().item() * 44100 / (50 * 512)
    assert peak % 220 == pytest.approx(0, abs=4) or peak % 220 == pytest.approx(220, abs=4)


def test_the_source_samples_from_the_given_generator_and_leaves_the_global_one_unchanged():
    source = HarmonicSource(44100, 64)
    f0 = torch.full((1, 600), 200.0)
    before = torch.get_rng_state()
    with torch.inference_mode():
        in_blocks = source(f0, seeded(4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(in_blocks, source(f0, seeded(4)).detach(), rtol=0, atol=1e-7)
    assert not torch.equal(in_blocks, source(f0, seeded(5)))
