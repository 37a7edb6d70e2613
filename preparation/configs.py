"""The configuration that fits a data set: its speakers, its speech encoder, its filelists."""

from __future__ import annotations

from pathlib import Path

from modules.config import (
    Config,
    DiffusionConfig,
    load_config,
    load_diffusion_config,
    save_config,
    save_diffusion_config,
)
from modules.console import get_logger
from vencoder import ENCODERS

log = get_logger("configs")

TEMPLATES = Path(__file__).resolve().parent.parent / "configs_template"
CONFIG, DIFFUSION_CONFIG = Path("configs/config.json"), Path("configs/diffusion.yaml")


def load_template(tiny: bool = False) -> Config:
    """The configuration before it is fitted."""
    return load_config(TEMPLATES / ("config_tiny_template.json" if tiny else "config_template.json"))


def fitted_configs(
    speakers: dict[str, int], speech_encoder: str, *, vol_aug: bool = False, tiny: bool = False
) -> tuple[Config, DiffusionConfig]:
    """The templates, filled for the speakers (name -> number) and the encoder.

    Widths that follow the encoder come from its row; the tiny model's feed-forward layers keep their own. Raises
    UserError for an unknown encoder.
    """
    row = ENCODERS[speech_encoder]
    config = load_template(tiny)
    config.spk = dict(speakers)
    config.model.n_speakers = len(speakers)
    config.model.speech_encoder = speech_encoder
    for key, value in row.sizes().items():
        if not (tiny and key == "filter_channels"):
            setattr(config.model, key, value)
    if vol_aug:
        config.train.vol_aug = config.model.vol_embedding = True

    diffusion = load_diffusion_config(TEMPLATES / "diffusion_template.yaml")
    diffusion.spk = dict(speakers)
    diffusion.model.n_spk = len(speakers)
    diffusion.data.encoder = speech_encoder
    diffusion.data.encoder_out_channels = row.ssl_dim
    return config, diffusion


def write_configs(config: Config, diffusion: DiffusionConfig, train_list: str | Path, val_list: str | Path) -> None:
    """Name the filelists in both configurations and write them under ``configs/``, over former ones."""
    for data in (config.data, diffusion.data):
        data.training_files = Path(train_list).as_posix()
        data.validation_files = Path(val_list).as_posix()
    save_config(config, CONFIG)
    save_diffusion_config(diffusion, DIFFUSION_CONFIG)
    log.info("%s, %s: %d speakers, encoder %s", CONFIG, DIFFUSION_CONFIG, len(config.spk), config.model.speech_encoder)
