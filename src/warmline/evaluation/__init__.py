"""Reads a finished run folder and writes JSON.

What a head is scored by stands with its task; here is what needs a model: language, replies, heads as when serving, errors. A number that
is published keeps its name and protocol (docs/evaluation.md).
"""
