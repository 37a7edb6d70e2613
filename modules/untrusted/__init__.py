"""Readers for untrusted files: they run no code, and bound memory and time by the file's size."""
