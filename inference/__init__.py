"""Conversion: the converter, its slices and speaker mixes."""
