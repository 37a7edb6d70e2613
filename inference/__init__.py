"""Conversion of songs: the converter, its pieces, features and speaker mixes."""
