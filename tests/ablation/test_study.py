"""A whole ablation of the tiny model: what is written, what is reused, what a restart does."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from sklearn.metrics import accuracy_score

from tests.ablation.small import quick
from tests.conftest import ConfigFactory
from tests.tools import CPU, metrics, perturb, quiet_train
from warmline.ablation import study
from warmline.ablation.metrics import all_metrics
from warmline.ablation.scores import ScoreSettings, language_items, score_run
from warmline.ablation.study import ablate, apart, same_training, train_variant
from warmline.ablation.variants import variant_config
from warmline.ablation.view import StudyView, differences_table, values_table
from warmline.config import RunConfig, dump_config, load_config
from warmline.data.encoding import encode_split
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import evaluate
from warmline.model.artifacts import build_model
from warmline.model.base import load_tokenizer
from warmline.model.reader import Reader
from warmline.runs import RunFolder, read_json, write_json, write_text
from warmline.training.validation import Validator

FEW = ScoreSettings(conversations=6, probe_rows=20)
VARIANTS = ["no-emotion", "lm-only"]


def quiet_ablate(config: RunConfig, **arguments: Any) -> dict[str, Any]:
    return ablate(config, settings=FEW, view=StudyView(quiet=True), **arguments)


@pytest.fixture(scope="module")
def done(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, Any]]:
    """An ablation that tests only read: the main run was trained before."""
    config = quick(tiny_config, tmp_path_factory.mktemp("study"))
    quiet_train(config)
    return config, quiet_ablate(config, variants=VARIANTS)


def variant(config: RunConfig, name: str, seed: int = 13) -> RunFolder:
    wanted = variant_config(config, name, seed)
    return RunFolder(wanted.output_dir / wanted.name)


@pytest.mark.slow
def test_results(done: tuple[RunConfig, dict[str, Any]]) -> None:
    config, result = done
    main = RunFolder(config.output_dir / config.name)
    assert json.loads(main.ablation_results.read_text()) == result
    assert main.ablation_picture.read_bytes()[:4] == b"\x89PNG"
    context = result["context"]
    assert (context["run"], context["seeds"], context["steps"], context["planned_steps"], context["split"]) == ("tiny", [13], 2, 2, "test")
    assert context["data_sha256"] == read_json(main.manifest)["data_sha256"]
    rows = {row["variant"]: row for row in result["rows"]}
    assert list(rows) == ["full", *VARIANTS]
    assert set(result["left_out"]) == {"no-strategy", "no-safety"}
    off = {"full": [], "no-emotion": ["emotion"], "lm-only": ["emotion", "strategy"]}
    for name, row in rows.items():
        assert row["step"] == 2
        assert np.mean(row["safety_kl"]) == pytest.approx(row["metrics"]["kl_safety"])
        assert len(row["safety_kl"]) == context["n"]["safety_replies"]
        for head in ("emotion", "strategy"):
            absent = head in off[name]
            assert (row["metrics"][f"{head}_accuracy"] is None) == absent
            assert ("its loss was off" in row["absent"].get(head, "")) == absent
            assert (row["metrics"][f"probe_{head}_accuracy"] is None) == (not absent and name != "full")
        assert all(row["metrics"][name] is not None for name in all_metrics() if "emotion" not in name and "strategy" not in name)
    assert result["base"]["probe_emotion_accuracy"] is not None
    assert result["base"]["kl_task"] is None
    assert result["differences"]["no-emotion"]["lm_nats"]["mean"] == pytest.approx(
        rows["no-emotion"]["metrics"]["lm_nats"] - rows["full"]["metrics"]["lm_nats"]
    )
    assert any("one seed" in note for note in result["notes"])
    assert not variant(config, "lm-only").checkpoints.exists()
    assert main.steps() == [1, 2]  # the main run keeps its own
    for table in (values_table(result), differences_table(result)):
        assert table.row_count


@pytest.mark.slow
def test_runs_of_one_process_equal_runs_alone(done: tuple[RunConfig, dict[str, Any]], tmp_path: Path) -> None:
    """The third training of this process, and the same in a process of its own, to the last bit."""
    config, _ = done
    again = variant_config(config, "lm-only", 13).model_copy(update={"output_dir": tmp_path})
    apart(train_variant, again, True)
    alone = RunFolder.open(tmp_path / again.name)
    assert metrics(alone, "train") == metrics(variant(config, "lm-only"), "train")
    assert read_json(alone.heads_description)["weights_sha256"] == read_json(variant(config, "lm-only").heads_description)["weights_sha256"]
    assert alone.heads.read_bytes() == variant(config, "lm-only").heads.read_bytes()


@pytest.mark.slow
def test_started_again_it_trains_and_scores_nothing(done: tuple[RunConfig, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    config, result = done

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr(study, "train", never)
    monkeypatch.setattr("warmline.ablation.scores.FinishedRun.open", never)
    assert quiet_ablate(config, variants=VARIANTS) == result
    changed = config.model_copy(update={"training": config.training.model_copy(update={"weight_decay": 0.5})})
    with pytest.raises(WarmlineError, match=r"differs at `training\.weight_decay`; --overwrite removes it"):
        quiet_ablate(changed, variants=VARIANTS)
    with pytest.raises(AssertionError, match="done before"):  # other settings are measured anew
        ablate(config, settings=ScoreSettings(conversations=5, probe_rows=20), variants=VARIANTS, view=StudyView(quiet=True))


@pytest.mark.slow
def test_interrupted_and_cut_short(
    done: tuple[RunConfig, dict[str, Any]], tmp_path: Path, tiny_config: ConfigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first checkpoint of the full run, it resumes there, and ends with the weights that `done` took over."""
    config = quick(tiny_config, tmp_path, steps=3)
    monkeypatch.setattr("warmline.training.loop._Training._stopped_early", _interrupt_after_one)
    with pytest.raises(KeyboardInterrupt):
        quiet_ablate(config, variants=["lm-only"], max_steps=2)
    monkeypatch.undo()
    full = RunFolder(tmp_path / "tiny" / "ablation" / "tiny-full-seed13-2steps")
    assert full.steps() == [1]
    said: list[str] = []
    monkeypatch.setattr("warmline.training.view.View.say", lambda self, text: said.append(text))
    result = quiet_ablate(config, variants=["lm-only"], max_steps=2)
    assert said.count("resuming after step 1") == 1
    rows = {row["variant"]: row for row in done[1]["rows"]}
    assert (rows["full"]["taken_over_from"], rows["lm-only"]["taken_over_from"]) == ("tiny", None)
    for row in result["rows"]:
        assert row["taken_over_from"] is None
        assert row["weights_sha256"] == rows[row["variant"]]["weights_sha256"]
        assert row["metrics"] == rows[row["variant"]]["metrics"]
    assert (result["context"]["steps"], result["context"]["planned_steps"]) == (2, 3)
    assert result["notes"][0] == "2 of 3 planned steps: a demonstration of the machinery, too short to conclude from."


def _interrupt_after_one(self: Any) -> bool:
    if self.run.steps() == [1]:
        raise KeyboardInterrupt
    return False


@pytest.mark.slow
def test_scores_are_those_of_the_other_ways(done: tuple[RunConfig, dict[str, Any]]) -> None:
    """The heads' as `warmline evaluate` gives them, the losses as the validation of training does, over the whole test split."""
    config, _ = done
    folder = variant(config, "full")
    saved = folder.ablation_scores.read_text()
    scores = score_run(folder.path, ScoreSettings(probe_rows=20), is_full=False)
    write_text(folder.ablation_scores, saved)
    heads = evaluate(folder.path, replies=0, baselines=False)["heads"]
    for head in ("emotion", "strategy"):
        items = scores["heads"][head]
        told = heads["emotion"]["single_label_27"] if head == "emotion" else heads["strategy"]
        assert len(items["truth"]) == told["n"]
        assert accuracy_score(items["truth"], items["guess"]) == pytest.approx(told["accuracy"])


def test_language_items_are_the_validators(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, validation={"conversations": 5})
    model = build_model(config, CPU.device, CPU.dtype)
    perturb(model)
    model.eval()
    sources = encode_split("test", config.data, ChatTemplate(load_tokenizer(config.model)))
    validator = Validator(config, sources, CPU)
    draws = [draw for _, row in validator._rows for draw in row]
    items = language_items(Reader(model, CPU, 700), sources, draws)
    expected = validator(model, Accelerator(cpu=True))
    task, safety = items["task"], items["safety"]
    assert sum(task["nats"]) / sum(task["tokens"]) == pytest.approx(expected["lm"], rel=1e-4)
    assert sum(task["kl"]) / sum(task["tokens"]) == pytest.approx(expected["task_kl"], rel=1e-4)
    assert sum(safety["kl"]) / len(safety["kl"]) == pytest.approx(expected["safety"], rel=1e-4)
    fresh = build_model(config, CPU.device, CPU.dtype).eval()
    untuned = language_items(Reader(fresh, CPU, 700), sources, draws)
    assert untuned["task"]["nats"] == pytest.approx(task["base_nats"], rel=1e-5)
    assert untuned["task"]["nats"] != pytest.approx(task["nats"], rel=1e-3)
    assert max(untuned["task"]["kl"]) == pytest.approx(0, abs=1e-4)


def test_another_training_is_not_taken_over(finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Each thing that could make the weights others must keep the main run's checkpoint from being used."""
    config = load_config(finished.config)
    main = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "tiny")))
    wanted = variant_config(config, "full", 13)
    assert same_training(main, wanted)
    assert not same_training(main, variant_config(config, "full", 14))
    assert not same_training(main, variant_config(config, "no-safety", 13))
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 13})})
    assert not same_training(main, variant_config(longer, "full", 13))
    for path, key, value in ((main.manifest, "dtype", "bfloat16"), (main.manifest, "ranks", 2), (main.manifest, "data_sha256", {}),
                             (main.plan, "rows_per_step", 5), (main.plan, "steps", 13)):  # stopped early  # fmt: skip
        saved = read_json(path)
        write_json(path, {**saved, key: value})
        assert not same_training(main, wanted)
        write_json(path, saved)
    assert same_training(main, wanted)
    main.heads_description.unlink()
    assert not same_training(main, wanted)


def test_a_process_apart_hands_errors_on(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="not a run folder"):
        apart(RunFolder.open, tmp_path)
    with pytest.raises(WarmlineError, match="was killed"):
        apart(os._exit, 9)


def test_refuses_several_processes(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(WarmlineError, match="ablate runs in one process"):
        quiet_ablate(tiny_config(tmp_path))


@pytest.mark.slow
def test_other_data_since_then_is_refused(done: tuple[RunConfig, dict[str, Any]], tmp_path: Path) -> None:
    config, _ = done
    copied = config.model_copy(update={"output_dir": tmp_path})
    shutil.copytree(config.output_dir / config.name, tmp_path / config.name)
    for name in ("full", "lm-only"):
        folder = variant(copied, name)
        write_text(folder.config, dump_config(variant_config(copied, name, 13)))
        write_json(folder.manifest, {**read_json(folder.manifest), "data_sha256": {"esconv/ESConv.json": "0"}})
    with pytest.raises(WarmlineError, match="was trained on other data"):
        quiet_ablate(copied, variants=["lm-only"])


@pytest.mark.slow
def test_variants_run_apart_are_found_done(
    done: tuple[RunConfig, dict[str, Any]], tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, as several processes would, and then together: the same numbers, and nothing is trained or scored twice."""
    config = quick(tiny_config, tmp_path)
    quiet_train(config)
    for name in ("full", *VARIANTS):
        path = study.run_variant(config, name, 13, FEW, StudyView(quiet=True))
        assert path == variant(config, name).path
        assert not variant(config, name).checkpoints.exists()
    monkeypatch.setattr(study, "_alone_on_a_gpu", lambda function, *_: pytest.fail(f"{function.__name__} again"))
    result = quiet_ablate(config, variants=VARIANTS)
    assert [row["metrics"] for row in result["rows"]] == [row["metrics"] for row in done[1]["rows"]]
