"""Configuration files: published defaults, round trips, and errors that name the key."""

import json
from pathlib import Path

import pytest
import yaml

from modules.config import (
    Config,
    DiffusionConfig,
    load_config,
    load_diffusion_config,
    save_config,
    save_diffusion_config,
)
from modules.console import UserError
from tests.bounded import bounded

TEMPLATES = Path(__file__).parent.parent / "configs_template"


@pytest.fixture
def written(tmp_path):
    """Write values as config.json and return its path."""

    def write(values):
        path = tmp_path / "config.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", ["config_template.json", "config_tiny_template.json"])
def test_a_template_comes_back_from_a_round_trip_as_it_was(name, tmp_path):
    save_config(load_config(TEMPLATES / name), tmp_path / "config.json")
    before, after = (json.loads(path.read_text("utf-8")) for path in (TEMPLATES / name, tmp_path / "config.json"))
    assert after == before
    assert list(after["model"]) == list(before["model"])
    assert repr(after) == repr(before)  # 45 does not become 45.0


def test_the_diffusion_template_comes_back_from_a_round_trip_as_it_was(tmp_path):
    save_diffusion_config(load_diffusion_config(TEMPLATES / "diffusion_template.yaml"), tmp_path / "diffusion.yaml")
    before = (TEMPLATES / "diffusion_template.yaml").read_text("utf-8")
    after = (tmp_path / "diffusion.yaml").read_text("utf-8")
    assert repr(yaml.safe_load(after)) == repr(dict(sorted_deep(yaml.safe_load(before))))


def sorted_deep(values):
    return {key: sorted_deep(values[key]) for key in sorted(values)} if isinstance(values, dict) else values


def test_the_full_template_is_the_published_one():
    config = load_config(TEMPLATES / "config_template.json")
    assert (config.train.learning_rate, config.train.eps, config.train.lr_decay) == (1e-4, 1e-9, 0.999875)
    assert (config.train.segment_size, config.train.batch_size, config.train.keep_ckpts) == (10240, 6, 3)
    assert (config.data.n_mel_channels, config.data.mel_fmax) == (80, 22050)
    assert config.data.unit_interpolate_mode == "nearest"
    assert (config.model.ssl_dim, config.model.gin_channels, config.model.n_speakers) == (768, 768, 200)


def test_the_tiny_template_differs_from_the_full_one_in_four_keys():
    full, tiny = (load_config(TEMPLATES / f"config{kind}_template.json").to_dict() for kind in ("", "_tiny"))
    assert (full["train"], full["data"]) == (tiny["train"], tiny["data"])
    different = {key: (full["model"][key], tiny["model"][key]) for key in full["model"]}
    assert {key: pair for key, pair in different.items() if pair[0] != pair[1]} == {
        "filter_channels": (768, 512),
        "upsample_initial_channel": (512, 400),
        "use_depthwise_conv": (False, True),
        "flow_share_parameter": (False, True),
    }


def test_a_file_of_version_4_0_gets_the_behaviour_of_version_4_0(written):
    values = json.loads((TEMPLATES / "config_template.json").read_text("utf-8"))
    for key in ("vol_embedding", "use_automatic_f0_prediction", "vocoder_name", "n_flow_layer", "speech_encoder"):
        del values["model"][key]
    del values["data"]["unit_interpolate_mode"], values["train"]["keep_ckpts"]
    config = load_config(written(values))
    assert config.data.unit_interpolate_mode == "left"
    assert config.model.vol_embedding is False
    assert config.model.use_automatic_f0_prediction is True
    assert config.train.keep_ckpts == 0


def test_an_empty_object_loads_with_every_default(written):
    assert load_config(written({})) == Config()


def test_unknown_keys_survive_at_every_level(written, tmp_path):
    values = {"train": {"batch_size": 2, "mystery": [1, {"a": None}]}, "note": "ours", "spk": {"声": 0}}
    config = load_config(written(values))
    save_config(config, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))
    assert again["train"]["mystery"] == [1, {"a": None}]
    assert (again["train"]["batch_size"], again["note"], again["spk"]) == (2, "ours", {"声": 0})


def test_keys_of_ours_are_written_only_where_they_differ(tmp_path):
    config = Config()
    assert "discriminator_width" not in config.to_dict()["model"]
    config.model.discriminator_width = 0.25
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json").model.discriminator_width == 0.25


def test_sections_do_not_share_their_lists():
    first, second = Config(), Config()
    first.model.resblock_dilation_sizes[0][0] = 99
    first.model.discriminator_periods.append(99)
    assert second == Config()


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("train", "batch_size", "six", ["train.batch_size", "'six'", "a whole number"]),
        ("train", "batch_size", 0, ["train.batch_size", "0", "above 0"]),
        ("train", "batch_size", True, ["train.batch_size", "True", "a whole number"]),
        ("train", "half_type", "fp8", ["train.half_type", "'fp8'", "'fp16', 'bf16'"]),
        ("train", "learning_rate", float("nan"), ["train.learning_rate", "nan", "a number"]),
        ("train", "keep_ckpts", -1, ["train.keep_ckpts", "-1", "0 or more"]),
        ("train", "betas", [0.8], ["train.betas", "two numbers"]),
        ("train", "vol_aug", True, ["train.vol_aug", "model.vol_embedding"]),
        ("data", "unit_interpolate_mode", "cubic", ["data.unit_interpolate_mode", "'cubic'", "'left'", "'nearest'"]),
        ("model", "resblock_kernel_sizes", [3, "7"], ["model.resblock_kernel_sizes", "a list", "a whole number"]),
        ("model", "upsample_rates", [8, 8, 2, 2, 4], ["upsample_rates", "1024", "hop_length", "512"]),
        ("model", "upsample_kernel_sizes", [1, 1, 1, 1, 1], ["upsample_kernel_sizes", "smaller than its rate"]),
        ("model", "upsample_rates", [-8, -8, 2, 2, 2], ["upsample_rates", "-8", "1 or more"]),
        ("model", "upsample_kernel_sizes", [16, 16], ["upsample_rates", "upsample_kernel_sizes", "as many"]),
        ("model", "upsample_initial_channel", 31, ["upsample_initial_channel", "31", "at least 32"]),
        ("model", "resblock_kernel_sizes", [3, 7, 10], ["resblock_kernel_sizes", "10", "odd"]),
        ("model", "resblock_kernel_sizes", [3, 7], ["resblock_dilation_sizes", "as many"]),
        ("model", "resblock_dilation_sizes", [[1], [0], [1]], ["resblock_dilation_sizes", "1 or more"]),
        ("model", "resblock_dilation_sizes", [[1], [], [1]], ["resblock_dilation_sizes", "one number at least"]),
        ("model", "resblock_kernel_sizes", [3, 7, -3], ["resblock_kernel_sizes", "-3", "above 0"]),
        ("model", "sampling_rate", 0, ["model.sampling_rate", "above 0"]),
        ("model", "n_heads", 5, ["hidden_channels (192)", "n_heads (5)"]),
        ("model", "inter_channels", 191, ["inter_channels", "191", "even"]),
    ],
)
def test_a_wrong_value_names_the_key_what_was_found_and_what_is_allowed(written, section, key, value, expected):
    path = written({section: {key: value}})
    with pytest.raises(UserError) as caught:
        load_config(path)
    for words in [str(path), *expected]:
        assert words in str(caught.value)


def test_a_speaker_number_beyond_the_embedding_is_refused(written):
    with pytest.raises(UserError, match=r"\['b'\].*0 to 1"):
        load_config(written({"model": {"n_speakers": 2}, "spk": {"a": 1, "b": 2}}))


@pytest.mark.parametrize("text", ["", "  \n", "{", "[1, 2]", '{"train": 5}', '{"spk": {"a": "0"}}'])
def test_a_file_that_is_no_configuration_is_refused_by_name(written, text):
    path = written(text)
    with pytest.raises(UserError, match="config.json"):
        load_config(path)


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path):
    for load in (load_config, load_diffusion_config):
        with pytest.raises(UserError, match="preprocess_flist_config.py"):
            load(tmp_path / "absent")


def test_a_byte_order_mark_is_ignored(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(Config().to_dict()), encoding="utf-8-sig")
    assert load_config(path) == Config()


def test_the_diffusion_file_is_sorted_block_style_and_keeps_unknown_keys_in_ascii(tmp_path):
    config = DiffusionConfig(spk={"声": 0})
    config.extra["future"] = 1
    save_diffusion_config(config, tmp_path / "d.yaml")
    text = (tmp_path / "d.yaml").read_text("utf-8")
    top = [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert top == sorted(top)
    assert r"\u58F0" in text and text.isascii()
    assert load_diffusion_config(tmp_path / "d.yaml") == config


def test_a_wrong_diffusion_value_names_its_key(tmp_path):
    (tmp_path / "d.yaml").write_text("infer:\n  method: euler\n", encoding="utf-8")
    with pytest.raises(UserError, match="infer.method is 'euler'.*'unipc'"):
        load_diffusion_config(tmp_path / "d.yaml")
    (tmp_path / "d.yaml").write_text("train:\n  cache_device: cqu\n", encoding="utf-8")
    with pytest.raises(UserError, match="train.cache_device is 'cqu'.*'cuda'"):
        load_diffusion_config(tmp_path / "d.yaml")
    (tmp_path / "d.yaml").write_text("infer: [\n", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        load_diffusion_config(tmp_path / "d.yaml")


# -- files of other programs, and typos -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "program"),
    [
        ({"model": {"spk_embed_dim": 109, "gin_channels": 256}, "data": {"hop_length": 480}}, "RVC"),
        ({"model": {"spk_embed_dim": 109, "text_enc_hidden_dim": 768}}, "Applio"),
        ({"model": {"prior_hidden_channels": 192, "spk_channels": 192}}, "so-vits-svc 4.0-v2"),
        ({"model": {"gen_istft_n_fft": 16, "gen_istft_hop_size": 4}}, "a fork with an iSTFT decoder"),
        ({"model": {"gen_istft_n_fft": 16, "subbands": 4}}, "a fork with a multi-band iSTFT decoder"),
        ({"resblock": "1", "num_mels": 128, "upsample_rates": [8, 8, 2, 2, 2]}, "a vocoder"),
    ],
)
def test_the_configuration_of_another_program_is_refused_by_its_name(tmp_path, values, program):
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=f"config.json is the configuration of {program}, whose models"):
        load_config(tmp_path / "config.json")


@pytest.mark.parametrize(("size", "encoder"), [(256, "vec256l9"), (768, "vec768l12")])
def test_a_file_of_4_0_names_no_encoder_and_gets_that_of_its_size(tmp_path, size, encoder):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"ssl_dim": size}}), encoding="utf-8")
    assert load_config(tmp_path / "config.json").model.speech_encoder == encoder


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"batchsize": 3}}, "train.batchsize is not a known key and has no effect; is batch_size meant"),
        ({"trian": {"batch_size": 3}}, "trian is not a known key and has no effect; is train meant"),
        ({"note": "mine"}, None),
    ],
)
def test_a_misspelt_key_is_reported_with_the_nearest_known_one(tmp_path, caplog, values, words):
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    load_config(tmp_path / "config.json")
    assert words in caplog.text if words else not caplog.text


def test_an_exponent_without_a_point_is_a_number_in_yaml(tmp_path):
    (tmp_path / "diffusion.yaml").write_text("train: {lr: 1e-4, weight_decay: 1E-2}", encoding="utf-8")
    train = load_diffusion_config(tmp_path / "diffusion.yaml").train
    assert (train.lr, train.weight_decay) == (1e-4, 1e-2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"segment_size": 512}}, r"train.segment_size \(512\) must exceed 768 samples"),
        ({"data": {"mel_fmin": 9000, "mel_fmax": 8000}}, r"data.mel_fmin \(9000\) and data.mel_fmax"),
        ({"data": {"mel_fmax": 30000}}, "data.mel_fmax"),
        ({"spk": {"alto": 0, "bass": 1, "tenor": 0}}, "spk gives alto, tenor the same number"),
        ({"train": {"batch_size": 2**31}}, "train.batch_size is 2147483648; it must be within 2147483647"),
        ({"train": {"batch_size": 10**12}}, "train.batch_size is 1000000000000; it must be within 2147483647"),
    ],
)
def test_impossible_values_are_refused(tmp_path, values, words):
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_config(tmp_path / "config.json")


NINE = ", ".join(9 * ["*{0}"])


def aliases(first, following, levels=14):
    """YAML lines that each repeat the previous one nine times."""
    names = [chr(ord("a") + level) for level in range(levels)]
    lines = [f"{new}: &{new} {following.format(NINE.format(old))}" for old, new in zip(names, names[1:], strict=False)]
    return "\n".join([f"a: &a {first}", *lines, f"train: {{lr: *{names[-1]}}}"])


@pytest.mark.parametrize(
    "text",
    [
        aliases("[1, 2]", "[{0}]"),
        aliases("{x: 1}", "{{<<: [{0}]}}"),
        "a: &a [*a]\ntrain: {lr: *a}",
        "[" * 100_000,
        "- " * 100_000,
        '{"a":' * 100_000,
        "train: {seed: " + "9" * 5000 + "}",
        "train: {lr: " + "9" * 4000 + "}",
        "train: {batch_size: 0x" + "f" * 100_000 + "}",
        "a: " + "1:" * 200_000 + "1",  # a number to the base 60, which takes quadratic time
        "train: 2001-99-99",
        "train: !!bool x",
        "train: !!int x",
        "train: !!timestamp x",
        "train: \0",
    ],
)
def test_any_bad_yaml_is_a_user_error(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert "a.yaml" in bounded(load_diffusion_config, tmp_path / "a.yaml", mib=160)


def test_aliases_that_a_program_writes_are_read(tmp_path):
    """PyYAML writes a list that occurs twice as an alias."""
    shared = ["wav", "flac"]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"data": {"extensions": shared}, "more": shared}), encoding="utf-8")
    assert "*id001" in (tmp_path / "a.yaml").read_text(encoding="utf-8")
    config = load_diffusion_config(tmp_path / "a.yaml")
    assert config.data.extensions == config.extra["more"] == shared


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 1_000_000,
        '{"train": {"seed": ' + "9" * 5000 + "}}",
        '{"train": {"seed": ' + "9" * 4000 + "}}",
        '{"train": {"learning_rate": ' + "9" * 4000 + "}}",
        '{"train": {"betas": ' + "[" * 300 + "]" * 300 + "}}",
        '{"train": "' + "a" * 10**6 + '"}',
        '{"model": {"n_layers": 1000000000}}',
    ],
)
def test_any_bad_json_is_a_short_user_error(written, text):
    sentence = bounded(load_config, path := written(text))
    assert str(path) in sentence and len(sentence) < 2000


def test_thousands_of_speakers_take_no_time(written):
    speakers = {f"s{number}": number for number in range(50_000)}
    path = written({"spk": speakers | {"x": 0}, "model": {"n_speakers": 50_000}})
    assert "the same number" in bounded(load_config, path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path, encoding):
    (tmp_path / "config.json").write_text('{"spk": {"明": 0}}\r\n', encoding=encoding)
    assert load_config(tmp_path / "config.json").spk == {"明": 0}
    (tmp_path / "diffusion.yaml").write_text("spk:\r\n  明: 0\r\n", encoding=encoding)
    assert load_diffusion_config(tmp_path / "diffusion.yaml").spk == {"明": 0}


@pytest.mark.parametrize("encoding", ["gbk", "cp1252"])
def test_text_of_a_code_page_is_refused_with_its_line_and_the_cure(tmp_path, encoding):
    name = "明" if encoding == "gbk" else "ü"
    (tmp_path / "config.json").write_text('{"spk":\n{"' + name + '": 0}}', encoding=encoding)
    with pytest.raises(UserError, match=r"config.json cannot be read: line 2 has letters in another .* as UTF-8"):
        load_config(tmp_path / "config.json")


@pytest.mark.parametrize("text", ['{"spk": {"a": 0},}', '{"spk": {"a": 0} // me\n}', "{'spk': {'a': 0}}"])
def test_what_json_does_not_allow_is_refused_with_what_it_wants(written, text):
    with pytest.raises(UserError, match=r'line \d: .*\); .*"double quotes".* none behind the last one.* no comments'):
        load_config(written(text))


def test_another_rate_of_the_sine_source_than_of_the_sound_is_named(written, caplog):
    load_config(written({"data": {"sampling_rate": 48000}}))
    assert "model.sampling_rate is 44100 and data.sampling_rate 48000: the voice is out of tune" in caplog.text
    caplog.clear()
    load_config(written({"data": {"sampling_rate": 48000}, "model": {"sampling_rate": 48000}}))
    assert not caplog.text


@pytest.mark.parametrize("spk", [["alto", "tenor"], {"0": "alto"}, {"alto": "0"}, "alto"])
def test_speakers_in_another_form_are_refused_with_an_example(written, spk):
    with pytest.raises(UserError, match=r'spk is .*; it must be an object .*, such as \{"alto": 0, "tenor": 1\}'):
        load_config(written({"spk": spk}))
