"""Stage 7: write a model as ONNX, for MoeVoiceStudio and other hosts of ONNX graphs.

Reads   checkpoints/<name>/model.pth and config.json
Writes  checkpoints/<name>/<name>_SoVits.onnx    with several speakers it takes their weights for each frame
        checkpoints/<name>.json                  its description for MoeVoiceStudio

    python onnx_export.py -n alto
    python onnx_export.py --model logs/44k/G_8000.pth --out alto/alto_SoVits.onnx      and alto/alto.json

    python onnx_export.py --host MoeVoiceStudio -n alto
    python onnx_export.py --host MoeVoiceStudio -n alto --model logs/44k/G_8000.pth

writes all that MoeVoiceStudio needs into its folder: Models/alto.json and Models/alto/, with the diffusion model and
the index or cluster centres that lie beside the model, hubert/, hifigan/, MelOps.onnx and F0Predictor/ from pretrain/,
and says what is missing (exit code 1 if MoeVoiceStudio cannot use the model). Files there of an earlier export of
the model, of an index or a diffusion model that it no longer has, are deleted.

Other models, one at a time; --out names another output:

    python onnx_export.py --diffusion -n alto     checkpoints/alto/model_<step>.pt, config.yaml -> alto_encoder.onnx,
                                                  alto_denoise.onnx, alto_pred.onnx, alto_after.onnx beside them, and
                                                  checkpoints/alto_diffusion.json
    python onnx_export.py --vocoder               pretrain/nsf_hifigan/model -> nsf_hifigan.onnx and MelOps.onnx (the
                                                  mel spectrogram) beside it
    python onnx_export.py --encoder vec768l12     its file in pretrain/ -> the graph of the key vec768l12-onnx
    python onnx_export.py --f0 rmvpe              pretrain/rmvpe.pt -> RMVPE.onnx beside it (fcpe: MELPE.onnx)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import UserError, get_logger, parse_flags, script

CHECKPOINTS = Path("checkpoints")
PRETRAIN = Path("pretrain")
PUBLISHED_NAME = "TransformerFlow"
VOCODER = Path("nsf_hifigan/model")  # below --pretrain


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "-n",
        "--model_name",
        help="folder below checkpoints/, and name in the JSON; its config.json gives --diffusion the speakers' order "
        f"(default: {PUBLISHED_NAME}, or --model's)",
    )
    add("-m", "--model", type=Path, help="path of the checkpoint, or of the vocoder's weight file")
    add("-c", "--config", type=Path, help="its config.json or, with --diffusion, its YAML (default: beside the model)")
    add(
        "-o",
        "--out",
        dest="output",
        type=Path,
        metavar="OUT",
        help="the .onnx file to write, with its JSON beside it; --diffusion appends _<part>.onnx and _diffusion.json",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--host", type=Path, metavar="DIR", help="write all files that MoeVoiceStudio needs to its folder"
    )
    kind.add_argument("--diffusion", action="store_true", help="export the diffusion model as four graphs")
    kind.add_argument(
        "--vocoder", nargs="?", const="nsf-hifigan", metavar="KIND", help="export the mel vocoder (default: %(const)s)"
    )
    kind.add_argument("--encoder", metavar="KEY", help="export a speech encoder")
    kind.add_argument("--f0", metavar="KEY", help="export an F0 predictor: rmvpe or fcpe")
    add("--pretrain", type=Path, help=f"folder of the weight files of other projects (default: {PRETRAIN})")
    add(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="fp16 halves the size, int8 quarters it; the error is printed (default: %(default)s)",
    )
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    refuse_unused(args)
    args.pretrain = args.pretrain or PRETRAIN
    if args.encoder is not None:
        write_encoder(args)
    elif args.f0 is not None:
        write_f0(args)
    elif args.vocoder is not None:
        write_vocoder(args)
    elif args.diffusion:
        write_diffusion(args)
    elif args.host:
        return write_host_folder(args)
    else:
        write_synthesizer(args)
    return 0


def write_synthesizer(args: argparse.Namespace) -> None:
    name, folder = name_and_folder(args)
    model = existing(args.model or folder / "model.pth", "--model")
    config = existing(args.config or model.with_name("config.json"), "--config")
    out, metadata = folder / f"{name}_SoVits.onnx", folder.with_name(f"{name}.json")
    if args.output:
        out, stem = args.output, args.output.stem.removesuffix("_SoVits") or args.output.stem
        metadata = out.with_name(f"{stem}.json")
        if args.model_name is None:
            name = stem
    from onnxexport.synthesizer import export_synthesizer

    warn(export_synthesizer(model, config, out, metadata, name, args.precision))


def write_host_folder(args: argparse.Namespace) -> int:
    name, folder = name_and_folder(args)
    model = existing(args.model or folder / "model.pth", "--model")
    config = existing(args.config or model.with_name("config.json"), "--config")
    from onnxexport.host_folder import HostFolder

    return 0 if HostFolder(args.host, name, model, config, args.pretrain, args.precision).lay() else 1


def write_diffusion(args: argparse.Namespace) -> None:
    from diffusion.saved_models import diffusion_checkpoints
    from onnxexport.diffusion import export_diffusion
    from onnxexport.metadata import amend_metadata, diffusion_json

    name, folder = name_and_folder(args)
    found = diffusion_checkpoints(folder)
    model = existing(args.model or (found[0].model if found else folder / "model_<step>.pt"), "--model")
    config = existing(args.config or model.with_name("config.yaml"), "--config")
    prefix = args.output or folder / name
    synthesizer = (args.output or folder).with_name(f"{prefix.name}.json")
    metadata = diffusion_json(synthesizer)
    warn(export_diffusion(model, config, prefix, metadata, speakers_of(folder / "config.json"), args.precision))
    amend_metadata(synthesizer, {"ShallowDiffusion": metadata.stem})


def write_vocoder(args: argparse.Namespace) -> None:
    from onnxexport.vocoder import export_vocoder, vocoder_graph_name

    path = existing(args.model or args.pretrain / VOCODER, "--model")
    out = args.output or path.with_name(f"{vocoder_graph_name(path)}.onnx")
    export_vocoder(path, out, args.vocoder, args.precision)


def write_encoder(args: argparse.Namespace) -> None:
    from onnxexport.encoders import export_encoder, graph_path

    out = args.output or graph_path(args.encoder, args.pretrain)
    export_encoder(args.encoder, out, pretrain=args.pretrain, precision=args.precision)


def write_f0(args: argparse.Namespace) -> None:
    from onnxexport.f0 import export_f0, graph_path

    out = args.output or graph_path(args.f0, args.pretrain)
    export_f0(args.f0, out, pretrain=args.pretrain, precision=args.precision)


def warn(flaws: Sequence[str]) -> None:
    for flaw in flaws:
        get_logger("onnx").warning("%s", flaw)


def speakers_of(config: Path) -> list[str] | None:
    """Return the speakers of a synthesizer's configuration in its order; None if there is no such file."""
    from modules.config import load_config

    return list(load_config(config).spk) if config.is_file() else None


def refuse_unused(args: argparse.Namespace) -> None:
    """Raise UserError for a flag that the exported model does not use, and for an --out that is not a file name."""
    by_key = args.encoder is not None or args.f0 is not None
    pretrained = by_key or args.vocoder is not None
    if args.host and args.output:
        raise UserError("--out has no use with --host, whose folder gives all names")
    for flag, useless, why in (
        ("model", by_key, "with --encoder and --f0, whose files are looked for in --pretrain"),
        ("config", pretrained, "here; it belongs to a synthesizer, or to --diffusion"),
        ("model_name", pretrained, "here; it names a synthesizer, or with --diffusion that model"),
        ("pretrain", not pretrained and not args.host, "here; it is for --host, --vocoder, --encoder and --f0"),
        ("pretrain", pretrained and args.model, "with --model, which is the vocoder's weight file"),
    ):
        if useless and getattr(args, flag) is not None:
            raise UserError(f"--{flag} has no use {why}")
    if args.output and args.output.name in ("", ".."):
        raise UserError(f"--out takes the name of a file, and '{args.output}' is a folder's")


def name_and_folder(args: argparse.Namespace) -> tuple[str, Path]:
    """Return the model's name, and its folder, which may lie below other folders of checkpoints/."""
    name = args.model_name
    if name is None:
        name = args.model.stem if args.model else PUBLISHED_NAME
    folder = CHECKPOINTS / name
    name = Path(name).name
    if name in ("", ".."):
        raise UserError(
            f"'{folder}' is not named after a model; give --model_name one of the folders in {CHECKPOINTS}/"
        )
    return name, folder


def existing(path: Path, flag: str) -> Path:
    """Return ``path``. Raises UserError if it is not a file."""
    if not path.is_file():
        raise UserError(f"there is no {path}; put it there, or name another with {flag}")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
