"""Code that all stages share: configuration, files, audio, spectrograms, F0, checkpoints, devices."""
