from __future__ import annotations

import copy

import pytest
import torch

from modules.config import ModelConfig
from modules.console import UserError
from vits.f0_decoder import f0_to_coarse, f0_to_lf0, lf0_to_f0, normalize_lf0
from vits.synthesizer import Synthesizer, cut_slices, random_slice_starts, sequence_mask

SMALL = {
    "inter_channels": 16,
    "hidden_channels": 16,
    "filter_channels": 32,
    "n_layers": 2,
    "resblock": "2",
    "upsample_initial_channel": 32,
    "gin_channels": 8,
    "ssl_dim": 12,
    "n_speakers": 3,
}
FRAMES = 30

VARIANTS = {
    "default": {},
    "two convolutions a block": {"resblock": "1"},
    "tiny": {"use_depthwise_conv": True, "flow_share_parameter": True},
    "transformer flow": {"use_transformer_flow": True},
    "shared transformer flow": {"use_transformer_flow": True, "flow_share_parameter": True},
    "snake": {"vocoder_name": "nsf-snake-hifigan"},
    "loudness": {"vol_embedding": True},
    "no F0 decoder": {"use_automatic_f0_prediction": False},
}


def small(**changes):
    torch.manual_seed(5)
    net = Synthesizer(ModelConfig(**{**SMALL, **changes}), spec_channels=33, segment_frames=6)
    for name, parameter in net.named_parameters():
        if ".post." in name:  # initially zero: the flow would be the identity and hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def batch(frames=FRAMES, size=2):
    generator = torch.Generator().manual_seed(6)
    return {
        "c": torch.randn(size, 12, frames, generator=generator),
        "f0": torch.rand(size, frames, generator=generator) * 300 + 100,
        "uv": (torch.rand(size, frames, generator=generator) > 0.3).float(),
    }


def training_batch():
    generator = torch.Generator().manual_seed(7)
    return {
        **batch(),
        "spec": torch.rand(2, 33, FRAMES, generator=generator),
        "volume": torch.rand(2, FRAMES, generator=generator),
        "speaker_id": torch.tensor([[0], [2]]),
        "lengths": torch.tensor([FRAMES, 21]),
    }


SPEAKER = torch.tensor([[1]])


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient_and_the_slice_is_audible(variant):
    net = small(**VARIANTS[variant])
    out = net(**training_batch())
    assert out.audio.shape == (2, 1, 6 * 512)
    prior = (out.z_p - out.m_p).square().mean() + out.logs_p.mean()
    predicted = 0 if out.pred_lf0 is None else out.pred_lf0.mean()
    (out.audio.square().mean() + prior + predicted).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_the_priors_input_is_the_content_plus_the_embedding_of_its_coarse_f0():
    net = small().eval().enc_p
    x, mask, coarse = torch.randn(1, 16, 12), torch.ones(1, 1, 12), torch.arange(20, 32)[None]
    heard = net(x, mask, coarse)[0]
    rows = net.f0_emb.weight[20:32].t()[None].clone()
    torch.nn.init.zeros_(net.f0_emb.weight)
    torch.testing.assert_close(heard, net(x + rows, mask, coarse)[0])
    assert not torch.allclose(heard, net(x, mask, coarse)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_of_a_batch_changes_no_clip(variant):
    net = small(**VARIANTS[variant]).eval()
    together = training_batch()
    for name in ("c", "f0", "uv", "spec", "volume"):  # as in a padded batch
        together[name][1, ..., 21:] = 0
    alone = {key: value[1:, ..., :21] if value.dim() > 1 else value[1:] for key, value in together.items()}
    alone["speaker_id"] = together["speaker_id"][1:]
    torch.manual_seed(0)
    padded = net(**together)
    short = net(**alone)
    for name in ("m_p", "logs_p", "m_q", "logs_q"):
        wanted = getattr(short, name)[0]
        torch.testing.assert_close(getattr(padded, name)[1, :, :21], wanted, rtol=1e-4, atol=1e-5)
        assert not getattr(padded, name)[1, :, 21:].any()


def test_the_f0_loss_trains_only_the_f0_decoder_and_the_speaker_table():
    net = small()
    net(**training_batch()).pred_lf0.square().sum().backward()
    touched = {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert touched == {"emb_g", "f0_decoder"}


def test_without_f0_prediction_there_is_no_f0_decoder_and_predict_f0_is_ignored():
    net = small(use_automatic_f0_prediction=False).eval()
    out = net(**training_batch())
    assert out.pred_lf0 is out.norm_lf0 is out.lf0 is None
    assert not any(name.startswith("f0_decoder") for name in net.state_dict())
    one = batch(size=1)
    audio, f0 = net.infer(**one, speaker=SPEAKER, predict_f0=True)
    assert torch.equal(f0, one["f0"]) and torch.equal(audio, net.infer(**one, speaker=SPEAKER)[0])


def test_the_flow_is_undone_by_its_reverse():
    net = small()
    z, g = torch.randn(2, 16, FRAMES), torch.randn(2, 8, 1)
    mask = sequence_mask(torch.tensor([FRAMES, 11]), FRAMES)
    there = net.flow(z * mask, mask, g)
    assert (there - z * mask).abs().max() > 0.1
    torch.testing.assert_close(net.flow(there, mask, g, reverse=True), z * mask, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_under_autocast_is_finite_and_near_float32(dtype):
    net = small(p_dropout=0.0)
    torch.manual_seed(1)
    wanted = net(**training_batch())
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        got = net(**training_batch())
    assert torch.equal(got.lf0, wanted.lf0) and torch.equal(got.slice_starts, wanted.slice_starts)
    for name in ("audio", "z_p", "m_p", "pred_lf0"):
        error = (getattr(got, name).float() - getattr(wanted, name)).norm() / getattr(wanted, name).norm()
        assert error < 0.1, name
    got.audio.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


# -- conversion -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_song_and_does_not_use_the_global_generator():
    net = small().eval()
    one = batch(size=1)
    state = torch.get_rng_state()
    first, _ = net.infer(**one, speaker=SPEAKER)
    torch.rand(3)
    again, _ = net.infer(**one, speaker=SPEAKER)
    torch.set_rng_state(state)
    net.infer(**one, speaker=SPEAKER)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (1, 1, FRAMES * 512) and torch.equal(first, again)
    assert not torch.equal(first, net.infer(**one, speaker=SPEAKER, generator=torch.Generator().manual_seed(1))[0])


def test_random_numbers_are_sampled_in_the_published_order(monkeypatch):
    net = small().eval()
    one, calls = batch(size=1), []

    def note(kind, function):
        monkeypatch.setattr(
            torch, kind, lambda shape, **rest: calls.append((kind, tuple(shape))) or function(shape, **rest)
        )

    note("randn", torch.randn)
    note("rand", torch.rand)
    net.infer(**one, speaker=SPEAKER)
    assert calls == [("randn", (1, 16, FRAMES)), ("rand", (1, 9)), ("randn", (1, FRAMES * 512, 9))]


def test_a_mix_with_all_the_weight_on_one_speaker_is_that_speaker():
    net = small().eval()
    one = batch(size=1)
    weights = torch.zeros(FRAMES, 3)
    weights[:, 1] = 1
    mixed, f0 = net.infer(**one, speaker=weights, predict_f0=True)
    alone, f0_alone = net.infer(**one, speaker=SPEAKER, predict_f0=True)
    torch.testing.assert_close(f0, f0_alone, rtol=1e-4, atol=0)
    torch.testing.assert_close(mixed, alone, rtol=1e-3, atol=1e-4)


def test_a_mix_may_change_over_time():
    net = small().eval()
    one = batch(size=1)
    weights = torch.zeros(FRAMES, 3)
    weights[:15, 0] = weights[15:, 2] = 1
    mixed, _ = net.infer(**one, speaker=weights, noice_scale=0.0)
    first, _ = net.infer(**one, speaker=torch.tensor([[0]]), noice_scale=0.0)
    last, _ = net.infer(**one, speaker=torch.tensor([[2]]), noice_scale=0.0)
    to_first, to_last = (mixed - first).abs(), (mixed - last).abs()
    assert to_first[..., :1024].mean() < 0.2 * to_last[..., :1024].mean()
    assert to_last[..., -1024:].mean() < 0.2 * to_first[..., -1024:].mean()


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_weight_norm_does_not_change_the_sound(variant):
    net = small(**VARIANTS[variant]).eval()
    folded = copy.deepcopy(net)
    folded.fold_weight_norm()
    assert not any("weight_g" in name for name in folded.state_dict())
    one = batch(size=1)
    wanted, _ = net.infer(**one, speaker=SPEAKER)
    torch.testing.assert_close(folded.infer(**one, speaker=SPEAKER)[0], wanted, rtol=1e-5, atol=1e-6)


def test_predicted_f0_depends_on_the_melody_and_not_its_height():
    net = small().eval()
    one = batch(size=1)
    _, f0 = net.infer(**one, speaker=SPEAKER, predict_f0=True)
    lf0 = f0_to_lf0(one["f0"])
    _, higher = net.infer(**{**one, "f0": lf0_to_f0(lf0 + 0.2)}, speaker=SPEAKER, predict_f0=True)
    torch.testing.assert_close(f0, higher, rtol=1e-3, atol=1e-2)


def test_only_a_model_with_loudness_embedding_uses_loudness():
    volume = torch.rand(1, FRAMES, generator=torch.Generator().manual_seed(8))
    for knows, net in ((True, small(vol_embedding=True).eval()), (False, small().eval())):
        quiet, loud = (net.infer(**batch(size=1), speaker=SPEAKER, volume=volume * by)[0] for by in (0.1, 1))
        assert torch.equal(quiet, loud) != knows


def test_variants_do_not_disturb_each_other():
    """Building a depthwise network does not change the convolutions of the next network."""
    first, _, third = (small(**changes).state_dict() for changes in ({}, VARIANTS["tiny"], {}))
    assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in third.items()}


def test_the_error_for_an_unknown_decoder_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown model.vocoder_name 'hifigan'; known: .*nsf-hifigan"):
        small(vocoder_name="hifigan")


# -- f0 and slices ----------------------------------------------------------------------------------------------------


def test_coarse_f0_at_known_frequencies():
    known = {0: 1, 40: 1, 50: 1, 51.2: 1, 51.4: 2, 60: 5, 80: 12, 100: 20, 150: 37, 220: 60, 261.63: 73, 440: 122}
    known |= {880: 217, 1000: 238, 1100: 255, 1103: 255, 1104: 0, 1500: 0}
    assert f0_to_coarse(torch.tensor(list(known))).tolist() == list(known.values())
    scan = torch.arange(500, 20000) / 10
    assert scan[f0_to_coarse(scan) == 0][0].item() == pytest.approx(1103.2)


def test_log_f0_at_known_frequencies_and_back():
    f0 = torch.tensor([0.0, 100.0, 220.0, 440.0, 1000.0])
    lf0 = f0_to_lf0(f0)
    torch.testing.assert_close(lf0, torch.tensor([0, 0.300978, 0.616000, 1.099277, 1.999971]), rtol=0, atol=1e-6)
    torch.testing.assert_close(lf0_to_f0(lf0), f0, rtol=1e-5, atol=1e-3)


def test_normalised_f0_has_mean_zero_where_voiced_and_is_finite_for_silence():
    lf0, uv = torch.tensor([[[0.2, 0.4, 0.6, 0.8]]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    mask = torch.ones(1, 1, 4)
    torch.testing.assert_close(normalize_lf0(lf0, mask, uv), torch.tensor([[[-0.1, 0.1, 0.3, 0.5]]]))
    assert normalize_lf0(lf0, mask, torch.zeros(1, 4)).isfinite().all()
    scaled = normalize_lf0(lf0.expand(500, 1, 4), mask, uv.expand(500, 4), random_scale=True)[:, 0, 3] / 0.5
    assert 0.8 <= scaled.min() < 0.85 and 1.15 < scaled.max() <= 1.2


def test_slices_start_everywhere_they_fit_and_nowhere_else():
    lengths = torch.tensor([20, 22, 7]).repeat_interleave(400)
    starts = random_slice_starts(lengths, 20)
    assert set(starts[:400].tolist()) == {0} and set(starts[400:800].tolist()) == {0, 1, 2}
    assert set(starts[800:].tolist()) == {0}


def test_slices_are_cut_each_at_its_own_start():
    x = torch.arange(2 * 3 * 10).view(2, 3, 10)
    got = cut_slices(x, torch.tensor([2, 5]), 4)
    assert torch.equal(got, torch.stack([x[0, :, 2:6], x[1, :, 5:9]]))
    assert torch.equal(cut_slices(x[:, 0], torch.tensor([0, 6]), 4), torch.stack([x[0, 0, :4], x[1, 0, 6:]]))
