"""Which weight files a user asks for, and the list of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from downloads.catalog import BASE_MODELS, DIFFUSION_BASES, FILES, VOCODER, WeightFile, encoder_file
from downloads.fetching import Fetcher
from modules.console import printable
from modules.f0 import F0_PREDICTORS
from vencoder import ENCODERS, encoder_key

PREDICTOR = "rmvpe"  # of preprocessing


def select_files(
    config: Path | None,
    encoders: Iterable[str],
    predictors: Iterable[str],
    base: str | None,
    diffusion_base: str | None,
    *,
    vocoder: bool,
    everything: bool,
) -> list[WeightFile]:
    """Return the files to fetch, each once. Raises UserError if the ``config`` is missing or wrong."""
    files: list[WeightFile | None] = []
    if config:
        files += _files_for(config)
    if everything:
        encoders, predictors, vocoder = ENCODERS, [key for key, row in F0_PREDICTORS.rows.items() if row.weight], True
    files += map(encoder_file, encoders)
    files += [FILES[F0_PREDICTORS[key].weight] for key in predictors]
    files += [VOCODER] if vocoder else []
    files += BASE_MODELS[base] if base else []
    files += [DIFFUSION_BASES[diffusion_base]] if diffusion_base else []
    return list(dict.fromkeys(file for file in files if file))


def _files_for(config: Path) -> list[WeightFile | None]:
    """Return the encoder's file and rmvpe's, and for a YAML the vocoder."""
    from modules.config import load_config, load_diffusion_config

    if config.suffix in (".yaml", ".yml"):
        data = load_diffusion_config(config).data
        key = encoder_key(data.encoder, data.encoder_out_channels, config)
        return [encoder_file(key), FILES[PREDICTOR + ".pt"], VOCODER]
    model = load_config(config).model
    return [encoder_file(encoder_key(model.speech_encoder, model.ssl_dim, config)), FILES[PREDICTOR + ".pt"]]


def list_files(fetcher: Fetcher) -> None:
    """Print every file with its keys, size, licence and home page, and whether it is there."""
    rows = [(_keys_of(name), file) for name, file in FILES.items()] + [("vocoder", VOCODER)]
    rows += [(f"base {key}", file) for key, files in BASE_MODELS.items() for file in files]
    rows += [(f"diffusion base {key}", file) for key, file in DIFFUSION_BASES.items()]
    for keys, file in rows:
        state = "there" if fetcher.present(file) else ""
        print(printable(f"{state:6} {file.size:5} MB  {keys}: {file.what}; {file.licence}; {file.home}"))


def _keys_of(name: str) -> str:
    """Return the keys that use a weight file, as text."""
    tables: Sequence = (ENCODERS, F0_PREDICTORS)
    return ", ".join(key for table in tables for key, row in table.rows.items() if row.weight == name)
