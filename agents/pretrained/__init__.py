"""Agents that other programs trained, as runs to be evaluated and analysed like our own.

A module reads each kind of file. What they read is untrusted: no code of a file is run. `runs` makes the runs.
"""
