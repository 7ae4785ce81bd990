"""Talk to a run: the engine, and what stands before it."""
