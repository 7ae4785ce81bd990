"""Replies in the base's own words: written, gone on with, applied, trained on."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from warmline.cli import app
from warmline.config import RunConfig
from warmline.rewriting.rewrite import Options, rewrite

FEW = Options(candidates=3, conversations=4, max_new_tokens=40, answer_tokens=12)


def configured(**data: Any) -> RunConfig:
    sources = {"friend": {"enabled": True}, "retention": {"enabled": True}, **data.pop("sources", {})}
    return RunConfig.model_validate({
        "name": "own", "model": {"name": "nano"}, "validation": {"conversations": 3},
        "data": {"dir": "sample", "row_tokens": 1024, "sources": sources, **data},
    })  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("words")
    return folder, rewrite(configured(), folder, FEW)


def replies(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl"))}


def test_what_is_written_and_what_is_left_alone(written: tuple[Path, dict[str, Any]]) -> None:
    folder, result = written
    assert set(result["sources"]) == {"empathetic_dialogues", "esconv", "retention"}  # neither the safety set's nor the friend's own words


def test_the_command_needs_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: own\nmodel: {name: nano}\ndata: {dir: sample}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["rewrite", str(path)])
    assert "has no data.own_words; give it a folder, or say --out FOLDER" in str(result.exception)
