"""Files from strangers: read without running code, in memory and time bounded by their size."""
