"""Find the files of a model that the user did not name."""

from __future__ import annotations

from pathlib import Path

from modules.console import UserError, get_logger, option

log = get_logger("convert")

MODELS = Path("logs/44k")
GRAPH_SUFFIX = ".onnx"


def find_generator(model_path: str | None, config_path: str | None) -> tuple[Path, Path]:
    """Find the generator, by default the newest, and its config, by default beside it.

    Raises UserError if either is missing.
    """
    from vits.saved_models import newest_generator

    model = Path(model_path) if model_path else newest_generator(MODELS)
    if model is None:
        raise UserError(
            f"there is no G_*.pth in {MODELS}; train a model with train.py, or name one with {option('model_path')}"
        )
    if not model.is_file():
        raise UserError(
            f"there is no checkpoint {model}; {option('model_path')} takes the path of a generator, G_<step>.pth"
        )
    return model, _config_of(model, config_path)


def _config_of(model: Path, config_path: str | None) -> Path:
    config = Path(config_path) if config_path else model.with_name("config.json")
    if not config.is_file():
        raise UserError(
            f"there is no {config}; it belongs beside the model, or name the model's config.json with "
            f"{option('config_path')}"
        )
    return config


def find_graph(path: str, config_path: str | None) -> tuple[Path, Path]:
    """Find the synthesizer's ONNX graph and its model's config, by default beside it.

    Raises UserError if either is missing.
    """
    graph = Path(path)
    if graph.suffix != GRAPH_SUFFIX or not graph.is_file():
        raise UserError(
            f"there is no graph {graph}; {option('onnx')} takes the {GRAPH_SUFFIX} file that onnx_export.py makes"
        )
    return graph, _config_of(graph, config_path)


def find_diffusion(model_path: str | None, config_path: str | None, generator: Path | None = None) -> tuple[Path, Path]:
    """Find the diffusion model and its YAML.

    The model defaults to the newest beside the ``generator``, or else in logs/44k; the YAML to the one beside the
    model. Raises UserError if either is missing.
    """
    from diffusion.saved_models import diffusion_checkpoints

    if model_path:
        model = Path(model_path)
    else:
        folders = [folder / "diffusion" for folder in _folders(generator)]
        found = next((there for folder in folders if (there := diffusion_checkpoints(folder))), None)
        if found is None:
            where = " or ".join(map(str, folders))
            raise UserError(
                f"there is no model_*.pt in {where}; train one with train_diff.py, or name one with "
                f"{option('diffusion_model_path')}"
            )
        model = found[0].model
        _log_found(model, generator)
    if not model.is_file():
        raise UserError(
            f"there is no diffusion model {model}; {option('diffusion_model_path')} takes the path of a model_<step>.pt"
        )
    config = Path(config_path) if config_path else model.with_name("config.yaml")
    if not config.is_file():
        raise UserError(
            f"there is no {config}; it belongs beside the diffusion model, or name its YAML with "
            f"{option('diffusion_config_path')}"
        )
    return model, config


def find_timbre(path: str, retrieval: bool, generator: Path | None = None) -> Path:
    """Return the path of the cluster centres or, for ``retrieval``, of the feature index; the file may be missing.

    The default is beside the ``generator``, or else in logs/44k.
    """
    if path:
        return Path(path)
    name = "feature_and_index.pkl" if retrieval else "kmeans_10000.pt"
    candidates = [folder / name for folder in _folders(generator)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        return candidates[0]
    _log_found(found, generator)
    return found


def _folders(generator: Path | None) -> list[Path]:
    """Return the folders to search for files of a generator, its own first."""
    return [MODELS] if generator is None or _is_in_models(generator) else [generator.parent, MODELS]


def _log_found(file: Path, generator: Path | None) -> None:
    """Log a file that was found; warn if it lies in logs/44k and the generator does not."""
    if generator is not None and file.is_relative_to(MODELS) and not _is_in_models(generator):
        log.warning("%s is used, since there is none beside %s; it must be of the same voices", file, generator)
    else:
        log.info("%s is used", file)


def _is_in_models(generator: Path) -> bool:
    return generator.parent.resolve() == MODELS.resolve()
