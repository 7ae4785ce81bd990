"""Reads a finished run folder and writes JSON.

What a head is scored by stands with its task; here is what needs a model: language, replies, heads as when serving, errors. A figure of
replies is added in `replies.py`, a kind of error in `detectors.py`; a number that is published keeps its name and protocol
(docs/evaluation.md).
"""
