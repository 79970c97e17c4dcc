"""Other packages that find circuits, each run by an environment of its own under `.peers/`."""
