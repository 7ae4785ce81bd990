"""Preference bias on cases that can be worked out by hand."""

import numpy as np
import pytest

from warmline.metrics.scores import bradley_terry, preference


def test_two_strategies() -> None:
    """A guessed 3 times where B was true, B once where A was: strengths 3 to 1, scaled to mean 1."""
    found = preference(np.array([[10, 1], [3, 10]]))
    assert found is not None
    assert found.strengths == pytest.approx([1.5, 0.5])
    assert found.bias == pytest.approx(0.5)


def test_exact_strengths_are_recovered() -> None:
    """Wins in the very proportions that strengths 1, 2, 4, 8 give."""
    strengths = np.array([1.0, 2, 4, 8])
    wins = 120 * strengths[:, None] / (strengths[:, None] + strengths)
    np.fill_diagonal(wins, 0)
    found = bradley_terry(wins)
    assert found / found[0] == pytest.approx(strengths, rel=1e-6)
    assert np.prod(found) == pytest.approx(1)


def test_likelihood_is_at_its_maximum() -> None:
    confusion = np.random.default_rng(0).integers(1, 30, size=(8, 8))
    found = preference(confusion)
    assert found is not None

    def loss(strengths: np.ndarray) -> float:
        return -sum(
            confusion[true, guess] * np.log(strengths[guess] / (strengths[guess] + strengths[true]))
            for true in range(8)
            for guess in range(8)
            if true != guess
        )

    for at in range(8):
        for factor in (0.98, 1.02):
            moved = found.strengths.copy()
            moved[at] *= factor
            assert loss(moved) > loss(found.strengths)


def test_even_errors_have_no_bias() -> None:
    found = preference(np.full((8, 8), 5))
    assert found is not None
    assert found.bias == pytest.approx(0, abs=1e-9)


def test_always_the_same_answer_is_the_largest_bias() -> None:
    confusion = np.zeros((8, 8), dtype=int)
    confusion[:, 3] = 10
    found = preference(confusion)
    assert found is not None
    assert found.strengths.tolist() == [0, 0, 0, 8, 0, 0, 0, 0]
    assert found.bias == pytest.approx(np.sqrt(7))


def test_undetermined_without_errors() -> None:
    assert preference(np.diag([4, 5, 6])) is None
