"""Check the machine, the weight files and every stage of a project, for doctor.py, without changing a file."""
