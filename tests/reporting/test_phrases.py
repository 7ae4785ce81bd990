"""Prose agrees with its number: its sign, its interval, and what better means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline.reporting.phrases import cell, differs, likeliest, number, percent, quoted, ratio_verdict, share, verdict, with_interval


@pytest.mark.parametrize(
    ("difference", "interval", "better", "said"),
    [
        (-0.12, (-0.19, -0.05), "lower", "lower by 0.120 (95 % interval 0.050 to 0.190), which is better"),
        (-0.12, (-0.19, -0.05), "higher", "lower by 0.120 (95 % interval 0.050 to 0.190), which is worse"),
        (0.12, (0.05, 0.19), "higher", "higher by 0.120 (95 % interval 0.050 to 0.190), which is better"),
        (0.12, (0.05, 0.19), None, "higher by 0.120 (95 % interval 0.050 to 0.190)"),
        (-0.01, (-0.05, 0.03), "lower", "no measurable difference (-0.010, 95 % interval -0.050 to +0.030)"),
        (0.05, (0.0, 0.1), "higher", "no measurable difference (+0.050, 95 % interval +0.000 to +0.100)"),
        (0.05, None, "higher", "+0.050, no interval, so nothing follows from it"),
        (None, None, "higher", "not measured"),
        (0.00002, (0.00001, 0.00003), "higher", "higher by 2.0e-05 (95 % interval 1.0e-05 to 3.0e-05), which is better"),
    ],
)
def test_verdict(difference: float | None, interval: tuple[float, float] | None, better: str | None, said: str) -> None:
    assert verdict(difference, interval, better) == said  # type: ignore[arg-type]


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9), st.sampled_from(["higher", "lower", None]))
def test_nothing_is_claimed_across_zero(difference: float, one: float, other: float, better: str | None) -> None:
    interval = (min(one, other), max(one, other))
    said = verdict(difference, interval, better)  # type: ignore[arg-type]
    if interval[0] <= 0 <= interval[1]:
        assert said.startswith("no measurable difference")
    if "which is better" in said:
        assert said.startswith(str(better))
    if said.startswith("higher"):
        assert difference > 0
        assert interval[0] > 0
    if said.startswith("lower"):
        assert difference < 0
        assert interval[1] < 0


def test_a_ratio_is_said_in_per_cent() -> None:
    assert ratio_verdict(0.46, [0.44, 0.48], "lower") == "lower by 54.0 % (95 % interval 52.0 to 56.0), which is better"
    assert ratio_verdict(1.01, [0.98, 1.04], "lower").startswith("no measurable difference")
    assert ratio_verdict(1.01, None).endswith("so nothing follows from it")


def test_numbers() -> None:
    assert [number(value) for value in (1234, 0.12345, 1234.5678, None, 0, 0.0, 0.0002)] == [
        "1,234", "0.123", "1,234.568", "\u2013", "0", "0.000", "2.0e-04",
    ]  # fmt: skip
    assert (percent(0.1234), percent(None), percent(1, 0)) == ("12.3 %", "\u2013", "100 %")
    assert with_interval(0.5, [0.4, 0.6], percent) == "50.0 % (40.0 % to 60.0 %)"
    assert with_interval(0.5, None, percent) == "50.0 %"
    assert share({"hits": 3, "n": 20, "share": 0.15, "w": [0.05, 0.36]}, "hits", "n", "w") == "3 of 20, 15.0 % (5.0 % to 36.0 %)"
    assert share(None, "hits", "n", "w") == "\u2013"
    assert likeliest({"joy": 0.81, "fear": 0.1}) == "joy 81 %, fear 10 %"
    assert (differs([0.1, 0.2]), differs([-0.1, 0.2]), differs([-0.2, -0.1]), differs(None)) == (True, False, True, False)


def test_words_of_others_become_no_markup() -> None:
    assert quoted("<b>|`*_\n# x") == "&lt;b&gt;\\|\\`\\*\\_ # x"
    assert quoted("  \n") == "(empty)"
    assert quoted("ab" * 400, most=6) == "ababab ... (800 characters)"
    assert cell("a|b\nc") == "a\\|b c"
