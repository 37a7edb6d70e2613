"""The configuration files: ``config.json`` of the synthesizer and ``diffusion.yaml``, as typed dataclasses.

Every key of the published files has its published default, so a 4.0 file, which lacks some, loads. Unknown keys are
kept and written back. A few keys exist only here (fields made with ``ours``); their defaults give the published
behaviour, and they are written only where they differ, so files stay as the original writes them.
"""

from modules.config.diffusion import DiffusionConfig, DiffusionTrain, load_diffusion_config, save_diffusion_config
from modules.config.synthesizer import (
    ENCODER_OF_4_0,
    FEATURES_OF_4_0,
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    copy_config,
    load_config,
    save_config,
)

__all__ = [
    "ENCODER_OF_4_0",
    "FEATURES_OF_4_0",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "DiffusionTrain",
    "ModelConfig",
    "TrainConfig",
    "copy_config",
    "load_config",
    "load_diffusion_config",
    "save_config",
    "save_diffusion_config",
]
