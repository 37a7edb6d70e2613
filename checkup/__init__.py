"""What doctor.py checks: the machine, the weight files, and every stage of a project. Nothing here changes a file."""
