"""Audio: files, resampling, loudness, slicing, spectrograms."""
