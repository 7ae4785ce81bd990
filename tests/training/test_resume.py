"""A run goes on only as it began: same data, base, processes, precision; the manifest keeps the whole story."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ConfigFactory
from tests.tools import quiet_train, write_architecture
from warmline.config import RunConfig
from warmline.errors import WarmlineError
from warmline.files import sha256_of
from warmline.model.description import weights_hash
from warmline.runs import RunFolder, read_json, write_json
from warmline.sources.files import sample_dir
from warmline.training.loop import train
from warmline.training.view import View


class Told(View):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def config(tiny_config: ConfigFactory, tmp_path: Path) -> RunConfig:
    """Of a run on a copy of the sample data, with a base of its own."""
    shutil.copytree(sample_dir(), tmp_path / "data")
    base = {"name": str(write_architecture(tmp_path / "base"))}
    steps = {"training": {"max_steps": 4}, "validation": {"every": 2, "conversations": 2}, "checkpoint": {"every": 2}}
    return tiny_config(tmp_path / "runs", model=base, data={"dir": str(tmp_path / "data")}, **steps)


@pytest.fixture
def killed(config: RunConfig) -> RunFolder:
    """That run, as it stood after the checkpoint of step 2."""
    run = quiet_train(config)
    shutil.rmtree(run.checkpoint(4))
    run.heads_description.unlink()
    return run


def refusal(config: RunConfig, run: RunFolder) -> str:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(WarmlineError) as caught:
        quiet_train(config, resume=True)
    assert {path: path.read_bytes() for path in before} == before
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("edit", ["fewer rows", "other labels"])
def test_edited_data_are_refused(edit: str, config: RunConfig, killed: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "data" / "goemotions" / "train.tsv"
    whole = path.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    rows = [line.split("\t") for line in lines]
    changed = lines[: len(lines) // 2] if edit == "fewer rows" else [f"{text}\t3\t{rest}" for text, _, rest in rows]
    path.write_text("".join(changed), encoding="utf-8")
    assert refusal(config, killed) == (
        f"{killed.path}: since this run began: the data file goemotions/train.tsv has changed; put back what was, or train anew under "
        "another name (--set name=...)"
    )
    path.write_text(whole, encoding="utf-8")
    assert len(read_json(quiet_train(config, resume=True).manifest)["resumed"]) == 1


def test_an_edited_base_is_refused(config: RunConfig, killed: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    assert "since this run began: the base's file tokenizer_config.json has changed" in refusal(config, killed)


@pytest.mark.parametrize(
    ("key", "then", "says"),
    [("ranks", 2, "processes: 2 then, 1 now"), ("dtype", "bfloat16", "precision: bfloat16 then, float32 now")],
)
def test_other_processes_or_precision_are_refused(key: str, then: Any, says: str, config: RunConfig, killed: RunFolder) -> None:
    write_json(killed.manifest, {**read_json(killed.manifest), key: then})
    assert f"since this run began: {says}" in refusal(config, killed)


def test_the_backend_is_the_one_it_began_with(config: RunConfig, killed: RunFolder) -> None:
    """`auto` would take another one where this machine, or its free memory, is another; what cannot run here says so."""
    write_json(killed.manifest, {**read_json(killed.manifest), "backend": "unsloth"})
    assert "model.backend: unsloth" in refusal(config, killed)


def test_without_the_best_checkpoint_it_goes_on(config: RunConfig, killed: RunFolder) -> None:
    """It may have gone with a damaged one; the best of those to come is taken."""
    step = killed.steps()[-1]
    numbers = killed.checkpoint(step) / "state.json"
    content = read_json(numbers)
    content["progress"]["best_step"] = step - 1
    write_json(numbers, content)
    sums = killed.checkpoint(step) / "checksums.json"
    listed = read_json(sums)
    write_json(sums, {**listed, "sha256": {**listed["sha256"], "state.json": sha256_of(numbers)}})
    assert quiet_train(config, resume=True).heads_description.is_file()


@pytest.mark.parametrize("content", [None, "[]", "{", '{"data_sha256": 5}'])
def test_checkpoints_without_a_manifest_are_refused(content: str | None, config: RunConfig, killed: RunFolder) -> None:
    killed.manifest.unlink()
    if content is not None:
        killed.manifest.write_text(content)
    message = refusal(config, killed)
    assert "manifest.json" in message
    assert "nobody knows what these checkpoints were trained on" in message


def test_another_version_is_said_and_written_down(config: RunConfig, killed: RunFolder) -> None:
    begun = read_json(killed.manifest)
    write_json(killed.manifest, {**begun, "versions": {**begun["versions"], "transformers": "5.0"}, "threads": 99})
    view = Told()
    run = train(config, resume=True, view=view)
    line = next(line for line in view.lines if line.startswith("not as the run began"))
    assert f"transformers 5.0 then, {begun['versions']['transformers']} now" in line
    assert "threads 99 then, " in line
    told = read_json(run.manifest)
    assert (told["started"], told["versions"]["transformers"], told["threads"], told["id"]) == (begun["started"], "5.0", 99, begun["id"])
    assert [(entry["after_step"], entry["versions"]) for entry in told["resumed"]] == [(2, begun["versions"])]


def test_what_has_no_checkpoint_yet_begins_anew_with_a_manifest_of_its_own(config: RunConfig, killed: RunFolder, tmp_path: Path) -> None:
    begun = read_json(killed.manifest)
    shutil.rmtree(killed.checkpoints)
    path = tmp_path / "data" / "goemotions" / "train.tsv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    told = read_json(quiet_train(config, resume=True).manifest)
    assert told["id"] != begun["id"]
    assert told["data_sha256"]["goemotions/train.tsv"] != begun["data_sha256"]["goemotions/train.tsv"]
    assert "resumed" not in told


def test_the_manifest_is_there_before_the_first_step(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("warmline.training.loop.self_check", stop)
    with pytest.raises(KeyboardInterrupt):
        quiet_train(config)
    told = read_json(config.output_dir / config.name / "manifest.json")
    assert {"tokenizer.json", "config.json"} <= told["base_sha256"].keys()


def test_a_base_of_many_gigabytes_is_sampled(tmp_path: Path) -> None:
    from warmline.files import sampled_sha256

    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    before = sampled_sha256(path)
    with path.open("r+b") as file:
        file.seek(64 * 2**20 * 80)
        file.write(b"x")
    assert sampled_sha256(path) != before
    with path.open("r+b") as file:
        file.truncate(10 * 2**30 - 1)
    assert len({before, sampled_sha256(path)}) == 2


def test_put_back_it_goes_on_to_the_bit(config: RunConfig, killed: RunFolder, tmp_path: Path) -> None:
    whole = quiet_train(config.model_copy(update={"name": "whole"}))
    resumed = quiet_train(config, resume=True)
    assert weights_hash(resumed, config) == weights_hash(whole, config)


def test_a_damaged_best_checkpoint_is_found_before_more_is_trained(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"learning_rate": 1e-2}, validation={"every": 2, "conversations": 2}, checkpoint={"every": 1})
    run = quiet_train(config)
    state = read_json(run.checkpoint(4) / "state.json")
    best = state["progress"]["best_step"]
    assert best in (2, 4)
    (run.checkpoint(best) / "state.json").write_text("{}")
    run.heads_description.unlink()
    later = "" if best == 4 else " and the later ones"
    assert (
        f"step-00000{best}: damaged checkpoint (state.json: its sha256 is not the one in checksums.json); remove it{later} to"
        in refusal(config, run)
    )
