"""What a Sokoban agent plans: its plan read by probes and channels, written into it, and given time."""
