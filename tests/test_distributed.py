"""Several processes that train or prepare together: the same gradients as one, the same end, and no process left alone.

Two processes that torchrun starts work through several runs in one group; starting them is what takes the time.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import training as diffusion_training
from diffusion.checkpoints import read_newest_diffusion
from modules.audio.files import write_audio
from modules.config import load_config, load_diffusion_config, save_config, save_diffusion_config
from modules.console import UserError
from modules.data.features import ClipFiles
from modules.data.sampler import EpochBatches, in_steps
from modules.training import checkpoint, distributed
from preparation.configs import fitted_configs
from preparation.features import prepare_features
from preparation.report import Report
from tests.tiny import MEL, tiny_diffusion_config, write_diffusion_dataset
from tests.vocoder_files import write_vocoder
from vits import checkpoints, training

ROOT = Path(__file__).parents[1]
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


# -- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clips", "processes", "accumulated"), [(10, 2, 1), (23, 3, 2), (4, 3, 2), (5, 1, 4)])
def test_the_processes_together_have_every_clip_and_all_do_as_many_steps(clips, processes, accumulated):
    shares = [
        EpochBatches(clips, 2, seed=1, rank=process, world_size=processes, accumulated=accumulated)
        for process in range(processes)
    ]
    steps = [list(in_steps(share.rank_batches(1), accumulated)) for share in shares]
    assert {len(own) for own in steps} == {shares[0].steps()}
    batches = [batch for step in zip(*steps, strict=True) for own in step for batch in own]
    whole = [[(1, clip) for clip in batch] for batch in EpochBatches(clips, 2, seed=1).epoch_batches(1)]
    assert batches[: len(whole)] == whole, "each once, in the order of a run of one process"
    again = batches[len(whole) :]
    assert ("the last repeats" in shares[0].describe_steps()) == bool(again)
    assert all(batch in whole for batch in again) and len(again) < processes * accumulated


def test_an_epoch_is_taken_over_by_another_number_of_processes_at_the_batch_where_it_stopped():
    one = EpochBatches(20, 2, seed=1)
    shares = [EpochBatches(20, 2, seed=1, rank=process, world_size=2) for process in range(2)]
    turns = [batch for step in zip(*(share.rank_batches(3, 3) for share in shares), strict=True) for batch in step]
    assert turns[:7] == list(one.rank_batches(3, 3)) and shares[0].steps(3) == 4


def test_a_process_is_told_its_place_by_torchrun_or_by_a_step_of_slurm(monkeypatch):
    assert distributed.place() == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert distributed.place() == (0, 1), "as in a batch script, where one process stands for all tasks"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert distributed.place() == (3, 4) and distributed.own_share(range(10)) == [3, 7]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.place() == (0, 1), "torchrun within a task of SLURM knows better"
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UserError, match="RANK is 'one' and WORLD_SIZE '1'"):
        distributed.place()


def test_alone_nothing_is_joined_and_everything_is_as_it_was():
    network = torch.nn.Linear(2, 1)
    network(torch.ones(1, 2)).backward()
    gradient = network.weight.grad
    with distributed.process_group(CPU) as device:
        distributed.average_gradients(network)
        assert (device, distributed.rank(), distributed.world_size(), distributed.is_first()) == (CPU, 0, 1, True)
        assert network.weight.grad is gradient and not torch.distributed.is_initialized()
        assert (distributed.largest(7), distributed.gathered("a"), distributed.from_the_first(list)) == (7, ["a"], [])
        assert float(distributed.average(torch.tensor(3.0))) == 3
        distributed.demand_the_same("number", 1)


def test_tasks_that_cannot_meet_are_refused_before_each_trains_a_model_of_its_own(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(UserError, match="process 2 of 4.*let each machine run one torchrun"):
        with distributed.process_group(CPU):
            pass


def test_reports_of_several_processes_are_told_as_one():
    parts = [Report(made=2, ready=1, load_seconds={0: 1.0, 1: 2.0}, work_seconds=5), Report(made=3, failed={"a": "b"})]
    parts[1].load_seconds, parts[1].work_seconds = {0: 3.0}, 4
    whole = Report.merged(parts)
    assert (whole.made, whole.ready, whole.failed, whole.work_seconds) == (5, 1, {"a": "b"}, 5)
    assert sorted(whole.load_seconds.values()) == [1, 2, 3]


def test_tasks_of_slurm_prepare_each_clip_once(tmp_path, monkeypatch):
    clips = [tmp_path / "44k" / "alto" / f"{number}.wav" for number in range(5)]
    clips[0].parent.mkdir(parents=True)
    for seed, clip in enumerate(clips):
        write_audio(clip, 0.1 * np.random.default_rng(seed).standard_normal(20000), 44100)
    config, _ = fitted_configs({"alto": 0}, "mfcc", vol_aug=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    for number, made in enumerate((2, 2, 1)):
        monkeypatch.setenv("SLURM_PROCID", str(number))
        report = prepare_features(tmp_path / "44k", config, "pm", "cpu")
        assert (report.made, report.ready, report.failed) == (made, 0, {})
    assert all(ClipFiles(clip).f0.exists() and ClipFiles(clip).units.exists() for clip in clips)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "9")
    monkeypatch.setenv("SLURM_PROCID", "8")
    assert prepare_features(tmp_path / "44k", config, "pm", "cpu").made == 0, "more tasks than clips is no error"


# -- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A prepared data set of 9 clips for both trainings, and what two processes have made of it."""
    folder = tmp_path_factory.mktemp("two 声")
    write_diffusion_dataset(folder, tiny_diffusion_config())
    write_vocoder(folder / "pretrain" / "nsf_hifigan", num_mels=MEL.n_mels)
    with start(folder, Path(__file__).with_name("two_processes.py"), folder) as run:
        output, _ = run.communicate(timeout=240)
    assert run.returncode == 0, output
    return folder


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


@contextlib.contextmanager
def start(folder, *command):
    """Two processes of a script, their output to a pipe; none of them outlives the block."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*torchrun, *map(str, command)], cwd=folder, env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield run
    finally:
        for process in [*children(run), run.pid] if run.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run.communicate()


def children(run):
    """The processes that torchrun has started, by their numbers."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, encoding="utf-8")
    pairs = [map(int, line.split()) for line in listed.stdout.splitlines()]
    return sorted(own for parent, own in pairs if parent == run.pid)


def config_of(folder, name, **train):
    """The path of a configuration whose 9 clips make 5 batches of 2, of which a step takes two."""
    config = load_config(folder / "configs" / "config.json")
    for key, value in {"batch_size": 2, "log_interval": 1, "epochs": 2, **train}.items():
        setattr(config.train, key, value)
    save_config(config, folder / "configs" / f"{name}.json")
    return folder / "configs" / f"{name}.json"


def diffusion_config_of(folder, name, **train):
    config = load_diffusion_config(folder / "configs" / "diffusion.yaml")
    config.env.expdir, config.infer.speedup = str(folder / "logs" / name), 5
    config.vocoder.ckpt = str(folder / "pretrain" / "nsf_hifigan" / "model")
    for key, value in {"batch_size": 2, "interval_log": 1, "interval_val": 1000, "epochs": 2, **train}.items():
        setattr(config.train, key, value)
    save_diffusion_config(config, folder / "configs" / f"{name}.yaml")
    return folder / "configs" / f"{name}.yaml"


def losses_of(folder):
    """Step -> losses, from the log of a run of either kind."""
    log = folder / "train.log"
    if log.exists():
        found = re.findall(r"Losses: \[(.*?)\], step: (\d+)", log.read_text(encoding="utf-8"))
    else:
        text = (folder / "log_info.txt").read_text(encoding="utf-8")
        found = re.findall(r"^epoch: .*loss: (\S+) .*step: (\d+)$", text, re.M)
    return {int(step): [float(loss) for loss in losses.split(",")] for losses, step in found}


def distance(one, other):
    """How far weights lie apart, as a part of how far they are from zero."""
    assert list(one) == list(other)
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (apart / sum(float(tensor.double().square().sum()) for tensor in one.values())) ** 0.5


def gradients(learner):
    """Those of the last step, by name."""
    nets = {"g": learner.net_g, "d": learner.net_d}
    return {f"{net}.{name}": p.grad.clone() for net in nets for name, p in nets[net].named_parameters()}


def first_batches(here, **train):
    run = training.Run(load_config(config_of(here, "probed", accumulate_steps=2, **train)), here / "logs" / "new", CPU)
    return run, next(in_steps(run.loader, 2))


def test_two_processes_have_the_gradients_of_one_that_accumulates_twice_as_many_batches(here):
    run, batches = first_batches(here)
    run.learn(*batches)
    assert distance(gradients(run.learner), torch.load(here / "gradients.pt", weights_only=True)) < 1e-6


def test_a_step_of_two_batches_has_the_mean_of_the_gradients_that_each_has_alone(here, monkeypatch):
    each = []
    for place in (0, 1):
        run, batches = first_batches(here)
        monkeypatch.setattr("vits.step.rank", lambda place=place: place)
        run.learner.step(batches[place], number=0, adversarial=False)
        each.append({name: p.grad for name, p in run.learner.net_g.named_parameters()})
    monkeypatch.setattr("vits.step.rank", lambda: 0)
    run, batches = first_batches(here)
    run.learner.step(*batches, number=0, adversarial=False)
    together = {name: p.grad for name, p in run.learner.net_g.named_parameters()}
    assert distance(together, {name: (each[0][name] + each[1][name]) / 2 for name in together}) < 1e-6
    assert distance(*each) > 0.1


def test_two_processes_have_the_losses_and_weights_of_one_that_accumulates_twice_as_many_batches(here):
    training.train(config_of(here, "accumulated", accumulate_steps=2), "accumulated", "cpu")
    one, two = losses_of(here / "logs" / "accumulated"), losses_of(here / "logs" / "whole")
    assert list(one) == list(two) == list(range(1, 7)), "9 clips are 3 steps of 2 batches of 2"
    for step, losses in one.items():
        assert two[step] == pytest.approx(losses, rel=1e-4, abs=1e-5)
    for name in ("G_6.pth", "D_6.pth"):
        ends = [checkpoint.load_checkpoint(here / "logs" / run / name)["model"] for run in ("accumulated", "whole")]
        assert distance(*ends) < 1e-5


def test_two_processes_teach_diffusion_as_one_that_accumulates_twice_as_many_batches(here):
    diffusion_training.train(diffusion_config_of(here, "diffusion_accumulated", accumulate_steps=2), "cpu")
    one, two = losses_of(here / "logs" / "diffusion_accumulated"), losses_of(here / "logs" / "diffusion_whole")
    assert list(one) == list(two) == list(range(1, 7))
    for step, losses in one.items():
        assert two[step] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("kind", ["", "diffusion_"])
def test_two_processes_resume_exactly(here, kind):
    whole, parts = (losses_of(here / "logs" / f"{kind}{run}") for run in ("whole", "parts"))
    assert list(parts) == list(range(1, 7)) and parts == whole
    newest = [
        read_newest_diffusion(here / "logs" / f"diffusion_{run}")[1][0]["model"]
        if kind
        else checkpoints.read_newest(here / "logs" / run)[1][0]["model"]
        for run in ("whole", "parts")
    ]
    assert all(torch.equal(tensor, newest[1][name]) for name, tensor in newest[0].items())


def test_every_process_has_the_same_weights_and_batches_of_its_own(here):
    first, second = (json.loads((here / f"process_{number}.json").read_text(encoding="utf-8")) for number in range(2))
    assert first["weights"] == second["weights"]
    assert first["batches"] != second["batches"]


def test_a_batch_that_is_not_finite_in_one_process_is_skipped_in_all(here):
    for number in range(2):
        told = json.loads((here / f"process_{number}.json").read_text(encoding="utf-8"))
        assert told["bad_steps"] == 1 and told["unchanged"]


def test_the_first_process_alone_writes(here):
    told = json.loads((here / "process_1.json").read_text(encoding="utf-8"))
    assert told["written"] == []
    assert len(list((here / "logs" / "whole").glob("events.*"))) == 1


def test_a_folder_that_another_run_has_is_refused_in_each_process(here):
    for number in range(2):
        assert json.loads((here / f"process_{number}.json").read_text(encoding="utf-8"))["refused"]


# -- ends -------------------------------------------------------------------------------------------------------------


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def test_a_signal_to_all_ends_all_with_one_checkpoint_and_another_number_of_processes_goes_on(here):
    config = config_of(here, "stopped", epochs=10000, eval_interval=2, log_interval=1000)
    with start(here, ROOT / "train.py", "-c", config, "-m", "stopped", "-d", "cpu") as run:
        wait_for(here / "logs" / "stopped" / "D_2.pth", run)
        for process in [*children(run), run.pid]:
            os.kill(process, signal.SIGTERM)
        output, _ = run.communicate(timeout=60)
    assert run.returncode, "as a run that was not done"
    assert output.count("stopped at step") == 1
    alone = training.Run(load_config(config), here / "logs" / "stopped", CPU)
    assert alone.step == int(re.search(r"stopped at step (\d+)", output)[1]) and alone.batches.per_step == 1
    alone.learn(next(iter(alone.loader)))


def test_when_one_process_is_killed_the_others_say_so_and_stop_and_a_resume_goes_on(here):
    config = config_of(here, "killed", epochs=10000, eval_interval=2, log_interval=1000)
    with start(here, ROOT / "train.py", "-c", config, "-m", "killed", "-d", "cpu") as run:
        wait_for(here / "logs" / "killed" / "D_2.pth", run)
        os.kill(children(run)[1], signal.SIGKILL)
        output, _ = run.communicate(timeout=60)  # within a minute
    assert run.returncode
    assert "cannot reach the others" in output and "goes on from the newest checkpoint" in output
    assert training.Run(load_config(config), here / "logs" / "killed", CPU).step >= 2
