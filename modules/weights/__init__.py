"""Weight files of other programs: find them, and recognise them by their content."""
