"""One script a question, each prints a ratio and one JSON line; and what they measure by."""
