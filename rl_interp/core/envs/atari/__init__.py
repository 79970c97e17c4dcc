"""Atari through ale-py's emulator, with Ms. Pac-Man's ground truth read from RAM."""
