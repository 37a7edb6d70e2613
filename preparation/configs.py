"""Write the configuration for a data set: its speakers, speech encoder and filelists.

Values that the user changed in a former configuration are kept, and so are its speaker numbers, which are rows of a
trained model's speaker embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from modules.config import (
    Config,
    DiffusionConfig,
    load_config,
    load_diffusion_config,
    save_config,
    save_diffusion_config,
)
from modules.config.schema import Section
from modules.console import UserError, get_logger, option
from vencoder import ENCODERS

log = get_logger("configs")

Former = TypeVar("Former", Config, DiffusionConfig)

TEMPLATES = Path(__file__).resolve().parent.parent / "configs_template"
CONFIG, DIFFUSION_CONFIG = Path("configs/config.json"), Path("configs/diffusion.yaml")
RUN_CONFIG = Path("logs/44k/config.json")  # the run that the README's commands train
DEFAULT_ENCODER = "vec768l12"

# Keys that follow the data set, the encoder and the flags. A former value of any other key is kept.
DERIVED = {
    "spk", "f0", "data.training_files", "data.validation_files", "model.n_speakers", "model.speech_encoder",
    "model.ssl_dim", "model.n_spk", "data.encoder", "data.encoder_out_channels",
}  # fmt: skip
ENCODER_WIDTHS = {"model.ssl_dim", "model.gin_channels", "model.filter_channels"}


def load_template(tiny: bool = False) -> Config:
    """Load the template of the configuration."""
    return load_config(TEMPLATES / ("config_tiny_template.json" if tiny else "config_template.json"))


def load_former() -> tuple[Config | None, DiffusionConfig | None]:
    """Load the configurations that an earlier run of stage 2 wrote; None for each that is missing.

    Raises UserError if one cannot be read.
    """
    return _load_existing(CONFIG, load_config), _load_existing(DIFFUSION_CONFIG, load_diffusion_config)


def _load_existing(path: Path, reader: Callable[[Path], Former]) -> Former | None:
    try:
        return reader(path) if path.exists() else None
    except UserError as error:
        raise UserError(f"{error}; correct it, or start from the template with {option('fresh', True)}") from None


def number_speakers(names: Collection[str], former: Config | None) -> dict[str, int]:
    """Return speaker name -> number: in alphabetical order from 0; new speakers follow those that have a number.

    Numbers come from the run in logs/44k if it has one of the speakers, else from ``former``. A speaker without clips
    keeps its number there.
    """
    run = _load_existing(RUN_CONFIG, load_config)
    where, source = (RUN_CONFIG, run) if run and set(run.spk) & set(names) else (CONFIG, former)
    numbers = dict(source.spk) if source else {}
    if numbers:
        new, gone = sorted(set(names) - set(numbers)), sorted(set(numbers) - set(names))
        log.info("speaker numbers of %s are kept%s%s", where, _list("; new: ", new), _list("; without clips: ", gone))
    for name in sorted(set(names) - set(numbers)):
        numbers[name] = max(numbers.values(), default=-1) + 1
    return numbers


def _list(words: str, names: list[str]) -> str:
    return words + ", ".join(names) if names else ""


def fitted_configs(
    speakers: dict[str, int],
    speech_encoder: str,
    *,
    vol_aug: bool = False,
    tiny: bool = False,
    former: tuple[Config | None, DiffusionConfig | None] = (None, None),
) -> tuple[Config, DiffusionConfig]:
    """Fill the templates for the speakers (name -> number) and the encoder.

    Widths that depend on the encoder come from its row of ENCODERS; the tiny model keeps its own ``filter_channels``.
    Values of the ``former`` configurations are kept, except widths for another encoder and the model section for
    another model size. Raises UserError for an unknown encoder.
    """
    row = ENCODERS[speech_encoder]
    former_config, former_diffusion = former
    rows = max(speakers.values(), default=-1) + 1
    config = load_template(tiny)
    for key, value in row.sizes().items():
        if not (tiny and key == "filter_channels"):
            setattr(config.model, key, value)
    if former_config:
        left_out = {"model"}
        if is_tiny(former_config) == tiny:
            same_encoder = former_config.model.speech_encoder == speech_encoder
            left_out = set() if same_encoder else ENCODER_WIDTHS
        else:
            log.info("the model section starts from the template: %s has a model of another size", CONFIG)
            config.model.vol_embedding = former_config.model.vol_embedding
        keep_values(config, former_config, CONFIG, left_out)
        config.f0 = {name: hertz for name, hertz in former_config.f0.items() if name in speakers}
        rows = max(rows, former_config.model.n_speakers)
    config.spk = dict(speakers)
    config.model.n_speakers = rows
    config.model.speech_encoder = speech_encoder
    if vol_aug:
        config.train.vol_aug = config.model.vol_embedding = True
    config.train.vol_aug &= config.model.vol_embedding

    diffusion = load_diffusion_config(TEMPLATES / "diffusion_template.yaml")
    if former_diffusion:
        keep_values(diffusion, former_diffusion, DIFFUSION_CONFIG)
    diffusion.spk = dict(speakers)
    diffusion.model.n_spk = rows
    diffusion.data.encoder = speech_encoder
    diffusion.data.encoder_out_channels = row.ssl_dim
    return config, diffusion


def is_tiny(former: Config | None) -> bool:
    """Return whether there is a former configuration and it describes the tiny model."""
    return former is not None and former.model.use_depthwise_conv and former.model.flow_share_parameter


def keep_values(config: Section, former: Section, path: Path, leave_out: Collection[str] = ()) -> None:
    """Copy every value of ``former`` that is not in DERIVED to ``config``, and log those that differ from the template.

    ``leave_out`` names keys and whole sections that are not copied.
    """
    kept = []
    for sections, is_known, key, value in _values(former):
        target = config
        for section in sections:
            target = getattr(target, section)
        name = ".".join((*sections, key))
        if name in DERIVED or name in leave_out or (sections and sections[0] in leave_out):
            continue
        if is_known and getattr(target, key) != value:
            setattr(target, key, value)
            kept.append(f"{name} {value}")
        elif not is_known:
            target.extra[key] = value
    if kept:
        starts = f"{option('fresh', True)} starts from the template"
        log.info("kept from %s (%s): %s", path, starts, ", ".join(kept))


def _values(section: Section, sections: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool, str, Any]]:
    """Yield every value below a section: the names of its sections, whether the key is known, the key, the value."""
    for key, value in vars(section).items():
        if isinstance(value, Section):
            yield from _values(value, (*sections, key))
        elif key != "extra":
            yield sections, True, key, value
    for key, value in section.extra.items():
        yield sections, False, key, value


def write_configs(config: Config, diffusion: DiffusionConfig, train_list: str | Path, val_list: str | Path) -> None:
    """Enter the filelists in both configurations and write these to ``configs/``, replacing former ones."""
    for data in (config.data, diffusion.data):
        data.training_files = Path(train_list).as_posix()
        data.validation_files = Path(val_list).as_posix()
    save_config(config, CONFIG)
    save_diffusion_config(diffusion, DIFFUSION_CONFIG)
    log.info("%s, %s: %d speakers, encoder %s", CONFIG, DIFFUSION_CONFIG, len(config.spk), config.model.speech_encoder)
