"""Downloads of weight files: the table of files and their sources, and the fetching from web servers and wheels."""
