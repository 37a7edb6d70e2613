"""Benchmarks: each script measures one thing, prints a table and ends with one line of JSON."""
