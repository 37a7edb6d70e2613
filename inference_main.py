"""Stage 5: convert songs into the voices of a trained model.

Reads songs from raw/ (or from any path) and a generator of logs/44k, and writes
results/<song>_<shift>key_<speaker>_sovits_<predictor>.flac. Songs that cannot be converted are named at the end, and
the exit code is 1 then; it is 2 when none could be.

    python inference_main.py -n song.wav -s alto
    python inference_main.py -m logs/44k/G_8000.pth -n "a song.flac" other.mp3 -t 0 -12 -s alto tenor -f0p crepe -wf wav
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.conversion import Conversion
from modules.console import UserError, get_logger, progress, script
from modules.registry import nearest_first

if TYPE_CHECKING:
    import numpy as np

    from inference.svc import Svc

MODELS = Path("logs/44k")
RAW = Path("raw")

# Of Conversion's settings; the flags are parsed into attributes of these names.
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Conversion) if field.name != "spk"}

# Flags of parts that this version does not have: names, how they are parsed, what they ask for.
ABSENT = (
    (("-cm", "--cluster_model_path"), {"default": ""}, "clustering"),
    (("-cr", "--cluster_infer_ratio"), {"type": float, "default": 0}, "clustering"),
    (("-fr", "--feature_retrieval"), {"action": "store_true"}, "feature retrieval"),
    (("-eh", "--enhance"), {"action": "store_true"}, "the enhancer"),
    (("-eak", "--enhancer_adaptive_key"), {"type": int, "default": 0}, "the enhancer"),
    (("-shd", "--shallow_diffusion"), {"action": "store_true"}, "shallow diffusion"),
    (("-od", "--only_diffusion"), {"action": "store_true"}, "diffusion"),
    (("-dm", "--diffusion_model_path"), {"default": "logs/44k/diffusion/model_0.pt"}, "diffusion"),
    (("-dc", "--diffusion_config_path"), {"default": "logs/44k/diffusion/config.yaml"}, "diffusion"),
    (("-ks", "--k_step"), {"type": int, "default": 100}, "diffusion"),
    (("-se", "--second_encoding"), {"action": "store_true"}, "diffusion"),
    (("-usm", "--use_spk_mix"), {"action": "store_true"}, "speaker mixing"),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model_path", help="generator checkpoint (default: the newest G_*.pth of logs/44k)")
    add("-c", "--config_path", help="its config (default: the config.json beside the model)")
    add("-n", "--clean_names", nargs="+", required=True, metavar="SONG", help="names under raw/, or paths")
    add("-t", "--trans", nargs="+", type=int, default=[0], help="semitones for each song (default 0)")
    add("-s", "--spk_list", nargs="+", metavar="SPEAKER", help="names or ids (default: the only one the model has)")
    add("-a", "--auto_predict_f0", action="store_true", help="let the model choose the pitch; for speech, not songs")
    add("-f0p", "--f0_predictor", help="rmvpe, fcpe, crepe, pm, dio, harvest (%(default)s)")
    add("-ft", "--f0_filter_threshold", dest="cr_threshold", type=float, metavar="CERTAINTY",
        help="rmvpe, fcpe, crepe: unvoiced below it (%(default)s)")  # fmt: skip
    add("-sd", "--slice_db", type=float, metavar="DB", help="silence below: -30 noisy, -50 keeps breaths (%(default)s)")
    add("-cl", "--clip", dest="clip_seconds", type=float, metavar="S",
        help="also cut every so many seconds; 0: at silences alone (%(default)s)")  # fmt: skip
    add("-lg", "--linear_gradient", dest="lg_num", type=float, metavar="S",
        help="seconds of cross-fade at those cuts (%(default)s)")  # fmt: skip
    add("-lgr", "--linear_gradient_retain", dest="lgr_num", type=float, metavar="SHARE",
        help="of the cross-fade that is blended, 0 to 1 (%(default)s)")  # fmt: skip
    add("-p", "--pad_seconds", type=float, metavar="S", help="silence put around each piece (%(default)s)")
    add("-ns", "--noice_scale", type=float, help="noise in the voice: articulation against quality (%(default)s)")
    add("-lea", "--loudness_envelope_adjustment", type=float, metavar="SHARE",
        help="1: the output's loudness, 0: the song's (%(default)s)")  # fmt: skip
    add("-wf", "--wav_format", default="flac", help="flac, wav, ogg, mp3, ... (%(default)s)")
    add("-d", "--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    add("--seed", type=int, help="of the noise; the same seed gives the same song (%(default)s)")
    add("-o", "--output_dir", type=Path, default=Path("results"), help="where songs are written (%(default)s)")
    parser.set_defaults(**DEFAULTS)
    for names, options, part in ABSENT:
        add(*names, **options, help=f"{part}: not in this version")
    return parser


def refuse_absent_flags(args: argparse.Namespace) -> None:
    """UserError for the first flag that asks for a part of the program that is not there."""
    for (short, long), options, part in ABSENT:
        if getattr(args, long.lstrip("-")) != options.get("default", False):
            raise UserError(f"{short} asks for {part}, which this version does not have; leave the flag out")


def find_song(name: str) -> Path:
    """The file that ``name`` means: under raw/ or as a path, ``.wav`` may be left out."""
    candidates = [folder / f"{name}{suffix}" for folder in (RAW, Path()) for suffix in ("", ".wav")]
    for path in candidates:
        if path.is_file():
            return path
    there = [path.name for path in RAW.glob("*") if path.is_file() and path.name != "README.md"]
    nearest = f"it holds {', '.join(nearest_first(name, there)[:8])}" if there else "which holds no file"
    raise UserError(f"there is no song '{name}', neither as a path nor under {RAW}/ ({nearest})")


def plan(
    args: argparse.Namespace, conversion: Conversion, speakers: Sequence[str]
) -> dict[Path, tuple[Path, Conversion]]:
    """Output file -> the song and what shall be done to it. Raises UserError when there is no such plan."""
    names, shifts = args.clean_names, args.trans
    if len(shifts) > len(names):
        raise UserError(f"-t gives {len(shifts)} shifts for {len(names)} songs; give one for each, or one for all")
    jobs = {}
    for name, shift in itertools.zip_longest(names, shifts, fillvalue=shifts[0]):
        song = find_song(name)
        for speaker in speakers:
            key = "auto" if conversion.auto_predict_f0 else f"{shift}key"
            file = f"{Path(name).name}_{key}_{speaker}_sovits_{conversion.f0_predictor}.{args.wav_format}"
            if args.output_dir / file in jobs:
                raise UserError(f"two conversions would be written to {args.output_dir / file}; make them in two runs")
            jobs[args.output_dir / file] = song, dataclasses.replace(conversion, spk=speaker, tran=shift)
    return jobs


def find_model(model_path: str | None, config_path: str | None) -> tuple[Path, Path]:
    """The generator and its configuration. Raises UserError when either is not there."""
    from modules.checkpoint import newest_generator

    model = Path(model_path) if model_path else newest_generator(MODELS)
    if model is None:
        raise UserError(f"there is no G_*.pth in {MODELS}; train a model with train.py, or name one with -m")
    if not model.is_file():
        raise UserError(f"there is no checkpoint {model}; -m takes the path of a generator, G_<step>.pth")
    config = Path(config_path) if config_path else model.with_name("config.json")
    if not config.is_file():
        raise UserError(f"there is no {config}; it belongs beside {model}, or name the model's config.json with -c")
    return model, config


def convert_song(svc: Svc, path: Path, conversion: Conversion, output: Path, wav_format: str) -> None:
    """Convert one song from disk to disk under a progress bar over its seconds; print where it went."""
    from inference.song import Song
    from modules.audio import write_audio

    song = Song(path)

    def watched() -> Iterator[np.ndarray]:
        seconds = 0.0
        with progress(total=round(song.seconds), description=path.name, unit="s") as bar:
            for part in svc.convert(song, conversion):
                seconds += len(part) / svc.target_sample
                bar.update(round(seconds) - bar.n)
                yield part

    write_audio(output, watched(), svc.target_sample, wav_format)
    print(output)


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    refuse_absent_flags(args)
    conversion = Conversion("", **{name: getattr(args, name) for name in DEFAULTS})
    from modules.audio import find_format

    find_format(args.wav_format)
    plan(args, conversion, args.spk_list or [""])  # what has no plan is refused before the model is loaded
    from inference.svc import Svc

    svc = Svc(*find_model(args.model_path, args.config_path), args.device)
    speakers = args.spk_list or [svc.only_speaker()]
    for speaker in speakers:
        svc.speaker_id(speaker)
    svc.predictor(conversion.f0_predictor, conversion.cr_threshold)  # that its file is absent is told once, not by song
    jobs = plan(args, conversion, speakers)
    failed = []
    for output, (song, job) in jobs.items():
        try:
            convert_song(svc, song, job, output, args.wav_format)
        except UserError as error:
            failed.append(str(error) if str(song) in str(error) else f"{song}: {error}")
    if len(failed) == len(jobs):
        raise UserError("; ".join(failed))
    for sentence in failed:
        get_logger("convert").info("not converted: %s", sentence)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
