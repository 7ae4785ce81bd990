"""The dial: what is measured at each strength, and that the model is as it was behind it; forms and flaws by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from typer.testing import CliRunner

from tests.tools import CPU, Tiny, perturb
from warmline.cli import app
from warmline.data.encoding import encode_split
from warmline.errors import WarmlineError
from warmline.evaluation.dial import dial
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.view import dial_summary
from warmline.model.artifacts import weakened
from warmline.rewriting.insight import Insight
from warmline.rewriting.manner import Form, forms
from warmline.runs import RunFolder, read_json
from warmline.training.validation import Validator

ONE = (torch.tensor([5, 6, 7]), torch.arange(3), torch.tensor([0, 3], dtype=torch.int32), 3)
"""A conversation of three tokens, as `hidden` takes it."""
FORM = Form("In two sections, please.", ("For", "Against"))


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("For\nIt is near.\nAgainst\nIt is dear.", True),
        ("# FOR\nIt is near.\n\n## **Against:** it is dear.", True),
        ("1. For: near\n2. Against: dear", True),
        ("Against\nIt is dear.\nFor\nIt is near.", False),
        ("Here is what speaks for it and what is against it.", False),
        ("For\nIt is near.", False),
        ("", False),
    ],
)
def test_a_form_is_kept_in_order_and_at_the_start_of_lines(reply: str, kept: bool) -> None:
    assert FORM.kept(reply) is kept


def test_every_form_names_its_headings() -> None:
    assert len(forms()) == 12
    for form in forms():
        assert all(heading in form.asked for heading in form.headings)
        assert form.kept("\n".join(f"## {heading}\nsome text" for heading in form.headings))


def test_behind_a_strength_the_adapter_is_as_it_was(tiny: Tiny) -> None:
    perturb(tiny.model)
    backbone = tiny.model.backbone
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    with weakened(backbone, 0.3):
        moved = [name for name, parameter in backbone.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved
    assert all("lora_B" in name for name in moved)
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.named_parameters())


def test_likelihoods_are_the_bases_whatever_was_learned(tiny: Tiny) -> None:
    asked = [("I failed.", "Oh no, the big one?"), ("We won!", "Tell me all of it.")]
    insight = Insight(tiny.model.backbone, tiny.template, CPU)
    before, states = insight.log_likelihoods(asked), tiny.model.backbone.hidden(*ONE)
    perturb(tiny.model)
    assert not torch.equal(tiny.model.backbone.hidden(*ONE), states)
    assert insight.log_likelihoods(asked) == before


@pytest.fixture(scope="module")
def dialled(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dial") / "run"
    shutil.copytree(finished.path, folder)
    return RunFolder(folder), dial(folder, (0.0, 1.0), prompts=4, longest=20)


def test_each_strength_is_measured_as_if_loaded_at_it(dialled: tuple[RunFolder, dict[str, Any]]) -> None:
    folder, result = dialled
    assert read_json(folder.dial) == result
    assert folder.dial_picture.is_file()
    none, whole = result["strengths"]
    assert (none["strength"], none["task_kl"], none["safety"]) == (0.0, 0.0, 0.0)
    assert whole["task_kl"] > 0
    assert result["context"]["split"] == "valid"
    assert set(result["examples"][0]["replies"]) == {"0", "1"}
    run = FinishedRun.open(folder.path)
    scores = Validator(run.config, encode_split("valid", run.config.data, run.template), run.place)(run.model, Accelerator(cpu=True))
    assert whole["emotion_accuracy"] == scores["emotion_accuracy"]
    assert whole["task_kl"] == scores["task_kl"]


def test_what_is_shown(dialled: tuple[RunFolder, dict[str, Any]]) -> None:
    table, note = dial_summary(dialled[1])
    assert [str(column.header) for column in table.columns][-2:] == ["emotion", "strategy"]  # type: ignore[union-attr]
    assert str(note).startswith("4 turns and 12 forms")


@pytest.mark.parametrize(
    ("given", "says"), [("half", "expected numbers from 0 to 1"), ("0,2", "--strength 2: expected 0"), ("", "expected numbers from 0 to 1")]
)
def test_strengths_that_cannot_be_are_refused(given: str, says: str, dialled: tuple[RunFolder, dict[str, Any]]) -> None:
    result = CliRunner().invoke(app, ["dial", str(dialled[0].path), "--strengths", given])
    assert isinstance(result.exception, WarmlineError)
    assert says in str(result.exception)


def test_no_strength_is_refused(finished_copy: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="expected at least one"):
        dial(finished_copy.path, ())
