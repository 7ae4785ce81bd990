"""The whole evaluation of a finished run, from its folder to the file, the pictures and the table."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import ConfigFactory
from tests.evaluation.test_heads import untrained
from warmline.evaluation.evaluate import evaluate
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.qualitative import draw_prompts
from warmline.evaluation.replies import answer_all
from warmline.evaluation.view import evaluation_summary
from warmline.model.backbone import Sampling
from warmline.runs import RunFolder, read_json
from warmline.tasks.emotion import EMOTIONS_AND_NEUTRAL
from warmline.tasks.strategy import STRATEGIES


@pytest.fixture(scope="module")
def evaluated(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy, since evaluation writes into the run."""
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("evaluated") / "tiny")))


@pytest.fixture(scope="module")
def result(evaluated: RunFolder) -> dict[str, Any]:
    return evaluate(evaluated.path, replies=3, longest=16)


def test_numbers_carry_their_context(result: dict[str, Any], evaluated: RunFolder) -> None:
    assert evaluated.evaluation.read_text(encoding="utf-8") == json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    context = result["context"]
    assert next(iter(result)) == "context"
    assert (context["run"], context["split"], context["seed"], context["base_random_init_seed"]) == ("tiny", "test", 13, 0)
    assert context["step"] == read_json(evaluated.heads_description)["step"]
    assert context["data_sha256"] == read_json(evaluated.manifest)["data_sha256"]
    assert "goemotions/test.tsv" in context["data_sha256"]
    assert "dialogues" in context["intervals"]


def test_every_head_stands_beside_its_baselines(result: dict[str, Any]) -> None:
    heads = result["heads"]
    for scores, baselines in (
        (heads["emotion"]["single_label_27"], {"tfidf", "linear_probe"}),
        (heads["emotion"]["multi_label_28"], {"tfidf", "linear_probe"}),
        (heads["strategy"], {"history", "history_in_order", "tfidf", "linear_probe"}),
    ):
        assert set(scores["baselines"]) == baselines
        for baseline in scores["baselines"].values():
            assert baseline["n"] == scores["n"]
            assert baseline["intervals"]["macro_f1"][0] <= baseline["intervals"]["macro_f1"][1]
    strategy = heads["strategy"]
    for baseline in strategy["baselines"].values():
        assert baseline["head_minus_this"]["accuracy"] == pytest.approx(strategy["accuracy"] - baseline["accuracy"])
    assert np.sum(strategy["confusion"]) == strategy["n"] == sum(one["n"] for one in strategy["per_class"])
    assert strategy["top_3"] >= strategy["accuracy"]
    assert strategy["hidden_reply"]["asked"] > strategy["hidden_reply"]["moved"] == 0
    assert strategy["leak_warnings"] == []


def test_a_head_of_27_has_no_28_label_score(result: dict[str, Any]) -> None:
    multi = result["heads"]["emotion"]["multi_label_28"]
    assert multi["accuracy"] is multi["macro_f1"] is None
    assert "27 outputs" in multi["absent"]["head"]
    assert multi["baselines"]["tfidf"]["macro_f1"] > 0
    assert multi["n"] > result["heads"]["emotion"]["single_label_27"]["n"]


def test_a_head_of_28_is_scored_both_ways(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"sources": {"goemotions": {"labels": 28}}})
    heads = evaluate(run.path, replies=0, baselines=False)["heads"]
    single, multi = heads["emotion"]["single_label_27"], heads["emotion"]["multi_label_28"]
    assert single["accuracy"] > 0
    assert single["calibration"] is None
    assert "28 sigmoids" in single["absent"]["calibration"]
    assert 0 < multi["macro_f1"] < 1
    assert list(multi["thresholds"]) == list(EMOTIONS_AND_NEUTRAL)
    assert multi["calibration"]["scaled"]["nll"] > 0
    assert heads["strategy"]["leak_warnings"] == []  # no history to measure by, and nothing said


def test_language_and_replies(result: dict[str, Any]) -> None:
    language = result["language"]
    assert set(language["sources"]) == {"empathetic_dialogues", "esconv", "safety"}
    for found in language["sources"].values():
        ratio = found["tuned"]["perplexity"]["value"] / found["base"]["perplexity"]["value"]
        assert found["perplexity_ratio"]["value"] == pytest.approx(ratio)
        assert found["perplexity_ratio"]["interval"][0] < ratio < found["perplexity_ratio"]["interval"][1]
    assert language["kl_per_token"]["task"]["value"] > 0
    replies = result["replies"]
    assert replies["n"] == len(replies["examples"]) == 6  # of two sources with dialogues
    assert replies["decoding"]["max_new_tokens"] == 16
    assert set(replies["speakers"]["human"]["strategies_shown"]) == set(STRATEGIES)
    assert replies["strategy_judge"]["n"] == result["heads"]["strategy"]["n"]


def test_what_a_run_did_not_train_is_scored_too(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """A run without the language model and without the safety set, as in an ablation."""
    sections = {"sources": {"esconv": {"objectives": ["strategy"]}, "safety": {"enabled": False}}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data=sections)
    result = evaluate(run.path, replies=0, baselines=False)
    assert set(result["language"]["sources"]) == {"empathetic_dialogues", "esconv", "safety"}
    assert result["language"]["kl_per_token"]["safety"]["value"] > 0
    assert "safety/test.jsonl" in result["context"]["data_sha256"]
    assert result["replies"] is None
    assert "no reply" in result["absent"]["replies"]


def test_pictures_and_table(result: dict[str, Any], evaluated: RunFolder) -> None:
    for picture in (evaluated.confusion("emotion"), evaluated.confusion("strategy"), evaluated.reliability):
        assert picture.read_bytes().startswith(b"\x89PNG")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(evaluation_summary({**result, "heads": {**result["heads"], "strategy": {**result["heads"]["strategy"],
                                                                                       "leak_warnings": ["it leaks"]}}}))  # fmt: skip
    text = console.export_text()
    for part in ("emotion, 27-way", "majority class", "no such head", "linear probe", "esconv", "KL(base || tuned) on safety", "it leaks"):
        assert part in text
    assert "…" not in text  # nothing is cut off on a narrow terminal


def test_replies_stand_beside_their_own_prompts(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order: a backbone that answers with the prompt's length shows whose they are."""
    run = FinishedRun.open(finished.path)
    monkeypatch.setattr(type(run.model.backbone), "generate", lambda self, prompts, *_: [[len(prompt)] for prompt in prompts])
    prompts = draw_prompts(run.config.data, 1, 5)
    lengths = [len(run.template.prompt_ids(one.messages)) for one in prompts]
    assert lengths != sorted(lengths)
    found = answer_all(run.companion, [prompt.messages for prompt in prompts], Sampling())
    assert [one.text for one in found] == [run.template.tokenizer.decode([one]).strip() for one in lengths]
