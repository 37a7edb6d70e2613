"""vits/training.py: a run resumes exactly, stops cleanly, and skips steps that are not finite."""

import itertools
import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.tensorboard._utils import figure_to_image

import train as train_script
from modules import progress_lines
from modules.config import load_config, save_config
from modules.console import UserError
from modules.data.features import ClipFiles
from modules.data.sampler import EpochBatches
from modules.device import grad_scaler
from modules.training import checkpoint, distributed, loop
from modules.training.autosave import AutosaveTimer
from modules.training.interruption import stop_signal
from tests.run_files import age_events, event_steps
from tests.tiny import tiny_config, write_dataset
from vits import batch_size, saved_models, training
from vits.compression import compress
from vits.step import Learner, learning_rate
from vits.synthesizer import Synthesizer
from vits.training_log import TrainingLog


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_pictures(monkeypatch):
    """Runs in this process log no pictures; drawing them takes as long as training."""
    for name in ("_mel", "_curves"):
        monkeypatch.setattr(TrainingLog, name, lambda *_: None)


def prepare(work, **train):
    """A data set of 9 clips: 3 steps an epoch with batches of 4. Only with ``log_interval=1`` every step is logged."""
    config = tiny_config(**{"batch_size": 4, "log_interval": 1000, **train})
    write_dataset(work, config)
    return work / "configs" / "config.json"


def logged_losses(folder):
    """Step -> its losses in train.log, as text."""
    text = (folder / "train.log").read_text(encoding="utf-8")
    return {int(step): losses for losses, step in re.findall(r"Losses: \[(.*?)\], step: (\d+)", text)}


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.read_errors()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_run_killed_and_resumed_gives_the_losses_of_an_uninterrupted_one(work, without_pictures, start_script):
    config = prepare(work, epochs=4, eval_interval=5, log_interval=1)
    assert training.train(config, "whole", "cpu") == 0
    whole = logged_losses(work / "logs" / "whole")
    assert list(whole) == list(range(1, 13))

    endless = tiny_config(batch_size=4, log_interval=1, eval_interval=5, epochs=10000)
    endless.data = load_config(config).data
    save_config(endless, work / "configs" / "endless.json")
    process = start_script("train.py", "-c", "configs/endless.json", "-m", "killed", "-d", "cpu")
    wait_for(work / "logs" / "killed" / "D_5.pth", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    for path in (work / "logs" / "killed").glob("*_*.pth"):  # delete everything after step 5
        if not path.stem.endswith("_5"):
            path.unlink()
    (work / "logs" / "killed" / "train.log").unlink()
    assert training.train(config, "killed", "cpu") == 0
    resumed = logged_losses(work / "logs" / "killed")
    assert list(resumed) == list(range(6, 13)), "step 5 is within an epoch: only its rest follows"
    assert resumed == {step: whole[step] for step in resumed}


def test_a_run_starts_its_loader_once_and_not_at_every_epoch(work, without_pictures, monkeypatch):
    read, starts = EpochBatches.__iter__, []
    monkeypatch.setattr(EpochBatches, "__iter__", lambda batches: starts.append(batches.epoch) or read(batches))
    assert training.train(prepare(work, epochs=3, log_interval=1), "44k", "cpu") == 0
    assert starts == [1] and len(logged_losses(work / "logs" / "44k")) == 9


def test_a_model_with_loudness_embedding_trains_with_augmentation_and_resumes_exactly(work, without_pictures):
    path = prepare(work, epochs=2, log_interval=1, eval_interval=4, vol_aug=True)
    config = load_config_that_embeds_loudness(path)
    assert training.train(path, "whole", "cpu") == 0
    whole = logged_losses(work / "logs" / "whole")
    fresh, trained = (training.Run(config, work / "logs" / name, torch.device("cpu")) for name in ("new", "whole"))
    assert not torch.equal(trained.learner.net_g.emb_vol.weight, fresh.learner.net_g.emb_vol.weight)
    for file in (work / "logs" / "whole").glob("*_6.pth"):
        file.unlink()
    (work / "logs" / "whole" / "train.log").unlink()
    assert training.train(path, "whole", "cpu") == 0
    assert logged_losses(work / "logs" / "whole") == {step: whole[step] for step in (5, 6)}


def load_config_that_embeds_loudness(path):
    """The configuration of ``prepare``, changed in its file."""
    text = path.read_text(encoding="utf-8").replace('"vol_embedding": false', '"vol_embedding": true')
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_a_truncated_newest_checkpoint_is_skipped_and_the_run_resumes_from_the_one_before(work, caplog):
    config = prepare(work, epochs=2, eval_interval=2)
    training.train(config, "44k", "cpu")
    newest = work / "logs" / "44k" / "G_6.pth"
    newest.write_bytes(newest.read_bytes()[:1000])
    run = training.Run(load_config(config), work / "logs" / "44k", torch.device("cpu"))
    assert run.step == 4
    assert "G_6.pth" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_of_the_last_step(work, start_script, number):
    config = prepare(work, epochs=10000, eval_interval=3, log_interval=1)
    process = start_script("train.py", "-c", str(config), "-m", "44k", "-d", "cpu")
    wait_for(work / "logs" / "44k" / "D_3.pth", process)
    process.send_signal(number)
    assert process.wait() == 128 + number, process.read_errors()
    last = int(re.search(r"stopped at step (\d+)", process.read_errors())[1])
    assert saved_models.read_newest(work / "logs" / "44k")[0].step == last == max(logged_losses(work / "logs" / "44k"))


def test_a_full_disk_during_a_save_is_a_warning_and_the_former_pair_stays(work, without_pictures, monkeypatch, caplog):
    config = prepare(work, epochs=2, eval_interval=2, log_interval=1)
    fsync, calls, space_after = os.fsync, [], [1000]

    def disk_that_fills_up(descriptor):
        calls.append(descriptor)
        if 6 < len(calls) < space_after[0]:  # the configuration, the first pair and its names, the best generator
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", disk_that_fills_up)
    with pytest.raises(UserError, match="could not be written"):
        training.train(config, "44k", "cpu")
    folder = work / "logs" / "44k"
    assert saved_models.read_newest(folder)[0].step == 2 and max(logged_losses(folder)) == 6
    assert re.findall(r"step (\d) is not saved: .* intact. Training goes on", caplog.text) == ["4", "6"]
    space_after[0] = 0
    assert training.train(config, "44k", "cpu") == 0
    assert saved_models.read_newest(folder)[0].step == 6


def test_an_autosave_is_deleted_at_the_next_save(work, monkeypatch):
    config = prepare(work, epochs=3, eval_interval=5, keep_ckpts=1)
    save, saved = training.Run.save, []

    def watched(run, **options):
        save(run, **options)
        folder = work / "logs" / "44k"
        saved.append((run.step, options.get("autosave", False), [pair.step for pair in saved_models.pairs(folder)]))

    monkeypatch.setattr(training.Run, "save", watched)
    monkeypatch.setattr(AutosaveTimer, "due", property(lambda autosave: len(saved) in (0, 1, 3)))
    assert training.train(config, "44k", "cpu") == 0
    assert saved == [
        (1, True, [1]),
        (2, True, [2]),
        (5, False, [5]),
        (6, True, [6, 5]),  # an autosave does not count for keep_ckpts
        (9, False, [9]),
    ]


def test_a_resumed_run_recognises_autosaves(work):
    run = training.Run(load_config(prepare(work, keep_ckpts=0)), work / "logs" / "44k", torch.device("cpu"))
    for run.step, autosave in ((3, True), (4, False), (5, True)):
        run.autosaves = []  # as if killed each time before the former autosave was deleted
        run.save(autosave=autosave)
    resumed = training.Run(run.config, run.folder, run.device)
    assert resumed.step == 5
    resumed.step = 6
    resumed.save()
    assert [pair.step for pair in saved_models.pairs(run.folder)] == [6, 4]


def test_the_log_and_tensorboard_have_the_throughput(work):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training.train(prepare(work, epochs=1, log_interval=1), "44k", "cpu")
    tags = set(EventAccumulator(str(work / "logs" / "44k")).Reload().Tags()["scalars"])
    figures = ("steps_per_second", "data_seconds", "compute_seconds", "data_share", "hours_left", "skipped_steps")
    assert {f"pace/{name}" for name in figures} | {"grad_norm_g", "grad_norm_d"} <= tags
    text = (work / "logs" / "44k" / "train.log").read_text(encoding="utf-8")
    number = r"[\d.e+-]+"
    line = (
        rf"Pace: {number} steps/s, waiting for data {number}% of the time.*, expected end [\d-]+ [\d:]+, "
        rf"gradient norms g {number} d {number}, skipped steps 0, at step 3"
    )
    assert re.search(line, text)


def test_in_tensorboard_no_step_of_a_killed_run_appears_twice(work, without_pictures):
    config = prepare(work, epochs=2, eval_interval=2, log_interval=1)
    training.train(config, "44k", "cpu")
    folder = work / "logs" / "44k"
    for path in folder.glob("*_6.pth"):
        path.unlink()  # as if the run had been killed between step 6 and its save
    for part in (folder, folder / "eval"):
        age_events(part)
    assert training.train(config, "44k", "cpu") == 0
    assert event_steps(folder, "loss/g/total") == event_steps(folder, "pace/data_share") == [1, 2, 3, 4, 5, 6]
    assert event_steps(folder / "eval", "metric/mel_distance") == [2, 4, 6]


def test_without_a_terminal_progress_is_logged_as_lines(work, monkeypatch, caplog):
    caplog.set_level("INFO", "svc")
    moments = itertools.count(0, 25)  # seconds; a clock that advances at each reading
    monkeypatch.setattr(progress_lines, "monotonic", lambda: next(moments))
    training.train(prepare(work, epochs=2), "44k", "cpu")
    line = next(line for line in caplog.messages if line.startswith("training: 1 of 6 steps"))
    assert re.search(r"epoch 1, mel [\d.]+, g [\d.]+, d [\d.]+, lr 0.001, data \d+%, skipped 0; 0:.* so far, exp", line)


def test_reused_axes_give_the_same_picture_as_new_ones(work):
    pictures = []
    first, second = TrainingLog(work / "first"), TrainingLog(work / "second")
    for training_log, lengths in ((first, (30, 20)), (second, (20,))):
        training_log.writer.close()
        training_log.writer = SimpleNamespace(
            add_figure=lambda tag, figure, *others, **options: pictures.append(figure_to_image(figure, close=False)),
            close=lambda: None,
        )
        for length in lengths:
            training_log._curves("all/lf0", torch.arange(length), torch.arange(length) * 2, 1)
        training_log.close()
    longer, reused, new = pictures
    assert np.array_equal(reused, new) and not np.array_equal(longer, new)


def test_a_pair_of_the_original_resumes_at_its_step_and_repeats_its_epoch(work):
    config = prepare(work, epochs=3, eval_interval=100)
    training.train(config, "44k", "cpu")
    folder = work / "logs" / "44k"
    for prefix in "GD":
        content = checkpoint.load_checkpoint(folder / f"{prefix}_9.pth")
        assert set(content) == {"model", "iteration", "optimizer", "learning_rate"} and content["iteration"] == 4
        assert content["optimizer"]["param_groups"][0]["initial_lr"] == content["learning_rate"]
        checkpoint.save_checkpoint(folder / f"{prefix}_9.pth", {**content, "iteration": 2})
    (folder / "state_9.pth").unlink()
    run = training.Run(load_config(config), folder, torch.device("cpu"))
    assert (run.step, run.epoch, run.batch) == (9, 2, 0)


def test_a_compressed_generator_does_not_resume_and_is_called_so(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    path = work / "logs" / "44k" / "G_3.pth"
    compress(path, load_config(config), work / "small.pth")
    (work / "small.pth").replace(path)
    with pytest.raises(UserError, match=r"G_3.pth is compressed for conversion: .*\(enc_q\).* G_0.pth"):
        training.train(config, "44k", "cpu")


def test_moments_of_another_speaker_table_are_dropped_by_name_and_the_weights_stay(work, caplog):
    """Only the weights' table was widened: the fused kernel would write past the end of the old moments."""
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    path = work / "logs" / "44k" / "G_3.pth"
    content = checkpoint.load_checkpoint(path)
    names = [name for name, _ in Synthesizer(load_config(config).model, 1025, 16).named_parameters()]
    rows = names.index("emb_g.weight")
    for name in ("exp_avg", "exp_avg_sq"):
        content["optimizer"]["state"][rows][name] = content["optimizer"]["state"][rows][name][:1]
    checkpoint.save_checkpoint(path, content)
    run = training.Run(load_config(config), path.parent, torch.device("cpu"))
    learner = run.learner
    assert run.step == 3 and not learner.optim_g.state and len(learner.optim_d.state) > 0
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in learner.net_g.state_dict().items())
    assert re.search(rf"state in \S*G_3.pth does not fit .*exp_avg of parameter {rows} is \[1, ", caplog.text)


def test_a_base_model_sets_weights_but_no_step(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    folder = work / "logs" / "44k"
    for prefix in "GD":
        content = checkpoint.load_checkpoint(folder / f"{prefix}_3.pth")
        content["optimizer"] = None
        checkpoint.save_checkpoint(work / "logs" / "new" / f"{prefix}_0.pth", content)
    run = training.Run(load_config(config), work / "logs" / "new", torch.device("cpu"))
    assert (run.step, run.epoch) == (0, 1)
    trained = checkpoint.load_checkpoint(folder / "G_3.pth")["model"]
    assert all(torch.equal(trained[name], tensor) for name, tensor in run.learner.net_g.state_dict().items())


def test_a_step_that_is_not_finite_changes_no_weight(work, monkeypatch):
    monkeypatch.setattr(loop, "MAX_SKIPPED_STEPS", 20)
    config = load_config(prepare(work))
    learner = Learner(config, torch.device("cpu"))
    run = training.Run(config, work / "logs" / "44k", torch.device("cpu"))
    run.learner = learner
    batch = next(iter(run.loader))
    before = {name: tensor.clone() for name, tensor in learner.net_g.state_dict().items()}
    batch.audio[:] = float("nan")
    batch.spec[:] = float("nan")
    run.learn(batch)
    assert (run.step, run.skipped_steps) == (1, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.net_g.state_dict().items())
    with pytest.raises(UserError, match=r"not been finite for 20 steps .*mel nan.* lower train.learning_rate"):
        for _ in range(19):
            run.learn(batch)


def test_skipped_steps_never_replace_the_checkpoint_before_them(work, monkeypatch, caplog):
    config = prepare(work, epochs=100, log_interval=15, eval_interval=15, keep_ckpts=1)
    step = Learner.step

    def diverges(learner, *batches, number, **options):
        if number >= 10:
            batches[0].spec[:] = float("nan")
        return step(learner, *batches, number=number, **options)

    monkeypatch.setattr(Learner, "step", diverges)
    monkeypatch.setattr(loop, "MAX_SKIPPED_STEPS", 30)
    with pytest.raises(UserError, match="not been finite for 30 steps .* goes on from step 15"):
        training.train(config, "44k", "cpu")
    assert [pair.step for pair in saved_models.pairs(work / "logs" / "44k")] == [15]
    assert "step 40 is not saved, because the steps before it" in caplog.text and "is of step 15" in caplog.text
    assert "step 30 is not saved: the steps before it had losses that were not finite" in caplog.text


def test_a_stop_cuts_a_validation_short_and_the_step_is_saved(work, monkeypatch):
    config = prepare(work, eval_interval=2)
    infer, sung = Synthesizer.infer, []

    def slow(net, *arguments, **options):
        sung.append(signal.raise_signal(signal.SIGTERM))
        return infer(net, *arguments, **options)

    listed = Path(load_config(config).data.training_files).read_text(encoding="utf-8")
    Path(load_config(config).data.validation_files).write_text(listed, encoding="utf-8")
    monkeypatch.setattr(Synthesizer, "infer", slow)
    assert training.train(config, "44k", "cpu") == 128 + signal.SIGTERM
    assert len(sung) == 1
    assert [pair.step for pair in saved_models.pairs(work / "logs" / "44k")] == [2]
    assert not (work / "logs" / "44k" / "best_G.pth").exists()


def test_a_second_ctrl_c_ends_without_a_save(work, monkeypatch):
    config = prepare(work)

    def twice(*_, **__):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Learner, "step", twice)
    run = training.Run(load_config(config), work / "logs" / "44k", torch.device("cpu"))
    run.step = 3
    with pytest.raises(KeyboardInterrupt), stop_signal() as stop:
        run.loop(None, stop)
    assert not saved_models.pairs(run.folder)


def test_a_clip_whose_sidecar_files_are_not_finite_is_named(work):
    config = load_config(prepare(work))
    clip = Path(Path(config.data.training_files).read_text(encoding="utf-8").splitlines()[0])
    spec = ClipFiles(clip).read_spec()
    spec[3, 4] = float("nan")
    torch.save(spec, ClipFiles(clip).spec)
    with pytest.raises(UserError, match=rf"the spec of {re.escape(str(clip))} are not finite"):
        training.train(work / "configs" / "config.json", "44k", "cpu")


def test_a_speaker_missing_in_the_configuration_is_an_error_before_the_first_step(work):
    config = load_config(prepare(work))
    config.spk = {"alto": 0}
    with pytest.raises(UserError, match="is no speaker of the config"):
        training.Run(config, work / "logs" / "44k", torch.device("cpu"))


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_a_batch_that_does_not_fit_into_memory_is_a_user_error_with_advice(work, monkeypatch, words):
    def broken(*arguments, **options):
        raise RuntimeError(words)

    monkeypatch.setattr(training.Learner, "step", broken)
    with pytest.raises(UserError, match=r"too small for train\.batch_size 4; halve it, .* with find_batch_size$"):
        training.train(prepare(work), "44k", "cpu")


@pytest.mark.parametrize(("device", "saved"), [("cpu", [3]), ("cuda", [])])
def test_after_a_lost_process_the_last_step_is_saved_except_on_a_gpu(work, monkeypatch, device, saved):
    run = training.Run(load_config(prepare(work)), work / "logs" / "44k", torch.device("cpu"))

    def lose(*arguments):
        run.step, run.device = 3, torch.device(device)
        raise distributed.LostProcess("process 1 of 2 cannot reach the others")

    monkeypatch.setattr(run, "run_epoch", lose)
    with stop_signal() as stop, pytest.raises(UserError, match="cannot reach the others"):
        run.loop(None, stop)
    assert [pair.step for pair in saved_models.pairs(run.folder)] == saved


def test_features_of_another_encoder_are_an_error_before_anything_is_written(work):
    config = load_config(prepare(work))
    config.model.ssl_dim += 1
    save_config(config, work / "configs" / "config.json")
    with pytest.raises(UserError, match=r"\.soft\.pt has 8 features and the config's speech encoder gives 9"):
        training.train(work / "configs" / "config.json", "44k", "cpu")
    assert not (work / "logs").exists()


def test_a_damaged_validation_clip_is_an_error_before_the_first_step(work):
    path = prepare(work)
    (clip,) = Path(load_config(path).data.validation_files).read_text(encoding="utf-8").split()
    ClipFiles(Path(clip)).units.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"soft\.pt"):
        training.train(path, "44k", "cpu")
    assert not (work / "logs").exists()


def test_a_compiler_error_is_a_user_error_and_the_run_is_saved(work, monkeypatch):
    class NoCompiler(RuntimeError):
        __module__ = "torch._inductor.exc"

    def fails(*_, **__):
        raise NoCompiler("No working C++ compiler found\nin a hundred lines")

    config = prepare(work)
    monkeypatch.setattr(Learner, "compile", lambda learner: monkeypatch.setattr(Learner, "step", fails))
    with pytest.raises(UserError, match=r"compiler has failed \(No working .* found\); train without compiled=True"):
        training.train(config, "44k", "cpu", compiled=True)


def test_the_flags_are_passed_on(work, monkeypatch):
    options_seen = []
    monkeypatch.setattr(training, "train", lambda *arguments, **options: options_seen.append(options) or 0)
    monkeypatch.setattr(batch_size, "find_batch_size", lambda *arguments, **options: options_seen.append(options) or 0)
    for flags, wanted in (
        ([], {"compiled": False, "cuda_graphs": True}),
        (["--compile"], {"compiled": True, "cuda_graphs": True}),
        (["--no_cuda_graphs"], {"compiled": False, "cuda_graphs": False}),
        (["--find_batch_size", "--no_cuda_graphs"], {"cuda_graphs": False}),
    ):
        assert train_script.main(["-m", "44k", *flags]) == 0 and options_seen[-1] == wanted
    assert train_script.main(["-m", "44k", "--find_batch_size", "--compile"]) == 2
    assert len(options_seen) == 4
    with pytest.raises(SystemExit):
        train_script.main(["-m", "44k", "--save_every_minutes", "-1"])


@pytest.mark.parametrize("name", ["44k", "44k/", "./44k", "logs/44k", "./logs/44k/"])
def test_a_run_is_named_or_given_by_its_path(work, name):
    assert training.run_folder(name) == Path("logs/44k")


def test_a_run_given_by_its_path_is_in_that_folder(work):
    assert training.train(prepare(work, epochs=1), "./logs/44k/", "cpu") == 0
    assert [path.name for path in (work / "logs").iterdir()] == ["44k"]


@pytest.mark.parametrize(
    ("name", "path"), [("of/mine", "logs/of/mine"), ("logs/of/logs", "logs/of/logs"), ("/data/44k", "/data/44k")]
)
def test_a_run_may_be_in_a_subfolder_or_elsewhere(work, name, path):
    assert training.run_folder(name) == Path(path)


@pytest.mark.parametrize("name", ["", ".", "./", "..", "logs", "./logs/"])
def test_an_invalid_name_is_refused(work, name):
    with pytest.raises(UserError, match=f"'{name}' is no name for a run; give it one"):
        training.train("absent.json", name, "cpu")


def test_a_run_in_logs_logs_is_not_started_anew_elsewhere(work):
    (work / "logs/logs/44k").mkdir(parents=True)
    with pytest.raises(UserError, match="logs/logs/44k is a run .* move it to logs/44k, or go on .* as logs/logs/44k"):
        training.run_folder("logs/44k")
    assert training.run_folder("44k") == Path("logs/44k")
    assert training.run_folder("logs/logs/44k") == Path("logs/logs/44k")


def test_half_precision_trains_on_a_cpu(work):
    config = load_config(prepare(work, fp16_run=True, half_type="bf16"))
    run = training.Run(config, work / "logs" / "44k", torch.device("cpu"))
    batch = next(iter(run.loader))
    mels = [float(run.learn(batch)[1].generator["mel"]) for _ in range(12)]
    assert run.skipped_steps == 0 and min(mels[-3:]) < mels[0]


def test_half_precision_may_be_turned_on_when_resuming(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    run = training.Run(load_config(config), work / "logs" / "44k", torch.device("cpu"))
    run.learner.scaler = grad_scaler(run.device, enabled=True)  # as with fp16 on a GPU
    run.resume()
    assert run.step == 3 and run.learner.scaler.get_scale() > 1


def test_fp16_on_a_cpu_is_a_user_error(work):
    config = prepare(work, fp16_run=True)
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        training.train(config, "44k", "cpu")
    assert not (work / "logs").exists()


def test_the_learning_rate_warms_up_and_then_decays_once_an_epoch():
    config = tiny_config(learning_rate=1.0, lr_decay=0.5, warmup_epochs=4)
    assert [learning_rate(config, epoch) for epoch in range(1, 8)] == [0.25, 0.5, 0.75, 1, 0.5, 0.25, 0.125]
    config.train.warmup_epochs = 0
    assert [learning_rate(config, epoch) for epoch in (1, 2, 3)] == [1, 0.5, 0.25]
    config.train.epochs, config.train.cosine_end = 5, 0.1
    assert [learning_rate(config, epoch) for epoch in (1, 3, 5, 9)] == pytest.approx([1, 0.55, 0.1, 0.1])


def swap_speakers(config):
    config.spk = {"tenor": 0, "alto": 1}


def forget_a_speaker(config):
    config.spk = {"alto": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap_speakers, r"the speakers are {'alto': 0, 'tenor': 1} there and {'tenor': 0, 'alto': 1} now"),
        (forget_a_speaker, r"the speakers are .* there and {'alto': 0} now"),
        (lambda config: setattr(config.model, "speech_encoder", "vec256l9"), "encoder is 'mfcc' there and 'vec256l9'"),
        (lambda config: setattr(config.data, "sampling_rate", 48000), "sampling_rate is 44100 there and 48000 now"),
        (lambda config: setattr(config.data, "unit_interpolate_mode", "left"), "interpolate_mode is 'nearest' there"),
        (lambda config: setattr(config.model, "n_heads", 4), "model.n_heads is 2 there and 4 now"),
    ],
)  # fmt: skip
def test_a_run_does_not_resume_as_another_model_of_the_same_shapes(work, change, words):
    path = prepare(work, epochs=1)
    training.train(path, "44k", "cpu")
    folder = work / "logs" / "44k"
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    config = load_config(path)
    config.train.epochs = 2
    change(config)
    save_config(config, path)
    with pytest.raises(UserError, match=words):
        training.train(path, "44k", "cpu")
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_speaker_may_be_added_in_a_free_row(work):
    config = prepare(work, epochs=1)
    values = load_config(config)
    values.model.n_speakers = 3
    save_config(values, config)
    training.train(config, "44k", "cpu")
    values.spk["bass"], values.train.epochs = 2, 2
    save_config(values, config)
    assert training.train(config, "44k", "cpu") == 0
    assert load_config(work / "logs" / "44k" / "config.json").spk == {"alto": 0, "tenor": 1, "bass": 2}


def test_a_checkpoint_of_another_configuration_is_named_with_keys_and_shapes(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    other = load_config(config)
    other.model.gin_channels = 6
    with pytest.raises(UserError, match=r"G_3\.pth does not match its config\.json: .*\[2, 4\] .* \[2, 6\]"):
        training.Run(other, work / "logs" / "44k", torch.device("cpu"))


def test_before_its_start_step_the_discriminator_does_not_train(work):
    config = load_config(prepare(work, discriminator_start_step=1))
    run = training.Run(config, work / "logs" / "44k", torch.device("cpu"))
    batch = next(iter(run.loader))
    resting = {name: tensor.clone() for name, tensor in run.learner.net_d.state_dict().items()}
    _, losses = run.learn(batch)
    assert float(losses.generator["adversarial"]) == float(losses.generator["fm"]) == float(losses.discriminator) == 0
    assert all(torch.equal(resting[name], tensor) for name, tensor in run.learner.net_d.state_dict().items())
    _, losses = run.learn(batch)
    assert min(map(float, (losses.generator["adversarial"], losses.generator["fm"], losses.discriminator))) > 0


def test_the_config_of_a_run_is_kept_beside_its_checkpoints(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    assert (work / "logs" / "44k" / "config.json").read_bytes() == config.read_bytes()
    config.write_text(json.dumps(json.loads(config.read_text()) | {"note": "声"}, ensure_ascii=False), encoding="utf-8")
    training.train(config, "44k", "cpu")
    kept = (work / "logs" / "44k" / "config.json").read_bytes()
    assert kept.isascii() and json.loads(kept)["note"] == "声"
    assert list((work / "logs" / "44k").glob("events.*")) and list((work / "logs" / "44k" / "eval").glob("events.*"))


def test_a_run_resumes_with_its_stored_config(work):
    config = prepare(work, epochs=1)
    training.train(config, "44k", "cpu")
    kept = work / "logs" / "44k" / "config.json"
    assert training.train(kept, "44k", "cpu") == 0
    assert kept.read_bytes() == config.read_bytes()


def test_a_clip_without_sidecar_files_is_skipped_with_a_warning(work, caplog):
    config = load_config(prepare(work))
    clip = Path(Path(config.data.training_files).read_text(encoding="utf-8").splitlines()[2])
    clip.with_name(clip.name + ".soft.pt").unlink()
    run = training.Run(config, work / "logs" / "44k", torch.device("cpu"))
    assert len(run.dataset) == 8
    assert f"{clip} is left out: there is no {clip.name}.soft.pt" in caplog.text


def test_an_error_during_a_run_loses_no_step(work, without_pictures):
    config = prepare(work, epochs=3, log_interval=1)
    clip = Path(Path(load_config(config).data.training_files).read_text(encoding="utf-8").splitlines()[-1])
    clip.with_name(clip.name + ".soft.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="soft.pt"):
        training.train(config, "44k", "cpu")
    newest = saved_models.read_newest(work / "logs" / "44k")
    done = logged_losses(work / "logs" / "44k")
    assert (newest[0].step if newest else 0) == max(done, default=0)


def test_an_unknown_encoder_is_refused_before_training(work):
    values = load_config(prepare(work))
    values.model.speech_encoder = "vec768l13"
    save_config(values, work / "configs" / "config.json")
    with pytest.raises(UserError, match="unknown speech encoder 'vec768l13'; known: vec768l12"):
        training.train(work / "configs" / "config.json", "44k", "cpu")
    assert not (work / "logs").exists()
