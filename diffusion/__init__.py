"""The diffusion model of mel spectrograms and its training."""
