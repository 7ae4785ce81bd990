"""The dial: the adapter's strength, from the base to what was trained, in the library, on results and in an export."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM

import warmline
from tests.conftest import ConfigFactory
from tests.serving.conftest import serving
from tests.tools import quiet_train
from warmline import cli
from warmline.companion import Companion
from warmline.config import load_config
from warmline.data.template import Message
from warmline.eqbench.run import Players, Selection, ServedModel, eq_bench
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import evaluate
from warmline.evaluation.facts import ask_facts
from warmline.export.folder import Options, export
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Sampling
from warmline.runs import RunFolder, read_json
from warmline.serving.api import create_app
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


def plain_logits(model: Any, companion: Companion) -> Tensor:
    """Of any transformers model, at every position of the same prompt."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([companion._template.prompt_ids(TALK)]), use_cache=False).logits[0]
    return logits


def test_from_the_base_to_what_was_trained(finished: RunFolder) -> None:
    trained = warmline.load(finished.path)
    base, full = states(trained, base=True), states(trained)
    assert torch.equal(states(warmline.load(finished.path, strength=1.0)), full)
    torch.testing.assert_close(states(warmline.load(finished.path, strength=0.0)), base, rtol=0, atol=1e-6)
    half = states(warmline.load(finished.path, strength=0.5))
    assert 0 < (half - base).norm() < (full - base).norm()
    assert 0 < (half - full).norm() < (full - base).norm()


def test_a_strength_is_a_share_of_the_update_in_every_weight(finished: RunFolder) -> None:
    by_hand = warmline.load(finished.path)
    adapted = [module for module in by_hand._model.backbone.modules() if hasattr(module, "get_delta_weight")]
    assert adapted
    for module in adapted:
        module.base_layer.weight.data += 0.3 * module.get_delta_weight("default")  # type: ignore[operator, union-attr]
    weakened = warmline.load(finished.path, strength=0.3)
    torch.testing.assert_close(states(weakened), states(by_hand, base=True), rtol=0, atol=1e-5)


def test_an_export_has_the_strength_in_it(finished: RunFolder, tmp_path: Path) -> None:
    export(finished.path, tmp_path / "half", Options(merged=True, dtype="float32", strength=0.5), lambda _: None)
    expected = states(warmline.load(finished.path, strength=0.5))
    assert torch.equal(states(warmline.load(tmp_path / "half", base=load_config(finished.config).model.name)), expected)
    assert "weakened to 0.5" in (tmp_path / "half" / "README.md").read_text(encoding="utf-8")
    assert read_json(tmp_path / "half" / "heads.json")["strength"] == 0.5
    export(finished.path, tmp_path / "full", Options(), lambda _: None)
    assert "strength" not in read_json(tmp_path / "full" / "heads.json")
    assert "weakened" not in (tmp_path / "full" / "README.md").read_text(encoding="utf-8")


def test_others_load_an_export_at_its_strength(finished: RunFolder, tmp_path: Path) -> None:
    export(finished.path, tmp_path / "half", Options(merged=True, dtype="float32", strength=0.5), lambda _: None)
    half = warmline.load(finished.path, strength=0.5)
    expected = half._model.backbone.logits(states(half))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    torch.testing.assert_close(plain_logits(merged, half), expected, rtol=0, atol=1e-4)
    torch.manual_seed(0)  # the base of this run is random numbers: its seed
    base = AutoModelForCausalLM.from_config(merged.config, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, tmp_path / "half" / "adapter").eval()
    torch.testing.assert_close(plain_logits(tuned, half), expected, rtol=0, atol=1e-4)
    full = warmline.load(finished.path)
    assert (full._model.backbone.logits(states(full)) - expected).abs().max() > 1e-2  # or the comparison would prove nothing


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_base_itself_can_be_merged(dtype: Any, finished: RunFolder, tmp_path: Path) -> None:
    described = export(finished.path, tmp_path / "none", Options(merged=True, dtype=dtype, strength=0.0), lambda _: None)
    assert described["merged"]["check"]["tuning_moved"] < 1e-6


def test_what_an_export_is_measured_at_is_its_strength(finished: RunFolder, tiny_model: Path, tmp_path: Path) -> None:
    export(finished.path, tmp_path / "half", Options(base=None, strength=0.5), lambda _: None)
    opened = tmp_path / "half"
    settings = (opened / "config.yaml").read_text(encoding="utf-8")
    assert f"./{tiny_model.name}" in settings
    (opened / "config.yaml").write_text(settings.replace(f"./{tiny_model.name}", str(tiny_model)), encoding="utf-8")
    assert ask_facts(opened, questions=1, longest=2)["context"]["strength"] == 0.5
    assert ask_facts(opened, questions=1, longest=2, strength=0.5)["context"]["strength"] == 0.25
    engine = Engine.open(opened, slots=1, queue=1)
    try:
        assert engine.tuned_id == f"{load_config(finished.config).name}@0.5"
    finally:
        engine.close()


def test_no_two_strengths_share_a_folder() -> None:
    strengths = (0.0, 0.004, 0.5, 0.501, 1 / 3, 0.33, 0.996, 1.0)
    assert len({RunFolder(Path("run"), strength).evaluation for strength in strengths}) == len(strengths)
    assert RunFolder(Path("run"), 0.5).evaluation == Path("run/strength-0.50/results/evaluation.json")
    assert RunFolder(Path("run"), 0.501).evaluation == Path("run/strength-0.501/results/evaluation.json")
    assert RunFolder(Path("run"), -0.0).evaluation == RunFolder(Path("run"), 0.0).evaluation


def test_results_at_another_strength_lie_apart_and_say_so(finished_copy: RunFolder) -> None:
    whole = evaluate(finished_copy.path, replies=1, baselines=False, longest=4)
    half = evaluate(finished_copy.path, replies=1, baselines=False, longest=4, strength=0.5)
    assert "strength" not in whole["context"]
    assert half["context"]["strength"] == 0.5
    assert "strength" not in json.loads(finished_copy.evaluation.read_text(encoding="utf-8"))["context"]
    apart = finished_copy.path / "strength-0.50" / "results"
    assert {path.name for path in apart.iterdir()} >= {"evaluation.json", "replies.jsonl", "confusion_emotion.png"}
    assert half["language"] != whole["language"]


def test_eqbench_keeps_replies_of_a_strength_apart(finished_copy: RunFolder) -> None:
    named = {}
    for strength in (1.0, 0.5):
        players = Players(max_new_tokens=2, strength=strength)
        result = eq_bench(finished_copy.path, Selection("sample", None, 1, False), players, console=Console(quiet=True))
        named[strength] = result["context"]["models"]
    assert named[1.0]["base"] == named[0.5]["base"]
    assert "strength" not in named[1.0]["tuned"]
    assert "/strength 0.5" in named[0.5]["tuned"]
    assert (finished_copy.path / "strength-0.50" / "eqbench" / "replies.jsonl").is_file()


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_a_strength_is_not_said_of_another_server_s_model(strength: float, finished_copy: RunFolder) -> None:
    there = ServedModel("http://127.0.0.1:9", "tuned")  # where nobody listens: nobody is asked
    with pytest.raises(WarmlineError, match="another server answers for the tuned model"):
        eq_bench(finished_copy.path, Selection("sample", None, 1, False), Players(there, there, strength=strength))
    assert not list(finished_copy.path.glob("strength-*"))


def test_a_served_model_says_its_strength_and_has_it(finished: RunFolder) -> None:
    half, name = warmline.load(finished.path, strength=0.5), f"{load_config(finished.config).name}@0.5"
    engine = Engine.open(finished.path, slots=1, queue=1, strength=0.5)
    try:
        with serving(create_app(engine)) as url:
            introduced = httpx.get(f"{url}/about").json()
            assert (introduced["run"], introduced["models"]["tuned"]) == (name, name)
            assert name in [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
            body = {"model": name, "messages": TALK, "temperature": 0, "max_tokens": 12}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    finally:
        engine.close()
    assert answer["choices"][0]["message"]["content"] == half.reply(TALK, Sampling(12, temperature=0))
    assert answer["warmline"]["emotion"]["scores"] == half.read(TALK)["emotion"] != warmline.load(finished.path).read(TALK)["emotion"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with status 2, and gives its one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["warmline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        line = capsys.readouterr().err.strip().rpartition("\n")[2]
        assert line.startswith("warmline: ")
        return line

    return run


@pytest.mark.parametrize("command", ["evaluate", "errors", "facts", "chat", "redteam", "compare", "eqbench", "serve", "export"])
@pytest.mark.parametrize("strength", ["1.5", "-0.1", "nan"])
def test_a_strength_that_is_none_is_refused(
    command: str, strength: str, finished_copy: RunFolder, tmp_path: Path, said: Callable[..., str]
) -> None:
    more = {"export": ["--out", tmp_path / "out"], "eqbench": ["--suite", "sample", "--no-v2"], "serve": ["--port", "0"]}
    line = said(command, finished_copy.path, "--strength", strength, *more.get(command, []))
    assert line == f"warmline: --strength {float(strength):g}: expected 0 (the base) to 1 (as trained)"
    assert not (tmp_path / "out").exists()
    assert not list(finished_copy.path.glob("strength-*"))


def test_without_an_adapter_there_is_nothing_to_weaken(tiny_config: ConfigFactory, tmp_path: Path, said: Callable[..., str]) -> None:
    run = quiet_train(tiny_config(tmp_path).model_copy(update={"lora": None}))
    with pytest.raises(WarmlineError, match="trained every weight, so there is no adapter to weaken"):
        load_artifact(run, torch.device("cpu"), torch.float32, strength=0.5)
    for command, more in (("chat", []), ("evaluate", []), ("export", ["--merged", "--out", tmp_path / "out"])):
        assert "trained every weight, so there is no adapter to weaken" in said(command, run.path, "--strength", 0.5, *more)
