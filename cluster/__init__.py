"""Timbre taken from the training data itself: content units drawn towards those that a speaker really made."""
