"""Backbone, heads, losses and saved artefacts. Knows nothing of data files."""

REPLY_TOKENS = 512
"""Longest reply where nobody asks for another, and wherever base and tuned are compared: an instruct model's usual answer fits."""
