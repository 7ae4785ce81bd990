"""The learning rate: linear warm-up, then cosine, a pure function of the optimiser step."""

import math

from warmline.config import TrainingConfig


def rate_factor(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Share of the peak rate that optimiser step `step` uses.

    Args:
        step: 0-based; the first step of a warm-up already moves (factor 1 / warm-up steps).
        total_steps: Optimiser steps of the whole run; the last one ends at `final_rate`.
        config: Its `warmup` and `final_rate`.

    Returns:
        In (0, 1], or `final_rate` after the end.
    """
    warmup_steps = math.ceil(config.warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    remaining = max(1, total_steps - warmup_steps)
    progress = min(1.0, (step + 1 - warmup_steps) / remaining)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
