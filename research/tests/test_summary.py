"""summary.json from made-up results: the arithmetic of its intervals, and what is said where something was not measured."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest

from headline import HEADLINE, ROWS, table
from summary import FIGURES, Measured, over_seeds, summarise, write_summary
from warmline.errors import WarmlineError
from warmline.runs import read_json, write_json

KEYS = {
    "emotion_27_accuracy", "emotion_27_macro_f1", "emotion_28_macro_f1", "strategy_accuracy", "strategy_macro_f1",
    "perplexity_ratio_empathetic_dialogues", "perplexity_ratio_esconv", "ece_emotion", "ece_strategy", "safety_kl_ratio",
    "eqbench_v2_base", "eqbench_v2_tuned",
}  # fmt: skip


def evaluation(seed: int, shift: float = 0.0, labels: int = 27) -> dict[str, Any]:
    def scored(accuracy: float, macro: float, n: int) -> dict[str, Any]:
        values = {"accuracy": accuracy + shift, "macro_f1": macro + shift}
        return {"n": n, **values, "intervals": {name: [value - 0.02, value + 0.02] for name, value in values.items()}}

    calibrated = {"calibration": {"scaled": {"ece": 0.03 + shift}}}
    single = {**scored(0.66, 0.6, 2984), "calibration": calibrated["calibration"] if labels == 27 else None}
    multi = scored(0.4, 0.54, 5427) if labels == 28 else {"n": 5427, "accuracy": None, "macro_f1": None, "absent": {"head": "27"}}
    figure = {"value": 0.7 + shift, "interval": [0.69 + shift, 0.71 + shift]}
    ratio = {"conversations": 195, "perplexity_ratio": figure, "bits_ratio_to_lines": figure}
    return {
        "context": {"run": "made", "seed": seed, "base_model": "gemma", "base_revision": None, "data_sha256": {"a": "1"}},
        "heads": {
            "emotion": {"single_label_27": single, "multi_label_28": multi},
            "strategy": {**scored(0.38, 0.3, 2895), **calibrated, "own_choices": scored(0.37, 0.28, 2895)},
        },
        "language": {"sources": {"empathetic_dialogues": ratio, "esconv": ratio}},
    }


def ablation(drift: dict[tuple[str, int], float | None], spread: Sequence[float] | None = (0.5, 1.0, 1.5)) -> dict[str, Any]:
    """Runs whose conversations' KLs are so many times the mean; None for a file that does not have them."""
    rows = []
    for (name, seed), value in drift.items():
        each = {} if spread is None else {"safety_kl": [value * times for times in spread] if value is not None else []}
        rows.append({"variant": name, "seed": seed, "metrics": {"kl_safety": value}, **each})
    return {"context": {"seeds": sorted({seed for _, seed in drift}), "n": {"safety_replies": 30}}, "rows": rows}


def eq_bench(tuned: float | None) -> dict[str, Any]:
    def model(score: float | None) -> dict[str, Any]:
        interval = None if score is None else [score - 3, score + 3]
        return {
            "score": score,
            "interval": interval,
            "parse_rate": 0.9 if score else 0.1,
            "reason": None if score else "17 of 171 parseable",
        }

    second = {"context": {"questions": 171}, "base": model(20.0), "tuned": model(tuned)}
    return {"context": {"seed": 13}, "eq_bench_v2": second, "eq_bench_v2_reason": None}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed, shift in ((13, -0.01), (14, 0.0), (15, 0.01)):
        write_json(tmp_path / ("evaluation.json" if seed == 13 else f"full/seed-{seed}.json"), evaluation(seed, shift))
        write_json(tmp_path / "labels-28" / f"seed-{seed}.json", evaluation(seed, shift, labels=28))
    drift = {("full", seed): 0.1 * seed for seed in (13, 14, 15)} | {("no-safety", seed): 0.4 * seed for seed in (13, 14, 15)}
    write_json(tmp_path / "ablation_results.json", ablation(drift))
    write_json(tmp_path / "eq_bench_results.json", eq_bench(30.0))
    return tmp_path


def test_every_figure_names_its_files(study: Path) -> None:
    figures = {name: one for name, one in summarise(study).items() if name != "context"}
    assert set(figures) >= KEYS
    assert set(FIGURES) <= set(figures)
    assert {row.name for row in ROWS} == set(figures)
    for one in figures.values():
        assert one["low"] <= one["mean"] <= one["high"]
        assert all((study / name).is_file() for name in one["source"])
        assert one["n"] > 0
    assert figures["emotion_27_accuracy"]["mean"] == pytest.approx(0.66)
    assert figures["emotion_28_macro_f1"]["mean"] == pytest.approx(0.54)
    assert figures["strategy_accuracy"]["seeds"] == [13, 14, 15]
    assert figures["emotion_28_macro_f1"]["source"][0] == "labels-28/seed-13.json"
    assert figures["strategy_accuracy"]["source"] == ["evaluation.json", "full/seed-14.json", "full/seed-15.json"]


def test_seeds_that_count_other_rows_are_no_mean(study: Path) -> None:
    """Evaluations of different versions, which score other rows as when serving."""
    newer = evaluation(14, 0.0)
    newer["heads"]["strategy"]["own_choices"]["n"] = 2295
    write_json(study / "full" / "seed-14.json", newer)
    found = summarise(study)
    assert found["strategy_own_choices_accuracy"]["mean"] is None
    assert "different test items" in table(found)
    assert found["strategy_accuracy"]["mean"] is not None


def test_interval_over_seeds_and_items(study: Path) -> None:
    """sd .01 over three seeds: Student's half width is 4.303 * .01 / sqrt(3); the items' is .02."""
    found = summarise(study)["emotion_27_accuracy"]
    reach = math.hypot(0.02, 4.302653 * 0.01 / math.sqrt(3))
    assert (found["low"], found["high"]) == pytest.approx((0.66 - reach, 0.66 + reach))
    assert found["interval"] == "seeds and items"


def test_what_an_interval_covers() -> None:
    one = over_seeds([Measured(0.5, [0.4, 0.6], 10)])
    assert (one["low"], one["high"], one["interval"]) == (pytest.approx(0.4), pytest.approx(0.6), "items")
    assert over_seeds([Measured(0.5, None, 10)])["low"] is None
    three = over_seeds([Measured(value, None, 10) for value in (0.1, 0.2, 0.3)])
    assert three["interval"] == "seeds"
    assert three["high"] - three["mean"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3))


def test_safety_ratio_is_of_the_same_seed(study: Path) -> None:
    drift = {("full", 13): 0.1, ("no-safety", 13): 0.2, ("full", 14): 0.2, ("no-safety", 14): 0.8, ("full", 15): None}
    write_json(study / "ablation_results.json", ablation(drift))
    found = summarise(study)["safety_kl_ratio"]
    assert found["mean"] == pytest.approx(math.sqrt(0.5 * 0.25))
    assert found["seeds"] == [13, 14]
    assert found["interval"] == "items"


def test_safety_ratio_rests_on_seeds_and_conversations(study: Path) -> None:
    """Each seed's half width over conversations and Student's over seeds, of the logarithm: 4.303 * sd / sqrt(3)."""
    ratios, times = (0.2, 0.22, 0.25), (0.4, 1.0, 1.1, 1.5)
    rows = [
        {"variant": name, "seed": seed, "metrics": {"kl_safety": sum(each) / 4}, "safety_kl": each}
        for seed, ratio in zip((13, 14, 15), ratios, strict=True)
        for name, each in (("full", [ratio * part for part in times]), ("no-safety", [1.0] * 4))
    ]
    write_json(study / "ablation_results.json", {"context": {"seeds": [13, 14, 15], "n": {"safety_replies": 4}}, "rows": rows})
    found = summarise(study)["safety_kl_ratio"]
    of_seeds = 4.302653 * stdev(map(math.log, ratios)) / math.sqrt(3)
    assert found["mean"] == pytest.approx(math.prod(ratios) ** (1 / 3))
    draws = [sum(times[at] for at in draw) / 4 for draw in product(range(4), repeat=4)]
    low, high = np.quantile(np.log(draws), [0.025, 0.975])  # of all 256 equally likely draws
    reach = math.log(found["high"] / found["mean"])
    assert reach == pytest.approx(math.hypot(of_seeds, (high - low) / 2), rel=0.1)
    assert math.log(found["mean"] / found["low"]) == pytest.approx(reach)
    assert found["interval"] == "seeds and items"


def test_safety_ratio_without_its_conversations_has_no_interval(study: Path) -> None:
    drift = {(name, seed): 0.1 * seed for name in ("full", "no-safety") for seed in (13, 14, 15)}
    write_json(study / "ablation_results.json", ablation(drift, spread=None))
    found = summarise(study)["safety_kl_ratio"]
    assert (found["mean"], found["low"], found["high"]) == (pytest.approx(1.0), None, None)
    assert found["interval"].startswith("none: ablation_results.json has no KL of each conversation")
    write_summary(study)
    (line,) = (line for line in (study / HEADLINE).read_text().splitlines() if "drift on safety" in line)
    assert "| 1.000 (no interval: ablation_results.json has no KL of each conversation) |" in line


def test_the_table_says_which_intervals_leave_the_items_out(study: Path) -> None:
    write_summary(study)
    lines = (study / HEADLINE).read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if "over seeds alone" in line] == [
        "| calibration of the emotion head: ECE", "| calibration of the strategy head: ECE",
    ]  # fmt: skip


def test_what_is_missing_has_its_reason(study: Path) -> None:
    (study / "ablation_results.json").unlink()
    write_json(study / "eq_bench_results.json", eq_bench(None))
    for path in (study / "labels-28").iterdir():
        path.unlink()
    figures = summarise(study)
    for name, reason in (
        ("safety_kl_ratio", "was not run"), ("eqbench_v2_tuned", "17 of 171"), ("emotion_28_macro_f1", "no evaluation in labels-28/"),
    ):  # fmt: skip
        assert figures[name]["mean"] is None
        assert reason in figures[name]["absent"]
    assert figures["eqbench_v2_tuned"]["parse_rate"] == 0.1
    assert figures["eqbench_v2_base"]["mean"] == 20.0


def test_a_head_that_one_seed_lacks_is_no_mean_of_the_others(study: Path) -> None:
    lacking = evaluation(14)
    lacking["heads"]["strategy"] = None
    write_json(study / "full" / "seed-14.json", lacking)
    found = summarise(study)["strategy_accuracy"]
    assert found["mean"] is None
    assert "not in every one" in found["absent"]


def test_other_data_are_refused(study: Path) -> None:
    other = evaluation(14)
    other["context"]["data_sha256"] = {"a": "2"}
    write_json(study / "full" / "seed-14.json", other)
    with pytest.raises(WarmlineError, match="differ in their data_sha256"):
        summarise(study)


def test_one_seed_counts_once(study: Path) -> None:
    write_json(study / "full" / "seed-13.json", evaluation(13))
    with pytest.raises(WarmlineError, match="two evaluations of one seed"):
        summarise(study)


def test_baselines_stand_beside_what_they_are_compared_with(study: Path) -> None:
    main = evaluation(13)
    main["heads"]["strategy"] |= {
        "majority": {"accuracy": 0.2, "macro_f1": 0.05},
        "baselines": {"tfidf": {"accuracy": 0.3, "macro_f1": 0.2}},
    }
    write_json(study / "evaluation.json", main)
    assert summarise(study)["strategy_accuracy"]["beside"] == {"majority": 0.2, "tfidf": 0.3}


def test_table(study: Path) -> None:
    (study / "ablation_results.json").unlink()
    write_summary(study)
    lines = (study / HEADLINE).read_text().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert (
        "| EQ-Bench v2, tuned | 30.0 (27.0 to 33.0) | 90.0 % of the answers could be read | 171 | 13 | `eq_bench_results.json` |" in lines
    )
    assert any("not measured: the ablation was not run" in line for line in lines)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert (study / "summary.png").stat().st_size > 10_000


def test_nothing_to_summarise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"evaluation\.json: file not found"):
        summarise(tmp_path)


def test_what_is_written_is_what_was_summarised(study: Path) -> None:
    assert write_summary(study) == read_json(study / "summary.json") == summarise(study)


def test_twice_gives_the_same_bytes(study: Path) -> None:
    first = write_summary(study)
    written = (study / "summary.json").read_bytes()
    write_summary(study)
    assert (study / "summary.json").read_bytes() == written
    assert read_json(study / "summary.json") == first
