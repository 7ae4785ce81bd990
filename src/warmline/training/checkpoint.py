"""All of a run's state after an optimiser step, in safetensors and JSON: nothing is ever unpickled.

The data order is a function of the sampler's counts, dropout a function of seed and step, the learning rate a function of the step; so
weights, optimiser state, the packer's state and a few numbers are the whole of it. A third file has the checksums of both and says whose
checkpoint it is, so that what a disk or a person changed is refused, never trained on.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from warmline.data.packing import PackerState
from warmline.errors import WarmlineError
from warmline.files import sha256_of
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder, parse_json, read_json, write_folder
from warmline.training.optimizer import Optimizer
from warmline.training.sharding import spread_like, whole

_TENSORS, _NUMBERS, _CHECKSUMS = "state.safetensors", "state.json", "checksums.json"


@dataclass
class Progress:
    """Where a run stands; the part of a checkpoint that is numbers.

    Attributes:
        step: Optimiser steps done.
        tokens: Tokens seen.
        drawn: Conversations seen of each source.
        packer: The packer's state.
        best_step: Step of the best validation so far.
        best_value: Its value of the named metric.
        validations_since_best: For the early stop.
        seconds: Time spent training, over all starts.
        scaler: The fp16 loss scaler's numbers; empty otherwise.
    """

    step: int
    tokens: int
    drawn: list[int]
    packer: PackerState
    best_step: int
    best_value: float
    validations_since_best: int
    seconds: float
    scaler: dict[str, Any]


class State(NamedTuple):
    """What a checkpoint holds beside `Progress`.

    Attributes:
        tensors: Of model and optimiser, by name.
        numbers: Of the optimiser, by parameter.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, dict[str, Any]]


def trainable_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """Every trained tensor by name: adapter (or whole model) and heads."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def collect_state(model: MultiTaskModel, optimizer: Optimizer) -> State:
    """Everything to save; where weights are spread over the ranks, all of them must ask.

    Args:
        model: The unwrapped model.
        optimizer: Of its weights.
    """
    tensors = {f"model.{name}": whole(tensor) for name, tensor in trainable_state(model).items()}
    tensors |= {f"master.{index}": tensor for index, tensor in enumerate(optimizer.masters())}
    numbers: dict[str, dict[str, Any]] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        # of each parameter as it lies there: bitsandbytes' own state_dict() nests the 8-bit tensors
        for key, value in optimizer.inner.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = whole(value)
            else:
                numbers.setdefault(str(index), {})[key] = value
    return State(tensors, numbers)


def save_checkpoint(run: RunFolder, state: State, progress: Progress, keep: int) -> None:
    """Write the checkpoint of `progress.step`, complete or not at all, then remove what is neither best nor among the newest.

    Args:
        run: Where.
        state: As from `collect_state`.
        progress: Numbers.
        keep: Newest checkpoints kept beside the best.
    """

    def fill(folder: Path) -> None:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}, folder / _TENSORS)
        content = {"progress": asdict(progress), "optimizer": state.numbers}
        (folder / _NUMBERS).write_text(json.dumps(content), encoding="utf-8")
        checksums = {"run_id": _run_id(run), "sha256": {name: sha256_of(folder / name) for name in (_TENSORS, _NUMBERS)}}
        (folder / _CHECKSUMS).write_text(json.dumps(checksums), encoding="utf-8")

    write_folder(run.checkpoint(progress.step), fill)
    for step in run.steps()[:-keep]:
        if step != progress.best_step:
            _remove(run.checkpoint(step))


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a crash half-way leaves nothing that looks complete."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def restore_checkpoint(run: RunFolder, step: int, model: MultiTaskModel, optimizer: Optimizer) -> Progress:
    """Load everything that `save_checkpoint` wrote.

    Raises:
        WarmlineError: the checkpoint is damaged or of another run, step or model.
    """
    tensors, content = _read(run, step)
    _load_weights(run.checkpoint(step), tensors, model)
    try:
        states: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in content["optimizer"].items()}
        progress = Progress(**content["progress"])
        for number, master in enumerate(optimizer.masters()):
            master.copy_(tensors[f"master.{number}"])
        parameters = _parameters(optimizer)
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                parameter = parameters[int(index)]
                states.setdefault(int(index), {})[key] = spread_like(tensor, parameter) if tensor.shape == parameter.shape else tensor
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise _damaged(run, step, f"does not fit this run: {_reason(error)}") from None
    optimizer.inner.load_state_dict({**optimizer.inner.state_dict(), "state": states})
    return progress


def restore_weights(run: RunFolder, step: int, model: MultiTaskModel) -> None:
    """Load only the trained tensors of a checkpoint.

    Raises:
        WarmlineError: the checkpoint is damaged or of another model.
    """
    _load_weights(run.checkpoint(step), _read(run, step)[0], model)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """What the optimiser updates, in the order by which a checkpoint numbers it."""
    return [parameter for group in optimizer.inner.param_groups for parameter in group["params"]]


def _read(run: RunFolder, step: int) -> tuple[dict[str, Tensor], Any]:
    verify_checkpoint(run, step)
    folder = run.checkpoint(step)
    try:
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(run, step, f"{_TENSORS}: {_reason(error)}") from None
    try:
        content = json.loads((folder / _NUMBERS).read_text(encoding="utf-8"))
        found = content["progress"]["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(run, step, f"{_NUMBERS}: {_reason(error)}") from None
    if found != step:
        raise _damaged(run, step, f"{_NUMBERS} is of step {found}")
    return tensors, content


def verify_checkpoint(run: RunFolder, step: int) -> None:
    """Check that a checkpoint's files are those that this run wrote.

    Raises:
        WarmlineError: they are not; names the file and what to remove.
    """
    folder = run.checkpoint(step)
    if not (folder / _CHECKSUMS).exists() and run.manifest.is_file() and _run_id(run) is None:
        raise WarmlineError(f"{folder}: an earlier warmline wrote it, without checksums; go on with that version, or train anew")
    try:
        said = parse_json((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        owner, expected = said["run_id"], {name: said["sha256"][name] for name in (_TENSORS, _NUMBERS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(run, step, f"{_CHECKSUMS}: {_reason(error)}") from None
    for name, digest in expected.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise _damaged(run, step, f"{name}: {_reason(error)}") from None
        if found != digest:
            raise _damaged(run, step, f"{name}: its sha256 is not the one in {_CHECKSUMS}")
    if owner != _run_id(run):
        raise _damaged(run, step, "another run wrote it")


def _run_id(run: RunFolder) -> Any:
    manifest = read_json(run.manifest) if run.manifest.is_file() else None
    return manifest.get("id") if isinstance(manifest, dict) else None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or repr(error)).lower()


def _damaged(run: RunFolder, step: int, reason: str) -> WarmlineError:
    earlier = [other for other in run.steps() if other < step]
    later = " and the later ones" if run.steps()[-1:] > [step] else ""
    then = f"resume from the one before, step {earlier[-1]}" if earlier else "resume from the beginning"
    return WarmlineError(f"{run.checkpoint(step)}: damaged checkpoint ({' '.join(reason.split())}); remove it{later} to {then}")


def _load_weights(folder: Path, tensors: dict[str, Tensor], model: MultiTaskModel) -> None:
    own = trainable_state(model)
    saved = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in saved.items()}:
        raise WarmlineError(f"{folder}: the checkpoint is of another model or adapter; resume with the configuration it was made with")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(spread_like(saved[name], tensor))
