"""New strategy heads on a finished run's states: every way to make them, every class weight, with annotations and without."""

import shutil
from pathlib import Path

import pytest

from new_strategy_heads import MEMBERS, SEEDS, STRENGTHS, WEIGHTS, main
from warmline.evaluation.validation import score_validation
from warmline.runs import RunFolder, read_json


def test_every_way_is_scored(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "heads.json"
    main(finished.path, out, steps=1)
    written = read_json(out)
    assert written["context"]["weights_sha256"] == read_json(finished.heads_description)["weights_sha256"]
    own, *new = written["heads"]
    ways = ["steps", f"ensemble of {MEMBERS}", *(f"refit at {strength:g}" for strength in STRENGTHS)]
    assert [(one["how"], one["class_weights"]) for one in new] == [(way, x) for x in WEIGHTS for way in ways]
    for one in new:
        if not one["how"].startswith("refit"):
            assert list(one["seeds"]) == [str(seed) for seed in SEEDS]
            assert one["mean"]["own_loss"] == pytest.approx(sum(scores["own_loss"] for scores in one["seeds"].values()) / len(SEEDS))
    trained, *others = (one["mean"]["annotated_loss"] for one in new[: len(ways)])
    assert max(others) < trained  # the sample's strategies follow each other
    assert own["how"] == "as the run trained it"
    scores = score_validation(Path(shutil.copytree(finished.path, tmp_path / "run")))["scores"]
    assert own["mean"]["annotated_accuracy"] == pytest.approx(scores["strategy_accuracy"])
    assert "refit at" in capsys.readouterr().out
