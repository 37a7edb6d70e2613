from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

import mix_model
from modules.config import save_config
from modules.console import UserError
from modules.training.checkpoint import load_checkpoint
from tests.generator_files import config_of, sing, write_generator_file
from vits.mixing import mixed, shares


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mix(*arguments) -> dict[str, torch.Tensor]:
    assert mix_model.main([str(argument) for argument in arguments]) == 0
    return load_checkpoint("output.pth")["model"]


def refusal(capsys, *arguments) -> str:
    """The script's error line; checks that nothing was written."""
    assert mix_model.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err.splitlines()[-1]


def voices(work, number=3, **model) -> list[dict[str, torch.Tensor]]:
    """The weights of 0/G.pth, 1/G.pth, ..."""
    return [write_generator_file(work / str(i) / "G.pth", config_of(**model), seed=i) for i in range(number)]


# -- shares -----------------------------------------------------------------------------------------------------------


def test_convex_shares_are_a_softmax_and_equal_weights_the_mean():
    assert shares([100, 0], "convex") == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])
    assert shares([37] * 4, "convex") == pytest.approx([0.25] * 4)
    assert sum(shares([0, 20, 90, 100, 3], "convex")) == pytest.approx(1)


def test_linear_shares_are_the_weights_and_a_sum_other_than_a_hundred_is_a_warning(caplog):
    assert shares([60, 40], "linear") == [0.6, 0.4] and not caplog.text
    assert shares([33.3, 33.3, 33.3], "linear") == pytest.approx([1 / 3] * 3, abs=1e-3) and not caplog.text
    assert shares([100, 50], "linear") == [1.0, 0.5]
    assert "sum to 150" in caplog.text
    shares([33, 33, 33], "linear")
    assert "sum to 99" in caplog.text


@pytest.mark.parametrize("weight", [-1, 101, math.nan, math.inf])
def test_weights_are_from_0_to_100(weight):
    with pytest.raises(UserError, match="weights are from 0 to 100"):
        shares([weight, 50], "convex")


def test_the_published_examples_of_all_ones_and_all_zeros():
    models = [{"w": torch.ones(4)}, {"w": torch.zeros(4)}]
    assert mixed(models, shares([100, 100], "convex"))["w"].tolist() == [0.5] * 4
    assert mixed(models, shares([100, 50], "linear"))["w"].tolist() == [1.0] * 4


def test_a_mix_is_as_precise_as_its_most_precise_model():
    half, single = torch.tensor([1 / 3]).half(), torch.tensor([1 / 3])
    assert mixed([{"w": half}, {"w": half}], [0.5, 0.5])["w"].dtype == torch.float16
    got = mixed([{"w": half}, {"w": single}], [0.5, 0.5])["w"]
    assert got.dtype == torch.float32 and got.item() == pytest.approx((half.item() + single.item()) / 2, abs=1e-7)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["convex", "linear"])
def test_without_weights_three_models_give_their_mean(work, mode):
    models = voices(work)
    got = mix("-m", "0/G.pth", "1/G.pth", "2/G.pth", "--mode", mode)
    assert list(got) == list(models[0])
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, sum(model[name] for model in models) / 3)


def test_a_mix_of_a_model_with_itself_sings_as_it_does(work):
    weights = voices(work, 1)[0]
    got = mix("-m", "0/G.pth", "0/G.pth", "-w", 30, 70, "--mode", "linear")
    torch.testing.assert_close(sing(got, config_of()), sing(weights, config_of()), rtol=1e-4, atol=1e-5)


def test_linear_weights_of_100_and_0_are_the_first_model(work):
    models = voices(work, 2)
    got = mix("-m", "0/G.pth", "1/G.pth", "-w", 100, 0, "--mode", "linear")
    assert all(torch.equal(tensor, models[0][name]) for name, tensor in got.items())


def test_everything_but_the_weights_is_the_first_models(work, capsys):
    voices(work, 2)
    mix("-m", "0/G.pth", "1/G.pth", "-w", 60, 40, "--mode", "linear")
    got, first = load_checkpoint("output.pth"), load_checkpoint("0/G.pth")
    assert (got["iteration"], got["learning_rate"]) == (7, 3e-4)
    assert got["optimizer"]["param_groups"] == first["optimizer"]["param_groups"]
    assert capsys.readouterr().out == "output.pth: 0.600 0/G.pth + 0.400 1/G.pth\n"


def test_names_of_one_tensor_share_it_in_the_mix_too(work):
    voices(work, 2, flow_share_parameter=True)
    got = mix("-m", "0/G.pth", "1/G.pth")
    for name in [name for name in got if name.startswith("flow.wn.")]:
        assert got[name].data_ptr() == got[name.replace("flow.wn.", "flow.flows.2.enc.")].data_ptr()


def test_safetensors_and_checkpoints_mix_and_the_result_has_the_four_published_entries(work):
    models = voices(work, 2)
    save_file(models[0], work / "0" / "G.safetensors")
    got = mix("-m", "0/G.safetensors", "1/G.pth")
    assert all(torch.allclose(tensor, (models[0][name] + models[1][name]) / 2) for name, tensor in got.items())
    content = load_checkpoint("output.pth")
    assert {key: content[key] for key in content if key != "model"} == {
        "iteration": 0, "optimizer": None, "learning_rate": 1e-4,
    }  # fmt: skip


def test_releases_mix_with_releases(work):
    for index, weights in enumerate(voices(work, 2)):
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("enc_q.")}
        torch.save({"model": kept}, work / str(index) / "small.pth")
    assert sing(mix("-m", "0/small.pth", "1/small.pth"), config_of()).isfinite().all()


def test_a_model_without_a_config_is_compared_by_names_and_shapes(work, caplog):
    voices(work, 2)
    (work / "1" / "config.json").unlink()
    mix("-m", "0/G.pth", "1/G.pth")
    assert "there is no 1/config.json" in caplog.text


def test_speakers_of_other_names_are_a_warning(work, caplog):
    voices(work, 2)
    config = config_of()
    config.spk = {"tenor": 0, "alto": 1}
    save_config(config, work / "1" / "config.json")
    mix("-m", "0/G.pth", "1/G.pth")
    assert "0/config.json and 1/config.json name speakers differently" in caplog.text


# -- what is refused --------------------------------------------------------------------------------------------------


def test_the_first_difference_of_the_model_sections_is_named(work, capsys):
    voices(work, 2)
    save_config(config_of(n_heads=4, speech_encoder="dphubert"), work / "1" / "config.json")
    line = refusal(capsys, "-m", "0/G.pth", "1/G.pth")
    assert "0/config.json and 1/config.json do not mix: model.n_heads is 2 and 4" in line
    assert not (work / "output.pth").exists()


def test_the_first_difference_of_the_networks_is_named(work, capsys):
    voices(work, 2)
    write_generator_file(work / "other" / "G.pth", config_of(gin_channels=6))
    (work / "other" / "config.json").unlink()
    line = refusal(capsys, "-m", "0/G.pth", "1/G.pth", "other/G.pth")
    assert "0/G.pth and other/G.pth do not mix: emb_g.weight is [2, 4] and [2, 6]" in line


@pytest.mark.parametrize("order", [("0/G.pth", "1/G.pth"), ("1/G.pth", "0/G.pth")])
def test_a_release_does_not_mix_with_a_complete_model_and_the_error_has_advice(work, capsys, order):
    weights = voices(work, 2)[1]
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("enc_q.")}
    torch.save({"model": kept}, work / "1" / "G.pth")
    line = refusal(capsys, "-m", *order)
    assert "enc_q." in line and "absent" in line and "compress all of them or none" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "0/G.pth"], "two models or more"),
        (["-m", "0/G.pth", "1/G.pth", "-w", "50"], "1 weights for 2 models"),
        (["-m", "0/G.pth", "1/G.pth", "-w", "50", "120"], "120 is not a weight"),
        (["-m", "0/G.pth", "1/G.pth", "-w", "0", "0", "--mode", "linear"], "weight 0"),
        (["-m", "0/G.pth", "1/G.pth", "-o", "1/G.pth"], "over the model that it is made of"),
        (["-m", "0/G.pth", "1/G.pth", "-o", "mix.safetensors"], "mix.safetensors"),
        (["-m", "0/G.pth", "nowhere.pth"], "there is no checkpoint nowhere.pth"),
        (["-m", "0/G.pth", "D.pth"], "D.pth is no generator"),
    ],
)
def test_wrong_arguments_are_user_errors(work, capsys, arguments, words):
    voices(work, 2)
    torch.save({"model": {"discriminators.0.convs.0.bias": torch.zeros(2)}}, work / "D.pth")
    before = sorted(path.name for path in work.rglob("*"))
    assert words in refusal(capsys, *arguments)
    assert sorted(path.name for path in work.rglob("*")) == before
