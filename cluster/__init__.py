"""Timbre from the training data: content units blended with cluster centres or retrieved units of the speaker."""
