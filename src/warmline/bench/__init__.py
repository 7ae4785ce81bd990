"""Training step speed and memory, side by side with the usual recipes."""
