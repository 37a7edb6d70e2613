"""Shared by both trainers: loop, checkpoints, processes, CUDA graphs, optimizer, log and interruption."""
