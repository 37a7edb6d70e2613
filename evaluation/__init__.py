"""Measure how good a conversion is: figures computed from the signals, and judges, which are networks."""
