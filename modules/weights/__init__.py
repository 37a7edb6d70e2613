"""Weight files of other programs: found, and recognized by their content."""
