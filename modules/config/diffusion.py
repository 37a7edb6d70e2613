"""``diffusion.yaml``, the configuration of the diffusion model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.atomic_file import write_text
from modules.config.schema import (
    HIGHEST_RATE,
    MOST_LAYERS,
    Section,
    at_least,
    choice,
    listed,
    ours,
    positive,
    read_text,
)
from modules.console import UserError, short_repr
from modules.untrusted.tree_bounds import check_tree

LONGEST_NUMBER = 4300  # digits; Python's limit


@dataclass
class DiffusionData(Section):
    sampling_rate: int = positive(44100, most=HIGHEST_RATE)
    block_size: int = positive(512)
    duration: float = positive(2)
    encoder: str = "vec768l12"
    cnhubertsoft_gate: float = 10
    encoder_sample_rate: int = 16000
    encoder_hop_size: int = 320
    encoder_out_channels: int = positive(768)
    training_files: str = "filelists/train.txt"
    validation_files: str = "filelists/val.txt"
    extensions: list[str] = listed("wav")
    unit_interpolate_mode: str = choice("left", "left", "nearest", "nearest-exact", "linear", "area")


@dataclass
class DiffusionModel(Section):
    type: str = "Diffusion"
    n_layers: int = positive(20, most=MOST_LAYERS)
    n_chans: int = positive(512)
    n_hidden: int = positive(256)
    use_pitch_aug: bool = True
    timesteps: int = positive(1000, most=1_000_000)
    k_step_max: int | None = 0
    n_spk: int = positive(1)


@dataclass
class DiffusionVocoder(Section):
    type: str = choice("nsf-hifigan", "nsf-hifigan", "nsf-hifigan-log10")
    ckpt: str = "pretrain/nsf_hifigan/model"


@dataclass
class DiffusionInfer(Section):
    speedup: int = positive(10)
    method: str = choice("dpm-solver++", "pndm", "ddim", "unipc", "dpm-solver", "dpm-solver++")


@dataclass
class DiffusionEnvironment(Section):
    expdir: str = "logs/44k/diffusion"
    gpu_id: int = 0


@dataclass
class DiffusionTrain(Section):
    num_workers: int = at_least(0, 4)
    amp_dtype: str = choice("fp32", "fp32", "fp16", "bf16")
    batch_size: int = positive(48)
    cache_all_data: bool = True
    cache_device: str = "cpu"
    cache_fp16: bool = True
    epochs: int = positive(100000)
    interval_log: int = positive(10)
    interval_val: int = positive(2000)
    interval_force_save: int = positive(5000)
    lr: float = positive(1e-4)
    decay_step: int = positive(100000)
    gamma: float = positive(0.5)
    weight_decay: float = at_least(0, 0)
    save_opt: bool = False
    accumulate_steps: int = ours(1, least=1)  # batches per process whose gradients form one step
    seed: int = ours(1234, any_size=True)  # of initial weights, order, crops and noise; the original has none


@dataclass
class DiffusionConfig(Section):
    """The whole of ``diffusion.yaml``."""

    data: DiffusionData = field(default_factory=DiffusionData)
    model: DiffusionModel = field(default_factory=DiffusionModel)
    device: str = "cuda"
    vocoder: DiffusionVocoder = field(default_factory=DiffusionVocoder)
    infer: DiffusionInfer = field(default_factory=DiffusionInfer)
    env: DiffusionEnvironment = field(default_factory=DiffusionEnvironment)
    train: DiffusionTrain = field(default_factory=DiffusionTrain)
    spk: dict[str, int] = field(default_factory=lambda: {"nyaru": 0})


# -- the file -------------------------------------------------------------------------------------------------------


def load_diffusion_config(path: str | Path) -> DiffusionConfig:
    """Read ``diffusion.yaml``, which needs about 500 times its size of memory. Raises UserError as load_config does."""
    values = _parse_yaml(read_text(path, "python preprocess_flist_config.py"), path)
    data = values.get("data") if isinstance(values, dict) else None
    if isinstance(data, dict) and "hop_length" in data:  # JSON is valid YAML, and most sections have the same names
        raise UserError(f"{path} is the main model's configuration, not a diffusion model's; name a diffusion.yaml")
    config = DiffusionConfig.from_dict(values, f"{path}: ")
    if config.train.cache_device.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise UserError(f"{path}: train.cache_device is {config.train.cache_device!r}; allowed: 'cpu', 'cuda', 'mps'")
    if abs(config.train.seed) >= 10**18:
        seed = short_repr(config.train.seed)
        raise UserError(f"{path}: train.seed is {seed}; it must be a whole number of at most 18 digits")
    if config.model.n_chans % 2:
        raise UserError(f"{path}: model.n_chans is {config.model.n_chans}; it must be even")
    return config


def _parse_yaml(text: str, path: str | Path) -> Any:
    """Parse YAML. Raises UserError for invalid text, and for aliases that expand beyond the text's length."""
    import yaml

    def parts(node: yaml.Node) -> Iterable[yaml.Node]:
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > LONGEST_NUMBER and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
                raise ValueError(f"it has a number of {len(node.value)} characters")
            return ()
        return node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        check_tree(node, len(text), parts)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    except RecursionError:
        raise UserError(f"{path} is no configuration: its lists nest too deep") from None
    except Exception as error:  # invalid dates and numbers: ValueError, KeyError, AttributeError
        raise UserError(f"{path} is no configuration: {error}") from None


def save_diffusion_config(config: DiffusionConfig, path: str | Path) -> None:
    """Write ``diffusion.yaml`` as the original does: block style, sorted keys, ASCII as in save_config."""
    import yaml

    write_text(path, yaml.safe_dump(config.to_dict()))
