"""The synthesizer and its training."""
