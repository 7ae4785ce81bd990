"""Training step speed and memory, side by side with the usual recipes.

A contender is added in `step.py`, a workload in `workload.py`; every contender gets the same one, in a process of its own.
"""
