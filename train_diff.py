"""Stage 4: train the diffusion model, which refines what the main model sings or sings by itself.

Reads configs/diffusion.yaml, the filelists, the companions that 'python preprocess_hubert_f0.py --use_diff' made, and
the vocoder in pretrain/nsf_hifigan/, through which the validation clips are heard.
Writes the configuration's env.expdir (logs/44k/diffusion/): model_<step>.pt, model_<step>.state.pth, config.yaml,
log_info.txt and TensorBoard events in logs/.

    python train_diff.py -c configs/diffusion.yaml
    tensorboard --logdir logs/44k/diffusion/logs

Stop it whenever you like, with Ctrl-C or a signal: it saves, and the same command goes on from that very step.
Put a base model into env.expdir as model_0.pt to start from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True, help="configuration, for instance configs/diffusion.yaml")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: the configuration's device)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from diffusion.training import train

    return train(arguments.config, arguments.device)


if __name__ == "__main__":
    raise SystemExit(main())
