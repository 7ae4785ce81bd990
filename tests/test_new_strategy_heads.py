"""New strategy heads on a finished run's states: both starts, every class weight, scored with annotations and without."""

from pathlib import Path

import pytest

from new_strategy_heads import SEEDS, WEIGHTS, main
from warmline.runs import RunFolder, read_json


def test_both_starts_are_scored(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "heads.json"
    main(finished.path, out, steps=1)
    written = read_json(out)
    assert written["context"]["weights_sha256"] == read_json(finished.heads_description)["weights_sha256"]
    assert [(one["fitted_before"], one["class_weights"]) for one in written["heads"]] == [
        (fit, x) for fit in (False, True) for x in WEIGHTS
    ]
    for one in written["heads"]:
        assert list(one["seeds"]) == [str(seed) for seed in SEEDS]
        assert one["mean"]["own_loss"] == pytest.approx(sum(scores["own_loss"] for scores in one["seeds"].values()) / len(SEEDS))
    zero, fitted = written["heads"][0]["mean"], written["heads"][len(WEIGHTS)]["mean"]
    assert fitted["annotated_loss"] < zero["annotated_loss"]  # the sample's strategies follow each other
    assert "fitted before" in capsys.readouterr().out
