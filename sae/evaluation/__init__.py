"""Measuring a fitted dictionary: reconstruction, features, effects."""
