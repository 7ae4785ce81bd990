"""Backbone, heads, losses and saved artefacts. Knows nothing of data files."""
