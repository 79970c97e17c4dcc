"""Atari through ale-py's emulator, with the ground truth of some games read from RAM."""
