"""What the demo needs beside the product: a synthetic singer, a small vocoder, and figures of a converted song."""
