"""Code that only the demo needs: a synthetic singer, a small vocoder, and measures of a converted song."""
