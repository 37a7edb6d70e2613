"""Stage 5: convert songs into the voices of a trained model.

Reads songs from raw/ (or from any path) and a generator of logs/44k, and writes
results/<song>_<shift>key_<speaker>_<kind>_<predictor>.flac, the kind being sovits, sovdiff (-shd) or diff (-od). A
result that replaces one of a former run is named. Songs that cannot be converted, or whose files are cut off, are named
at the end, and the exit code is 1 then; it is 2 when none could be converted.

    python inference_main.py -n song.wav -s alto
    python inference_main.py -m logs/44k/G_8000.pth -n "a song.flac" other.mp3 -t 0 -12 -s alto tenor -f0p crepe -wf wav
    python inference_main.py -n song.wav -s alto -shd -ks 100 -cr 0.5 -fr
    python inference_main.py -n album "*.mp3" -t 0.5 -s alto      all of raw/album/, and of raw/ what is mp3
    python inference_main.py -n song.wav -usm
    python inference_main.py --onnx checkpoints/alto/alto_SoVits.onnx -n song.wav -s alto
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.conversion import Conversion, Pipeline
from inference.jobs import Job, plan
from inference.model_files import find_diffusion, find_generator, find_graph, find_timbre
from modules.console import UserError, failure, get_logger, parse_flags, printable, script
from modules.f0 import list_predictors

if TYPE_CHECKING:
    from inference.svc import Svc

log = get_logger("convert")

# Of Conversion's settings; the flags are parsed into attributes of these names.
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Conversion) if field.name not in ("spk", "tran")}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model_path", help="generator checkpoint (default: the newest G_*.pth of logs/44k)")
    add("-c", "--config_path", help="its config (default: the config.json beside the model)")
    add("--onnx", metavar="GRAPH", help="a synthesizer by onnx_export.py in the place of -m, run by ONNX Runtime")
    add("-n", "--clean_names", nargs="+", required=True, metavar="SONG",
        help="names under raw/, or paths; of folders, and of patterns such as '*.wav', all recordings")  # fmt: skip
    add("-t", "--trans", dest="tran", nargs="+", type=_semitones, default=[0], metavar="SEMITONES",
        help="for each of the names; fractions too (default: 0)")  # fmt: skip
    add("-s", "--spk_list", dest="spk", nargs="+", metavar="SPEAKER",
        help="names or ids (default: the only one the model has)")  # fmt: skip
    add("-a", "--auto_predict_f0", action="store_true", help="let the model choose the pitch; for speech, not songs")
    add("-f0p", "--f0_predictor", metavar="KEY",
        help=f"{list_predictors()}; outside of these F0 is wrong or missing (%(default)s)")  # fmt: skip
    add("-ft", "--f0_filter_threshold", dest="cr_threshold", type=float, metavar="CERTAINTY",
        help="rmvpe, fcpe, crepe: unvoiced below it (%(default)s)")  # fmt: skip
    add("-sd", "--slice_db", type=float, metavar="DB", help="silence below: -30 noisy, -50 keeps breaths (%(default)s)")
    add("-cl", "--clip", dest="clip_seconds", type=float, metavar="S",
        help="also cut every so many seconds; 0: at silences alone (%(default)s)")  # fmt: skip
    add("-lg", "--linear_gradient", dest="lg_num", type=float, metavar="S",
        help="seconds of cross-fade at those cuts; every joint has a fade of 60 ms at least (%(default)s)")  # fmt: skip
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
    add_timbre_flags(parser.add_argument_group("timbre"))
    add_diffusion_flags(parser.add_argument_group("diffusion and enhancer"))
    parser.set_defaults(**DEFAULTS)
    return parser


def add_timbre_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-cr", "--cluster_infer_ratio", type=float, metavar="SHARE",
        help="0 to 1: how far content is drawn towards the speaker's own (%(default)s)")  # fmt: skip
    add("-cm", "--cluster_model_path", default="", metavar="FILE",
        help="of train_cluster.py, or with -fr of train_index.py (default: beside the model, or logs/44k)")  # fmt: skip
    add("-fr", "--feature_retrieval", action="store_true", help="draw by feature retrieval in place of clusters")
    add("--nprobe", type=_lists, default=1, metavar="N",
        help="lists that a retrieval searches: more find nearer ones; auto: enough for 95%% (%(default)s)")  # fmt: skip
    add("-usm", "--use_spk_mix", action="store_true", help="mix speakers over the song's time as spkmix.py says")


def add_diffusion_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-shd", "--shallow_diffusion", action="store_true", help="let diffusion refine the sound, without the enhancer")
    add("-od", "--only_diffusion", action="store_true", help="let diffusion sing alone; -m and -c are not needed")
    add("-dm", "--diffusion_model_path", metavar="FILE",
        help="default: the newest model_*.pt of diffusion/ beside the model, else of logs/44k/diffusion")  # fmt: skip
    add("-dc", "--diffusion_config_path", metavar="FILE",
        help="its YAML (default: the config.yaml beside the model)")  # fmt: skip
    add("-ks", "--k_step", type=int, help="how deep -shd goes: more sounds cleaner, and less like before (%(default)s)")
    add("--diffusion_method", metavar="METHOD",
        help="ddpm, ddim, pndm, dpm-solver, dpm-solver++, unipc (default: the YAML's)")  # fmt: skip
    add("--diffusion_speedup", type=int, metavar="N", help="take one of N steps (default: the YAML's)")
    add("-se", "--second_encoding", action="store_true", help="-shd: take the content from the synthesizer's sound")
    add("-eh", "--enhance", dest="nsf_hifigan_enhance", action="store_true",
        help="enhance the sound with the NSF-HiFiGAN vocoder")  # fmt: skip
    add("-eak", "--enhancer_adaptive_key", type=int, metavar="SEMITONES",
        help="above the vocoder's range: enhance it this much lower (%(default)s)")  # fmt: skip


def read_conversion(args: argparse.Namespace) -> Conversion:
    """What the flags ask for, the speaker left open unless it is a mix."""
    settings = {name: getattr(args, name) for name in DEFAULTS}
    if not args.use_spk_mix:
        if args.feature_retrieval and not args.cluster_infer_ratio:
            log.info("-fr says where content is drawn to, -cr how far, and that is 0; -fr has no effect")
        return Conversion("", **settings)
    if args.cluster_infer_ratio:
        log.info("a mix of speakers (-usm) has no one timbre to be drawn towards; -cr is left out")
    return Conversion(read_mix(), **settings | {"cluster_infer_ratio": 0})


def read_mix() -> object:
    """The user's map of speaker mixes, whatever it is. Raises UserError when spkmix.py is no Python."""
    try:
        import spkmix
    except Exception as error:  # a person's own file may fail in any way at all
        line = getattr(error, "lineno", None) or traceback.extract_tb(error.__traceback__)[-1].lineno
        raise UserError(f"spkmix.py cannot be read (line {line}: {getattr(error, 'msg', error)}); mend it") from None
    return getattr(spkmix, "spk_mix_map", None)


def load_models(args: argparse.Namespace) -> Svc:
    """The converter that the flags ask for. Raises UserError when a file of it is missing or does not fit."""
    from inference.svc import Svc

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
        args.device,
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
    )


def refuse_idle_flags(args: argparse.Namespace) -> None:
    """UserError for a flag that another one, or the lack of one, leaves nothing to do."""
    if args.onnx and args.model_path:
        raise UserError("--onnx and -m each name a synthesizer; leave one of them out")
    if (args.diffusion_method or args.diffusion_speedup is not None) and not (
        args.shallow_diffusion or args.only_diffusion
    ):
        raise UserError("--diffusion_method and --diffusion_speedup say how diffusion is sampled; give -shd or -od too")
    if args.nprobe != 1 and not args.feature_retrieval:
        raise UserError("--nprobe is a setting of the retrieval; give -fr and -cr too")


def _semitones(text: str) -> float:
    """A value of -t, whole numbers as such: results are named after it. Raises ArgumentTypeError for no number."""
    try:
        value = float(text)
        return int(value) if value.is_integer() else value
    except (ValueError, OverflowError):  # the latter of infinity
        raise argparse.ArgumentTypeError(f"'{text}' is no number of semitones") from None


def _lists(text: str) -> int | None:
    """The value of --nprobe; None for auto. Raises ArgumentTypeError for anything but a whole number."""
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

    jobs_for(args.spk or [""])  # what has no plan is refused before the model is loaded
    svc = load_models(args)
    jobs, failed = jobs_for(args.spk or ([] if args.use_spk_mix else [svc.voices.only()]))
    for job in jobs:
        svc.check(job.conversion)  # what would make every song fail is told once, not by song
    done, incomplete = 0, []
    for job in jobs:
        try:
            replaces = os.path.lexists(job.output)
            whole = job.run(svc)
        except Exception as error:  # one song must not stop the others
            failed.append(failure(job.song, error))
            continue
        print(printable(job.output), flush=True)
        if replaces:
            log.info("%s replaces the result of a former run", printable(job.output))
        done += 1
        if not whole:
            incomplete.append(job.output)
    if not done:
        raise UserError("; ".join(failed))
    for sentence in failed:
        log.info("not converted: %s", sentence)
    for output in incomplete:
        log.info("incomplete, since its song is cut off: %s", output)
    return 1 if failed or incomplete else 0


if __name__ == "__main__":
    raise SystemExit(main())
