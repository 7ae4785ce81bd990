"""Replies in the base's own words: written, gone on with, applied, trained on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from warmline.cli import app
from warmline.config import RunConfig, load_config
from warmline.conversation import Conversation, Loaded, Turn
from warmline.data.enabled import enabled_sources
from warmline.data.encoding import encode_split
from warmline.data.own_words import Spot, read_words, with_own_words, words_file
from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.model.backbone import Sampling
from warmline.model.base import load_tokenizer
from warmline.model.description import read_description
from warmline.responders import Answer, ChatRequest
from warmline.rewriting import rewrite as module
from warmline.rewriting.prompt import rewriting_prompt, voice
from warmline.rewriting.rewrite import Options, rewrite
from warmline.rewriting.writer import Drawn, Wanted, Writer
from warmline.runs import RunFolder

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
    assert set(result["sources"]["retention"]) == {"train", "valid", "test"}
    assert set(result["sources"]["esconv"]) == {"train", "valid"}
    for splits in result["sources"].values():
        for found in splits.values():
            assert 0 < found["accepted"] <= found["replies"]
    assert len(result["examples"]) == 20
    assert "| esconv | train |" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_reply_follows_a_users_turn_alone(written: tuple[Path, dict[str, Any]]) -> None:
    loaded = {one.name: one for one in enabled_sources(configured().data)}["esconv"].load("train")
    turns = {one.id: one.turns for one in loaded.conversations}
    for spot in read_words(words_file(written[0], "esconv", "train")):
        assert turns[spot.conversation][spot.turn].role == "assistant"
        assert turns[spot.conversation][spot.turn - 1].role == "user"


def test_it_goes_on_where_it_was_killed_and_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    config = configured(sources={"retention": {"enabled": False}})
    rewrite(config, tmp_path / "whole", FEW)
    draw, calls = Writer.draw, []

    def killed(self: Writer, prompts: Sequence[Any], copies: int, sampling: Sampling, doing: str) -> list[list[Drawn]]:
        calls.append(len(prompts))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return draw(self, prompts, copies, sampling, doing)

    monkeypatch.setattr(Writer, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        rewrite(config, tmp_path / "killed", FEW)
    with max((tmp_path / "killed").glob("*.jsonl")).open("a", encoding="utf-8") as file:
        file.write('{"conversation": "half a li')
    assert json.loads((tmp_path / "killed" / "rewriting.json").read_text(encoding="utf-8"))["complete"] is False
    monkeypatch.setattr(Writer, "draw", draw)
    rewrite(config, tmp_path / "killed", FEW)
    assert replies(tmp_path / "killed") == replies(tmp_path / "whole")


def test_nothing_is_written_twice(written: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    before = replies(written[0])
    monkeypatch.setattr(Writer, "draw", lambda *_: pytest.fail("asked again"))
    rewrite(configured(), written[0], FEW)
    assert replies(written[0]) == before


def test_other_settings_need_another_folder(written: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(WarmlineError, match=r"written otherwise \(candidates\); name another folder"):
        rewrite(configured(), written[0], FEW._replace(candidates=4))


def test_a_server_may_hold_the_base(tmp_path: Path) -> None:
    class Served:
        url, identity = "http://there/v1", "http://there/v1|base"

        def run(self, requests: Sequence[ChatRequest], done: Callable[[int, Answer], None]) -> None:
            for at, request in enumerate(requests):
                last = request.messages[-1]["content"]
                done(at, Answer(f"So it comes down to {len(last)} letters that you chose with great care tonight."))

    endpoint: Any = Served()
    result = rewrite(configured(), tmp_path, FEW, endpoint)
    assert result["made_by"]["served_by"] == "http://there/v1|base"
    assert result["sources"]["empathetic_dialogues"]["train"]["accepted"] > 0


def test_the_prompt_has_the_voice_the_examples_and_the_strategy() -> None:
    history = [Turn("assistant", "hello"), Turn("user", "I failed."), Turn("assistant", "What?"), Turn("user", "The test.")]
    messages = rewriting_prompt(history, Turn("assistant", "Which one?", {"strategy": ("Question",)}), "sad")
    assert messages[0]["content"].startswith(voice())
    assert "asks one open question" in messages[0]["content"]
    assert "felt sad" in messages[0]["content"]
    assert [message["role"] for message in messages[1:]] == ["user", "assistant"] * 5 + ["user", "assistant", "user"]
    assert messages[-1]["content"] == "The test."
    assert not any("Which one?" in message["content"] for message in messages)


def test_own_words_take_the_place_of_peoples(tmp_path: Path) -> None:
    labelled = Turn("assistant", "b", {"strategy": ("Others",)})
    loaded = Loaded((Conversation("7", (Turn("user", "a"), labelled, Turn("user", "c"), Turn("assistant", "d"))),), 1, {})

    def told(lines: Sequence[dict[str, Any]], unanswered: bool = False) -> tuple[Turn, ...]:
        words_file(tmp_path, "notes", "train").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return with_own_words(loaded, tmp_path, "notes", "train", unanswered).conversations[0].turns

    turns = told([{"conversation": "7", "turn": 1, "reply": "mine"}, {"conversation": "7", "turn": 3, "reply": None}])
    assert turns[1] == Turn("assistant", "mine", {"strategy": ("Others",)})
    assert turns[3] == Turn("assistant", "d", target=False)
    assert told([{"conversation": "7", "turn": 4, "reply": "last"}], unanswered=True)[-1] == Turn("assistant", "last")
    assert with_own_words(loaded, tmp_path, "notes", "test", False) is loaded


@pytest.mark.parametrize("line", ['{"conversation": "7"}', '{"conversation": "7", "turn": 1, "reply": ""}', '["a"]', '{"turn": 1'])
def test_a_line_that_is_none_of_ours_is_named(line: str, tmp_path: Path) -> None:
    path = words_file(tmp_path, "notes", "train")
    path.write_text(json.dumps({"conversation": "7", "turn": 1, "reply": "mine"}) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(WarmlineError, match=f"{path}:2: "):
        read_words(path)


def test_half_a_line_counts_as_not_written(tmp_path: Path) -> None:
    path = words_file(tmp_path, "notes", "train")
    path.write_text(json.dumps({"conversation": "7", "turn": 1, "reply": "mine"}) + '\n{"conversation": "8", "tu', encoding="utf-8")
    assert list(read_words(path)) == [Spot("7", 1)]


def test_what_is_learned(written: tuple[Path, dict[str, Any]]) -> None:
    """Own words alone are targets; the strategy head reads every reply as before; the base's answers are held to."""
    people, own = configured(sources={"retention": {"enabled": False}}).data, configured(own_words=written[0]).data
    template = ChatTemplate(load_tokenizer(configured().model), "auto")
    before = {one.name: one.target_counts() for one in encode_split("train", people, template)}
    after = {one.name: one.target_counts() for one in encode_split("train", own, template)}
    assert 0 < after["esconv"]["lm"].sum() < before["esconv"]["lm"].sum()
    assert after["esconv"]["strategy"].sum() == before["esconv"]["strategy"].sum()
    assert after["friend"]["lm"].sum() == before["friend"]["lm"].sum()
    assert after["retention"]["safety"].sum() > 0


def test_prompts_that_nobody_answered_are_refused() -> None:
    template = ChatTemplate(load_tokenizer(configured().model), "auto")
    with pytest.raises(WarmlineError, match=r"retention: nobody has answered its prompts; `warmline rewrite`"):
        encode_split("train", configured().data, template)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"data\.own_words: .*away is not there"):
        enabled_sources(configured(own_words=tmp_path / "away").data)


def test_the_command_needs_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: own\nmodel: {name: nano}\ndata: {dir: sample}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["rewrite", str(path)])
    assert "has no data.own_words; give it a folder, or say --out FOLDER" in str(result.exception)
    result = CliRunner().invoke(app, ["rewrite", str(path), "--out", str(tmp_path / "out"), "--strength", "0.5"])
    assert "--strength 0.5: is of a run's adapter; name the run with --by-run" in str(result.exception)


def test_a_run_that_has_learned_the_voice_writes_in_the_bases_place(finished_copy: RunFolder, tmp_path: Path) -> None:
    """Prompts of other kinds stay the base's to answer."""
    config = load_config(finished_copy.config).model_copy(update={"data": configured().data})
    result = rewrite(config, tmp_path / "tuned", FEW, tuned=finished_copy)
    rewrite(config, tmp_path / "base", FEW)
    assert result["made_by"]["tuned_weights_sha256"] == read_description(finished_copy)["weights_sha256"]
    assert "tuned (weights" in (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    ours, base = replies(tmp_path / "tuned"), replies(tmp_path / "base")
    assert ours["retention-train.jsonl"] == base["retention-train.jsonl"]
    wanted = Wanted(Spot("1", 1), [Turn("user", "I failed.")], Turn("assistant", "Oh."), "sad")
    assert Writer(config, None, finished_copy).prompt(wanted) == [Message(role="user", content="I failed.")]
    other = config.model_copy(update={"model": config.model.model_copy(update={"name": "some/other"})})
    weak = rewrite(config, tmp_path / "weak", FEW, tuned=RunFolder.open(finished_copy.path, 0.0))
    assert replies(tmp_path / "weak")["retention-train.jsonl"] == base["retention-train.jsonl"]
    assert weak["made_by"]["strength"] == 0.0
    with pytest.raises(WarmlineError, match=r"is tuned from .*, and the configuration's base is some/other"):
        rewrite(other, tmp_path / "other", FEW, tuned=finished_copy)


def test_what_was_written_by_hand_comes_first_and_is_not_drawn(
    written: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its conversation is not the official one, there is no such reply."""
    spot = next(iter(read_words(words_file(written[0], "esconv", "train"))))
    shipped, lines = tmp_path / "shipped", [{**spot._asdict(), "reply": "Mine."}, {"conversation": "gone", "turn": 1, "reply": "Lost."}]
    shipped.mkdir()
    words_file(shipped, "esconv", "train").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(module, "BY_HAND", shipped)
    config = configured(sources={"retention": {"enabled": False}, "empathetic_dialogues": {"enabled": False}})
    alone = rewrite(config, tmp_path / "alone", FEW._replace(conversations=0))
    assert read_words(words_file(tmp_path / "alone", "esconv", "train")) == {spot: {**lines[0], "by_hand": True}}
    assert alone["sources"]["esconv"]["train"] | {"sha256": ""} == {
        "replies": 1, "accepted": 1, "words_median": 1, "candidates_refused": {}, "sha256": "", "by_hand": 1,
    }  # fmt: skip
    assert not words_file(tmp_path / "alone", "esconv", "valid").exists()
    rewrite(config, tmp_path / "both", FEW._replace(conversations=2, candidates=1))
    found = read_words(words_file(tmp_path / "both", "esconv", "train"))
    assert found[spot]["reply"] == "Mine."
    assert len(found) > 1
