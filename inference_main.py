"""Stage 5: convert songs into the voices of a trained model.

Reads songs from raw/ (or from any path) and a generator of logs/44k, and writes
results/<song>_<shift>key_<speaker>_<kind>_<predictor>.flac, the kind being sovits, sovdiff (-shd) or diff (-od). The
log names results that replace earlier ones and, at the end, songs that cannot be converted or whose files are cut off.
The exit code is 1 if there are such songs, and 2 if no song could be converted.

    python inference_main.py -n song.wav -s alto
    python inference_main.py -m logs/44k/G_8000.pth -n "a song.flac" other.mp3 -t 0 -12 -s alto tenor -f0p crepe -wf wav
    python inference_main.py -n song.wav -s alto -shd -ks 100 -cr 0.5 -fr
    python inference_main.py -n album "*.mp3" -t 0.5 -s alto      raw/album/ and every MP3 file of raw/
    python inference_main.py -n song.wav -usm
    python inference_main.py --onnx checkpoints/alto/alto_SoVits.onnx -n song.wav -s alto
    python inference_main.py -n song.wav -s alto --f0_out song.csv        edit song.csv, then
    python inference_main.py -n song.wav -s alto --f0_in song.csv
    torchrun --nproc_per_node=4 inference_main.py -n album -s alto       shares the songs among four GPUs
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.conversion import Conversion, Pipeline
from inference.jobs import AUTO, Job, plan
from inference.model_files import find_diffusion, find_generator, find_graph, find_timbre
from inference.precision import PRECISIONS
from modules.console import UserError, failure, get_logger, option, parse_flags, printable, script
from modules.f0 import list_predictors

if TYPE_CHECKING:
    from inference.svc import Svc

log = get_logger("convert")

# Default values of Conversion; the flags are parsed into attributes of these names.
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Conversion) if field.name not in ("spk", "tran")}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model_path", help="generator checkpoint (default: the newest G_*.pth of logs/44k)")
    add("--onnx", metavar="GRAPH", help="a synthesizer exported by onnx_export.py, in place of -m")
    add("-n", "--clean_names", nargs="+", required=True, metavar="SONG",
        help="names under raw/, or paths; a folder or a pattern such as '*.wav' gives all its audio files")  # fmt: skip
    add("-t", "--trans", dest="tran", nargs="+", type=semitones, default=[0], metavar="SEMITONES",
        help="shift for each name; fractions allowed; auto: the speaker's octave (default: 0)")  # fmt: skip
    add("-s", "--spk_list", dest="spk", nargs="+", metavar="SPEAKER",
        help="names or ids (default: the model's only one)")  # fmt: skip
    add_conversion_flags(parser)
    add("-wf", "--wav_format", default="flac", help="flac, wav, ogg, mp3, ... (%(default)s)")
    add("-o", "--output_dir", type=Path, default=Path("results"), help="where songs are written (%(default)s)")
    add("--f0_out", type=Path, metavar="FILE", help="also write the song's F0 as a table: time,f0,voiced")
    add("--dry_run", action="store_true", help="print what would be converted, and convert nothing")
    add("-usm", "--use_spk_mix", action="store_true", help="mix speakers over the song as spkmix.py defines")
    return parser


def add_conversion_flags(parser: argparse.ArgumentParser) -> None:
    """Add the settings of one conversion: the model's other files and the fields of Conversion."""
    add = parser.add_argument
    add("-c", "--config_path", help="its config (default: the config.json beside the model)")
    add("-a", "--auto_predict_f0", action="store_true", help="let the model predict the pitch; for speech, not songs")
    add("-f0p", "--f0_predictor", metavar="KEY",
        help=f"{list_predictors()}; outside of these F0 is wrong or missing (%(default)s)")  # fmt: skip
    add("-ft", "--f0_filter_threshold", dest="cr_threshold", type=float, metavar="CERTAINTY",
        help="rmvpe, fcpe, crepe: frames below it are unvoiced (%(default)s)")  # fmt: skip
    add("-sd", "--slice_db", type=float, metavar="DB",
        help="level of silence: -30 for noisy songs, -50 keeps breaths (%(default)s)")  # fmt: skip
    add("-cl", "--clip", dest="clip_seconds", type=float, metavar="S",
        help="also cut every S seconds; 0: only at silences (%(default)s)")  # fmt: skip
    add("-lg", "--linear_gradient", dest="lg_num", type=float, metavar="S",
        help="seconds of cross-fade at those cuts; every joint has a fade of 60 ms at least (%(default)s)")  # fmt: skip
    add("-lgr", "--linear_gradient_retain", dest="lgr_num", type=float, metavar="SHARE",
        help="share of the cross-fade that is blended, 0 to 1 (%(default)s)")  # fmt: skip
    add("-p", "--pad_seconds", type=float, metavar="S", help="silence added around each piece (%(default)s)")
    add("-ns", "--noice_scale", type=float, help="noise in the voice: articulation against quality (%(default)s)")
    add("-lea", "--loudness_envelope_adjustment", type=float, metavar="SHARE",
        help="1: the output's loudness, 0: the song's (%(default)s)")  # fmt: skip
    add("-d", "--device", help="cpu, cuda, cuda:1, mps (default: the fastest available)")
    add("--precision", choices=PRECISIONS, default="auto",
        help="of decoder and encoder; auto: the fastest without audible error (%(default)s)")  # fmt: skip
    add("--seed", type=int, help="of all random numbers; the same seed gives the same song (%(default)s)")
    add("--f0_in", type=Path, metavar="FILE",
        help="take F0 from such a table; -t shifts it; points may be seconds apart")  # fmt: skip
    add("--max_segment", type=_seconds, metavar="S",
        help="seconds that the encoder processes at once (default: 60, less if little memory is free)")  # fmt: skip
    add("--cache", dest="cache_folder", type=Path, metavar="DIR",
        help="keep units and F0 of songs there for later runs, 4 GiB at most")  # fmt: skip
    add_timbre_flags(parser.add_argument_group("timbre"))
    add_diffusion_flags(parser.add_argument_group("diffusion and enhancer"))
    parser.set_defaults(**DEFAULTS)


def add_timbre_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-cr", "--cluster_infer_ratio", type=float, metavar="SHARE",
        help="0 to 1: how far content is moved towards the speaker's own (%(default)s)")  # fmt: skip
    add("-cm", "--cluster_model_path", default="", metavar="FILE",
        help="from train_cluster.py or, for -fr, train_index.py (default: beside the model, or logs/44k)")  # fmt: skip
    add("-fr", "--feature_retrieval", action="store_true", help="use feature retrieval in place of clusters")
    add("--nprobe", type=_lists, default=1, metavar="N",
        help="lists to search: more find nearer neighbours; auto: enough for 95%% (%(default)s)")  # fmt: skip


def add_diffusion_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-shd", "--shallow_diffusion", action="store_true", help="refine the sound by diffusion, without the enhancer")
    add("-od", "--only_diffusion", action="store_true", help="use only diffusion; -m and -c are not needed")
    add("-dm", "--diffusion_model_path", metavar="FILE",
        help="default: the newest model_*.pt of diffusion/ beside the model, else of logs/44k/diffusion")  # fmt: skip
    add("-dc", "--diffusion_config_path", metavar="FILE",
        help="its YAML (default: the config.yaml beside the model)")  # fmt: skip
    add("-ks", "--k_step", type=int, help="depth of -shd: more sounds cleaner and changes more (%(default)s)")
    add("--diffusion_method", metavar="METHOD",
        help="ddpm, ddim, pndm, dpm-solver, dpm-solver++, unipc (default: the YAML's)")  # fmt: skip
    add("--diffusion_speedup", type=int, metavar="N", help="run every Nth step (default: the YAML's)")
    add("-se", "--second_encoding", action="store_true", help="-shd: take the content from the synthesizer's output")
    add("-eh", "--enhance", dest="nsf_hifigan_enhance", action="store_true",
        help="enhance the sound with the NSF-HiFiGAN vocoder")  # fmt: skip
    add("-eak", "--enhancer_adaptive_key", type=int, metavar="SEMITONES",
        help="for songs above the vocoder's range: lower them by this in the enhancer (%(default)s)")  # fmt: skip


def read_conversion(args: argparse.Namespace) -> Conversion:
    """Build the conversion from the flags; its speaker stays empty unless it is a mix."""
    settings = {name: getattr(args, name) for name in DEFAULTS}
    if args.f0_in:
        from inference.f0_curve import read_f0_curve

        settings["f0_curve"] = read_f0_curve(args.f0_in)
    if not args.use_spk_mix:
        if args.feature_retrieval and not args.cluster_infer_ratio:
            log.info("-fr needs a -cr above 0; -fr has no effect")
        return Conversion("", **settings)
    if args.cluster_infer_ratio:
        log.info("a mix of speakers (-usm) has no single timbre for -cr; -cr is left out")
    return Conversion(read_mix(), **settings | {"cluster_infer_ratio": 0})


def read_mix() -> object:
    """Read the user's map of speaker mixes, unchecked. Raises UserError if spkmix.py cannot be imported."""
    try:
        import spkmix
    except Exception as error:  # the user's code may raise anything
        line = getattr(error, "lineno", None) or traceback.extract_tb(error.__traceback__)[-1].lineno
        raise UserError(f"spkmix.py cannot be read (line {line}: {getattr(error, 'msg', error)}); correct it") from None
    return getattr(spkmix, "spk_mix_map", None)


def load_models(args: argparse.Namespace, keep_units: bool = False) -> Svc:
    """Load the converter, which with ``keep_units`` encodes a song once for all its jobs.

    Raises UserError if a file is missing or does not match.
    """
    from inference.svc import Svc
    from modules.device import pick_device
    from modules.training import distributed

    device = args.device
    if distributed.launch_world_size() > 1:
        device = str(distributed.own_device(pick_device(device)))
    diffuses = args.shallow_diffusion or args.only_diffusion
    generator = (None, None)
    if args.onnx:
        generator = find_graph(args.onnx, args.config_path)
    elif not args.only_diffusion:
        generator = find_generator(args.model_path, args.config_path)
    timbre, diffusion = Path(), (None, None)
    if args.cluster_infer_ratio:
        timbre = find_timbre(args.cluster_model_path, args.feature_retrieval, generator[0])
    if diffuses:
        diffusion = find_diffusion(args.diffusion_model_path, args.diffusion_config_path, generator[0])
    return Svc(
        *generator,
        device,
        timbre,
        args.nsf_hifigan_enhance,
        *diffusion,
        args.shallow_diffusion,
        args.only_diffusion,
        args.use_spk_mix,
        args.feature_retrieval,
        diffusion_method=args.diffusion_method,
        diffusion_speedup=args.diffusion_speedup,
        nprobe=args.nprobe,
        max_segment=args.max_segment,
        cache_folder=args.cache_folder,
        keep_units=keep_units,
        precision=args.precision,
    )


def own_jobs(jobs: list[Job]) -> list[Job]:
    """Return this process's share of the jobs, if torchrun or SLURM starts several; those of a song stay together."""
    from modules.training import distributed

    if distributed.launch_world_size() == 1:
        return jobs
    songs = list(dict.fromkeys(job.song for job in jobs))
    own = set(distributed.own_share(songs))
    number, count = distributed.launch_rank() + 1, distributed.launch_world_size()
    log.info("process %d of %d converts %d of the %d songs", number, count, len(own), len(songs))
    return [job for job in jobs if job.song in own]


@contextlib.contextmanager
def waiting_processes() -> Iterator[None]:
    """Let processes of torchrun wait for each other at the end, because it stops all when one ends with an error."""
    from modules.training import distributed

    if distributed.launch_world_size() == 1 or not distributed.has_rendezvous():
        yield
        return
    import torch

    with distributed.process_group(torch.device("cpu")):
        try:
            yield
        finally:
            distributed.all_gather(None)


def refuse_idle_flags(args: argparse.Namespace) -> None:
    """Raise UserError for a flag that other flags, or missing flags, leave without effect."""
    if args.onnx and args.model_path:
        raise UserError("--onnx and -m each name a synthesizer; leave one of them out")
    if (args.diffusion_method or args.diffusion_speedup is not None) and not (
        args.shallow_diffusion or args.only_diffusion
    ):
        raise UserError("--diffusion_method and --diffusion_speedup are settings of diffusion; give -shd or -od too")
    for flag, why in {
        "auto_predict_f0": "replaces the song's F0, which it shifts",
        "use_spk_mix": "has several speakers",
        "only_diffusion": "has no config.json with the speakers' F0 ranges",
    }.items():
        if AUTO in args.tran and getattr(args, flag):
            raise UserError(f"-t {AUTO} is of no use with {option(flag)}, which {why}; give a number of semitones")
    if args.f0_in and args.f0_out and args.f0_in.resolve() == args.f0_out.resolve():
        raise UserError(f"{args.f0_out} would be written over the table that is read; choose another name for --f0_out")
    if args.nprobe != 1 and not args.feature_retrieval:
        raise UserError("--nprobe is a setting of the retrieval; give -fr and -cr too")


def semitones(text: str) -> float | str:
    """Parse a value of -t; whole numbers become int, for the names of results. Raises ArgumentTypeError."""
    if text == AUTO:
        return text
    try:
        value = float(text)
        return int(value) if value.is_integer() else value
    except (ValueError, OverflowError):  # OverflowError: infinity
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of semitones nor {AUTO}") from None


def _seconds(text: str) -> float:
    """Parse the value of --max_segment. Raises ArgumentTypeError unless it is a number from 2 to 3600."""
    with contextlib.suppress(ValueError):
        if 2 <= float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 2 to 3600")


def _lists(text: str) -> int | None:
    """Parse the value of --nprobe, None for auto. Raises ArgumentTypeError unless it is a whole number."""
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor a whole number")
    return None if text == "auto" else int(text)


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    refuse_idle_flags(args)
    pipeline = Pipeline(args.nsf_hifigan_enhance, args.shallow_diffusion, args.only_diffusion, bool(args.onnx))
    conversion = read_conversion(args)
    pipeline.refuse_missing(conversion)
    from modules.audio.files import find_format

    find_format(args.wav_format)

    def jobs_for(speakers: Sequence[str]) -> tuple[list[Job], list[str]]:
        where = args.output_dir, args.wav_format
        return plan(args.clean_names, args.tran, speakers, conversion, pipeline.kind, *where)

    planned, _ = jobs_for(args.spk or [""])  # refuse wrong names before the model is loaded
    songs = {job.song for job in planned}
    if (args.f0_in or args.f0_out) and len(songs) > 1:
        raise UserError(f"--f0_in and --f0_out are of one song; {len(songs)} are named")
    svc = load_models(args, keep_units=len(planned) > len(songs))
    jobs, failed = jobs_for(args.spk or ([] if args.use_spk_mix else [svc.voices.only()]))
    for job in jobs:
        svc.check(job.conversion)  # report once what would make every song fail
        if job.auto_key:
            svc.check_f0_range(job.conversion)
    with waiting_processes():
        return convert_all(svc, own_jobs(jobs), failed, args)


def convert_all(svc: Svc, jobs: list[Job], failed: list[str], args: argparse.Namespace) -> int:
    """Convert the jobs, or describe them for --dry_run; returns the exit code.

    ``failed`` has a sentence for each name that is no song. Raises UserError if nothing could be converted.
    """
    if args.dry_run:
        print(svc.describe(), flush=True)
    done, incomplete = 0, []
    for job in jobs:
        try:
            if args.dry_run:
                print(job.describe(svc), flush=True)
                done += 1
                continue
            replaces = os.path.lexists(job.output)
            whole = job.run(svc, args.f0_out)
        except Exception as error:  # one song must not stop the others
            failed.append(failure(job.song, error))
            continue
        print(printable(job.output), flush=True)
        if replaces:
            log.info("%s replaces the result of a former run", printable(job.output))
        done += 1
        if not whole:
            incomplete.append(job.output)
    if failed and not done:
        raise UserError("; ".join(failed))
    for sentence in failed:
        log.info("not converted: %s", sentence)
    for output in incomplete:
        log.info("incomplete, since its song is cut off: %s", output)
    return 1 if failed or incomplete else 0


if __name__ == "__main__":
    raise SystemExit(main())
