"""Heads that train in steps beside heads that are fitted, without training the model again: new strategy heads on a finished run's states.

    python scripts/new_strategy_heads.py results/adapter --data-dir DATA --out results/new_strategy_heads.json

The states stay as they are. Some new heads learn from all training replies in `--steps` steps, at the run's rate and in its number of
passes; others are fitted as `heads.strategy.refit` does (`warmline.training.linear`), at some strengths, or as `heads.strategy.ensemble`
does (`warmline.training.ensemble`). All learn from labels alone and are scored on the validation split.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from warmline.config import RunConfig, load_config
from warmline.conversation import Split
from warmline.data.earlier import annotated, earlier_features
from warmline.data.encoding import EncodedSource, encode_source
from warmline.tasks.strategy import STRATEGIES
from warmline.data.packing import all_draws
from warmline.data.enabled import data_checksums, enabled_sources
from warmline.errors import WarmlineError
from warmline.evaluation.probe import read_states
from warmline.metrics.statistics import macro_f1, point
from warmline.model.artifacts import load_artifact
from warmline.model.description import read_description
from warmline.model.heads import StrategyHead
from warmline.model.losses import class_weights
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder, write_json
from warmline.model.device import Place, choose_place
from warmline.training.ensemble import fit_ensemble
from warmline.training.linear import fit_linear
from warmline.training.refit import EARLIER_STRENGTH
from warmline.training.schedule import rate_factor

SEEDS = (13, 14, 15)
WEIGHTS = (0.0, 0.25, 0.5)
STRENGTHS = (3e-5, 1e-4, 2e-4, 4e-4)
UNITS, MEMBERS = 1024, 8


class Replies(NamedTuple):
    """Every reply of a split.

    Attributes:
        states: [replies, hidden], where a strategy head reads.
        earlier: [replies, FEATURES], as annotated.
        labels: [replies], places in STRATEGIES.
        conversations: Numbers of replies.
    """

    states: Tensor
    earlier: Tensor
    labels: Tensor
    conversations: list[int]


def main(
    run: Annotated[Path, typer.Argument(help="A finished run, or its export.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    steps: Annotated[int, typer.Option(help="Of a head's training; the run's own number makes it comparable.")] = 386,
    base: Annotated[str | None, typer.Option(help="Where the base is, if not under the run's own name for it.")] = None,
    data_dir: Annotated[str | None, typer.Option("--data-dir", help="Folder with the official files.")] = None,
) -> None:
    """Train and score them; print them side by side."""
    folder = RunFolder.open(run)
    config, trained, splits = _read(folder, base, data_dir)
    own = {"how": "as the run trained it", "class_weights": config.heads.strategy.class_weights, "mean": _score(trained, splits["valid"])}
    results = [own]
    for exponent in WEIGHTS:
        scores = [_score(_train(config, splits["train"], steps, exponent, seed), splits["valid"]) for seed in SEEDS]
        results.append(_of_seeds("steps", exponent, scores))
        scores = [_score(_ensemble(config, splits["train"], exponent, seed), splits["valid"]) for seed in SEEDS]
        results.append(_of_seeds(f"ensemble of {MEMBERS}", exponent, scores))
        for strength in STRENGTHS:
            score = _score(_refit(config, splits["train"], exponent, strength), splits["valid"])
            results.append({"how": f"refit at {strength:g}", "class_weights": exponent, "mean": score})
    described = read_description(folder)
    context = {name: described[name] for name in ("run", "step", "base_model", "weights_sha256")}
    write_json(out, {"context": {**context, "steps": steps, "split": "valid", "torch": torch.__version__,
                                 "data_sha256": data_checksums(config.data)}, "heads": results})  # fmt: skip
    _show(results)


def _read(folder: RunFolder, base: str | None, data_dir: str | None) -> tuple[RunConfig, StrategyHead, dict[Split, Replies]]:
    own = load_config(folder.config, data_dir=data_dir)
    place = choose_place(own.training)
    _, model, template = load_artifact(folder, place.device, place.dtype, base=base)
    [source] = [one for one in enabled_sources(own.data) if one.name == "esconv"]
    splits: tuple[Split, ...] = ("train", "valid")
    found = {split: _replies(model, encode_source(source, split, own.data, template), place, own.pass_tokens) for split in splits}
    return own, model.heads.strategy.cpu().eval(), found


def _replies(model: MultiTaskModel, source: EncodedSource, place: Place, pass_tokens: int) -> Replies:
    found = read_states(model, [source], all_draws([source]), "strategy", place, pass_tokens)
    earlier = torch.cat([earlier_features(annotated(source[at].strategy[:, 1])) for at in range(len(source))])
    conversations = np.diff(source.strategy_ends, prepend=0).tolist()
    return Replies(torch.from_numpy(found.states), earlier, torch.from_numpy(found.labels), conversations)


def _train(config: RunConfig, replies: Replies, steps: int, exponent: float, seed: int) -> StrategyHead:
    torch.manual_seed(seed)
    head, counts = _head(config, replies).train(), _counts(replies, exponent)
    training, passes = config.training, config.training.epochs
    optimizer = torch.optim.AdamW(head.parameters(), training.head_learning_rate, weight_decay=training.weight_decay)
    order = torch.cat([torch.randperm(len(replies.labels)) for _ in range(round(passes))])
    for step, rows in enumerate(order.tensor_split(steps)):
        for group in optimizer.param_groups:
            group["lr"] = training.head_learning_rate * rate_factor(step, steps, training)
        loss = nn.functional.cross_entropy(head.read(replies.states[rows], replies.earlier[rows]), replies.labels[rows], counts)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return head.eval()


def _ensemble(config: RunConfig, replies: Replies, exponent: float, seed: int) -> StrategyHead:
    head, counts = _head(config, replies, UNITS).eval(), _counts(replies, exponent)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, replies.labels[rows], counts, reduction="sum")

    fit_ensemble(head.first_layers, head.output, [replies.states.clone(), replies.earlier.clone()], loss, MEMBERS, seed)
    return head


def _refit(config: RunConfig, replies: Replies, exponent: float, strength: float) -> StrategyHead:
    head = _head(config, replies).eval()
    loss = partial(nn.functional.cross_entropy, target=replies.labels, weight=_counts(replies, exponent), reduction="sum")
    fit_linear(head.first_layers, [replies.states.clone(), replies.earlier.clone()], [strength, EARLIER_STRENGTH], loss)
    return head


def _of_seeds(how: str, exponent: float, scores: list[dict[str, float]]) -> dict[str, Any]:
    mean = {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
    return {"how": how, "class_weights": exponent, "mean": mean, "seeds": dict(zip(SEEDS, scores, strict=True))}


def _head(config: RunConfig, replies: Replies, units: int | None = None) -> StrategyHead:
    settings = config.heads.strategy.model_copy(update={"earlier_strategies": True, "hidden_size": units})
    return StrategyHead(replies.states.shape[1], config.heads.model_copy(update={"strategy": settings}))


def _counts(replies: Replies, exponent: float) -> Tensor | None:
    weights = class_weights(torch.bincount(replies.labels, minlength=len(STRATEGIES)).tolist(), exponent)
    return None if weights is None else torch.tensor(weights)


@torch.no_grad()
def _score(head: StrategyHead, replies: Replies) -> dict[str, float]:
    own = torch.cat([head.by_own_choices(states) for states in replies.states.split(replies.conversations)])
    said = {"annotated": head.read(replies.states, replies.earlier), "own": own}
    scores = {}
    for name, logits in said.items():
        guess, truth = logits.argmax(dim=1).numpy(), replies.labels.numpy()
        scores[f"{name}_accuracy"] = float((guess == truth).mean())
        scores[f"{name}_macro_f1"] = point(macro_f1(truth, guess, len(STRATEGIES)), len(truth)) or 0.0
        scores[f"{name}_loss"] = float(nn.functional.cross_entropy(logits, replies.labels))
    return scores


def _show(results: list[dict[str, Any]]) -> None:
    names = [f"{kind}_{score}" for kind in ("annotated", "own") for score in ("accuracy", "macro_f1", "loss")]
    table = Table("how", "class weights", *names, title="validation, mean of the seeds", title_justify="left", box=None)
    for one in results:
        table.add_row(one["how"], f"{one['class_weights']:g}", *(f"{one['mean'][name]:.4f}" for name in names))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    try:
        typer.run(main)
    except WarmlineError as error:
        sys.exit(f"new_strategy_heads: {error}")
