"""Scores of any classifier, head or baseline, from its probabilities: the same numbers and the same bootstrap samples for each.

The last of them is preference bias: which labels a predictor falls back on when it is wrong (Kang et al., ACL 2024, arXiv 2402.13211, for
ESConv's strategies). Each wrong guess is a game: the guessed label beats the true one. Bradley-Terry strengths p of these games, scaled
to a mean of 1, are the *preferences*: above 1 a label is guessed where others were due. The *bias* is their standard deviation (of the
population): 0 for a predictor whose errors are even, sqrt(7) = 2.65 for one that always says the same of eight.
"""

from collections.abc import Mapping
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from warmline.metrics.statistics import (
    BoolArray,
    FloatArray,
    IntArray,
    Statistic,
    cluster_bootstrap,
    difference,
    macro_f1,
    multilabel_macro_f1,
    multilabel_weighted_f1,
    point,
    weighted_f1,
    weighted_mean,
)

TOP = 3
METHOD = "95 % percentile bootstrap of 1,000 samples, whole dialogues drawn with replacement"


def single_label_statistics(truth: IntArray, probabilities: FloatArray) -> dict[str, Statistic]:
    """What a classifier with one answer is scored by.

    Args:
        truth: [rows].
        probabilities: [rows, classes], or any scores in their order; of equal ones the first class wins.
    """
    classes = probabilities.shape[1]
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    guess = ranked[:, 0]
    return {
        "accuracy": weighted_mean(guess == truth),
        "macro_f1": macro_f1(truth, guess, classes),
        "weighted_f1": weighted_f1(truth, guess, classes),
        "top_3": weighted_mean((ranked[:, :TOP] == truth[:, None]).any(axis=1)),
    }


def multi_label_statistics(truth: BoolArray, guess: BoolArray) -> dict[str, Statistic]:
    """What a classifier with any number of answers is scored by; `accuracy` asks for exactly the right set.

    Args:
        truth: [rows, labels].
        guess: [rows, labels].
    """
    return {
        "accuracy": weighted_mean((truth == guess).all(axis=1)),
        "macro_f1": multilabel_macro_f1(truth, guess),
        "weighted_f1": multilabel_weighted_f1(truth, guess),
    }


def with_intervals(statistics: Mapping[str, Statistic], clusters: npt.NDArray[Any], seed: int) -> dict[str, Any]:
    """`n`, each statistic (null where it is undefined), and `intervals` with each one's ends (null where there is a single dialogue)."""
    rows = len(clusters)
    several = len(np.unique(clusters)) > 1
    values = {name: point(statistic, rows) for name, statistic in statistics.items()}
    defined = {name: None if isnan(value) else value for name, value in values.items()}
    return {
        "n": rows,
        **defined,
        "intervals": {
            name: cluster_bootstrap(statistic, clusters, seed) if several and defined[name] is not None else None
            for name, statistic in statistics.items()
        },
    }


def compared(first: Mapping[str, Statistic], second: Mapping[str, Statistic], clusters: npt.NDArray[Any], seed: int) -> dict[str, Any]:
    """`first - second` on the same rows, as `with_intervals`: an interval without 0 is a difference."""
    found = with_intervals({name: difference(first[name], second[name]) for name in ("accuracy", "macro_f1")}, clusters, seed)
    return {key: value for key, value in found.items() if key != "n"}


def confusion(truth: IntArray, guess: IntArray, classes: int) -> IntArray:
    """[true, guessed], counts."""
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def per_class(truth: BoolArray, guess: BoolArray, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each label's support `n`, how often it is `guessed`, precision, recall (null where undefined) and F1.

    Args:
        truth: [rows, labels].
        guess: [rows, labels].
        labels: Their names.
    """
    hits, true, guessed = (truth & guess).sum(axis=0), truth.sum(axis=0), guess.sum(axis=0)
    return [
        {
            "label": label,
            "n": int(true[at]),
            "guessed": int(guessed[at]),
            "precision": float(hits[at] / guessed[at]) if guessed[at] else None,
            "recall": float(hits[at] / true[at]) if true[at] else None,
            "f1": float(2 * hits[at] / (true[at] + guessed[at])) if true[at] + guessed[at] else 0.0,
        }
        for at, label in enumerate(labels)
    ]


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
    from scipy.sparse.csgraph import connected_components

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
