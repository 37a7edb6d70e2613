from __future__ import annotations

import pytest
import torch

from diffusion import unit2mel
from diffusion.samplers import SAMPLERS
from diffusion.unit2mel import Unit2Mel, build_unit2mel, load_unit2mel
from modules.config import DiffusionConfig
from modules.console import UserError

CHANNELS, MELS, FRAMES, SPEAKERS = 6, 10, 12, 3
SIZES = {"out_dims": MELS, "n_layers": 2, "n_chans": 8, "n_hidden": 8}


def network(**changes):
    torch.manual_seed(1)
    net = Unit2Mel(CHANNELS, **{"n_spk": SPEAKERS, "use_pitch_aug": True, **SIZES, **changes}).eval()
    torch.nn.init.normal_(net.decoder.denoise_fn.output_projection.weight, std=0.05)
    return net


def song(batch=1):
    generator = torch.Generator().manual_seed(2)
    return {
        "units": torch.randn(batch, FRAMES, CHANNELS, generator=generator),
        "f0": torch.rand(batch, FRAMES, 1, generator=generator) * 300 + 100,
        "volume": torch.rand(batch, FRAMES, 1, generator=generator),
    }


def some_mel(batch=1):
    return torch.randn(batch, FRAMES, MELS, generator=torch.Generator().manual_seed(3)) * 2 - 5


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


SPEAKER = torch.tensor([[1]])


# -- what is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaker", range(SPEAKERS))
def test_a_mix_of_one_speaker_is_that_speaker(speaker):
    net, alone = network(), torch.nn.functional.one_hot(torch.tensor(speaker), SPEAKERS).float()
    by_id = net.infer(**song(), speaker=torch.tensor([[speaker]]), generator=seeded())
    for weights in (alone.expand(FRAMES, SPEAKERS), alone.expand(1, FRAMES, SPEAKERS)):
        assert torch.allclose(net.infer(**song(), speaker=weights, generator=seeded()), by_id, atol=1e-5)


def test_a_mix_may_change_from_frame_to_frame():
    net = network()
    weights = torch.zeros(FRAMES, SPEAKERS)
    weights[:5, 0] = weights[5:, 2] = 1
    speakers = (weights, torch.tensor([[0]]), torch.tensor([[2]]))
    mixed, first, last = (net.condition(**song(), speaker=speaker) for speaker in speakers)
    assert torch.allclose(mixed, torch.cat((first[:, :, :5], last[:, :, 5:]), dim=2))


def test_a_mix_of_the_first_speakers_is_enough_and_one_of_too_many_is_refused():
    net = network()
    few, all_named = torch.full((FRAMES, 2), 0.5), torch.tensor([0.5, 0.5, 0]).expand(FRAMES, 3)
    assert torch.allclose(net.condition(**song(), speaker=few), net.condition(**song(), speaker=all_named))
    with pytest.raises(UserError, match="names 4 speakers, the diffusion model has 3"):
        net.infer(**song(), speaker=torch.ones(FRAMES, 4))


def test_each_item_of_a_batch_has_its_own_speaker_and_its_own_mix():
    net, two = network(), song(2)
    ids = net.condition(**two, speaker=torch.tensor([[0], [2]]))
    weights = torch.eye(SPEAKERS)[[0, 2]][:, None].expand(2, FRAMES, SPEAKERS)
    assert torch.allclose(net.condition(**two, speaker=weights), ids, atol=1e-6)
    alone = net.condition(**{name: value[1:] for name, value in two.items()}, speaker=torch.tensor([[2]]))
    assert torch.allclose(ids[1:], alone, atol=1e-6)


def test_a_model_of_one_speaker_has_no_speaker_table():
    net = network(n_spk=1)
    assert net.spk_embed is None
    assert torch.equal(net.condition(**song()), net.condition(**song(), speaker=torch.tensor([[0]])))


def test_only_a_model_with_use_pitch_aug_uses_the_pitch_shift():
    shift = torch.full((1, 1, 1), 3.0)
    for use_pitch_aug in (True, False):
        net = network(use_pitch_aug=use_pitch_aug)
        plain, shifted = (net.condition(**song(), speaker=SPEAKER, aug_shift=s) for s in (None, shift))
        assert torch.equal(plain, shifted) is not use_pitch_aug


def test_the_condition_is_the_published_sum_of_embeddings():
    """F0 enters as ln(1 + f0 / 700), a shift of 5 semitones as 1."""
    net, shift = network(), torch.tensor([[[3.0]]])
    heard = song()
    wanted = (
        net.unit_embed(heard["units"])
        + torch.log(1 + heard["f0"] / 700) * net.f0_embed.weight[:, 0]
        + net.f0_embed.bias
        + net.volume_embed(heard["volume"])
        + net.spk_embed.weight[1]
        + shift / 5 * net.aug_shift_embed.weight[:, 0]
    )
    torch.testing.assert_close(net.condition(**heard, speaker=SPEAKER, aug_shift=shift), wanted.transpose(1, 2))


def test_mels_from_minus_12_to_2_become_minus_1_to_1():
    decoder = network().decoder
    mel = torch.tensor([-12.0, -5.0, 2.0]).expand(1, FRAMES, 3)
    assert decoder.normalize(mel)[0, :, 0].tolist() == [-1, 0, 1]
    torch.testing.assert_close(decoder.denormalize(decoder.normalize(mel)), mel)


@pytest.mark.parametrize("k_step", [1, 40])
def test_a_shallow_start_is_the_mel_after_as_many_steps_of_the_published_schedule(monkeypatch, k_step):
    """Betas rise linearly from 1e-4 to 0.02 (Ho et al. 2020); at step k the mel's share is sqrt(prod(1 - beta))."""
    net, asked, mel = network(), [], some_mel()

    def denoise(x, step, projections):
        asked.append((x, step.item()))
        return torch.zeros_like(x)

    monkeypatch.setattr(net.decoder.denoise_fn, "denoise", denoise)
    net.infer(**song(), mel=mel, k_step=k_step, method="ddpm", generator=seeded())
    kept = torch.prod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[:k_step])
    noise = torch.randn(1, MELS, FRAMES, generator=seeded())
    start = kept.sqrt() * ((mel + 12) / 14 * 2 - 1).transpose(1, 2) + (1 - kept).sqrt() * noise
    x, step = asked[0]
    assert (len(asked), step) == (k_step, k_step - 1)
    torch.testing.assert_close(x, start.float(), rtol=1e-4, atol=1e-5)


# -- learning ---------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_network_that_predicts_zero_is_the_variance_of_the_noise():
    net = network()
    torch.nn.init.zeros_(net.decoder.denoise_fn.output_projection.weight)
    torch.nn.init.zeros_(net.decoder.denoise_fn.output_projection.bias)
    loss = net.loss(**song(64), mel=some_mel(64), speaker_id=SPEAKER, generator=seeded())
    assert loss.item() == pytest.approx(1, abs=0.05)


def test_the_loss_of_a_network_that_has_the_clean_mel_is_zero(monkeypatch):
    net, mel = network(), some_mel(4)
    know_the_sound(monkeypatch, net, mel)
    assert net.loss(**song(4), mel=mel, speaker_id=SPEAKER, generator=seeded()).item() < 1e-5


@pytest.mark.parametrize("k_step_max", [0, 40])
def test_training_samples_every_step_of_the_models_depth_and_none_beyond(monkeypatch, k_step_max):
    net, visited = network(timesteps=100, k_step_max=k_step_max), []
    monkeypatch.setattr(
        net.decoder, "predict_noise", lambda clean, step, condition, noise: visited.extend(step.tolist()) or noise
    )
    for seed in range(40):
        net.loss(**song(32), mel=some_mel(32), speaker_id=SPEAKER, generator=seeded(seed))
    assert set(visited) == set(range(k_step_max or 100))


def test_a_loss_is_repeatable_by_its_generator_and_uses_no_other():
    net, before = network(), torch.get_rng_state()
    losses = [net.loss(**song(), mel=some_mel(), speaker_id=SPEAKER, generator=seeded(s)).item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_every_weight_has_a_gradient():
    net, speakers = network(), torch.tensor([[0], [1], [2]])
    net.loss(**song(3), mel=some_mel(3), speaker_id=speakers, aug_shift=torch.ones(3, 1, 1)).backward()
    assert not [name for name, weight in net.named_parameters() if not weight.grad.any()]


# -- sampling ---------------------------------------------------------------------------------------------------------


def know_the_sound(monkeypatch, net, mel):
    """Make the network compute the noise from the clean mel."""
    clean = net.decoder.normalize(mel)

    def denoise(x, step, projections):
        level = net.decoder.schedule.at(step[0].item())
        return (x - level.alpha * clean) / level.sigma

    def forward(x, step, condition):
        return torch.stack([denoise(x, s[None], None)[i] for i, s in enumerate(step)])

    monkeypatch.setattr(net.decoder.denoise_fn, "denoise", denoise)
    monkeypatch.setattr(net.decoder.denoise_fn, "forward", forward)


@pytest.mark.parametrize("method", SAMPLERS)
@pytest.mark.parametrize("k_step", [None, 100])
def test_a_network_that_has_the_clean_mel_reaches_it_from_noise_and_from_another_mel(monkeypatch, method, k_step):
    net, wanted = network(timesteps=200), some_mel().clamp(-12, 2)
    know_the_sound(monkeypatch, net, wanted)
    start = {} if k_step is None else {"mel": wanted.flip(1), "k_step": k_step}
    found = net.infer(**song(), speaker=SPEAKER, method=method, generator=seeded(), **start)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 0.5  # of a range of 14; the rest is the noise of the first step


def test_a_shallow_start_keeps_more_of_the_given_sound_the_shallower_it_is(monkeypatch):
    net, mel = network(), some_mel()
    monkeypatch.setattr(net.decoder.denoise_fn, "denoise", lambda x, step, projections: torch.zeros_like(x))
    far = [
        (net.infer(**song(), mel=mel, k_step=k, method="ddim", generator=seeded()) - mel).square().mean().item()
        for k in (11, 100, 400)
    ]
    assert far[0] < 0.2 * far[1] < 0.2 * far[2]


def test_sampling_is_repeatable_by_its_generator_and_uses_no_other():
    net, before = network(), torch.get_rng_state()
    for method in ("ddpm", "unipc"):
        settings = {"speaker": SPEAKER, "mel": some_mel(), "k_step": 20, "method": method, "speedup": 5}
        first, again, other = (net.infer(**song(), **settings, generator=seeded(s)) for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_speedup_of_one_is_ddpm_with_any_method():
    net = network(timesteps=30)
    plain = net.infer(**song(), method="ddpm", generator=seeded())
    assert torch.equal(net.infer(**song(), method="unipc", speedup=1, generator=seeded()), plain)


class OverwritingGraph:
    """Returns each result in the memory of the one before, as the replays of a CUDA graph do."""

    def __init__(self, function, device, *, enabled, optional):
        self.function, self.enabled, self.output = function, enabled, None

    def __call__(self, tensors):
        found = self.function(tensors)
        self.output = found if self.output is None else self.output.copy_(found)
        return self.output


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_replayed_denoiser_gives_the_same_sound(monkeypatch, method):
    settings = {"speaker": SPEAKER, "mel": some_mel(), "k_step": 60, "method": method, "generator": seeded()}
    eager = network().infer(**song(), **settings)
    monkeypatch.setattr(unit2mel, "GraphedFunction", OverwritingGraph)
    replayed = network().infer(**song(), **settings | {"generator": seeded()})
    torch.testing.assert_close(replayed, eager, rtol=0, atol=0)


@pytest.mark.parametrize("method", SAMPLERS)
def test_the_watch_is_called_for_every_evaluation(method):
    calls = []
    network().infer(
        **song(), speaker=SPEAKER, mel=some_mel(), k_step=60, method=method,
        watch=lambda *numbers: calls.append(numbers),
    )
    assert calls == [(i + 1, calls[0][1]) for i in range(calls[0][1])]


def test_sampling_projects_the_condition_once(monkeypatch):
    net, calls = network(), []
    project = net.decoder.denoise_fn.project
    monkeypatch.setattr(net.decoder.denoise_fn, "project", lambda condition: calls.append(1) or project(condition))
    net.infer(**song(), mel=some_mel(), k_step=50)
    assert len(calls) == 1


# -- what is refused --------------------------------------------------------------------------------------------------


def test_the_depth_is_k_step_if_that_is_less_than_all_steps():
    assert [network(k_step_max=k).k_step_max for k in (0, None, -5, 150, 1000, 2000)] == [1000] * 3 + [150] + [1000] * 2
    assert network(k_step_max=150).is_shallow
    assert not network().is_shallow


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "k_step_max 150 of 1000 steps: it refines a synthesizer's output and cannot replace it"),
        ({"mel": some_mel(), "k_step": 151}, "k_step 151 is more than the diffusion model was trained to undo"),
        ({"mel": some_mel(), "k_step": 0}, "k_step is 0; it must be 1 or more"),
        ({"mel": some_mel(), "method": "euler"}, "'euler' is no sampling method; use ddpm, ddim, pndm, dpm-solver"),
        ({"mel": some_mel(), "method": "euler", "speedup": 1}, "'euler' is no sampling method"),
        ({"mel": some_mel(), "speedup": 0}, "the speedup is 0; it must be 1 or more"),
        ({"mel": some_mel(), "k_step": 19}, r"k_step 19 with a speedup of 10 leaves dpm-solver\+\+ 1 of the 2 or more"),
        ({"mel": some_mel(), "k_step": 10, "method": "ddim"}, "leaves ddim 0 of the 1 or more evaluations"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        network(k_step_max=150).infer(**song(), **settings)


def test_without_k_step_a_shallow_model_undoes_k_step_max_steps():
    net, calls = network(k_step_max=150), []
    net.infer(**song(), mel=some_mel(), method="ddpm", watch=lambda done, total: calls.append(total))
    assert set(calls) == {150}


# -- files ------------------------------------------------------------------------------------------------------------


def configuration(**model):
    return DiffusionConfig.from_dict(
        {
            "data": {"encoder_out_channels": CHANNELS},
            "model": {"n_layers": 2, "n_chans": 8, "n_hidden": 8, "n_spk": SPEAKERS, **model},
        }
    )


def test_a_saved_network_is_loaded_for_inference(tmp_path):
    saved = build_unit2mel(configuration(k_step_max=100), MELS)
    torch.nn.init.normal_(saved.decoder.denoise_fn.output_projection.weight, std=0.05)
    torch.save({"global_step": 3, "model": saved.state_dict()}, tmp_path / "model_3.pt")
    loaded = load_unit2mel(tmp_path / "model_3.pt", configuration(k_step_max=100), MELS, torch.device("cpu"))
    assert loaded.k_step_max == 100 and not loaded.training
    assert list(loaded.state_dict()) == list(saved.state_dict())
    sampled = [n.infer(**song(), speaker=SPEAKER, mel=some_mel(), generator=seeded()) for n in (saved, loaded)]
    assert torch.equal(*sampled)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {"enc_p.proj.weight": torch.zeros(2)}}, "no diffusion model: it looks like SoVITS generator"),
        ({"model": 3}, "no diffusion model: it has none of its tensors"),
        ({"weights": {}}, "a model_<step>.pt of train_diff.py is needed"),
    ],
)
def test_a_file_of_another_kind_is_refused_naming_the_kind(tmp_path, content, sentence):
    torch.save(content, tmp_path / "G_3.pth")
    with pytest.raises(UserError, match=sentence):
        load_unit2mel(tmp_path / "G_3.pth", configuration(), MELS, torch.device("cpu"))


@pytest.mark.parametrize(
    ("config", "mels"), [(configuration(n_layers=3), MELS), (configuration(n_spk=1), MELS), (configuration(), MELS + 1)]
)
def test_a_network_of_other_sizes_is_refused_naming_what_differs(tmp_path, config, mels):
    torch.save({"model": build_unit2mel(configuration(), MELS).state_dict()}, tmp_path / "model_3.pt")
    with pytest.raises(UserError, match=r"does not hold a whole diffusion model as its YAML describes it: "):
        load_unit2mel(tmp_path / "model_3.pt", config, mels, torch.device("cpu"))
