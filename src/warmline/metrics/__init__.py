"""Scores, intervals, calibration and baselines of any classifier, from arrays alone: nothing here knows of emotions, models or files."""
