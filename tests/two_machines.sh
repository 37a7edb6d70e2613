#!/bin/sh
# Trains on "two machines", two network namespaces joined by a cable, and then with one process that accumulates as many
# batches; prints the losses of both. To be run by hand, as root, where there is the command ip (Debian: iproute2):
#
#     sh tests/two_machines.sh [python]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-"$root/.venv/bin/python"}
work=$(mktemp -d)
export OMP_NUM_THREADS=1 PYTHONPATH="$root"

clean() {
    ip netns del machine0 2>/dev/null || true
    ip netns del machine1 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT INT TERM

# Two machines, each with a network card of its own that leads to the other and nowhere else.
ip netns add machine0
ip netns add machine1
ip link add card0 netns machine0 type veth peer name card1 netns machine1
for machine in 0 1; do
    ip -n machine$machine address add 10.9.8.$((machine + 1))/24 dev card$machine
    ip -n machine$machine link set card$machine up
    ip -n machine$machine link set lo up
done

# Each machine has the data in a folder of its own, and only the first is to have a run's folder in the end.
"$python" - "$work" <<'DATA'
import sys
from pathlib import Path
from tests.tiny import tiny_config, write_dataset

for name, accumulated in (("machine0", 1), ("machine1", 1), ("alone", 2)):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    config = tiny_config(batch_size=2, log_interval=1, epochs=2, accumulate_steps=accumulated)
    write_dataset(folder, config)
DATA

train() { # machine number
    cd "$work/machine$1"
    ip netns exec machine$1 env GLOO_SOCKET_IFNAME=card$1 "$python" -m torch.distributed.run \
        --nproc_per_node=1 --nnodes=2 --node_rank="$1" --master_addr=10.9.8.1 --master_port=29500 \
        "$root/train.py" -c configs/config.json -m 44k -d cpu >"$work/machine$1.log" 2>&1
}
train 0 &
first=$!
train 1 || { cat "$work/machine1.log"; exit 1; }
wait $first || { cat "$work/machine0.log"; exit 1; }
(cd "$work/alone" && "$python" "$root/train.py" -c configs/config.json -m 44k -d cpu) 2>"$work/alone.log"

test ! -e "$work/machine1/logs" || { echo "the second machine has written files"; exit 1; }
for run in machine0 alone; do
    echo "$run: discriminator, adversarial, feature, mel, kl"
    sed -n 's/.*Losses: \[\(.*\)\], step: \([0-9]*\),.*/  step \2: \1/p' "$work/$run/logs/44k/train.log"
done
