"""Temperature sampling over sources: what is drawn next, and how a run picks up at the exact draw."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BLOCK = 1024
_SOURCE_STREAM, _ORDER_STREAM = 0, 1


class Draw(NamedTuple):
    """One example: which source, and which conversation of it."""

    source: int
    conversation: int


class SamplerState(TypedDict):
    """All that is needed to go on at the exact draw."""

    drawn: list[int]


def sample_probabilities(sizes: Sequence[int], alpha: float) -> FloatArray:
    """Probability of drawing from each source, p_i = n_i^alpha / sum_j n_j^alpha.

    Args:
        sizes: Number of conversations in each source, each at least 1.
        alpha: Temperature exponent in (0, 1]; 1 keeps the sources' own proportions, towards 0 makes them equal.

    Returns:
        [sources], summing to 1.

    Raises:
        ValueError: a size below 1, or alpha outside (0, 1].
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"every source needs at least one conversation, got sizes {list(sizes)}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected above 0 and at most 1")
    weights = np.asarray(sizes, dtype=np.float64) ** alpha
    probabilities: FloatArray = weights / weights.sum()
    return probabilities


def whole_percent(shares: Sequence[float]) -> list[int]:
    """Shares as whole per cent that sum to 100 (largest remainders rounded up)."""
    exact = np.asarray(shares, dtype=np.float64) * 100
    percent = np.floor(exact).astype(int)
    for index in np.argsort(percent - exact, kind="stable")[: 100 - int(percent.sum())]:
        percent[index] += 1
    return [int(value) for value in percent]


class MixtureSampler:
    """A seeded stream of draws, endless unless passes are capped.

    Each draw picks a source with `sample_probabilities`; within the source, conversations come in a shuffled order that is shuffled
    anew after each pass, so that a small source repeats evenly. A source that has been drawn as often as it may be leaves the mixture,
    and the others share on in their proportions. Draw t depends only on the seed and on what was drawn before, so the state is one
    count for each source.

    Args:
        sizes: Number of conversations in each source.
        alpha: Temperature exponent in (0, 1].
        seed: Of the whole stream.
        max_passes: A source is drawn at most this many times its size, rounded down to a whole draw; None has no end.
    """

    def __init__(self, sizes: Sequence[int], alpha: float, seed: int, max_passes: float | None = None) -> None:
        self.sizes = list(sizes)
        self.probabilities = sample_probabilities(sizes, alpha)
        self._shares: list[float] = self.probabilities.tolist()
        self._most = [math.inf if max_passes is None else math.floor(max_passes * size) for size in self.sizes]
        self._seed = seed
        self._drawn = [0] * len(self.sizes)
        self._orders: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}
        self._block: tuple[int, FloatArray] | None = None

    @property
    def capped(self) -> list[bool]:
        """Whether each source has been drawn as often as it may be."""
        return [drawn >= most for drawn, most in zip(self._drawn, self._most, strict=True)]

    def draw(self) -> Draw | None:
        """The next example; None when every source is capped."""
        shares = [0.0 if capped else share for share, capped in zip(self._shares, self.capped, strict=True)]
        if not any(shares):
            return None
        source = self._source(shares)
        place = self._drawn[source]
        self._drawn[source] += 1
        return Draw(source, self._conversation(source, place))

    def state(self) -> SamplerState:
        """What `restore` needs, JSON-serialisable."""
        return {"drawn": list(self._drawn)}

    def restore(self, state: SamplerState) -> None:
        """Go on exactly where `state` was taken.

        Raises:
            ValueError: the state has another number of sources.
        """
        if len(state["drawn"]) != len(self.sizes):
            raise ValueError(f"state of {len(state['drawn'])} sources, this mixture has {len(self.sizes)}")
        self._drawn = list(state["drawn"])

    def _source(self, shares: list[float]) -> int:
        block, place = divmod(sum(self._drawn), _BLOCK)
        if self._block is None or self._block[0] != block:
            self._block = block, np.random.default_rng([self._seed, _SOURCE_STREAM, block]).random(_BLOCK)
        cumulative = list(accumulate(shares))  # flat at a capped source, which is therefore never hit
        return bisect_right(cumulative, float(self._block[1][place]) * cumulative[-1])

    def _conversation(self, source: int, place: int) -> int:
        number, at = divmod(place, self.sizes[source])
        if source not in self._orders or self._orders[source][0] != number:
            order = np.random.default_rng([self._seed, _ORDER_STREAM, source, number]).permutation(self.sizes[source])
            self._orders[source] = number, order
        return int(self._orders[source][1][at])
