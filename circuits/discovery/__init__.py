"""Methods that find circuits: which edges carry a behaviour."""
