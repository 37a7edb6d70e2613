"""Stages 0 to 3: cut recordings, resample clips, split the data set, compute features."""
