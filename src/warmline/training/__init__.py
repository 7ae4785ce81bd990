"""The loop and what surrounds it: plan, self-check, validation, checkpoints, curves.

An optimiser or a rate's course is changed in `optimizer.py`, what is refused before it begins in `plan.py` and `selfcheck.py`. What a
checkpoint holds, and that a killed run goes on to the bit, are contracts.
"""
