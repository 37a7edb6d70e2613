"""Diffusion over mel spectrograms, in the order the data meets its parts, and its training."""
