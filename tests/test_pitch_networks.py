"""RMVPE and FCPE: loading of weight files, and F0 of audio, silence and short audio."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from modules.audio.files import sinc_resample
from modules.audio.torchaudio_guard import import_torchaudio
from modules.console import UserError
from modules.f0 import F0_PREDICTORS, build_f0_predictor, fcpe
from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
from modules.f0.rmvpe_network import RmvpeNetwork
from modules.f0.salience import ZERO_CROSSINGS, decode
from tests.pitch_files import narrow_rmvpe, random_network, small_fcpe, write_fcpe, write_narrow_rmvpe

RATE, HOP = 44100, 512
NETWORKS = ["rmvpe", "fcpe"]
needs_torchfcpe = pytest.mark.skipif(importlib.util.find_spec("torchfcpe") is None, reason="torchfcpe is not installed")


@pytest.fixture
def pretrain(tmp_path, monkeypatch):
    """A folder with both weight files, of small networks."""
    write_narrow_rmvpe(tmp_path / "rmvpe.pt", monkeypatch)
    write_fcpe(tmp_path / "fcpe.pt")
    return tmp_path


def voice(samples: int, f0: float = 220, rate: int = RATE, seed: int = 0) -> np.ndarray:
    time = np.arange(samples) / rate
    tone = sum(np.sin(2 * np.pi * f0 * k * time) / k for k in range(1, 8))
    return (0.1 * tone + 0.01 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


# -- networks ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_folded_norms_change_nothing_and_drop_what_is_unused():
    network, mel = narrow_rmvpe(), torch.randn(1, 128, 70)
    before = network(mel)
    torch.testing.assert_close(network.fold()(mel), before, atol=1e-4, rtol=0)
    assert not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in network.unet.decoder.modules())
    assert not any(name.startswith("unet.tf.") for name in network.state_dict())


@torch.inference_mode()
def test_folding_copies_every_tensor_and_can_store_channels_last():
    network, mel = narrow_rmvpe(), torch.randn(1, 128, 70)
    before, unfolded = network(mel), network.state_dict()
    network.fold(torch.channels_last)
    torch.testing.assert_close(network(mel), before, atol=1e-4, rtol=0)
    addresses = [{tensor.data_ptr() for tensor in state.values()} for state in (unfolded, network.state_dict())]
    assert addresses[0].isdisjoint(addresses[1])
    images = [weight for weight in network.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in images)


def test_rmvpes_bins_are_crepes(pretrain):
    """360 bins of 20 cents, the first at 31.70 Hz (J. W. Kim et al., "CREPE", 2018): the last is at 2005.5 Hz."""
    cents = build_f0_predictor("rmvpe", folder=pretrain).cents
    salience = torch.eye(360)[[0, 60, 359]]
    assert decode(salience, cents, 0.05).tolist() == pytest.approx([31.70, 63.40, 2005.5], rel=2e-4)


def test_decoding_weighs_nine_bins_and_treats_edges_as_in_each_network():
    cents = torch.arange(12.0) * 100
    salience = torch.zeros(3, 12)
    salience[0, 5:7] = torch.tensor([0.8, 0.4])
    salience[1, :2] = torch.tensor([0.6, 0.3])
    salience[2, 3] = 0.05
    expected = [(5 * 0.8 + 6 * 0.4) / 1.2, 0.3 / 0.9, None]
    once = decode(salience, cents, threshold=0.05)
    for f0, semitones in zip(once, expected, strict=True):
        assert f0 == pytest.approx(10 * 2 ** (semitones / 12) if semitones else 0)
    twice = decode(salience, cents, 0.05, edges_count_twice=True)
    assert twice[0] == once[0] and twice[1] == pytest.approx(10 * 2 ** (0.3 / (5 * 0.6 + 0.3) / 12))
    assert decode(torch.full((1, 12), torch.nan), cents, 0.05).isnan().all()


# -- weight files -----------------------------------------------------------------------------------------------------


def test_without_its_file_rmvpe_names_its_path_and_the_alternatives(tmp_path):
    with pytest.raises(UserError, match="'rmvpe' needs the file .*rmvpe.pt.* fcpe, crepe or pm"):
        build_f0_predictor("rmvpe", folder=tmp_path)


@pytest.mark.parametrize("key", NETWORKS)
def test_a_truncated_file_and_one_of_another_kind_are_named(key, pretrain):
    path = pretrain / f"{key}.pt"
    other = pretrain / ("fcpe.pt" if key == "rmvpe" else "rmvpe.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{key}.pt .*truncated"):
        build_f0_predictor(key, folder=pretrain)
    path.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=f"holds no {key.upper()} weights: it looks like"):
        build_f0_predictor(key, folder=pretrain)


@pytest.mark.parametrize("key", NETWORKS)
def test_a_hostile_file_is_refused_and_runs_nothing(key, pretrain):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {pretrain / 'ran'}",)

    checkpoint = torch.load(pretrain / f"{key}.pt", weights_only=True)
    torch.save(checkpoint | {"optimizer": Hostile()}, pretrain / f"{key}.pt")
    with pytest.raises(UserError, match=rf"{key}.pt is refused: its pickle uses \w+.system"):
        build_f0_predictor(key, folder=pretrain)
    assert not (pretrain / "ran").exists()


@pytest.mark.parametrize("key", NETWORKS)
def test_a_file_of_other_sizes_is_refused_with_the_tensor_that_differs(key, pretrain):
    checkpoint = torch.load(pretrain / f"{key}.pt", weights_only=True)
    name = {"rmvpe": "cnn.weight", "fcpe": "norm.weight"}[key]
    checkpoint["model"][name] = torch.zeros(7)
    torch.save(checkpoint, pretrain / f"{key}.pt")
    with pytest.raises(UserError, match=rf"{name} is \[7\] and should be"):
        build_f0_predictor(key, folder=pretrain)


@pytest.mark.parametrize("key", NETWORKS)
def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(key, pretrain):
    checkpoint = torch.load(pretrain / f"{key}.pt", weights_only=True)
    name = {"rmvpe": "cnn.bias", "fcpe": "norm.bias"}[key]
    del checkpoint["model"][name]
    torch.save(checkpoint, pretrain / f"{key}.pt")
    with pytest.raises(UserError, match=f"{name} is missing"):
        build_f0_predictor(key, folder=pretrain)


def test_damaged_weights_are_not_taken_for_silence(pretrain):
    checkpoint = torch.load(pretrain / "fcpe.pt", weights_only=True)
    checkpoint["model"]["dense_out.bias"][:] = torch.nan
    torch.save(checkpoint, pretrain / "fcpe.pt")
    with pytest.raises(UserError, match="fcpe.pt gives F0 that is not finite"):
        build_f0_predictor("fcpe", folder=pretrain)(voice(8000))


def test_a_bare_or_half_precision_file_loads_too(pretrain):
    predict = build_f0_predictor("rmvpe", folder=pretrain, threshold=0)
    expected = predict(voice(9000))[0]
    model = torch.load(pretrain / "rmvpe.pt", weights_only=True)["model"]
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in model.items()}, pretrain / "rmvpe.pt")
    np.testing.assert_allclose(
        build_f0_predictor("rmvpe", folder=pretrain, threshold=0)(voice(9000))[0], expected, rtol=0.01
    )


@pytest.mark.parametrize("key", NETWORKS)
def test_weights_are_read_once_whatever_the_threshold(key, pretrain, monkeypatch):
    first = build_f0_predictor(key, folder=pretrain)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the weights were read again"))
    assert build_f0_predictor(key, folder=pretrain, threshold=0.5).network is first.network


@needs_torchfcpe
def test_without_a_file_fcpe_is_torchfcpes_own_model(tmp_path, caplog):
    import_torchaudio()
    import torchfcpe

    predict = build_f0_predictor("fcpe", 16000, 160, folder=tmp_path)
    with caplog.at_level(logging.INFO, "svc.f0"):
        fcpe.load_network.__wrapped__(predict.weight, torch.device("cpu"))
    assert "the model that comes with torchfcpe" in caplog.text
    audio = voice(8000, 300, 16000)
    theirs = torchfcpe.spawn_bundled_infer_model("cpu")
    with torch.inference_mode():
        expected = theirs.model(theirs.wav2mel(torch.from_numpy(audio)[None, :, None], 16000))
        ours = predict.network(predict.log_mel(torch.from_numpy(audio)[None]))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    f0, uv = predict(audio)
    assert uv[3:-3].all() and np.abs(1200 * np.log2(f0[3:-3] / 300)).max() < 20


@needs_torchfcpe
def test_a_users_file_is_preferred_to_the_bundled_model(pretrain, caplog):
    with caplog.at_level(logging.INFO, "svc.f0"):
        assert build_f0_predictor("fcpe", folder=pretrain).network.norm.weight.shape == (32,)
    assert str(pretrain / "fcpe.pt") in caplog.text


@needs_torchfcpe
def test_torchfcpes_file_works_as_the_users_file(tmp_path, caplog):
    bundled = fcpe.bundled_weight()
    (tmp_path / "fcpe.pt").write_bytes(bundled.read_bytes())
    with caplog.at_level(logging.INFO, "svc.f0"):
        found = build_f0_predictor("fcpe", 16000, 160, folder=tmp_path)(voice(4000, rate=16000))
    assert str(tmp_path / "fcpe.pt") in caplog.text
    np.testing.assert_array_equal(found, build_f0_predictor("fcpe", 16000, 160)(voice(4000, rate=16000)))


def test_the_name_of_the_folder_does_not_decide_what_is_in_a_file(tmp_path):
    (tmp_path / "torchfcpe").mkdir()
    write_fcpe(tmp_path / "torchfcpe" / "fcpe.pt")
    assert build_f0_predictor("fcpe", folder=tmp_path / "torchfcpe").network.norm.weight.shape == (32,)


@pytest.mark.parametrize("said", [3, {"hop_size": 0}, {"num_mels": 80}, {"hop_size": "160"}, {"win_size": 2048}])
def test_settings_that_do_not_fit_the_tensors_are_named(pretrain, said):
    checkpoint = torch.load(pretrain / "fcpe.pt", weights_only=True)
    torch.save(checkpoint | {"config": {"mel": said}}, pretrain / "fcpe.pt")
    with pytest.raises(UserError, match="fcpe.pt is damaged: its (setting mel is a int|tensors take 128 bands)"):
        build_f0_predictor("fcpe", folder=pretrain)


def test_without_file_and_package_fcpe_names_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pretrain/fcpe.pt.*download_pretrain.py --f0 fcpe.*pip install torchfcpe"):
        build_f0_predictor("fcpe", folder=tmp_path)


def test_published_sizes_are_the_default():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in network.parameters()) for network in (RmvpeNetwork(), FcpeNetwork(FcpeSizes()))]
    assert sizes == [91_996_477, 33_101_520]


@pytest.mark.parametrize("key", NETWORKS)
def test_no_package_is_imported_that_takes_longer_than_the_first_clip(key, pretrain):
    code = f"""
import sys
import numpy as np
from modules.f0 import build_f0_predictor, rmvpe
from modules.f0.rmvpe_network import RmvpeNetwork
rmvpe.RmvpeNetwork = lambda: RmvpeNetwork(width=2)
build_f0_predictor({key!r}, folder={str(pretrain)!r})(np.ones(44100, np.float32))
print({{"torch._dynamo", "sympy", "torchfcpe", "librosa", "scipy"}} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


# -- predictors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NETWORKS)
@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_every_length_gives_its_whole_hops(key, rate, pretrain):
    predict = build_f0_predictor(key, rate, HOP, folder=pretrain, threshold=0.0)
    generator = np.random.default_rng(rate)
    for samples in (0, 1, 513, 2821, 2822, 2823, *generator.integers(3000, 30000, 3)):
        for frames in (None, samples // HOP + 1):
            f0, uv = predict(voice(samples, rate=rate), frames)
            assert f0.shape == uv.shape == (samples // HOP if frames is None else frames,)
            assert f0.dtype == uv.dtype == np.float32 and np.isfinite(f0).all()


@pytest.mark.parametrize("key", NETWORKS)
def test_silence_and_less_than_a_window_give_zeros(key, pretrain):
    predict = build_f0_predictor(key, folder=pretrain, threshold=0.0)
    for audio in (np.zeros(30000, np.float32), voice(2822)):
        f0, uv = predict(audio)
        assert len(f0) == len(audio) // HOP and not f0.any() and not uv.any()


@pytest.mark.parametrize("key", NETWORKS)
def test_the_threshold_decides_what_is_voiced(key, pretrain):
    shares = [
        build_f0_predictor(key, folder=pretrain, threshold=threshold)(voice(40000))[1].mean()
        for threshold in np.linspace(0, 1, 6)
    ]
    assert shares[0] == 1 and shares[-1] == 0 and shares == sorted(shares, reverse=True)
    assert F0_PREDICTORS[key].uses_threshold


@pytest.mark.parametrize("key", NETWORKS)
def test_what_is_not_finite_in_half_precision_is_computed_in_float32(key, pretrain, monkeypatch, caplog):
    predict = build_f0_predictor(key, folder=pretrain, threshold=0.0)
    expected = predict(voice(20000))[0]
    whole, calls = predict.network.forward, []

    def overflowing(mel):
        calls.append(torch.is_autocast_enabled("cpu"))
        return whole(mel) * torch.nan if calls[-1] else whole(mel)

    predict.half = True
    monkeypatch.setattr(predict.network, "forward", overflowing)
    np.testing.assert_allclose(predict(voice(20000))[0], expected, rtol=1e-5)
    assert calls == [True, False] and "half precision does not suffice" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("key", NETWORKS)
def test_cuda_agrees_with_the_cpu(key, pretrain):
    audio = voice(60000)
    cpu = build_f0_predictor(key, folder=pretrain, threshold=0.0)
    cuda = build_f0_predictor(key, device="cuda", folder=pretrain, threshold=0.0)
    mel = cpu.log_mel(sinc_resample(torch.from_numpy(audio), RATE, 16000, ZERO_CROSSINGS)[None])
    with torch.inference_mode():
        expected = cpu.network(mel)
        found = cuda.network(mel.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert np.isfinite(cuda(audio)[0]).all()


def test_random_weights_differ_from_frame_to_frame():
    for network in (narrow_rmvpe(), random_network(small_fcpe())):
        with torch.inference_mode():
            found = network(torch.randn(1, 128, 64))
        assert found.std(dim=1).max() > 1e-3
