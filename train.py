"""Stage 4: train a model on the prepared clips.

Reads configs/config.json, the filelists and the companions that preprocess_hubert_f0.py made.
Writes logs/<model>/: G_<step>.pth, D_<step>.pth, state_<step>.pth, config.json, train.log and TensorBoard events;
best_G.pth is the generator, without its optimizer, whose validation came nearest to the recordings. run.lock is there
while it trains.

    python train.py -c configs/config.json -m 44k --find_batch_size     # first, where the memory may be small
    python train.py -c configs/config.json -m 44k
    tensorboard --logdir logs/44k

Several GPUs, or several machines that each have the configuration and the data; the batch size is each process's own,
and train.accumulate_steps makes steps of several batches:

    torchrun --nproc_per_node=4 train.py -c configs/config.json -m 44k        # four GPUs of one machine
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 train.py -m 44k
    torchrun --nproc_per_node=8 --nnodes=2 --node_rank=1 --master_addr=10.0.0.1 train.py -m 44k

The first of those two runs on the machine 10.0.0.1, which alone writes files.

Stop it whenever you like, with Ctrl-C or a signal: it saves, and the same command goes on from that very step.
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
    parser.add_argument("-m", "--model", required=True, help="name of the run, which lives in logs/<model>")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: the best there is)")
    parser.add_argument(
        "--save_every_minutes", type=minutes, default=30, metavar="M", help="also save when the last checkpoint is "
        "that old, until the next one is there; 0: only at train.eval_interval (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--find_batch_size", action="store_true", help="try which train.batch_size the memory allows, and train nothing"
    )
    parser.add_argument(
        "--compile", dest="compiled", action="store_true",
        help="let PyTorch's compiler write the kernels of the decoder and the discriminators: a GPU's steps are 1.04 "
        "to 1.15 times as fast after two minutes or so of compiling, and a CPU gains nothing (needs a C++ compiler, "
        "and Triton for GPUs)",
    )  # fmt: skip
    parser.add_argument(
        "--no_cuda_graphs", dest="cuda_graphs", action="store_false",
        help="start each kernel of a GPU's step by itself: slower, and a way out where recording steps as CUDA graphs, "
        "as one process with one batch a step does, fails or takes too much memory",
    )  # fmt: skip
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    if arguments.find_batch_size:
        from vits.batch_size import find_batch_size

        if arguments.compiled:
            raise UserError("--find_batch_size tries steps as they are; leave --compile out")
        return find_batch_size(arguments.config, arguments.device, cuda_graphs=arguments.cuda_graphs)
    from vits.training import train

    return train(
        arguments.config, arguments.model, arguments.device, arguments.save_every_minutes,
        compiled=arguments.compiled, cuda_graphs=arguments.cuda_graphs,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
