"""What both trainers share: loop, checkpoints, processes, CUDA graphs, optimizer, log, interruption."""
