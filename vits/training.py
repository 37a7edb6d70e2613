"""A training run of the synthesizer: set-up or resume, validation, checkpoints.

It differs from the original, which repeated the interrupted epoch on resume, loaded half of a broken checkpoint,
restored the optimizer before the weights (and started afresh when that failed), saved the untrained model as the base
model ``G_0.pth``, and shuffled the clips once for all epochs.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modules.config import Config, ModelConfig, copy_config, load_config
from modules.console import UserError, get_logger, option
from modules.data.sampler import EpochBatches
from modules.device import allow_tf32, pick_device
from modules.training import checkpoint, distributed
from modules.training.autosave import MINUTES
from modules.training.interruption import StopSignal, ignore_stop_signals, stop_signal
from modules.training.loop import TrainingRun
from modules.training.optimizer_state import load_optimizer, load_scaler
from modules.training.run_config import refuse_another_model
from modules.training.run_lock import exclusive_run
from vencoder import ENCODERS
from vits import saved_models
from vits.compression import refuse_compressed
from vits.dataset import Batch, ClipDataset, collate
from vits.judging import ClipJudges, refuse_missing_judges, score
from vits.saved_models import Best
from vits.step import Learner, Losses, Preview, mel_of_spec
from vits.training_log import TrainingLog
from vits.validation import Validation

log = get_logger("train")

LOGS = Path("logs")


def train(
    config_path: str | Path,
    model: str,
    device: str | None = None,
    save_every_minutes: float = MINUTES,
    *,
    compiled: bool = False,
    cuda_graphs: bool = True,
) -> int:
    """Train until the config's last epoch or a signal; returns the exit code, 128 + the number of a signal.

    ``model`` is the run's name, see ``run_folder``. Only rank 0 writes files. ``compiled`` uses torch.compile;
    ``cuda_graphs`` False disables the capture of steps as CUDA graphs.
    """
    folder = run_folder(model)
    config = load_config(config_path)
    ENCODERS[config.model.speech_encoder]  # raises UserError for an unknown encoder: the model could never be used
    with distributed.process_group(pick_device(device)) as own_device, exclusive_run(folder):
        distributed.broadcast_from_rank_zero(lambda: check_run_config(config, folder))
        run = Run(config, folder, own_device, save_every_minutes, cuda_graphs=cuda_graphs)
        if compiled:
            run.learner.compile()
            run.start_message += "; the first step, and the first with fewer clips, take minutes to compile"
        if distributed.is_rank_zero():
            copy_config(config_path, folder / "config.json")
        training_log = TrainingLog(folder, run.step) if distributed.is_rank_zero() else distributed.NoOp()
        with contextlib.closing(training_log), stop_signal() as stop, compiler_errors():
            try:
                return run.loop(training_log, stop)
            finally:
                run.finish_judging(training_log, stop)


def run_folder(name: str) -> Path:
    """Return the folder of a run below ``logs``. The path ``logs/44k`` means the same as the name ``44k``.

    Raises UserError for a name without a folder below ``logs``, and if ``logs/logs/44k`` exists, which earlier versions
    made for that path.
    """
    below = Path(name)
    if below.parts[:1] == (LOGS.name,):
        below = below.relative_to(LOGS.name)
        if (LOGS / name).is_dir():
            raise UserError(
                f"{LOGS / name} is a run that an earlier version made for this name: move it to {LOGS / below}, or go "
                f"on with it as {LOGS / name}"
            )
    if not below.name or set(below.parts) == {".."}:
        raise UserError(f"'{name}' is no name for a run; give it one of its own, for instance 44k")
    return LOGS / below


# The keys that must not change when a run resumes. The number of speakers is checked by the checkpoint's shapes.
FREE_MODEL_KEYS = ("n_speakers", "p_dropout", "extra")
FIXED_KEYS = (
    *(f"data.{key}" for key in ("sampling_rate", "filter_length", "hop_length", "win_length", "unit_interpolate_mode")),
    *(f"model.{field.name}" for field in fields(ModelConfig) if field.name not in FREE_MODEL_KEYS),
)


def check_run_config(config: Config, folder: Path) -> None:
    """Raise UserError when the folder holds a run whose model differs from the configuration's."""
    path = folder / "config.json"
    if path.exists() and any(pair.step for pair in saved_models.pairs(folder)):
        refuse_another_model(config, load_config(path), path, FIXED_KEYS)


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Turn errors of torch.compile, such as a missing system compiler, into UserError."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"PyTorch's compiler has failed ({reason}); train without {option('compiled', True)}"
        ) from error


class Run(TrainingRun):
    """A run in ``logs/<model>``. ``best`` is the validation with the smallest mel distance so far."""

    losses_advice = "lower train.learning_rate or set train.fp16_run to false"

    def __init__(
        self,
        config: Config,
        folder: Path,
        device: torch.device,
        save_every_minutes: float = 0,
        *,
        cuda_graphs: bool = True,
    ):
        train = config.train
        self.config = config
        self.epochs, self.accumulate_steps, self.log_interval = train.epochs, train.accumulate_steps, train.log_interval
        if train.best_by == "judges" and distributed.is_rank_zero():
            refuse_missing_judges()
        allow_tf32(device)
        torch.manual_seed(train.seed)  # for the initial weights
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        judging = train.eval_judges and distributed.is_rank_zero()
        self.judges = ClipJudges(config.model.speech_encoder) if judging else None
        self.validation = Validation(config, device, self.judges)
        shared = {name: section for name, section in config.to_dict().items() if name in ("train", "model", "spk")}
        distributed.require_same("sections train, model and spk", shared)
        frames = self.dataset.frames()
        clips = [(*path.parts[-2:], length) for path, length in zip(self.dataset.paths, frames, strict=True)]
        distributed.require_same("clips to train on", clips)
        batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            rank=distributed.rank(), world_size=distributed.world_size(), accumulated=train.accumulate_steps,
            frames=frames,
        )  # fmt: skip
        super().__init__(folder, device, batches, self._loader(batches, device), save_every_minutes)
        self.learner = Learner(config, device, cuda_graphs=cuda_graphs)
        self.memory_advice = f"halve it, or see what fits with {option('find_batch_size')}"
        if self.learner.graphed_step.enabled:
            self.memory_advice += f", or give {option('cuda_graphs', False)}, which takes less"
        self.best = Best()
        self.start_message = self.resume()
        distributed.broadcast_weights(self.learner.net_g)
        distributed.broadcast_weights(self.learner.net_d)

    def _loader(self, batches: EpochBatches, device: torch.device) -> DataLoader:
        # On a CPU the step itself uses every core; clips in memory need no workers.
        workers = 0 if self.config.train.all_in_mem or device.type == "cpu" else min(5, os.cpu_count() or 1)
        return DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers,
            pin_memory=device.type == "cuda", worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # otherwise the loader would sample from torch's global generator
        )  # fmt: skip

    # -- starting and resuming -----------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Resume from the newest readable pair of the run's folder, or start from a base model, the pair of step 0.

        Returns a message that names the source of the weights.
        """
        # Only rank 0 reads: other machines may not have the folder.
        found = distributed.broadcast_from_rank_zero(lambda: saved_models.read_newest(self.folder))
        if found is None:
            return f"a new run in {self.folder}"
        pair, (content_g, content_d, state) = found
        learner = self.learner
        if pair.step == 0:
            checkpoint.load_base_weights(learner.net_g, content_g["model"], pair.generator)
            checkpoint.load_base_weights(learner.net_d, content_d["model"], pair.discriminator)
            return f"a new run in {self.folder} from the base model {pair.generator.name}"
        refuse_compressed(content_g["model"], pair.generator)
        checkpoint.load_weights(learner.net_g, content_g["model"], pair.generator)
        checkpoint.load_weights(learner.net_d, content_d["model"], pair.discriminator)
        load_optimizer(learner.optim_g, content_g.get("optimizer"), pair.generator)
        load_optimizer(learner.optim_d, content_d.get("optimizer"), pair.discriminator)
        self.step = self.saved_step = pair.step
        if state is None:  # of the original, which counts only epochs, or truncated
            self.epoch = max(checkpoint.whole_number(content_d, "iteration", pair.discriminator, 1), 1)
        else:
            self.epoch, self.batch = (checkpoint.whole_number(state, name, pair.state) for name in ("epoch", "batch"))
            load_scaler(learner.scaler, state.get("scaler"), pair.state)
        if distributed.is_rank_zero():
            self.autosaves = [saved for saved in saved_models.pairs(self.folder) if saved.is_autosave()]
            self._find_best(content_g, state)
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def _find_best(self, generator: dict, state: dict | None) -> None:
        self.best = saved_models.read_best(self.folder, self.config.train.best_by)
        if self.config.train.best_by != "mel":  # its step's score was not known when the state was written
            return
        of_this_step = Best.of((state or {}).get("best")) or self.best
        if of_this_step.step == self.step != self.best.step:  # a crash came between writing the pair and the copy
            self._write_best(generator, of_this_step)

    def _write_best(self, generator: dict, best: Best) -> None:
        """Write the generator's checkpoint as the best one. If that fails, the former one remains the best."""
        try:
            saved_models.write_best(self.folder, generator, best, self.config.train.best_by)
        except UserError as error:
            log.warning("%s. Training goes on", error)
            best = saved_models.read_best(self.folder, self.config.train.best_by)
        self.best = best

    def save(self, *, autosave: bool = False) -> None:
        """Write the pair of this step and its extra state, then delete pairs beyond ``keep_ckpts``.

        An autosave is deleted when the next pair is written. Raises UserError when the pair cannot be written; the
        former pairs stay.
        """
        pair = saved_models.Pair(self.folder, self.step)
        learner = self.learner
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "best": list(self.best),
            "passing": autosave,  # the state file's key for an autosave
            "scaler": learner.scaler.state_dict(),
        }
        networks = (learner.net_g, learner.optim_g), (learner.net_d, learner.optim_d)
        contents = [
            {
                "model": net.state_dict(),
                "iteration": self.epoch,
                "optimizer": optimizer.state_dict(),
                "learning_rate": self.config.train.learning_rate,
            }
            for net, optimizer in networks
        ]
        pair.write(*contents, state)
        self.saved_step = self.step
        log.info("saved %s and %s", pair.generator, pair.discriminator.name)
        if self.best.step == self.step:
            self._write_best(contents[0], self.best)
        for former in self.autosaves:
            former.delete()
        self.autosaves = [pair] if autosave else []
        if not autosave:
            saved_models.delete_old(self.folder, self.config.train.keep_ckpts, self.step)

    # -- training ------------------------------------------------------------------------------------------------------

    def learn_from(self, *batches: Batch) -> tuple[tuple[Preview, Losses], Tensor]:
        self.learner.set_learning_rate(self.epoch)
        adversarial = self.step >= self.config.train.discriminator_start_step
        preview, losses = self.learner.step(*batches, number=self.step, adversarial=adversarial)
        return (preview, losses), losses.grad_norm_g + losses.grad_norm_d

    def progress_fields(self, result: tuple[Preview, Losses]) -> dict[str, str]:
        _, losses = result
        values = {"mel": f"{losses.generator['mel']:.2f}", "g": f"{losses.total:.2f}"}
        return {**values, "d": f"{losses.discriminator:.2f}", "lr": f"{self.learner.optim_g.rate:.3g}"}

    def describe_not_finite(self, result: tuple[Preview, Losses]) -> str:
        values = {name: float(value) for name, value in result[1].by_name().items()}
        return ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))

    def log_step(self, training_log: TrainingLog, result: tuple[Preview, Losses]) -> None:
        preview, losses = result
        percent = 100 * min(self.batch / len(self.batches), 1)
        all_mel = mel_of_spec(preview.spec, self.config.data)
        training_log.log_step(self.step, self.epoch, percent, self.learner.optim_g.rate, losses, preview, all_mel)
        training_log.log_throughput(self.step, self.throughput.report(self.step), losses, self.skipped_steps)

    def validate_and_save(self, training_log: TrainingLog, stop: StopSignal) -> None:
        if self.judges:
            self._take_judgements(self.judges.finished(self.step), training_log)
        if self.step % self.config.train.eval_interval == 0:
            self.validate(training_log, stop)
        elif self.autosave_timer.due:
            self.try_to_save(autosave=True)

    def validate(self, training_log: TrainingLog, stop: StopSignal) -> None:
        """Validate and save; with the smallest mel distance so far, save as the best model too."""
        former_best = self.best
        metrics = self.validation.run(self.learner.net_g, training_log, self.step, stop)
        by_mel = self.config.train.best_by == "mel"
        if by_mel and metrics is not None and metrics.mel_distance < self.best.distance:
            self.best = Best(metrics.mel_distance, self.step)
        if not self.try_to_save():
            self.best = former_best

    def finish_judging(self, training_log: TrainingLog, stop: StopSignal) -> None:
        """Log the judgements that are still to come, or end the judges if ``stop`` is set or an error is on its way."""
        if self.judges:
            failed = sys.exc_info()[0] is not None
            self._take_judgements(self.judges.close(lambda: failed or bool(stop.number)), training_log)

    def _take_judgements(self, judgements: list[tuple[int, dict[str, float]]], training_log: TrainingLog) -> None:
        """Log figures of earlier validations; with ``train.best_by: judges`` keep the best one's generator."""
        for step, figures in judgements:
            training_log.log_judges(step, figures)
            value, generator = score(figures), saved_models.Pair(self.folder, step).generator
            if self.config.train.best_by != "judges" or value is None or value >= self.best.distance:
                continue
            if not generator.exists():
                log.warning(
                    "step %d has the best score, but %s is no longer there; raise train.keep_ckpts", step, generator
                )
                continue
            self._write_best(checkpoint.load_checkpoint(generator), Best(value, step))
