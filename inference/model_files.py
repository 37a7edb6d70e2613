"""Where the files of a model lie that the user did not name."""

from __future__ import annotations

from pathlib import Path

from modules.console import UserError, get_logger, option

log = get_logger("convert")

MODELS = Path("logs/44k")
GRAPH_SUFFIX = ".onnx"


def find_generator(model_path: str | None, config_path: str | None) -> tuple[Path, Path]:
    """The generator, by default the newest, and its configuration, by default beside it.

    Raises UserError when either is not there.
    """
    from vits.checkpoints import newest_generator

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
    """The synthesizer's graph and the configuration of its model, by default beside it.

    Raises UserError when either is not there.
    """
    graph = Path(path)
    if graph.suffix != GRAPH_SUFFIX or not graph.is_file():
        raise UserError(
            f"there is no graph {graph}; {option('onnx')} takes the {GRAPH_SUFFIX} file that onnx_export.py makes"
        )
    return graph, _config_of(graph, config_path)


def find_diffusion(model_path: str | None, config_path: str | None, generator: Path | None = None) -> tuple[Path, Path]:
    """The diffusion model, by default the newest beside the ``generator`` or else of logs/44k, and its YAML, by default
    beside it.

    Raises UserError when either is not there.
    """
    from diffusion.checkpoints import diffusion_checkpoints

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
        _tell(model, generator)
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
    """The cluster centres or, for ``retrieval``, the feature index, by default beside the ``generator`` or else in
    logs/44k. The file need not be there."""
    if path:
        return Path(path)
    name = "feature_and_index.pkl" if retrieval else "kmeans_10000.pt"
    places = [folder / name for folder in _folders(generator)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return places[0]
    _tell(found, generator)
    return found


def _folders(generator: Path | None) -> list[Path]:
    """Where what belongs to a generator is looked for: its own folder first."""
    return [MODELS] if generator is None or _is_in_models(generator) else [generator.parent, MODELS]


def _tell(file: Path, generator: Path | None) -> None:
    """Log a file that was found; a warning when it lies in logs/44k and the generator does not."""
    if generator is not None and file.is_relative_to(MODELS) and not _is_in_models(generator):
        log.warning("%s is used, since none lies beside %s; it must be of the same voices", file, generator)
    else:
        log.info("%s is used", file)


def _is_in_models(generator: Path) -> bool:
    return generator.parent.resolve() == MODELS.resolve()
