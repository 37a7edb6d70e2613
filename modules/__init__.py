"""The ground every stage stands on: configuration, files, audio, spectrograms, F0, checkpoints, devices."""
