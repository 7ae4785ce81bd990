"""Means, spreads and paired differences, worked out again."""

import numpy as np
import pytest
from scipy import stats

from warmline.ablation.metrics import Measured, all_metrics, differences, spread, summarise
from warmline.metrics.statistics import weighted_mean


def correct(*values: float) -> Measured:
    return Measured(weighted_mean(values), np.arange(len(values)))


def test_interval_is_students() -> None:
    values = [0.61, 0.58, 0.64, 0.60]
    found = spread(values)
    assert found.mean == pytest.approx(0.6075)
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.interval == pytest.approx(list(stats.ttest_1samp(values, 0).confidence_interval(0.95)))


def test_few_seeds_give_no_interval() -> None:
    assert spread([0.5]) == (0.5, None, None)
    assert spread([0.5, 0.7]).sd == pytest.approx(0.1 * 2**0.5)
    assert spread([0.5, 0.7]).interval is None
    assert spread([0.5, 0.7, 0.6]).interval is not None


def test_differences_are_paired_by_seed() -> None:
    """Seeds that differ much but alike in both variants: a wide spread of each, a small one of the difference."""
    full = {seed: {"emotion_accuracy": correct(*[1] * hits, *[0] * (10 - hits))} for seed, hits in ((1, 2), (2, 5), (3, 9))}
    other = {seed: {"emotion_accuracy": correct(*[1] * (hits - 1), *[0] * (11 - hits))} for seed, hits in ((1, 2), (2, 5), (3, 9))}
    table = {"full": full, "no-safety": other}
    assert summarise(table)["full"]["emotion_accuracy"] == pytest.approx(
        {"seeds": 3, "mean": 16 / 30, "sd": np.std([0.2, 0.5, 0.9], ddof=1)}
    )
    found = differences(table)
    assert set(found) == {"no-safety"}
    difference = found["no-safety"]["emotion_accuracy"]
    assert {seed: one["difference"] for seed, one in difference["by_seed"].items()} == pytest.approx({"1": -0.1, "2": -0.1, "3": -0.1})
    assert (difference["mean"], difference["sd"]) == pytest.approx((-0.1, 0), abs=1e-12)
    assert difference["seeds_interval"] == pytest.approx([-0.1, -0.1])
    low, high = difference["by_seed"]["1"]["items_interval"]
    assert -0.4 < low < -0.1 < high <= 0  # nine pairs are equal, one is lost


def test_what_one_side_lacks_is_null() -> None:
    table = {"full": {1: {"emotion_accuracy": correct(1, 0)}}, "no-emotion": {1: {"probe_emotion_accuracy": correct(1, 0)}}}
    assert all(value is None for value in differences(table)["no-emotion"].values())
    assert summarise(table)["no-emotion"]["emotion_accuracy"] is None
    assert set(summarise(table)["full"]) == set(all_metrics())
