"""Where the files of a model lie that the user did not name."""

from __future__ import annotations

from pathlib import Path

from modules.console import UserError

MODELS = Path("logs/44k")
DIFFUSION = MODELS / "diffusion"
GRAPH_SUFFIX = ".onnx"


def find_generator(model_path: str | None, config_path: str | None) -> tuple[Path, Path]:
    """The generator, by default the newest, and its configuration, by default beside it.

    Raises UserError when either is not there.
    """
    from vits.checkpoints import newest_generator

    model = Path(model_path) if model_path else newest_generator(MODELS)
    if model is None:
        raise UserError(f"there is no G_*.pth in {MODELS}; train a model with train.py, or name one with -m")
    if not model.is_file():
        raise UserError(f"there is no checkpoint {model}; -m takes the path of a generator, G_<step>.pth")
    return model, _config_of(model, config_path)


def _config_of(model: Path, config_path: str | None) -> Path:
    config = Path(config_path) if config_path else model.with_name("config.json")
    if not config.is_file():
        raise UserError(f"there is no {config}; it belongs beside the model, or name the model's config.json with -c")
    return config


def find_graph(path: str, config_path: str | None) -> tuple[Path, Path]:
    """The synthesizer's graph and the configuration of its model, by default beside it.

    Raises UserError when either is not there.
    """
    graph = Path(path)
    if graph.suffix != GRAPH_SUFFIX or not graph.is_file():
        raise UserError(f"there is no graph {graph}; --onnx takes the {GRAPH_SUFFIX} file that onnx_export.py makes")
    return graph, _config_of(graph, config_path)


def find_diffusion(model_path: str | None, config_path: str | None) -> tuple[Path, Path]:
    """The diffusion model, by default the newest, and its YAML, by default beside it.

    Raises UserError when either is not there.
    """
    from diffusion.checkpoints import diffusion_checkpoints

    if model_path:
        model = Path(model_path)
    elif there := diffusion_checkpoints(DIFFUSION):
        model = there[0].model
    else:
        raise UserError(f"there is no model_*.pt in {DIFFUSION}; train one with train_diff.py, or name one with -dm")
    if not model.is_file():
        raise UserError(f"there is no diffusion model {model}; -dm takes the path of a model_<step>.pt")
    config = Path(config_path) if config_path else model.with_name("config.yaml")
    if not config.is_file():
        raise UserError(f"there is no {config}; it belongs beside the diffusion model, or name its YAML with -dc")
    return model, config


def find_timbre(path: str, retrieval: bool) -> Path:
    """The cluster centres or, for ``retrieval``, the feature index; those of logs/44k when ``path`` is empty."""
    return Path(path) if path else MODELS / ("feature_and_index.pkl" if retrieval else "kmeans_10000.pt")
