from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from modules.audio.spectrogram import VocoderMel
from modules.console import UserError
from tests.vocoder_files import NOT_OF_THE_NETWORK, PUBLISHED_MEL, SMALL_NETWORK, small_generator, write_vocoder
from vdecoder.mel_vocoder import load_mel_vocoder
from vdecoder.vocoder_config import load_vocoder_config

OTHER_SIZES = {
    "sampling_rate": 22050,
    "num_mels": 20,
    "n_fft": 512,
    "win_size": 512,
    "hop_size": 60,
    "fmin": 0,
    "fmax": None,
    "upsample_rates": [5, 4, 3],
    "upsample_kernel_sizes": [10, 8, 6],
    "resblock": "2",
}
CONTRADICTIONS = {
    "upsample_rates multiply to 512, but hop_size is 256": {"hop_size": 256},
    "upsample_rates and upsample_kernel_sizes must have as many items": {"upsample_kernel_sizes": [16, 16]},
    "upsample_kernel_sizes is [16, 16, 4]; none may be smaller": {"upsample_kernel_sizes": [16, 16, 4]},
    "resblock_kernel_sizes and resblock_dilation_sizes must have as many": {"resblock_kernel_sizes": [3, 7]},
    "none may be smaller than its rate ([8, 8, 8, 1]), or even where that is 1": {
        "upsample_rates": [8, 8, 8, 1],
        "upsample_kernel_sizes": [16, 16, 16, 2],
    },
    "upsample_initial_channel is 7; it must be at least 8": {"upsample_initial_channel": 7},
    "win_size 4096 exceeds n_fft 2048": {"win_size": 4096},
    "fmin 40 and fmax 30000 are no band below 22050 Hz": {"fmax": 30000},
    "num_mels is '128'; it must be a whole number": {"num_mels": "128"},
    "resblock is '3'; allowed: '1', '2'": {"resblock": "3"},
}


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def song(vocoder, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.randn(1, frames, vocoder.n_mels, generator=seeded(2)) - 4
    f0 = torch.rand(1, frames, generator=seeded(3)) * 300 + 100
    f0[:, frames // 2 : frames // 2 + 3] = 0
    return mel, f0


def rewrite(path, **changes) -> None:
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}), encoding="utf-8")


@pytest.mark.parametrize("sizes", [{}, OTHER_SIZES])
def test_a_loaded_vocoder_sounds_like_the_network_that_was_saved(tmp_path, sizes):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path, **sizes))
    mel, f0 = song(vocoder, 40)
    network = small_generator(**sizes)
    with torch.inference_mode():
        wanted = network.generate(mel.transpose(1, 2), network.m_source(f0, seeded()))[:, 0]
    audio = vocoder.synthesize(mel, f0, seeded())
    assert audio.shape == (1, 40 * vocoder.hop_length)
    assert (vocoder.sampling_rate, vocoder.n_mels) == (network.m_source.sampling_rate, mel.shape[2])
    torch.testing.assert_close(audio, wanted, rtol=1e-5, atol=2e-6)
    assert not any("weight_g" in name for name in vocoder.network.state_dict())


def test_a_long_song_in_blocks_equals_one_pass(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path, **OTHER_SIZES))
    mel, f0 = song(vocoder, 400)
    with torch.inference_mode():
        whole = vocoder.network.generate(mel.transpose(1, 2), vocoder.network.m_source(f0, seeded()))[:, 0]
    torch.testing.assert_close(vocoder.synthesize(mel, f0, seeded()), whole, rtol=0, atol=2e-6)


def test_f0_beyond_the_mel_is_cut_and_too_little_is_an_error(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path, **OTHER_SIZES))
    mel, f0 = song(vocoder, 20)
    longer = torch.cat((f0, torch.full((1, 3), 999.0)), dim=1)
    assert torch.equal(vocoder.synthesize(mel, longer, seeded()), vocoder.synthesize(mel, f0, seeded()))
    with pytest.raises(ValueError, match="the mel has 20 frames and F0 only 19"):
        vocoder.synthesize(mel, f0[:, 1:])


def test_the_log10_kind_takes_the_same_mel_in_decimal_logarithms(tmp_path):
    path = write_vocoder(tmp_path, **OTHER_SIZES)
    natural, decimal = load_mel_vocoder(path), load_mel_vocoder(path, kind="nsf-hifigan-log10")
    mel, f0 = song(natural, 20)
    wanted = natural.synthesize(mel.exp().log10(), f0, seeded())
    torch.testing.assert_close(decimal.synthesize(mel, f0, seeded()), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(natural.extract(mel[..., 0].repeat(1, 99)), decimal.extract(mel[..., 0].repeat(1, 99)))


def test_the_same_seed_gives_the_same_sound_and_leaves_the_global_generator_alone(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path))
    mel, f0 = song(vocoder, 20)
    before = torch.get_rng_state()
    one, again, other = (vocoder.synthesize(mel, f0, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_mels_have_the_configs_bands_and_may_train_networks(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path, **OTHER_SIZES))
    audio = torch.randn(2, 3001, generator=seeded()) * 0.1
    mel = vocoder.extract(audio)
    assert mel.shape == (2, 3001 // 60, 20)
    own = VocoderMel(sampling_rate=22050, n_mels=20, n_fft=512, win_length=512, hop_length=60, fmin=0, fmax=None)
    assert torch.equal(mel, own(audio).transpose(1, 2))
    assert torch.equal(vocoder.extract(audio, 3.0, 2.0), own(audio, 3, 2).transpose(1, 2))
    (mel * torch.ones(20, requires_grad=True)).sum().backward()  # an inference tensor would raise here


def test_sound_of_another_rate_gives_the_mel_of_the_same_sound(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path))

    def tone(rate):
        return 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(rate // 2) / rate)[None]

    mels = vocoder.extract(tone(44100)), vocoder.extract(tone(48000), sampling_rate=48000)
    assert mels[0].shape == mels[1].shape
    inner = [mel[:, 5:-5, :20] for mel in mels]  # the bins of the tone, away from the ends
    torch.testing.assert_close(*inner, rtol=0, atol=0.02)


# -- files ------------------------------------------------------------------------------------------------------------


def refusal(path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        load_mel_vocoder(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named_with_its_description(tmp_path):
    path = write_vocoder(tmp_path / "nsf_hifigan")
    (tmp_path / "nsf_hifigan" / "config.json").unlink()
    assert re.search(r"no .*config\.json.*download_pretrain\.py --vocoder", refusal(path))
    path.unlink()
    assert re.search(r"needs 'model' in .*nsf_hifigan/.*download_pretrain\.py --vocoder", refusal(path))


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path):
    assert "nsf-hifigan-log10" in refusal(write_vocoder(tmp_path), kind="nsf_hifigan")


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"<html>no such page</html>", "web page"),
        ({"model": {"enc_p.proj.weight": torch.zeros(1)}}, "SoVITS generator"),
        ({"generator": {"stranger": torch.zeros(1)}}, "holds none of the tensors"),
        ("cut", "truncated"),
    ],
)
def test_another_kind_of_weight_file_is_refused_by_what_it_looks_like(tmp_path, content, looks):
    path = write_vocoder(tmp_path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert looks in refusal(path)


@pytest.mark.parametrize("key", [*PUBLISHED_MEL, *SMALL_NETWORK])
def test_every_key_of_the_config_is_needed(tmp_path, key):
    path = write_vocoder(tmp_path)
    rewrite(tmp_path / "config.json", **{key: "absent"})
    assert f"config.json lacks {key}" in refusal(path)


@pytest.mark.parametrize("sentence", CONTRADICTIONS)
def test_a_config_that_contradicts_itself_is_refused(tmp_path, sentence):
    path = write_vocoder(tmp_path)
    rewrite(tmp_path / "config.json", **CONTRADICTIONS[sentence])
    assert sentence in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\N{REPLACEMENT CHARACTER}"])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    path = write_vocoder(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert "config.json" in refusal(path)


def test_sizes_that_disagree_with_the_weights_are_named(tmp_path):
    path = write_vocoder(tmp_path)
    rewrite(tmp_path / "config.json", num_mels=80)
    assert re.search(r"conv_pre.weight_v is \[16, 128, 7\] and should be \[16, 80, 7\]", refusal(path))


@pytest.mark.parametrize(("key", "value"), [("mini_nsf", True), ("noise_sigma", 0.2)])
def test_a_newer_network_is_refused_with_its_key(tmp_path, key, value):
    assert f"config.json: {key} is {value!r}" in refusal(write_vocoder(tmp_path, **{key: value}))


def test_a_newer_release_without_the_new_networks_loads(tmp_path):
    vocoder = load_mel_vocoder(write_vocoder(tmp_path, mini_nsf=False, noise_sigma=0.0, pc_aug=True))
    assert np.isfinite(vocoder.synthesize(*song(vocoder, 8)).numpy()).all()


def test_keys_of_the_training_are_kept_as_extra(tmp_path):
    write_vocoder(tmp_path)
    assert load_vocoder_config(tmp_path / "config.json").extra == NOT_OF_THE_NETWORK
