"""Stage 4: train the diffusion model, which refines or replaces the main model's output.

Reads configs/diffusion.yaml, the filelists, the sidecar files that 'python preprocess_hubert_f0.py --use_diff' made,
and the vocoder in pretrain/nsf_hifigan/, which makes the validation clips audible.
Writes the configuration's env.expdir (logs/44k/diffusion/): model_<step>.pt, model_<step>.state.pth, config.yaml,
log_info.txt and TensorBoard events in logs/; run.lock exists while it trains.

    python train_diff.py -c configs/diffusion.yaml
    tensorboard --logdir logs/44k/diffusion/logs

Several GPUs, or several machines that each have the configuration, the data and the vocoder; the batch size is per
process, and train.accumulate_steps batches make one step:

    torchrun --nproc_per_node=4 train_diff.py -c configs/diffusion.yaml       # four GPUs of one machine
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 train_diff.py -c configs/diffusion.yaml
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=1 --master_addr=10.0.0.1 train_diff.py -c configs/diffusion.yaml

The first of these two commands runs on the machine 10.0.0.1, the only one that writes files.

Stop it at any time with Ctrl-C or a signal: it saves, and the same command goes on from that step.
Put a base model into env.expdir as model_0.pt (or .safetensors) to start from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import parse_flags, script
from modules.training.autosave import minutes


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True, help="configuration, for instance configs/diffusion.yaml")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: the configuration's device)")
    parser.add_argument(
        "--save_every_minutes", type=minutes, default=30, metavar="M", help="autosave when the last "
        "checkpoint is that old, until the next save; 0: save only at train.interval_val (default: %(default)s)",
    )  # fmt: skip
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    from diffusion.training import train

    return train(arguments.config, arguments.device, arguments.save_every_minutes)


if __name__ == "__main__":
    raise SystemExit(main())
