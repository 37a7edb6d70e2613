"""Judge conversions: of files, of folders, or of a model, which converts its validation clips itself.

Prints a table of figures beside those of the source (unchanged, and moved to the same pitch: the floor) and of the
target's recordings (the ceiling), and writes evaluation.json and evaluation.png to results/evaluation. Judges whose
packages are missing are named, and the rest runs. Opinions and conversions are kept in that folder, so a second run is
fast, and a stopped one continues.

    python evaluate.py --converted song_alto.wav --source song.wav --target dataset/44k/alto
    python evaluate.py --converted results --source raw --target dataset/44k/alto --reference sung_by_alto --text words
    python evaluate.py -m logs/44k/G_8000.pth -s alto                 converts the validation clips
    python evaluate.py -m logs/44k/G_8000.pth -n song.wav -s alto -t 12 -f0p rmvpe -cr 0.5
    python evaluate.py --compare logs/44k/G_800.pth logs/44k/G_8000.pth "logs/44k/G_8000.pth -cr 0.5 -fr" -s alto
    python evaluate.py --compare results/old results/new --source raw --target dataset/44k/alto
    python evaluate.py -m logs/44k/G_8000.pth -s alto --sweep         quality against seconds, for many settings

With a model, the flags of inference_main.py that change a conversion are allowed too. In an entry of --compare they
change that entry, outside all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import inference_main
from modules.console import UserError, get_logger, option, parse_flags, printable, script
from modules.f0 import F0_PREDICTORS
from modules.version import VERSION

if TYPE_CHECKING:
    from evaluation.assessment import Assessment, Assessor
    from evaluation.case import Case
    from inference.trial import Trial

log = get_logger("evaluate")

# Settings that do not change a conversion, or name files, of which the content counts.
NO_SETTINGS = {"device", "cache_folder", "f0_in"}
NO_SETTINGS |= {"config_path", "cluster_model_path", "diffusion_model_path", "diffusion_config_path"}
# Flags of inference_main.py that an evaluation does not have, with their values.
WITHOUT_EFFECT = {"onnx": None, "use_spk_mix": False, "f0_out": None}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model_path", help="generator checkpoint, which converts the songs")
    add("-n", "--clean_names", nargs="+", default=[], metavar="SONG",
        help="songs for a model, as names under raw/ or paths (default: its validation clips)")  # fmt: skip
    add("-t", "--trans", dest="tran", type=inference_main.semitones, default=0, metavar="SEMITONES",
        help="shift; fractions allowed; auto: the speaker's octave (default: 0)")  # fmt: skip
    add(
        "-s",
        "--spk_list",
        dest="spk",
        metavar="SPEAKER",
        help="name or id of the target (default: the model's only one)",
    )
    add("-o", "--output_dir", type=Path, default=Path("results/evaluation"), help="(default: %(default)s)")
    add = parser.add_argument_group("evaluation").add_argument
    add("--converted", type=Path, metavar="PATH", help="a converted file, or a folder of them, in place of -m")
    add("--compare", nargs="+", metavar="WHAT",
        help="several folders, or models with flags in quotes; each is compared with the first")  # fmt: skip
    add("--sweep", action="store_true", help="try precisions, timbre, diffusion and sampler of the model")
    add("--source", type=Path, metavar="PATH", help="the song that was converted, or a folder of them")
    add("--target", type=Path, metavar="PATH",
        help="recordings of the target's voice (default with a model: the speaker's training clips)")  # fmt: skip
    add("--reference", type=Path, metavar="PATH",
        help="the song sung by the target with the same timing, or a folder of them")  # fmt: skip
    add("--text", metavar="TEXT", help="the words, a .txt file with them, or a folder of .txt files")
    add("--f0", type=Path, metavar="FILE",
        help="the F0 that the decoder was given, from --f0_out, for --converted")  # fmt: skip
    add("--tracker", default="pm", metavar="KEY", choices=list(F0_PREDICTORS),
        help="F0 predictor that judges: pm, harvest, crepe, ... (%(default)s)")  # fmt: skip
    add("--whisper", metavar="MODEL", help="folder of a CTranslate2 Whisper, or its name in faster-whisper's cache")
    inference_main.add_conversion_flags(parser)
    parser.set_defaults(**WITHOUT_EFFECT)
    return parser


class _EntryParser(argparse.ArgumentParser):
    """Parses an entry of --compare: a model and settings of its conversion. Raises UserError for anything else."""

    def __init__(self):
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("model_path")
        inference_main.add_conversion_flags(self)

    def error(self, message: str) -> None:
        raise UserError(message)


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    refuse_idle_flags(args)
    if args.sweep:
        return sweep(args)
    if args.compare:
        return compare(args)
    own, encoder = [], None
    if args.converted:
        cases, targets = cases_of_files(args, args.converted, "converted")
    else:
        from inference.trial_cases import as_cases, convert_to_itself, find_clips

        trial, folder = load_trial(args), args.output_dir / "converted"
        clips = find_clips(trial, args.clean_names, args.target)
        cases = as_cases(trial.convert(clips.songs, folder), clips.own, args.text, args.reference)
        own, targets = convert_to_itself(trial, clips, folder), clips.targets
        encoder = trial.svc.voices.encoder
    result = build_assessor(args, targets, encoder).assess(cases, own)
    from evaluation.picture import draw
    from evaluation.report import as_json, table

    print(table(result))
    write(args, as_json(result))
    draw_if_possible(draw, args.output_dir / "evaluation.png", result)
    return 0


def refuse_idle_flags(args: argparse.Namespace) -> None:
    """Raise UserError unless one thing is named to judge, and for flags without effect."""
    named = [name for name in ("converted", "model_path", "compare") if getattr(args, name)]
    if len(named) > 1 or not (named or args.only_diffusion):
        choices = ", ".join(option(name) for name in ("converted", "model_path", "compare"))
        raise UserError(f"give one of {choices}: what is judged")
    if args.sweep and not args.model_path:
        raise UserError(f"{option('sweep')} tries settings of a model; give {option('model_path')}")
    if not args.converted and args.f0:
        raise UserError(f"{option('f0')} belongs to {option('converted')}; a model's own F0 is known")
    if args.converted:
        refuse_settings(args)


def refuse_settings(args: argparse.Namespace) -> None:
    """Raise UserError for settings of a conversion, which files have behind them."""
    defaults = vars(build_parser().parse_args([]))
    settings = [*conversion_settings(), "clean_names", "spk"]
    if idle := [option(name) for name in settings if getattr(args, name) != defaults[name]]:
        raise UserError(f"{', '.join(idle)}: only a conversion by a model takes this; leave it out")


def conversion_settings() -> list[str]:
    """Return the names of the settings of one conversion, sorted."""
    return sorted(set(vars(_EntryParser().parse_args(["-"]))) - {"model_path"} - set(WITHOUT_EFFECT))


# -- files and folders -------------------------------------------------------------------------------------------------


def cases_of_files(args: argparse.Namespace, converted: Path, name: str) -> tuple[list[Case], list[Path]]:
    """Return the cases of converted files, and the target's recordings; ``name`` is the setting of the path."""
    from evaluation.case import find_sounds, pair_files
    from inference.f0_curve import read_f0_curve
    from inference.jobs import AUTO

    if args.tran == AUTO:
        raise UserError(
            f"{option('tran')} {AUTO} is a model's choice; give the semitones by which the files are shifted"
        )
    curve = read_f0_curve(args.f0, "f0") if args.f0 else None
    cases = pair_files(converted, name, args.source, args.reference, args.text, args.tran, curve)
    return cases, find_sounds(args.target, "target") if args.target else []


# -- models ------------------------------------------------------------------------------------------------------------


def refuse_trial(args: argparse.Namespace) -> None:
    """Raise UserError for flags of a conversion that exclude each other.

    So does the F0 predictor that judges, if it is also the network that gives the conversion its F0.
    """
    from inference.model_files import find_generator

    inference_main.refuse_idle_flags(argparse.Namespace(**vars(args) | {"tran": [args.tran]}))
    if args.f0_predictor == args.tracker and F0_PREDICTORS[args.tracker].neural:
        raise UserError(
            f"{args.tracker} gives the conversion its F0, so it cannot judge it; take another {option('tracker')}"
        )
    if not args.only_diffusion:
        find_generator(args.model_path, args.config_path)


def load_trial(args: argparse.Namespace) -> Trial:
    """Load the converter that the flags describe. Raises UserError as ``refuse_trial``."""
    from inference.conversion import Pipeline
    from inference.jobs import AUTO
    from inference.trial import Trial, fingerprint

    refuse_trial(args)
    conversion = inference_main.read_conversion(args)
    pipeline = Pipeline(args.nsf_hifigan_enhance, args.shallow_diffusion, args.only_diffusion)
    pipeline.refuse_missing(conversion)
    svc = inference_main.load_models(args)
    chosen = {"spk": args.spk or svc.voices.only()} | ({} if args.tran == AUTO else {"tran": args.tran})
    conversion = dataclasses.replace(conversion, **chosen)
    settings = {key: getattr(args, key) for key in conversion_settings() if key not in NO_SETTINGS}
    settings |= {"dtype": svc.dtype, "device": svc.device.type, "version": VERSION}
    key = fingerprint(settings, [*svc.files(conversion), args.f0_in])
    return Trial(svc, conversion, key, args.tran == AUTO)


# -- comparisons -------------------------------------------------------------------------------------------------------


def read_entry(args: argparse.Namespace, entry: str) -> argparse.Namespace | None:
    """Return the flags of an entry of --compare, with those that all have; None for a folder.

    Raises UserError if there is no such model, and for flags that are not settings of its conversion.
    """
    if Path(entry).is_dir():
        return None
    words = [entry] if Path(entry).is_file() else shlex.split(entry, posix=os.name != "nt")
    try:
        parser = _EntryParser()
        for word in words:
            if re.match(r"-[^\d.]", word) and word.partition("=")[0] not in parser._option_string_actions:
                raise UserError(f"{word} is no setting of one conversion; give it for all, outside of the quotes")
        flags = parser.parse_args(words, argparse.Namespace(**vars(args)))
        if Path(flags.model_path).is_dir():
            raise UserError("a folder has no settings; name it alone")
        refuse_trial(flags)
    except UserError as error:
        raise UserError(f"{option('compare')}: '{entry}': {error}") from None
    return flags


def compare(args: argparse.Namespace) -> int:
    """Judge several folders or models on the same clips, and print what differs from the first beyond chance."""
    from evaluation.case import short_names
    from evaluation.picture import draw_comparison
    from evaluation.report import as_json, comparison_table
    from inference.trial_cases import as_cases, find_clips

    results: dict[str, Assessment] = {}
    assessor = clips = None
    if len(args.compare) < 2:
        raise UserError(f"{option('compare')} needs two entries or more; each is compared with the first")
    entries = [(item, read_entry(args, item)) for item in args.compare]
    if not any(flags for _, flags in entries):
        refuse_settings(args)
    for item, flags in entries:
        name = item if item not in results else f"{item} ({len(results) + 1})"
        if flags is None:
            cases, targets = cases_of_files(args, Path(item), "compare")
            encoder = None
        else:
            trial = load_trial(flags)
            clips = clips or find_clips(trial, args.clean_names, args.target)
            converted, targets = trial.convert(clips.songs, args.output_dir / "converted"), clips.targets
            cases = as_cases(converted, clips.own, args.text, args.reference)
            encoder = trial.svc.voices.encoder
            trial.svc.close()
        assessor = assessor or build_assessor(args, targets)
        if encoder:
            assessor.panel.set_aside(encoder)
        results[name] = assessor.assess(cases, shifted=not results)
        if not set(results[name].clips) & set(next(iter(results.values())).clips):
            raise UserError(f"{item} has no clip in common with {args.compare[0]}; give results of the same songs")
    names = short_names(list(results))
    print(comparison_table(names, list(results.values())))
    write(args, {name: as_json(result) for name, result in results.items()})
    by_name = dict(zip(names, results.values(), strict=True))
    draw_if_possible(draw_comparison, args.output_dir / "evaluation.png", by_name)
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Judge one model with many settings, and print quality against seconds."""
    from evaluation.report import as_json, sweep_table
    from inference.sweep import variants
    from inference.trial_cases import as_cases, find_clips
    from modules.device import pick_device

    results: dict[str, Assessment] = {}
    speeds: dict[str, float] = {}
    assessor = clips = None
    for variant in variants(Path(args.model_path), str(pick_device(args.device))):
        try:
            trial = load_trial(argparse.Namespace(**vars(args) | variant.settings))
            if clips is None:
                clips = find_clips(trial, args.clean_names, args.target)
                assessor = build_assessor(args, clips.targets, trial.svc.voices.encoder)
            converted = trial.convert(clips.songs, args.output_dir / "converted")
        except UserError as error:
            if not results:
                raise
            log.info("%s is left out: %s", variant.name, error)
            continue
        trial.svc.close()
        speeds[variant.name] = sum(one.seconds for one in converted) / sum(one.length for one in converted)
        cases = as_cases(converted, clips.own, args.text, args.reference)
        results[variant.name] = assessor.assess(cases, shifted=False)
    print(sweep_table(results, speeds))
    write(args, {name: {"seconds_per_second": speeds[name], **as_json(result)} for name, result in results.items()})
    return 0


# -- shared ------------------------------------------------------------------------------------------------------------


def build_assessor(args: argparse.Namespace, targets: Sequence[Path], encoder: str | None = None) -> Assessor:
    """Build the assessor of conversions to the voice of ``targets`` by a model with the speech encoder ``encoder``."""
    from evaluation.assessment import Assessor
    from evaluation.cache import Cache
    from evaluation.judges import Panel
    from evaluation.signal_figures import SignalFigures

    cache = Cache(args.output_dir / "opinions")
    panel = Panel(cache, args.whisper)
    if encoder:
        panel.set_aside(encoder)
    return Assessor(panel, SignalFigures(cache, args.tracker), targets)


def draw_if_possible(draw: Callable, *arguments: object) -> None:
    """Draw a picture; without matplotlib, which conversion does not need, say so."""
    try:
        draw(*arguments)
    except ModuleNotFoundError as error:
        log.warning("the picture is left out: %s is not installed; pip install -r requirements.txt", error.name)


def write(args: argparse.Namespace, values: dict) -> None:
    from modules.atomic_file import write_text

    path = args.output_dir / "evaluation.json"
    write_text(path, json.dumps(values, indent=1) + "\n")
    print(f"written: {printable(path)}")


if __name__ == "__main__":
    raise SystemExit(main())
