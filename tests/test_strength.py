"""The dial: the adapter's strength, from the base to what was trained, in the library, on results and in an export."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import warmline
from tests.conftest import ConfigFactory
from tests.tools import quiet_train
from warmline.cli import app
from warmline.companion import Companion
from warmline.config import load_config
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import evaluate
from warmline.export.folder import Options, export
from warmline.model.artifacts import load_artifact
from warmline.runs import RunFolder
from warmline.serving.engine import Engine

TALK = [Message(role="user", content="My sister moved to Oslo and the flat is very quiet.")]


@torch.no_grad()
def states(companion: Companion, base: bool = False) -> Tensor:
    backbone = companion._model.backbone
    ids = torch.tensor(companion._template.prompt_ids(TALK))
    flat = (ids, torch.arange(len(ids)), torch.tensor([0, len(ids)], dtype=torch.int32), len(ids))
    if not base:
        return backbone.hidden(*flat)
    with backbone.reference():
        return backbone.hidden(*flat)


def test_from_the_base_to_what_was_trained(finished: RunFolder) -> None:
    trained = warmline.load(finished.path)
    base, full = states(trained, base=True), states(trained)
    assert torch.equal(states(warmline.load(finished.path, strength=1.0)), full)
    torch.testing.assert_close(states(warmline.load(finished.path, strength=0.0)), base, rtol=0, atol=1e-6)
    half = states(warmline.load(finished.path, strength=0.5))
    assert 0 < (half - base).norm() < (full - base).norm()
    assert 0 < (half - full).norm() < (full - base).norm()


def test_an_export_has_the_strength_in_it(finished: RunFolder, tmp_path: Path) -> None:
    export(finished.path, tmp_path / "half", Options(merged=True, dtype="float32", strength=0.5), lambda _: None)
    expected = states(warmline.load(finished.path, strength=0.5))
    assert torch.equal(states(warmline.load(tmp_path / "half", base=load_config(finished.config).model.name)), expected)
    assert "weakened to 0.5" in (tmp_path / "half" / "README.md").read_text(encoding="utf-8")
    export(finished.path, tmp_path / "full", Options(), lambda _: None)
    assert "weakened" not in (tmp_path / "full" / "README.md").read_text(encoding="utf-8")


def test_results_at_another_strength_lie_apart_and_say_so(finished_copy: RunFolder) -> None:
    whole = evaluate(finished_copy.path, replies=1, baselines=False, longest=4)
    half = evaluate(finished_copy.path, replies=1, baselines=False, longest=4, strength=0.5)
    assert "strength" not in whole["context"]
    assert half["context"]["strength"] == 0.5
    assert "strength" not in json.loads(finished_copy.evaluation.read_text(encoding="utf-8"))["context"]
    apart = finished_copy.path / "strength-0.50" / "results"
    assert {path.name for path in apart.iterdir()} >= {"evaluation.json", "replies.jsonl", "confusion_emotion.png"}
    assert half["language"] != whole["language"]


def test_a_served_model_says_its_strength(finished: RunFolder) -> None:
    engine = Engine.open(finished.path, slots=1, queue=1, strength=0.5)
    try:
        assert engine.tuned_id == f"{load_config(finished.config).name}@0.5"
    finally:
        engine.close()


@pytest.mark.parametrize("command", ["evaluate", "errors", "facts", "chat", "redteam"])
@pytest.mark.parametrize("strength", ["1.5", "-0.1"])
def test_a_strength_that_is_none_is_refused(command: str, strength: str, finished: RunFolder) -> None:
    result = CliRunner().invoke(app, [command, str(finished.path), "--strength", strength])
    assert f"--strength {float(strength):g}: expected 0 (the base) to 1 (as trained)" in str(result.exception)


def test_without_an_adapter_there_is_nothing_to_weaken(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = quiet_train(tiny_config(tmp_path).model_copy(update={"lora": None}))
    with pytest.raises(WarmlineError, match="trained every weight, so there is no adapter to weaken"):
        load_artifact(run, torch.device("cpu"), torch.float32, strength=0.5)
