"""Scores, intervals, calibration and baselines of any classifier, from arrays alone: nothing here knows of emotions, models or files.

A score is added in `scores.py` and then stands beside every head and baseline; that all resample the same rows together is a promise.
"""
