"""Numbers from verdicts: what is rounded, and when."""

import pytest

from warmline.eqbench.judge import Job, Verdict
from warmline.eqbench.scores import rubric_report
from warmline.eqbench.suites import sample_suite

SUITE = sample_suite()


def scored(model: str, *scores: float) -> list[Verdict]:
    """A rubric a scenario, every criterion the same."""
    return [
        Verdict(Job("rubric", scenario, 1, model, "", ""), dict.fromkeys(SUITE.form(scenario).rubric_criteria, score), None)
        for scenario, score in zip(SUITE.scenarios, scores, strict=False)
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((13, 14, 14), 68.35),  # 13.666... of 20 is 13.67 before it is scaled; 68.33 if that came first
        ((13, 13, 14), 66.65),
        ((12.0, 12.0, 12.1, 12.8), 61.1),  # 12.225: the exact mean of these floats lies below the tie, and NumPy's on it
        ((12, 12), 60.0),
    ],
)
def test_the_score_is_rounded_before_it_is_scaled(scores: tuple[float, ...], expected: float) -> None:
    assert rubric_report(SUITE, scored("tuned", *scores), 1, 0)["tuned"]["score"] == pytest.approx(expected, abs=1e-9)


def test_the_difference_is_not_rounded() -> None:
    report = rubric_report(SUITE, scored("tuned", 13, 14, 14) + scored("base", 13, 13, 14), 1, 0)
    assert report["difference"]["tuned_minus_base"] == pytest.approx(5 / 3)
    assert report["tuned"]["interval"] == pytest.approx((65, 70))
