"""Held-out prompts, drawn by rule, answered once."""

import hashlib
import json
from pathlib import Path

import pytest

import warmline
from tests.conftest import ConfigFactory
from warmline.config import DataConfig
from warmline.data.enabled import enabled_sources
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.qualitative import EXAMPLES, PROMPTS_SHOWN, draw_prompts, make_replies, read_replies, write_examples
from warmline.model.backbone import Sampling
from warmline.runs import RunFolder, read_json

SAMPLE = DataConfig(dir="sample")
SHORT = Sampling(max_new_tokens=4, temperature=0)


def test_prompts_are_those_with_the_smallest_hash() -> None:
    prompts = draw_prompts(SAMPLE, 13, per_source=4)
    for source in enabled_sources(SAMPLE):
        if source.name != "goemotions":
            every = source.load("test").conversations
            digests = sorted(hashlib.sha256(f"13/{source.name}/{one.id}".encode()).hexdigest() for one in every)
            assert [prompt.digest for prompt in prompts if prompt.source == source.name] == digests[:4]
    assert [prompt.digest for prompt in prompts] == sorted(prompt.digest for prompt in prompts)


def test_a_prompt_stands_where_a_reply_is_due() -> None:
    conversations = {
        (source.name, one.id): one
        for source in enabled_sources(SAMPLE)
        for one in source.load("test").conversations
    }  # fmt: skip
    for prompt in draw_prompts(SAMPLE, 13):
        turns = conversations[prompt.source, prompt.conversation].turns
        assert turns[prompt.turn].role == "assistant"
        assert prompt.messages[-1]["role"] == "user"
        assert [message["content"] for message in prompt.messages] == [turn.text for turn in turns[: prompt.turn]]
        if prompt.source != "safety":
            assert prompt.reference == turns[prompt.turn].text
        assert "{crisis_line}" not in prompt.reference
        category = conversations[prompt.source, prompt.conversation].kind if prompt.source == "safety" else None
        assert prompt.danger == (category not in (None, "benign_lookalike", "medication_diagnosis", "dependency_romance"))


def test_the_draw_follows_the_seed_alone() -> None:
    once, again, other = draw_prompts(SAMPLE, 1, 5), draw_prompts(SAMPLE, 1, 5), draw_prompts(SAMPLE, 2, 5)
    assert once == again
    assert {prompt.conversation for prompt in once} != {prompt.conversation for prompt in other}
    fewer = draw_prompts(SAMPLE, 1, 2)
    assert set(map(str, fewer)) < set(map(str, once))


def test_no_source_of_replies_is_refused() -> None:
    off = {name: {"enabled": False} for name in ("empathetic_dialogues", "esconv", "safety")}
    with pytest.raises(WarmlineError, match=r"data\.sources: no held-out prompt"):
        draw_prompts(DataConfig.model_validate({"dir": "sample", "sources": off}), 13)


def test_replies_are_those_of_the_companion(finished_copy: RunFolder) -> None:
    records = make_replies(FinishedRun.open(finished_copy.path), 2, SHORT)
    companion = warmline.load(finished_copy.path)
    for record in records:
        for side in ("base", "tuned"):
            (reply,) = companion.replies([record["messages"]], SHORT, base=side == "base")
            assert (record[side], record["cut"][side]) == reply
        for head, read in companion.read(record["messages"]).items():
            assert max(read, key=lambda name: read[name]) == next(iter(record[head]))
    assert any(record["base"] != record["tuned"] for record in records)


def test_replies_are_made_once(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = FinishedRun.open(finished_copy.path)
    records = make_replies(finished, 1, SHORT)
    assert make_replies(finished, 2, SHORT) != records  # other settings: made again
    records = make_replies(finished, 1, SHORT)
    monkeypatch.setattr("warmline.companion.Companion.replies", None)
    assert make_replies(finished, 1, SHORT) == records
    context = json.loads(finished_copy.replies.read_text().split("\n")[0])["context"]
    assert (context["run"], context["split"], context["decoding"]["max_new_tokens"]) == ("tiny", "test", 4)


@pytest.mark.parametrize("content", ["", "[1]\n", '{"context": {}}\n{', "\x00"])
def test_damaged_replies_are_made_again(content: str, tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    assert read_replies(path) is None
    path.write_text(content)
    assert read_replies(path) is None


def test_examples_are_the_first_by_hash(finished_copy: RunFolder) -> None:
    finished = FinishedRun.open(finished_copy.path)
    records = make_replies(finished, 3, SHORT)
    examples = write_examples(finished, records)
    assert examples == read_json(finished_copy.examples)
    assert examples["examples"] == sorted(records, key=lambda record: record["digest"])[:EXAMPLES]
    assert examples["context"]["n"] == EXAMPLES == 5
    assert "sha256" in examples["context"]["rule"]
    first = sorted(records, key=lambda record: record["digest"])[:PROMPTS_SHOWN]
    assert [(one["user"], one["tuned"]) for one in examples["prompts"]] == [(one["messages"][-1]["content"], one["tuned"]) for one in first]


def test_prompts_of_a_config_without_safety(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, data={"sources": {"safety": {"enabled": False}}})
    assert {prompt.source for prompt in draw_prompts(config.data, 13)} == {"empathetic_dialogues", "esconv"}
