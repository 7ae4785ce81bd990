"""Reads a finished run folder and writes JSON."""
