from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import compress_model
from modules.config import save_config
from modules.training.checkpoint import load_checkpoint
from tests.generator_files import SPECTRUM, config_of, sing, write_generator_file
from vits.discriminator import MultiPeriodDiscriminator
from vits.synthesizer import Synthesizer

VARIANTS = {
    "default": {},
    "tiny": {"use_depthwise_conv": True, "flow_share_parameter": True},
    "shared transformer flow": {"use_transformer_flow": True, "flow_share_parameter": True},
    "loudness": {"vol_embedding": True},
    "no F0 decoder": {"use_automatic_f0_prediction": False},
}


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys, *arguments) -> str:
    """The script's error line; checks that nothing was written."""
    assert compress_model.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out
    return captured.err


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_release_sings_the_same(work, variant, half):
    config = config_of(**VARIANTS[variant])
    weights = write_generator_file(work / "G_800.pth", config)
    assert compress_model.main(["-i", "G_800.pth", *["-hf"] * half]) == 0
    release = load_checkpoint(work / f"G_800_release{'_half' * half}.pth")["model"]
    assert list(release) == [name for name in weights if not name.startswith("enc_q.")]
    assert {tensor.dtype for tensor in release.values()} == {torch.float16 if half else torch.float32}
    got, wanted = sing(release, config), sing(weights, config)
    assert torch.equal(got, wanted) if not half else (got - wanted).norm() < 0.02 * wanted.norm()


def test_the_file_has_the_entries_that_the_published_loader_needs(work):
    """Four entries, and the initial state of an optimizer for the complete network."""
    config = config_of()
    write_generator_file(work / "G_800.pth", config)
    compress_model.main(["-i", "G_800.pth", "-hf"])
    release = load_checkpoint(work / "G_800_release_half.pth")
    assert (release["iteration"], release["learning_rate"]) == (0, 1e-4)
    assert set(release) == {"model", "iteration", "optimizer", "learning_rate"}
    optimizer = torch.optim.AdamW(Synthesizer(config.model, SPECTRUM).parameters(), 1.0)
    optimizer.load_state_dict(release["optimizer"])
    assert not optimizer.state
    group = optimizer.param_groups[0]
    train = config.train
    assert (group["lr"], list(group["betas"]), group["eps"]) == (train.learning_rate, train.betas, train.eps)


def test_the_sizes_before_and_after_are_printed_correctly(work, capsys):
    write_generator_file(work / "G_800.pth", config_of())
    for flags, most in (([], 0.4), (["-hf"], 0.22)):
        assert compress_model.main(["-i", "G_800.pth", "-o", "out/small.pth", *flags]) == 0
        before, after = ((work / name).stat().st_size / 1e6 for name in ("G_800.pth", "out/small.pth"))
        assert after < most * before
        line = f"out/small.pth: {after:.1f} MB, of G_800.pth's {before:.1f} MB ({after / before:.0%})\n"
        assert capsys.readouterr().out == line


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_any_name_of_a_model_is_printed_in_one_line(work, capsys):
    write_generator_file(work / "G_1.pth", config_of())
    (work / "G_1.pth").rename(work / "a\nb\udcff.pth")
    assert compress_model.main(["-i", "a\nb\udcff.pth"]) == 0 and (work / "a\nb\udcff_release.pth").is_file()
    assert capsys.readouterr().out.startswith("a\\nb\\udcff_release.pth: ")
    (work / "a\nb\udcff.pth").rename(work / f"{'n' * 250}.pth")
    assert "File name too long" in refusal(capsys, "-i", f"{'n' * 250}.pth")


@pytest.mark.parametrize("half", [False, True])
def test_names_of_one_tensor_share_it_in_the_file_too(work, half):
    """Also if the source has a copy for each name, as the original's half-precision files have."""
    config = config_of(flow_share_parameter=True)
    write_generator_file(work / "G_1.pth", config)
    content = load_checkpoint(work / "G_1.pth")
    content["model"] = {name: tensor.clone() for name, tensor in content["model"].items()}
    torch.save(content, work / "G_1.pth")
    compress_model.main(["-i", "G_1.pth", *["-hf"] * half])
    release = load_checkpoint(next(work.glob("*release*")))["model"]
    for name in [name for name in release if name.startswith("flow.wn.")]:
        alias = name.replace("flow.wn.", "flow.flows.4.enc.")
        assert release[alias].data_ptr() == release[name].data_ptr()


def test_a_release_becomes_smaller_still_by_half_precision_and_then_no_more(work, capsys):
    write_generator_file(work / "G_1.pth", config_of())
    assert compress_model.main(["-i", "G_1.pth"]) == 0
    assert compress_model.main(["-i", "G_1_release.pth", "-hf"]) == 0
    capsys.readouterr()
    assert "compressed already" in (line := refusal(capsys, "-i", "G_1_release.pth")) and "-hf" in line
    assert "compressed already" in refusal(capsys, "-i", "G_1_release_release_half.pth", "-hf")


def test_weights_in_safetensors_become_a_checkpoint(work):
    weights = write_generator_file(work / "G_1.pth", config_of())
    save_file(weights, work / "voice.safetensors")
    assert compress_model.main(["-i", "voice.safetensors"]) == 0
    release = load_checkpoint(work / "voice_release.pth")["model"]
    assert torch.equal(sing(release, config_of()), sing(weights, config_of()))


def test_the_config_is_the_one_beside_the_model_or_that_of_the_preparation(work):
    write_generator_file(work / "logs" / "G_1.pth", config_of())
    save_config(config_of(gin_channels=6), work / "configs" / "config.json")
    assert compress_model.main(["-i", "logs/G_1.pth", "-o", "a.pth"]) == 0
    (work / "logs" / "config.json").replace(work / "configs" / "config.json")
    assert compress_model.main(["-i", "logs/G_1.pth", "-o", "b.pth"]) == 0
    assert (work / "a.pth").stat().st_size == (work / "b.pth").stat().st_size


# -- what is refused --------------------------------------------------------------------------------------------------


def test_files_of_other_kinds_are_named_by_their_kind(work, capsys):
    save_config(config_of(), work / "config.json")
    config = config_of()
    judges = MultiPeriodDiscriminator(False, tuple(config.model.discriminator_periods), 0.0625)
    others = {
        "D_1.pth": ({"model": judges.state_dict()}, "looks like SoVITS discriminator weights"),
        "model_1.pt": ({"model": {"unit_embed.weight": torch.zeros(1)}}, "looks like shallow diffusion weights"),
        "other.pth": ({"model": {"a": torch.zeros(1)}}, "none of the tensors that a generator has"),
        "kmeans.pt": ({"alto": {"n_features_in_": 3}}, "holds no 'model'"),
    }
    for name, (content, words) in others.items():
        torch.save(content, work / name)
        line = refusal(capsys, "-i", name)
        assert name in line and words in line
    assert not list(work.glob("*release*"))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(work, capsys):
    save_config(config_of(), work / "config.json")
    torch.save({"model": {"enc_p.proj.weight": torch.zeros(1)}, "iteration": Bomb(work / "was_here")}, work / "G_1.pth")
    assert "holds more than tensors" in refusal(capsys, "-i", "G_1.pth")
    assert not (work / "was_here").exists()


def test_a_config_of_another_size_is_refused_with_names_and_shapes(work, capsys):
    write_generator_file(work / "G_1.pth", config_of())
    save_config(config_of(gin_channels=6), work / "other.json")
    assert "emb_g.weight is [2, 4] in the file and [2, 6]" in refusal(capsys, "-c", "other.json", "-i", "G_1.pth")


def test_a_model_is_not_written_over_itself_nor_lost_when_the_disk_is_full(work, capsys, no_room):
    write_generator_file(work / "G_1.pth", config_of())
    before = (work / "G_1.pth").read_bytes()
    assert "over the model" in refusal(capsys, "-i", "G_1.pth", "-o", "./G_1.pth")
    with no_room():
        assert "could not be written" in refusal(capsys, "-i", "G_1.pth")
    assert (work / "G_1.pth").read_bytes() == before
    assert sorted(path.name for path in work.iterdir()) == ["G_1.pth", "config.json"]


def test_numbers_beyond_half_precision_are_not_made_infinite(work, capsys):
    write_generator_file(work / "G_1.pth", config_of())
    content = load_checkpoint(work / "G_1.pth")
    content["model"]["pre.bias"][0] = 1e6
    torch.save(content, work / "G_1.pth")
    assert "pre.bias holds numbers beyond half precision" in refusal(capsys, "-i", "G_1.pth", "-hf")


@pytest.mark.parametrize("name", ["G_2.pth", "G_2.safetensors"])
def test_a_missing_or_truncated_input_is_named(work, capsys, name):
    save_config(config_of(), work / "config.json")
    assert f"there is no checkpoint {name}" in refusal(capsys, "-i", name)
    (work / name).write_bytes(b"PK\x03\x04")
    assert name in refusal(capsys, "-i", name)
