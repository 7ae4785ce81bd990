"""What each objective is worth: the same run with one loss or another switched off.

A variant is added in `variants.py`, a metric of its tables in `metrics.py`; that variants differ in nothing else is the promise.
"""
