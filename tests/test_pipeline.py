"""Everything in order, once."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import ConfigFactory
from warmline.config import RunConfig, dump_config, load_config
from warmline.errors import WarmlineError
from warmline.pipeline import FULL, QUICK, STEPS, Budget, Step, run_steps
from warmline.redteam import run as redteam
from warmline.redteam.run import RedTeamOptions
from warmline.runs import RunFolder, read_json, write_text


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def writing(name: str, done: list[str]) -> Step:
    def act(_: RunConfig, folder: RunFolder, __: Budget) -> None:
        done.append(name)
        write_text(folder.results / name, "x")

    return Step(name, lambda folder: folder.results / name, act)


def test_trains_and_goes_on(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 1}, validation={"conversations": 2})
    done: list[str] = []

    def fails(*_: object) -> None:
        raise WarmlineError("the disk is full")

    steps = [writing("a", done), Step("b", lambda folder: folder.results / "b", fails), writing("c", done)]
    with pytest.raises(WarmlineError, match="disk is full"):
        run_steps(config, FULL, steps, quiet())
    folder = RunFolder.open(tmp_path / "tiny")
    trained = folder.heads.read_bytes(), folder.heads.stat().st_mtime_ns
    steps[1] = writing("b", done)
    console = quiet()
    run_steps(config, FULL, steps, console)
    assert done == ["a", "b", "c"]
    assert (folder.heads.read_bytes(), folder.heads.stat().st_mtime_ns) == trained
    assert "train: done before" in said(console)
    assert "a: done before" in said(console)


def test_a_new_artefact_is_measured_again(finished_copy: RunFolder) -> None:
    config = _moved(finished_copy)
    done: list[str] = []
    always = Step("always", None, lambda *_: done.append("always"))
    for _ in range(2):
        run_steps(config, FULL, [writing("a", done), always], quiet())
    assert done == ["a", "always", "always"]
    later = (finished_copy.results / "a").stat().st_mtime + 9
    os.utime(finished_copy.heads_description, (later, later))
    run_steps(config, FULL, [writing("a", done), always], quiet())
    assert done == ["a", "always", "always", "a", "always"]


def test_a_step_that_was_cut_short_is_done_in_full(finished_copy: RunFolder) -> None:
    config = _moved(finished_copy)
    done: list[str] = []
    for budget in (QUICK, QUICK, FULL, FULL):
        run_steps(config, budget, [writing("a", done)], quiet())
    assert done == ["a", "a"]
    assert read_json(finished_copy.pipeline) == {"a": "full"}


def test_another_configuration_is_refused(finished_copy: RunFolder) -> None:
    config = _moved(finished_copy).model_copy(update={"seed": 99})
    with pytest.raises(WarmlineError, match="differs from the run's at `seed`"):
        run_steps(config, FULL, [], quiet())


def test_the_real_steps(finished_copy: RunFolder) -> None:
    config = _moved(finished_copy)
    budget = QUICK._replace(prompts=1, questions=1)
    mine = [step for step in STEPS if step.name in ("errors", "facts", "data card", "report")]
    assert [step.name for step in STEPS][-1] == "report"
    run_steps(config, budget, mine, quiet())
    assert "--quick" in finished_copy.report.read_text(encoding="utf-8")
    assert finished_copy.error_taxonomy.is_file()
    assert read_json(finished_copy.facts)["context"]["n"] == 1
    console = quiet()
    run_steps(config, budget, mine, console)
    assert said(console).count("done before") == len(mine)  # train, and all but the report


NO_SAFETY_SOURCE = {"data": {"sources": {"safety": {"enabled": False}}}}


@pytest.mark.parametrize(
    ("budget", "settings", "reason"),
    [
        (FULL, {"loss": {"safety": 0}}, "this run was itself trained without it"),
        (FULL, NO_SAFETY_SOURCE, "this run was itself trained without it"),
        (QUICK, {"loss": {"safety": 0}}, "this run was itself trained without it"),
        (QUICK, {}, "the ablation's runs were cut to 8 steps, no match for this one"),
        (FULL, {"loss": {"lm": 0, "emotion": 0, "strategy": 0}}, "the ablation has none (no-safety: no loss is left to train)"),
        (FULL, {}, "the ablation has no finished tiny-no-safety-seed13; `warmline ablate` trains it"),
    ],
)
def test_the_red_team_goes_without_a_run_that_the_ablation_has_not(
    budget: Budget, settings: dict[str, Any], reason: str, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RedTeamOptions] = []
    monkeypatch.setattr(redteam, "red_team", lambda _, options: asked.append(options))
    config = tiny_config(tmp_path, **settings)
    (step,) = (step for step in STEPS if step.name == "redteam")
    step.act(config, RunFolder(tmp_path / "tiny"), budget)
    assert [(one.without_kl, one.why_not, one.max_new_tokens) for one in asked] == [(None, reason, budget.reply_tokens)]


def test_the_red_team_takes_the_ablations_run_without_the_safety_term(
    tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RedTeamOptions] = []
    monkeypatch.setattr(redteam, "red_team", lambda _, options: asked.append(options))
    run = RunFolder(tmp_path / "tiny" / "ablation" / "tiny-no-safety-seed13")
    write_text(run.heads_description, "{}")
    (step,) = (step for step in STEPS if step.name == "redteam")
    step.act(tiny_config(tmp_path), RunFolder(tmp_path / "tiny"), FULL)
    assert [one.without_kl for one in asked] == [run.path]


def _moved(run: RunFolder) -> RunConfig:
    """The configuration of a copied run, with the place and name it now has."""
    config = load_config(run.config).model_copy(update={"output_dir": run.path.parent, "name": run.path.name})
    write_text(run.config, dump_config(config))
    return config
