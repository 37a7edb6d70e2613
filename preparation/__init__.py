"""The stages before training: clips, resampling, filelists, features."""
