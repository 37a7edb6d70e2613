"""Stage 3: make the sidecar files of each clip: content units, F0, spectrogram, volume, and mels for diffusion.

Reads dataset/44k/<speaker>/*.wav and configs/config.json, weight files from pretrain/; with --use_diff also
configs/diffusion.yaml and the config.json beside the vocoder that it names (pretrain/nsf_hifigan/).
Writes beside each X.wav: X.wav.soft.pt, X.wav.f0.npy, X.spec.pt and X.wav.meta.json; X.wav.vol.npy for a model with
model.vol_embedding and for diffusion; with --use_diff X.wav.mel.npy and X.wav.aug_{mel,vol}.npy. The F0 range of each
speaker goes into the section f0 of configs/config.json, for -t auto of inference_main.py.
Valid files are skipped, so a stopped run continues; a changed clip or setting makes its files stale. Files of
so-vits-svc 4.1, and an F0 corrected by hand, are kept if they match the clip and are not older than it.

    python preprocess_hubert_f0.py
    python preprocess_hubert_f0.py --f0_predictor fcpe --plot_f0 plots
    python preprocess_hubert_f0.py --use_diff          # before train_diff.py; it may be a second run
    python preprocess_hubert_f0.py --remake            # also replaces edited files and those of so-vits-svc 4.1

Several processes share the clips, by RANK and WORLD_SIZE of torchrun or by SLURM's variables; several machines need a
shared disk for the data set:

    torchrun --nproc_per_node=4 preprocess_hubert_f0.py      # one process per GPU
    srun --ntasks=16 python preprocess_hubert_f0.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import get_logger, parse_flags, script
from modules.f0 import list_predictors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: every CUDA device, or the CPU)")
    parser.add_argument("--in_dir", default="dataset/44k", help="folder of the speakers (default: %(default)s)")
    parser.add_argument(
        "--use_diff",
        action="store_true",
        help="also make the files for train_diff.py: volume, the vocoder's mel, and both at a random gain and pitch",
    )
    parser.add_argument(
        "--f0_predictor",
        metavar="KEY",
        help=f"{list_predictors()}; outside of the range F0 is wrong or missing (default: rmvpe, else fcpe)",
    )
    parser.add_argument("--plot_f0", metavar="DIR", help="plot the F0 of up to twelve clips over their spectrograms")
    parser.add_argument("--num_processes", type=int, default=1, metavar="N",
        help="worker processes; 0: one per CPU (default: %(default)s)")  # fmt: skip
    parser.add_argument("--remake", action="store_true", help="make every file anew, also valid ones")
    parser.add_argument("--half", action="store_true",
        help="run the encoder in half precision; float32 where the result is not finite")  # fmt: skip
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    from modules.config import load_config, load_diffusion_config
    from modules.training import distributed
    from preparation.configs import CONFIG, DIFFUSION_CONFIG
    from preparation.f0_ranges import store_f0_ranges
    from preparation.features import default_predictor, prepare_features
    from preparation.vocoder_mels import vocoder_mel

    config = load_config(CONFIG)
    report = prepare_features(
        arguments.in_dir,
        config,
        arguments.f0_predictor or default_predictor(),
        arguments.device,
        arguments.num_processes,
        arguments.half,
        vocoder_mel(config, load_diffusion_config(DIFFUSION_CONFIG)) if arguments.use_diff else None,
        arguments.remake,
    )
    report.show()
    if distributed.launch_rank() == 0:
        store_f0_ranges(arguments.in_dir, CONFIG)
    if arguments.plot_f0 and distributed.launch_rank() == 0:
        from preparation.plots import plot_f0

        pictures = plot_f0(arguments.in_dir, config, arguments.plot_f0)
        get_logger("features").info("%d pictures of F0 in %s", len(pictures), arguments.plot_f0)
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
