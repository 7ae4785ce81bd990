"""Preference bias: which strategies a predictor falls back on when it is wrong (Kang et al., ACL 2024, arXiv 2402.13211).

Each wrong guess is a game: the guessed strategy beats the true one. Bradley-Terry strengths p of these games, scaled to a mean of 1, are
the *preferences*: above 1 a strategy is guessed where others were due. The *bias* is their standard deviation (of the population): 0 for
a predictor whose errors are even, sqrt(7) = 2.65 for one that always says the same of eight.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from warmline.metrics.statistics import FloatArray, IntArray

_ROUNDS, _TOLERANCE = 20_000, 1e-9


class Preference(NamedTuple):
    """What errors lean to.

    Attributes:
        strengths: [classes], mean 1.
        bias: Their standard deviation.
    """

    strengths: FloatArray
    bias: float


def preference(confusion: IntArray) -> Preference | None:
    """Preferences of a predictor from its confusion matrix.

    Where some strategies beat others and are never beaten back, the likelihood grows without end as the others' strengths go to 0; that
    limit is returned. It does not exist when two groups of strategies never meet, as for a predictor without errors.

    Args:
        confusion: [true, guessed], counts.

    Returns:
        None where the errors do not determine the strengths.
    """
    wins = confusion.T.astype(np.float64)  # wins[i, j]: i was guessed where j was true
    np.fill_diagonal(wins, 0)
    groups, group_of = connected_components(wins > 0, connection="strong")
    unbeaten = [
        members
        for members in (np.flatnonzero(group_of == group) for group in range(groups))
        if not np.delete(wins, members, axis=0)[:, members].any()
    ]
    if len(unbeaten) != 1:
        return None
    (top,) = unbeaten
    strengths = np.zeros(len(wins))
    strengths[top] = bradley_terry(wins[np.ix_(top, top)])
    strengths *= len(strengths) / strengths.sum()
    return Preference(strengths, float(strengths.std()))


def bradley_terry(wins: FloatArray) -> FloatArray:
    """Maximum-likelihood strengths, P(i beats j) = p_i / (p_i + p_j), by Newman's iteration (JMLR 2023, arXiv 2207.00076).

    Args:
        wins: [players, players], how often the row beat the column; every player beats every other directly or through others.

    Returns:
        [players], geometric mean 1.
    """
    strengths = np.ones(len(wins))
    for _ in range(_ROUNDS if len(wins) > 1 else 0):
        before = strengths.copy()
        for at in range(len(wins)):
            shares = 1 / (strengths[at] + strengths)
            strengths[at] = (wins[at] * strengths * shares).sum() / (wins[:, at] * shares).sum()
        strengths /= np.exp(np.log(strengths).mean())
        if np.abs(np.log(strengths / before)).max() < _TOLERANCE:
            break
    return strengths
