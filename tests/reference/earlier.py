"""What `warmline.data.packing.earlier_features` must give, one reply and one strategy at a time."""

import math
from collections.abc import Sequence


def slow_features(before: Sequence[Sequence[float]]) -> list[float]:
    """Of one reply, from the strategies of those before it, in order, as distributions over the eight."""
    backwards, none = list(before)[::-1], [0.0] * 8
    in_order = [[*backwards, *[none] * 5][place][strategy] for place in range(5) for strategy in range(8)]
    fading = [
        (1 - rate) * sum(rate**back * said[strategy] for back, said in enumerate(backwards))
        for rate in (0.5, 0.8, 0.93)
        for strategy in range(8)
    ]
    shares = [sum(said[strategy] for said in before) / max(len(before), 1) for strategy in range(8)]
    reached = [float(len(before) >= mark) for mark in (1, 2, 3, 5, 10, 15, 20)]
    return [*in_order, *fading, *shares, math.log(1 + len(before)), *reached]
