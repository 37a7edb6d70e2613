"""Sound: files, resampling, level, cutting, spectrograms."""
