"""Training and conversion on a CUDA device: behaviour that tests on a CPU cannot check."""

import functools
import shutil
import time

import numpy as np
import pytest
import torch

from inference.svc import Svc
from modules.cuda_graph import CapturedGraph
from modules.training import checkpoint
from modules.training.throughput import ThroughputMeter
from tests.test_step import batch_of
from tests.test_svc import write_model, write_song
from tests.test_training import logged_losses, prepare
from tests.tiny import tiny_config
from vits import training
from vits.batch_size import find_batch_size
from vits.step import FRAME_MULTIPLE, Learner
from vits.synthesizer import Synthesizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
HALVES = {"float32": {}, "bf16": {"fp16_run": True, "half_type": "bf16"}, "fp16": {"fp16_run": True}}


def learner_of(precision, cuda_graphs):
    torch.manual_seed(0)
    config = tiny_config(eps=1e-3, **HALVES[precision])  # so large that an update is a smooth function of the gradient
    learner = Learner(config, CUDA, cuda_graphs=cuda_graphs)
    learner.scaler = torch.amp.GradScaler("cuda", init_scale=16, enabled=precision == "fp16")  # the default skips steps
    return learner


def batches():
    """Two batches of two clips of different lengths, and a batch of one clip, as at the end of an epoch."""
    equal = batch_of(lengths=(40, 40))
    first = type(equal)(*(None if part is None else part[:1] for part in equal.tensors()))
    return [b.padded(FRAME_MULTIPLE).to(CUDA) for b in (batch_of(), batch_of(lengths=(90, 30)), first)]


@pytest.mark.parametrize("precision", HALVES)
def test_replayed_steps_equal_eager_steps(precision):
    losses, nets = [], []
    for cuda_graphs in (False, True):
        learner = learner_of(precision, cuda_graphs)
        found = []
        for number in range(12):
            learner.set_learning_rate(1 + number // 6)
            _, step = learner.step(batches()[number % 3], number=number, adversarial=number >= 2)
            found.append(torch.stack(list(step.by_name().values())).tolist())
        losses.append(torch.tensor(found))
        nets.append({**learner.net_g.state_dict(), **learner.net_d.state_dict()})
        assert len(learner.graphed_step.graphs) == (3 if cuda_graphs else 0)  # one for each shape of adversarial steps
    assert losses[0].isfinite().all()
    # A GPU adds in varying order, and the differences grow from step to step.
    torch.testing.assert_close(losses[1], losses[0], rtol=0.01 if precision == "float32" else 0.05, atol=1e-3)
    for name, tensor in nets[0].items():
        torch.testing.assert_close(nets[1][name], tensor, rtol=0.02, atol=2e-3, msg=name)


@pytest.mark.parametrize("precision", HALVES)
def test_a_step_does_not_wait_for_the_device(precision):
    learner, batch = learner_of(precision, cuda_graphs=False), batches()[0]
    for number in range(3):
        if number == 2:
            torch.cuda.set_sync_debug_mode("error")
        try:
            learner.step(batch, number=number)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_run_trains_saves_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = prepare(tmp_path, epochs=4, eval_interval=6, eps=1e-3)
    assert training.train(config, "whole", "cuda") == 0
    whole, parts = logged_losses(tmp_path / "logs" / "whole"), tmp_path / "logs" / "parts"
    shutil.copytree(tmp_path / "logs" / "whole", parts)
    for path in (*parts.glob("*_12.pth"), parts / "train.log"):
        path.unlink()
    assert training.train(config, "parts", "cuda") == 0
    resumed = logged_losses(parts)
    assert sorted(resumed) == list(range(7, 13))
    for step, found in resumed.items():
        wanted = [float(loss) for loss in whole[step].split(", ")]
        assert [float(loss) for loss in found.split(", ")] == pytest.approx(wanted, rel=1e-2, abs=1e-3), step
    group = checkpoint.load_checkpoint(parts / "G_12.pth")["optimizer"]["param_groups"][0]
    assert isinstance(group["lr"], float) and not group["capturable"] and group["fused"] is None


def test_a_step_waits_for_data_only_while_the_device_is_idle():
    def share(device_ms, loader_seconds):
        meter = ThroughputMeter(0, 30, CUDA)
        for _ in meter.batches(time.sleep(loader_seconds) for _ in range(30)):
            torch.cuda._sleep(int(device_ms * 1e6))  # cycles, of which a device has one to two million a millisecond
            meter.step_done()
        torch.cuda.synchronize()
        return meter.data_share

    assert share(device_ms=40, loader_seconds=0.005) < 0.1
    assert share(device_ms=5, loader_seconds=0.05) > 0.8


def test_the_largest_batch_is_found_by_replayed_steps(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    config = prepare(tmp_path)
    replays = []
    replay = CapturedGraph.replay
    monkeypatch.setattr(CapturedGraph, "replay", lambda *arguments: replays.append(1) or replay(*arguments))
    with caplog.at_level("INFO", "svc"):
        assert find_batch_size(config, "cuda") == 0
    assert "the largest batch that fits is 9, all the clips that there are" in caplog.text
    assert replays


def test_a_song_is_the_same_as_on_a_cpu():
    torch.manual_seed(0)
    net = Synthesizer(tiny_config().model, segment_frames=8).eval()
    batch = batch_of(lengths=(300, 300))
    inputs = batch.c, batch.f0, batch.uv, batch.speaker_id
    on_cpu, _ = net.infer(*inputs)
    on_cuda, _ = net.to(CUDA).infer(*(part.to(CUDA) for part in inputs))
    assert (on_cuda.cpu() - on_cpu).norm() / on_cpu.norm() < 1e-2  # its convolutions round to 10 bits


def test_a_step_of_the_diffusion_model_does_not_wait_for_the_device():
    from diffusion.dataset import DiffusionBatch
    from diffusion.step import Learner as DiffusionLearner
    from tests.tiny import tiny_diffusion_config

    learner = DiffusionLearner(tiny_diffusion_config(), n_mels=16, device=CUDA)
    shapes = {"units": (2, 20, 8), "f0": (2, 20, 1), "volume": (2, 20, 1), "mel": (2, 20, 16), "aug_shift": (2, 1, 1)}
    batch = DiffusionBatch(
        **{name: torch.rand(shape, device=CUDA) for name, shape in shapes.items()},
        speaker_id=torch.zeros(2, 1, dtype=torch.long, device=CUDA),
    )
    learner.step(batch, number=1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, _ = learner.step(batch, number=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


def test_a_replayed_sampling_equals_an_eager_one(monkeypatch):
    from diffusion import unit2mel
    from tests.test_unit2mel import SPEAKER, network, some_mel, song

    inputs = {name: value.to(CUDA) for name, value in song().items()} | {"speaker": SPEAKER.to(CUDA)}
    settings = {"mel": some_mel().to(CUDA), "k_step": 60, "method": "unipc"}
    net, replays, replay = network().to(CUDA), [], CapturedGraph.replay
    monkeypatch.setattr(CapturedGraph, "replay", lambda *arguments: replays.append(1) or replay(*arguments))
    replayed = net.infer(**inputs, **settings, generator=torch.Generator(CUDA).manual_seed(1))
    assert len(replays) >= 4
    eager_function = functools.partial(unit2mel.GraphedFunction, device=torch.device("cpu"))
    monkeypatch.setattr(unit2mel, "GraphedFunction", lambda function, device, **_: eager_function(function))
    eager = net.infer(**inputs, **settings, generator=torch.Generator(CUDA).manual_seed(1))
    torch.testing.assert_close(replayed, eager, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_converter_gives_the_same_song_twice(tmp_path, precision):
    song = write_song(tmp_path / "song.wav", 1.5)
    svc = Svc(*write_model(tmp_path), "cuda", precision=precision)
    first, again = (svc.slice_inference(song, "alto", f0_predictor="pm") for _ in range(2))
    assert first.any() and np.array_equal(first, again)
