"""A checkpoint in which anything was changed is refused with one line, or what was changed is nothing that is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ConfigFactory
from tests.tools import CPU, quiet_train
from warmline.config import RunConfig
from warmline.errors import WarmlineError
from warmline.files import sha256_of
from warmline.model.artifacts import build_model, weights_hash
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder
from warmline.training.checkpoint import collect_state, restore_checkpoint, save_checkpoint
from warmline.training.optimizer import Optimizer

FILES = ("state.safetensors", "state.json", "checksums.json")
many = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Whole:
    """A finished run of four steps with checkpoints at 2 and 4, and something to load them into."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.run = config, quiet_train(config)
        self.model: MultiTaskModel = build_model(config, CPU.device, CPU.dtype)

    def restored(self, run: RunFolder) -> dict[str, bytes] | str:
        """All that step 4 restores, or the line that refuses it."""
        optimizer = Optimizer(self.model, self.config.training)
        try:
            progress = restore_checkpoint(run, 4, self.model, optimizer)
        except WarmlineError as error:
            return str(error)
        tensors = {
            name: tensor.cpu().contiguous().view(torch.uint8)
            for name, tensor in collect_state(self.model, optimizer).tensors.items()
            if tensor.ndim
        }
        return {**{name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, "progress": repr(progress).encode()}


@pytest.fixture(scope="module")
def whole(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tiny_config(tmp_path_factory.mktemp("whole"), validation={"every": 2, "conversations": 2}, checkpoint={"every": 2}))


@pytest.fixture(scope="module")
def other(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that differs in its seed alone."""
    return quiet_train(
        tiny_config(tmp_path_factory.mktemp("other"), seed=14, validation={"every": 2, "conversations": 2}, checkpoint={"every": 2})
    )


def damaged(whole: Whole, tmp_path: Path, damage: Callable[[Path], object]) -> dict[str, bytes] | str:
    """What is restored from a copy of the run whose checkpoint of step 4 was damaged."""
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    run = RunFolder(tmp_path / "copy")
    shutil.copytree(whole.run.checkpoints, run.checkpoints)
    shutil.copy(whole.run.manifest, run.manifest)
    damage(run.checkpoint(4))
    found = whole.restored(run)
    if isinstance(found, str):
        assert found.splitlines() == [found]
        assert found.startswith(f"{run.checkpoint(4)}: damaged checkpoint (")
    return found


@many
@given(file=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit(file: str, place: float, bit: int, whole: Whole, tmp_path: Path) -> None:
    def flip(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        (folder / file).write_bytes(content)

    found = damaged(whole, tmp_path, flip)
    assert isinstance(found, str), "a flipped bit was read"
    assert file in found or "checksums.json" in found or "another run" in found


@many
@given(file=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=8))
def test_cut_off_or_overwritten(file: str, place: float, more: bytes, whole: Whole, tmp_path: Path) -> None:
    def cut(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(place * len(content))] + more)

    found = damaged(whole, tmp_path, cut)
    assert isinstance(found, str) or found == damaged(whole, tmp_path, lambda _: None)


@settings(many, max_examples=60)
@given(
    files=st.sets(st.sampled_from(FILES), min_size=1), source=st.sampled_from(["gone", "step 2", "other run", "folder", "list", "nested"])
)
def test_files_gone_or_swapped(files: set[str], source: str, whole: Whole, other: RunFolder, tmp_path: Path) -> None:
    def swap(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()
            if source == "step 2":
                shutil.copy(whole.run.checkpoint(2) / file, folder / file)
            elif source == "other run":
                shutil.copy(other.checkpoint(4) / file, folder / file)
            elif source == "folder":
                (folder / file).mkdir()
            elif source != "gone":
                (folder / file).write_text("[]" if source == "list" else "[" * 100_000)

    assert isinstance(damaged(whole, tmp_path, swap), str)


@settings(many, max_examples=60)
@given(
    content=st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda below: (
            st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["progress", "optimizer", "step", "0", "-1"]), below, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_numbers_of_another_shape_with_the_right_checksum(content: object, whole: Whole, tmp_path: Path) -> None:
    """Whoever computes checksums can write anything; it is refused as what does not fit."""

    def forge(folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps(content))
        checksums = json.loads((folder / "checksums.json").read_text())
        checksums["sha256"]["state.json"] = sha256_of(folder / "state.json")
        (folder / "checksums.json").write_text(json.dumps(checksums))

    assert isinstance(damaged(whole, tmp_path, forge), str)


def test_a_whole_checkpoint_of_a_larger_model_with_the_right_checksums(whole: Whole, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    larger = tiny_config(tmp_path, lora={"r": 8})
    model = build_model(larger, CPU.device, CPU.dtype)
    optimizer = Optimizer(whole.model, whole.config.training)
    progress = restore_checkpoint(whole.run, 4, whole.model, optimizer)
    run = RunFolder(tmp_path / "copy")
    run.create()
    shutil.copy(whole.run.manifest, run.manifest)
    save_checkpoint(run, collect_state(model, Optimizer(model, larger.training)), progress, keep=2)
    with pytest.raises(WarmlineError, match="the checkpoint is of another model or adapter"):
        restore_checkpoint(run, 4, whole.model, optimizer)


@pytest.mark.slow
def test_what_was_named_is_removed_and_the_run_ends_as_it_would_have(whole: Whole, tmp_path: Path) -> None:
    config = whole.config.model_copy(update={"output_dir": tmp_path})
    run = RunFolder(Path(shutil.copytree(whole.run.path, tmp_path / config.name)))
    run.config.write_text(run.config.read_text().replace(str(whole.config.output_dir), str(tmp_path)))
    path = run.checkpoint(4) / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    run.heads_description.unlink()
    with pytest.raises(WarmlineError, match="remove it to resume from the one before, step 2"):
        quiet_train(config, resume=True)
    shutil.rmtree(run.checkpoint(4))
    assert weights_hash(quiet_train(config, resume=True), config) == weights_hash(whole.run, whole.config)
