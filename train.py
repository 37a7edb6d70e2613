"""Stage 4: train a model on the prepared clips.

Reads configs/config.json, the filelists and the sidecar files that preprocess_hubert_f0.py made.
Writes logs/<model>/: G_<step>.pth, D_<step>.pth, state_<step>.pth, config.json, train.log and TensorBoard events;
best_G.pth is the generator of the best validation, without its optimizer. run.lock exists while it trains.

    python train.py -c configs/config.json -m 44k --find_batch_size     # first, where the memory may be small
    python train.py -c configs/config.json -m 44k
    tensorboard --logdir logs/44k

Several GPUs, or several machines that each have the configuration and the data; the batch size is per process, and
train.accumulate_steps batches make one step:

    torchrun --nproc_per_node=4 train.py -c configs/config.json -m 44k        # four GPUs of one machine
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 train.py -m 44k
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=1 --master_addr=10.0.0.1 train.py -m 44k

The first of these two commands runs on the machine 10.0.0.1, the only one that writes files.

Stop it at any time with Ctrl-C or a signal: it saves, and the same command goes on from that step.
Put a base model into logs/<model>/ as G_0.pth and D_0.pth (or .safetensors) to start from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import UserError, parse_flags, script
from modules.training.autosave import minutes


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="./configs/config.json", help="configuration (default: %(default)s)")
    parser.add_argument("-m", "--model", required=True, help="name of the run, whose folder is logs/<model>")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: the best available)")
    parser.add_argument(
        "--save_every_minutes", type=minutes, default=30, metavar="M", help="autosave when the last "
        "checkpoint is that old, until the next save; 0: save only at train.eval_interval (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--find_batch_size", action="store_true", help="find the largest train.batch_size that fits; train nothing"
    )
    parser.add_argument(
        "--compile", dest="compiled", action="store_true",
        help="compile the decoder and the discriminators with torch.compile: a GPU's steps are 1.04 to 1.15 times as "
        "fast after about two minutes of compiling, a CPU's are not faster (needs a C++ compiler, and Triton for GPUs)",
    )  # fmt: skip
    parser.add_argument(
        "--no_cuda_graphs", dest="cuda_graphs", action="store_false",
        help="do not capture the steps of a single process as CUDA graphs on a GPU: slower, for when capturing fails "
        "or takes too much memory",
    )  # fmt: skip
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    if arguments.find_batch_size:
        from vits.batch_size import find_batch_size

        if arguments.compiled:
            raise UserError("--find_batch_size works without --compile; leave that out")
        return find_batch_size(arguments.config, arguments.device, cuda_graphs=arguments.cuda_graphs)
    from vits.training import train

    return train(
        arguments.config, arguments.model, arguments.device, arguments.save_every_minutes,
        compiled=arguments.compiled, cuda_graphs=arguments.cuda_graphs,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
