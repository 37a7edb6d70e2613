"""Live conversion: sound from a microphone or a file, block by block, with a known delay."""
