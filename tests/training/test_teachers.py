"""What earlier runs say of the training rows: who teaches what, the mixed targets, the cache, and a run that learns from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import warmline
from tests.conftest import ConfigFactory
from tests.tools import CPU, ED, ESCONV, GOEMOTIONS, SAFETY
from warmline.config import RunConfig
from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import evaluate
from warmline.evaluation.validation import score_validation
from warmline.export.folder import Options, export
from warmline.model.artifacts import load_artifact
from warmline.model.losses import emotion_loss, strategy_loss
from warmline.runs import RunFolder, read_json, write_json
from warmline.training import teachers as module
from warmline.training.loop import train
from warmline.training.teachers import Teachers, teachers_of
from warmline.training.view import View

ROWS = [(Draw(ESCONV, 0), Draw(GOEMOTIONS, 5)), (Draw(ED, 1), Draw(GOEMOTIONS, 0), Draw(SAFETY, 0), Draw(ESCONV, 2))]


def learner(finished: RunFolder, make: ConfigFactory, tmp_path: Path, share: float = 0.7, **more: Any) -> RunConfig:
    teachers = {"teachers": [str(finished.path)], "share": share}
    return make(tmp_path, **{"data": {"row_tokens": 2048}, "distill": teachers, **more})


def logits_of(finished: RunFolder, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    _, model, _ = load_artifact(finished, CPU.device, CPU.dtype)
    with torch.no_grad():
        said = model.heads(model.states(batch), batch)
    return said.emotion, said.strategy


def test_targets_are_a_mean_of_label_and_teacher(
    finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]
) -> None:
    config, batch = learner(finished, tiny_config, tmp_path), collate(sources, ROWS)
    mixed = Teachers(config, sources, CPU, print).mix(batch)
    emotion, strategy = logits_of(finished, batch)
    labels = batch.emotion_targets[:, :27]
    expected = 0.3 * labels / labels.sum(dim=1, keepdim=True) + 0.7 * emotion.softmax(dim=1)
    torch.testing.assert_close(mixed.emotion_targets[:, :27], expected, rtol=1e-4, atol=1e-6)
    assert not mixed.emotion_targets[:, 27].any()
    torch.testing.assert_close(mixed.strategy_targets, 0.3 * batch.strategy_targets + 0.7 * strategy.softmax(dim=1), rtol=1e-4, atol=1e-6)
    unchanged = {
        name: getattr(mixed, name) is getattr(batch, name) for name in vars(batch) if not name.endswith(("ion_targets", "egy_targets"))
    }
    assert all(unchanged.values())


def test_a_student_who_says_what_the_teacher_says_has_nothing_to_learn(
    finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]
) -> None:
    batch = collate(sources, ROWS)
    mixed = Teachers(learner(finished, tiny_config, tmp_path, share=1.0), sources, CPU, print).mix(batch)
    said = [logits.requires_grad_() for logits in logits_of(finished, batch)]
    loss = emotion_loss(said[0], mixed.emotion_targets) + strategy_loss(said[1], mixed.strategy_targets)
    for gradient in torch.autograd.grad(loss, said):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5)


def test_without_teachers_the_batch_stays(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    batch = collate(sources, ROWS)
    assert Teachers(tiny_config(tmp_path), sources, CPU, print).mix(batch) is batch


def test_opinions_are_asked_for_once(
    finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMLINE_CACHE", str(tmp_path / "cache"))
    config, asked = learner(finished, tiny_config, tmp_path), list[str]()
    first = Teachers(config, sources, CPU, asked.append)
    assert len(asked) == 2  # one for each head
    monkeypatch.setattr(module, "load_artifact", lambda *_: pytest.fail("loaded again"))
    again = Teachers(config, sources, CPU, asked.append)
    assert len(asked) == 2
    batch = collate(sources, ROWS)
    assert torch.equal(first.mix(batch).emotion_targets, again.mix(batch).emotion_targets)
    files = list((tmp_path / "cache").iterdir())
    assert files
    assert {path.suffix for path in files} == {".npy", ".safetensors"}


def test_two_teachers_speak_with_one_voice(
    finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = learner(finished, tiny_config, tmp_path, share=1.0)
    twice = config.model_copy(update={"distill": config.distill.model_copy(update={"teachers": (Path("a"), Path("b"))})})
    given = {Path("a"): 1.0, Path("b"): 3.0}
    monkeypatch.setattr(module, "teachers_of", lambda _: {"strategy": [Path("a"), Path("b")]})
    monkeypatch.setattr(
        module,
        "_opinions",
        lambda path, *_: [torch.full((len(one.strategy), 8), given[path]).numpy() for one in sources if len(one.strategy)],
    )
    batch = collate(sources, ROWS)
    mixed = Teachers(twice, sources, CPU, print).mix(batch)
    assert torch.equal(mixed.strategy_targets, torch.full_like(batch.strategy_targets, 2.0))
    assert mixed.emotion_targets is batch.emotion_targets  # nobody taught it


def test_28_labels_are_each_mixed(finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  sources: list[EncodedSource]) -> None:  # fmt: skip
    data = {"row_tokens": 2048, "sources": {"goemotions": {"labels": 28}}}
    config = learner(finished, tiny_config, tmp_path, share=0.5, data=data)
    monkeypatch.setattr(module, "teachers_of", lambda _: {"emotion": [Path("a")]})
    monkeypatch.setattr(
        module, "_opinions", lambda *_: [torch.full((len(one.emotion), 28), 0.2).numpy() for one in sources if len(one.emotion)]
    )
    batch = collate(sources, ROWS)
    batch = replace(batch, emotion_targets=batch.emotion_targets.index_fill(1, torch.tensor([27]), 1.0))
    torch.testing.assert_close(Teachers(config, sources, CPU, print).mix(batch).emotion_targets, 0.5 * batch.emotion_targets + 0.1)


def test_27_emotions_learn_from_28_labels(finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         sources: list[EncodedSource]) -> None:  # fmt: skip
    """Of its probabilities those of emotions, as shares; neutral is nobody's target."""
    config, batch = learner(finished, tiny_config, tmp_path, share=1), collate(sources, ROWS)
    said = torch.rand(28, generator=torch.Generator().manual_seed(0))
    given = {Path("a"): said, Path("b"): torch.full((27,), 1 / 27)}
    monkeypatch.setattr(module, "teachers_of", lambda _: {"emotion": list(given)})
    monkeypatch.setattr(
        module, "_opinions", lambda path, *_: [given[path].repeat(len(one.emotion), 1).numpy() for one in sources if len(one.emotion)]
    )
    mixed = Teachers(config, sources, CPU, print).mix(batch).emotion_targets
    torch.testing.assert_close(mixed[:, :27], ((said[:27] / said[:27].sum() + 1 / 27) / 2).expand(len(mixed), -1))
    assert not mixed[:, 27].any()


def test_a_bidirectional_teacher_teaches_and_does_nothing_else(
    finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]
) -> None:
    off = {name: {"enabled": False} for name in ("empathetic_dialogues", "esconv", "safety")}
    model = {"bidirectional": True, **tiny_config(tmp_path).model.model_dump(include={"name", "random_init_seed"})}
    teacher = train(tiny_config(tmp_path, name="teacher", model=model, data={"row_tokens": 2048, "sources": off}), view=View(quiet=True))
    mixed = Teachers(learner(teacher, tiny_config, tmp_path), sources, CPU, print).mix(collate(sources, ROWS))
    assert not torch.equal(mixed.emotion_targets, collate(sources, ROWS).emotion_targets)
    scores = score_validation(teacher.path)["scores"]
    assert scores["emotion_accuracy"] is not None
    for use in (
        lambda: evaluate(teacher.path),
        lambda: warmline.load(teacher.path),
        lambda: export(teacher.path, tmp_path / "out", Options(), print),
    ):
        with pytest.raises(WarmlineError, match="teacher: a bidirectional run is a teacher"):
            use()
    with pytest.raises(WarmlineError, match=r"model\.bidirectional: empathetic_dialogues has replies"):
        tiny_config(tmp_path, model=model)


def test_who_teaches_what(finished_copy: RunFolder, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = learner(finished_copy, tiny_config, tmp_path)
    assert teachers_of(config) == {"emotion": [finished_copy.path], "strategy": [finished_copy.path]}
    text = finished_copy.config.read_text()
    finished_copy.config.write_text(text.replace("  strategy: 0.2\n", "  strategy: 0.0\n", 1))
    assert teachers_of(config) == {"emotion": [finished_copy.path]}


def test_a_teacher_of_nothing_or_twice(finished_copy: RunFolder, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Names that would do nothing, or count double, in a list where others teach."""
    path, text = finished_copy.path, finished_copy.config.read_text()
    twice = tiny_config(tmp_path, data={"row_tokens": 2048}, distill={"teachers": [str(path), str(path)]})
    with pytest.raises(WarmlineError, match=r"^distill\.teachers: .* stands twice"):
        teachers_of(twice)
    finished_copy.config.write_text(text.replace("  strategy: 0.2\n", "  strategy: 0.0\n", 1))
    with pytest.raises(WarmlineError, match=r"^distill\.teachers: .* trained the emotion head alone, which this run does not"):
        teachers_of(learner(finished_copy, tiny_config, tmp_path, loss={"emotion": 0.0}))


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_made(
    finished_copy: RunFolder, tiny_config: ConfigFactory, tmp_path: Path
) -> None:
    config = learner(finished_copy, tiny_config, tmp_path / "runs", data={"row_tokens": 2048, "sources": {"goemotions": {"labels": 28}}})
    with pytest.raises(WarmlineError, match=r"distill\.teachers: .*copy has 27 emotion labels, this run 28"):
        train(config, view=View(quiet=True))
    config = learner(finished_copy, tiny_config, tmp_path / "runs")
    manifest = read_json(finished_copy.manifest)
    write_json(finished_copy.manifest, {**manifest, "data_sha256": {**manifest["data_sha256"], "goemotions/train.tsv": "0"}})
    with pytest.raises(WarmlineError, match=r"copy was trained on another goemotions/train\.tsv"):
        train(config, view=View(quiet=True))
    finished_copy.heads_description.unlink()
    with pytest.raises(WarmlineError, match=r"distill\.teachers: .* has not finished"):
        train(config, view=View(quiet=True))
    assert not (tmp_path / "runs").exists()


def test_a_run_learns_from_its_teacher(finished: RunFolder, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    taught = train(learner(finished, tiny_config, tmp_path, name="taught"), view=View(quiet=True))
    alone = train(learner(finished, tiny_config, tmp_path, name="alone", share=0.0), view=View(quiet=True))
    hashes = read_json(taught.manifest)["teachers_sha256"]
    assert hashes == {str(finished.path): read_json(finished.heads_description)["heads_sha256"]}
    assert taught.heads.read_bytes() != alone.heads.read_bytes()
    manifest = read_json(taught.manifest)
    write_json(taught.manifest, {**manifest, "teachers_sha256": {str(finished.path): "of another"}})
    with pytest.raises(
        WarmlineError, match=r"since this run began: the teacher .* has changed; put back what was, or train anew under another name"
    ):
        train(learner(finished, tiny_config, tmp_path, name="taught"), resume=True, view=View(quiet=True))
