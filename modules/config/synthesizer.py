"""``config.json``, the synthesizer's configuration."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.atomic_file import write_text
from modules.config.generator_sizes import generator_rules
from modules.config.schema import (
    HIGHEST_RATE,
    MOST_LAYERS,
    Section,
    any_size,
    at_least,
    choice,
    listed,
    ours,
    positive,
    read_configuration,
)
from modules.console import UserError, get_logger, short_repr
from modules.untrusted.json_file import parse_json, read_json

log = get_logger("config")


@dataclass
class TrainConfig(Section):
    log_interval: int = positive(200)
    eval_interval: int = positive(800)
    seed: int = any_size(1234)
    epochs: int = positive(10000)
    learning_rate: float = positive(1e-4)
    betas: list[float] = listed(0.8, 0.99)
    eps: float = positive(1e-9)
    batch_size: int = positive(6)
    fp16_run: bool = False
    half_type: str = choice("fp16", "fp16", "bf16")
    lr_decay: float = positive(0.999875)
    segment_size: int = positive(10240)
    init_lr_ratio: float = 1
    warmup_epochs: int = at_least(0, 0)
    c_mel: float = 45
    c_kl: float = 1.0
    use_sr: bool = True
    max_speclen: int = 512
    port: str | int = "8001"
    keep_ckpts: int = at_least(0, 0)  # 0 keeps all, also the default of a file without the key
    all_in_mem: bool = False
    vol_aug: bool = False
    crop_frames: int = ours(790)  # longer clips are randomly cropped to this many frames
    accumulate_steps: int = ours(1, least=1)  # batches per process whose gradients form one step
    cosine_end: float = ours(0.0)  # share of learning_rate at the last epoch, by a cosine instead of lr_decay; 0: off
    discriminator_start_step: int = ours(0)  # before this step only the reconstruction losses train the generator
    eval_judges: bool = ours(False)  # judge the validation clips in another process (vits/judging.py)
    best_by: str = ours("mel", allowed=("mel", "judges"))  # what chooses best_G.pth: mel distance, or judging.score


@dataclass
class DataConfig(Section):
    training_files: str = "filelists/train.txt"
    validation_files: str = "filelists/val.txt"
    max_wav_value: float = positive(32768.0)
    sampling_rate: int = positive(44100, most=HIGHEST_RATE)
    filter_length: int = positive(2048)
    hop_length: int = positive(512)
    win_length: int = positive(2048)
    n_mel_channels: int = positive(80)
    mel_fmin: float = 0.0
    mel_fmax: float | None = 22050
    # A file without this key is of version 4.0, whose models were trained with ``left``.
    unit_interpolate_mode: str = choice("left", "left", "nearest", "nearest-exact", "linear", "area")


@dataclass
class ModelConfig(Section):
    inter_channels: int = positive(192)
    hidden_channels: int = positive(192)
    filter_channels: int = positive(768)
    n_heads: int = positive(2)
    n_layers: int = positive(6, most=MOST_LAYERS)
    kernel_size: int = positive(3)
    p_dropout: float = 0.1
    resblock: str = choice("1", "1", "2")
    resblock_kernel_sizes: list[int] = listed(3, 7, 11)
    resblock_dilation_sizes: list[list[int]] = listed([1, 3, 5], [1, 3, 5], [1, 3, 5])
    upsample_rates: list[int] = listed(8, 8, 2, 2, 2)
    upsample_initial_channel: int = positive(512)
    upsample_kernel_sizes: list[int] = listed(16, 16, 4, 4, 4)
    n_layers_q: int = 3
    n_layers_trans_flow: int = positive(3, most=MOST_LAYERS)
    n_flow_layer: int = positive(4, most=MOST_LAYERS)
    use_spectral_norm: bool = False
    gin_channels: int = positive(768)
    ssl_dim: int = positive(768)
    n_speakers: int = positive(200)
    vocoder_name: str = "nsf-hifigan"
    speech_encoder: str = "vec768l12"
    speaker_embedding: bool = False
    vol_embedding: bool = False
    use_depthwise_conv: bool = False
    flow_share_parameter: bool = False
    use_automatic_f0_prediction: bool = True
    use_transformer_flow: bool = False
    sampling_rate: int = ours(44100, above=0)  # of the sine source; not a key of the published file
    discriminator_periods: list[int] = ours([2, 3, 5, 7, 11])
    discriminator_width: float = ours(1.0, above=0)  # factor on the discriminators' channel counts


@dataclass
class Config(Section):
    """The whole of ``config.json``.

    ``spk`` maps speaker names to embedding rows, ``f0`` to the 10th, 50th and 90th percentile of their F0 in Hz.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    spk: dict[str, int] = field(default_factory=dict)
    f0: dict[str, list[float]] = ours({})


# -- the file -------------------------------------------------------------------------------------------------------

# Model keys that only the config.json of another program has; its sections have the same names.
OTHER_PROGRAMS = {
    "text_enc_hidden_dim": "Applio",
    "spk_embed_dim": "RVC",
    "prior_hidden_channels": "so-vits-svc 4.0-v2",
    "subbands": "a fork with a multi-band iSTFT decoder",
    "gen_istft_n_fft": "a fork with an iSTFT decoder",
}
ENCODER_OF_4_0, FEATURES_OF_4_0 = "vec256l9", 256  # for files without model.speech_encoder


def load_config(path: str | Path) -> Config:
    """Read ``config.json``, which needs about 90 times its size of memory.

    Raises UserError when it is missing, empty, not JSON, or holds a wrong value.
    """
    text = read_configuration(path, "python preprocess_flist_config.py")
    try:
        values = parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f'{path} is not valid JSON (line {error.lineno}: {error.msg}); names and texts stand in "double quotes", '
            "with a comma between entries and none behind the last one, and there are no comments"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no configuration: {error}") from None
    _refuse_other_programs(values, path)
    config = Config.from_dict(values, f"{path}: ")
    if "speech_encoder" not in values.get("model", {}) and config.model.ssl_dim == FEATURES_OF_4_0:
        config.model.speech_encoder = ENCODER_OF_4_0
    _check_together(config, path)
    if config.model.sampling_rate != config.data.sampling_rate:
        log.warning(
            "%s: model.sampling_rate is %g and data.sampling_rate %g: the voice is out of tune, unless the model was "
            "trained with this pair", path, config.model.sampling_rate, config.data.sampling_rate,
        )  # fmt: skip
    return config


def _refuse_other_programs(values: Any, path: str | Path) -> None:
    """Raise UserError for another program's configuration, which would load with defaults for its missing keys."""
    if not isinstance(values, dict):
        return
    model = values.get("model")
    program = next((name for key, name in OTHER_PROGRAMS.items() if isinstance(model, dict) and key in model), None)
    if program is None and "model" not in values and "num_mels" in values:
        program = "a vocoder"
    if program:
        raise UserError(
            f"{path} is the configuration of {program}, whose models have another network; give the config.json of a "
            "so-vits-svc 4.0 or 4.1 model"
        )


def _check_together(config: Config, path: str | Path) -> None:
    """Raise UserError when values that are each allowed contradict each other."""
    train, data, model = config.train, config.data, config.model
    outside = [name for name, number in config.spk.items() if not 0 <= number < model.n_speakers]
    uses = Counter(config.spk.values())
    shared = [name for name, number in config.spk.items() if uses[number] > 1]
    mel_fmax = data.sampling_rate / 2 if data.mel_fmax is None else data.mel_fmax
    shortest = (data.filter_length - data.hop_length) // 2
    rules = {
        **generator_rules(model, ("data.hop_length", data.hop_length), "model."),
        f"model.hidden_channels ({model.hidden_channels}) must be a multiple of model.n_heads ({model.n_heads})": (
            model.hidden_channels % model.n_heads == 0
        ),
        f"f0 is {short_repr(config.f0)}; each speaker has three frequencies in Hz, in increasing order": all(
            len(hertz) == 3 and 0 < hertz[0] <= hertz[1] <= hertz[2] for hertz in config.f0.values()
        ),
        f"model.inter_channels is {model.inter_channels}; it must be even": model.inter_channels % 2 == 0,
        f"model.p_dropout is {model.p_dropout}; it must be from 0 to below 1": 0 <= model.p_dropout < 1,
        f"model.discriminator_periods is {model.discriminator_periods}; each must be from 2 to train.segment_size "
        f"({train.segment_size})": all(2 <= period <= train.segment_size for period in model.discriminator_periods),
        f"data.win_length ({data.win_length}) must not exceed data.filter_length ({data.filter_length})": (
            data.win_length <= data.filter_length
        ),
        f"train.segment_size ({train.segment_size}) must be a multiple of data.hop_length ({data.hop_length})": (
            train.segment_size % data.hop_length == 0
        ),
        f"train.segment_size ({train.segment_size}) must exceed {shortest} samples, half of the overlap of two mel "
        f"windows of data.filter_length ({data.filter_length})": train.segment_size > shortest,
        f"data.mel_fmin ({data.mel_fmin}) and data.mel_fmax ({data.mel_fmax}) must be in this order, from 0 to half of "
        f"data.sampling_rate ({data.sampling_rate})": 0 <= data.mel_fmin < mel_fmax <= data.sampling_rate / 2,
        f"train.crop_frames ({train.crop_frames}) must hold a training slice of {train.segment_size} samples": (
            train.crop_frames * data.hop_length >= train.segment_size
        ),
        f"train.betas is {train.betas}; it must be two numbers from 0 to below 1": (
            len(train.betas) == 2 and all(0 <= beta < 1 for beta in train.betas)
        ),
        f"train.seed is {short_repr(train.seed)}; it must be a whole number of at most 18 digits": (
            abs(train.seed) < 10**18
        ),
        "train.vol_aug needs model.vol_embedding": model.vol_embedding or not train.vol_aug,
        'train.best_by "judges" needs train.eval_judges': train.eval_judges or train.best_by != "judges",
        f"spk gives {', '.join(shared)} the same number; each speaker needs one of its own": not shared,
        f"spk gives {outside} numbers outside 0 to {model.n_speakers - 1} (model.n_speakers)": not outside,
    }
    for sentence, holds in rules.items():
        if not holds:
            raise UserError(f"{path}: {sentence}")


def save_config(config: Config, path: str | Path) -> None:
    """Write ``config.json`` as the original does, with an indent of two spaces.

    Names are written as ASCII escapes, because the original reads the file in the locale's encoding.
    """
    write_text(path, json.dumps(config.to_dict(), indent=2) + "\n")


def copy_config(source: str | Path, target: str | Path) -> None:
    """Copy a ``config.json`` with all its values, formatted as by save_config."""
    values = read_json(source)
    write_text(target, json.dumps(values, indent=2) + "\n")
