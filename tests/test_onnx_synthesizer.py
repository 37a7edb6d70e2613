"""The synthesizer's graph has the published signature and equals the network, at any length, in every variant."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

from modules.config import Config, load_config
from onnxexport.synthesizer import EXAMPLE_FRAMES, export_synthesizer
from tests.generator_files import SPECTRUM, config_of
from tests.onnx_files import onnx, open_model, relative_error, run, run_session, signature
from tests.tiny import HOP
from vits.generator_file import load_generator
from vits.synthesizer import Synthesizer

LOUDNESS = 0.1  # RMS of the networks' output
ONE = {"tenor": 1}
TWO = {"tenor": 1, "alto": 0}  # not in the order of the rows
VARIANTS = {
    "default": ({}, TWO),
    "one_speaker": ({}, ONE),
    "no_names": ({}, {}),
    "tiny": ({"use_depthwise_conv": True, "flow_share_parameter": True}, TWO),
    "transformer": ({"use_transformer_flow": True, "n_flow_layer": 2}, TWO),
    "shared_transformer": (
        {"use_transformer_flow": True, "flow_share_parameter": True, "n_flow_layer": 2},
        ONE,
    ),
    "snake": ({"vocoder_name": "nsf-snake-hifigan"}, ONE),
    "loudness": ({"vol_embedding": True}, TWO),
    "no_f0_decoder": ({"use_automatic_f0_prediction": False}, ONE),
    "resblock_1": ({"resblock": "1"}, ONE),
    "version_4_0": ({"ssl_dim": 256, "n_flow_layer": 4}, ONE),
}
# Keys that a config of that version lacks.
LATER_KEYS = (
    "vocoder_name", "speech_encoder", "speaker_embedding", "vol_embedding", "use_depthwise_conv",
    "flow_share_parameter", "use_automatic_f0_prediction", "use_transformer_flow", "n_layers_trans_flow",
    "n_flow_layer",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A cached function from a variant to its graph, network and config."""

    @functools.cache
    def export(variant: str) -> tuple[Path, Synthesizer, Config]:
        folder = tmp_path_factory.mktemp(variant)
        model, config_path = write_model(folder, *VARIANTS[variant], older=variant == "version_4_0")
        out = folder / "out" / "song.onnx"
        export_synthesizer(model, config_path, out, folder / "song.json", "song")
        assert [path.name for path in out.parent.iterdir()] == ["song.onnx"]
        config = load_config(config_path)
        return out, load_generator(model, config), config

    return export


def write_model(folder: Path, changes: dict, spk: dict, older: bool) -> tuple[Path, Path]:
    """Write a checkpoint whose sound is loud enough to differ from silence, and its config."""
    config = config_of(**changes)
    config.spk = spk
    torch.manual_seed(1)
    network = Synthesizer(config.model, SPECTRUM)
    for name, parameter in network.named_parameters():
        if name.startswith("flow") and ".post." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    network.eval()
    last = network.dec.conv_post
    last.bias.data *= 0
    feeds = song(config, 20, 20, seed=0)
    last.weight_g.data *= LOUDNESS / sing(network, config, feeds, 1.0, seed=0).std()
    torch.save({"model": network.state_dict()}, folder / "model.pth")
    values = config.to_dict()
    if older:
        for key in LATER_KEYS:
            del values["model"][key]
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder / "model.pth", folder / "config.json"


def song(config: Config, frames: int, units: int, seed: int) -> dict[str, torch.Tensor]:
    """Inputs as a host passes them, by name; silent frames have no unit."""
    generator = torch.Generator().manual_seed(seed)
    rand = functools.partial(torch.rand, generator=generator)
    randn = functools.partial(torch.randn, generator=generator)
    feeds = {
        "c": randn(1, units, config.model.ssl_dim),
        "f0": (80 + 1100 * rand(1, frames)) * (rand(1, frames) > 0.1),
        "mel2ph": torch.randint(0, units + 1, (1, frames), generator=generator),
        "uv": (rand(1, frames) > 0.3).float(),
        "sid": torch.tensor(list(config.spk.values())[:1] or [1]),
    }
    if len(config.spk) > 1:
        weights = rand(frames, len(config.spk))
        feeds["sid"] = weights / weights.sum(dim=1, keepdim=True)
    if config.model.vol_embedding:
        feeds["vol"] = rand(1, frames)
    return feeds


def random_numbers(network: Synthesizer, frames: int, seed: int) -> tuple[torch.Tensor, ...]:
    """The random numbers of ``Synthesizer.infer`` with this seed: latent noise, first phases, noise of the source."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, network.enc_p.proj.out_channels // 2, frames, generator=generator)
    tracks = network.dec.m_source.tracks
    return (
        latent,
        torch.rand(1, tracks, generator=generator),
        torch.randn(1, HOP * frames, tracks, generator=generator),
    )


def sing(network: Synthesizer, config: Config, feeds: dict[str, torch.Tensor], noice_scale: float, seed: int):
    """Convert the inputs of a host with the network."""
    units = torch.cat((torch.zeros_like(feeds["c"][:, :1]), feeds["c"]), dim=1)[:, feeds["mel2ph"][0]]
    speaker = feeds["sid"][None]
    if speaker.is_floating_point():
        speaker = torch.zeros(len(feeds["sid"]), config.model.n_speakers)
        speaker[:, list(config.spk.values())] = feeds["sid"]
    return network.infer(
        *(units.transpose(1, 2), feeds["f0"], feeds["uv"], speaker, noice_scale),
        generator=torch.Generator().manual_seed(seed),
        volume=feeds.get("vol"),
    )[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_signature_is_the_published_one(exported, variant):
    path, _, config = exported(variant)
    model, speakers = config.model, len(config.spk)
    wanted = [
        ("c", "FLOAT", ["?", "?", model.ssl_dim]),
        ("f0", "FLOAT", [1, "?"]),
        ("mel2ph", "INT64", [1, "?"]),
        ("uv", "FLOAT", [1, "?"]),
        ("noise", "FLOAT", [1, model.inter_channels, "?"]),
        ("sid", "FLOAT", ["?", speakers]) if speakers > 1 else ("sid", "INT64", [1]),
    ]
    if variant == "loudness":
        wanted.append(("vol", "FLOAT", [1, "?"]))
    assert signature(path) == (wanted, [("audio", "FLOAT", [1, 1, "?"])])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graph_is_the_network_at_any_length(exported, variant):
    path, network, config = exported(variant)
    for frames, units in ((3, 1), (71, 40), (EXAMPLE_FRAMES + 111, 500)):
        feeds = song(config, frames, units, seed=frames)
        wanted = sing(network, config, feeds, 0.4, seed=frames)
        latent, *inside = random_numbers(network, frames, seed=frames)
        audio = run(path, {**feeds, "noise": 0.4 * latent}, *inside)
        assert LOUDNESS / 5 < wanted.std() < LOUDNESS * 5, "in silence and at full scale much is alike"
        assert relative_error(audio, wanted) < 1e-4


def test_a_song_longer_than_the_blocks_of_the_network_is_the_same(exported):
    path, network, config = exported("one_speaker")
    frames = 2100  # attention in groups, the source and the decoder in blocks
    feeds = song(config, frames, 700, seed=0)
    latent, *inside = random_numbers(network, frames, seed=5)
    audio = run(path, {**feeds, "noise": 0.4 * latent}, *inside)
    assert relative_error(audio, sing(network, config, feeds, 0.4, seed=5)) < 1e-4


def test_the_source_samples_inside_the_graph_and_anew_each_time(exported):
    path, network, config = exported("one_speaker")
    kinds = [node.op_type for node in onnx.load(path).graph.node if node.op_type.startswith("Random")]
    assert kinds == ["RandomUniform", "RandomNormalLike"]
    feeds = {**song(config, 20, 20, seed=0), "noise": torch.zeros(1, config.model.inter_channels, 20)}
    session = open_model(onnx.load(path))
    first, second = run_session(session, feeds), run_session(session, feeds)
    assert not torch.equal(first, second)
    assert 0.5 < first.std() / second.std() < 2


def test_weights_of_the_mix_stand_in_the_order_of_the_names(exported):
    path, network, config = exported("default")
    feeds = song(config, 30, 30, seed=0)
    latent, *inside = random_numbers(network, 30, seed=0)
    for index, row in enumerate(config.spk.values()):
        alone = torch.nn.functional.one_hot(torch.full((30,), index), len(config.spk)).float()
        audio = run(path, {**feeds, "sid": alone, "noise": latent}, *inside)
        wanted = sing(network, config, {**feeds, "sid": torch.tensor([row])}, 1.0, seed=0)
        assert relative_error(audio, wanted) < 1e-4


def test_loudness_and_voicing_change_the_sound(exported):
    path, network, config = exported("loudness")
    feeds = song(config, 20, 20, seed=0)
    latent, *inside = random_numbers(network, 20, seed=0)
    audio = run(path, {**feeds, "noise": latent}, *inside)
    for name in ("vol", "uv"):
        assert relative_error(run(path, {**feeds, name: 1 - feeds[name], "noise": latent}, *inside), audio) > 1e-3
