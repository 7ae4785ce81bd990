"""The loop and what surrounds it: plan, schedule, self-check, validation, checkpoints, curves."""
