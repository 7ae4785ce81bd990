"""A head and a data set that nothing under src/ knows: trained, resumed, evaluated, reported, exported, served and read."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import warmline
from tests.conftest import ConfigFactory
from tests.serving.conftest import serving
from warmline.config import RunConfig, declare_fields
from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.evaluation.evaluate import evaluate
from warmline.export.folder import Options, export
from warmline.reporting.report import write_report
from warmline.serving.api import create_app
from warmline.serving.engine import Engine
from warmline.sources import SOURCES
from warmline.sources.source import CardFacts, Source, SourceSettings
from warmline.tasks import TASKS
from warmline.tasks.task import HeadTask
from warmline.training.loop import train
from warmline.training.view import View

TALK: Any = [{"role": "user", "content": "Please come now, this cannot wait."}]
NOTES = {"none": "We could meet some day, {n} of us.", "soon": "Can you call me this week, at {n}?", "now": "Come at once, number {n}!"}


class Urgency(HeadTask):
    name = "urgency"
    title = "urgency of the user's turn"
    plural = "urgencies"
    labels = tuple(NOTES)
    reads = "user"
    alone = True


class Notes(Source):
    name = "notes"
    carries = ("urgency",)
    facts = CardFacts("Notes", "Notes by how urgent they are.", "This test.", "Apache-2.0.", (), (), "urgencies")

    def files(self, split: Split) -> tuple[str, ...]:
        return (f"{split}.csv",)

    def load(self, folder: Path, split: Split, settings: SourceSettings) -> Loaded:
        with (folder / f"{split}.csv").open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        turns = (Turn("user", text, {"urgency": (label,)}) for text, label in rows)
        return Loaded(tuple(Conversation(str(at), (turn,)) for at, turn in enumerate(turns)), len(rows), {})


class Interrupted(View):
    def show(self, line: dict[str, Any]) -> None:
        if line["step"] == 6:
            raise KeyboardInterrupt


@pytest.fixture
def config(tiny_config: ConfigFactory, tmp_path: Path) -> Iterator[RunConfig]:
    data = tmp_path / "data"
    (data / "notes").mkdir(parents=True)
    for number, split in enumerate(("train", "valid", "test")):
        rows = [(text.format(n=100 * number + at), label) for at in range(20) for label, text in NOTES.items()]
        with (data / "notes" / f"{split}.csv").open("w", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    TASKS["urgency"], SOURCES["notes"] = Urgency(), Notes()
    declare_fields()
    off = {name: {"enabled": False} for name in ("empathetic_dialogues", "esconv", "goemotions")}
    yield tiny_config(
        tmp_path,
        data={"dir": str(data), "sources": {**off, "notes": {"enabled": True, "objectives": ["urgency"]}}},
        heads={"urgency": {"dropout": 0}, "emotion": None, "strategy": None},
        training={"max_steps": 8, "head_learning_rate": 3e-2},
        checkpoint={"every": 4},
    )
    del TASKS["urgency"], SOURCES["notes"]
    declare_fields()


def test_a_new_head_and_its_source_go_all_the_way(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, view=Interrupted(quiet=True))
    run = train(config, resume=True, view=View(quiet=True))
    scores = evaluate(run.path, replies=0)["heads"]["urgency"]
    assert scores["accuracy"] > scores["majority"]["accuracy"]
    assert "### Urgency" in write_report(run.path).read_text(encoding="utf-8")
    reading = warmline.load(run.path).read(TALK)
    assert list(reading) == ["urgency"]
    export(run.path, tmp_path / "out", Options(), lambda _: None)
    assert warmline.load(tmp_path / "out", base=config.model.name).read(TALK) == reading
    engine = Engine.open(run.path)
    with serving(create_app(engine)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": TALK, "max_tokens": 2}, timeout=60).json()
    engine.close()
    assert answer["warmline"]["urgency"]["scores"] == reading["urgency"]
