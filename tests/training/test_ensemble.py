"""Ensembles on finished states: what a linear head cannot learn, inputs of any scale, and from a run that is taken up again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from tests.conftest import ConfigFactory
from tests.tools import CPU, quiet_train
from warmline.data.encoding import EncodedSource
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model, load_artifact
from warmline.runs import RunFolder
from warmline.training.curves import read_metrics
from warmline.training.ensemble import fit_ensemble
from warmline.training.refit import refit_heads

HEADS = {
    "emotion": {"pooling": "attention", "hidden_size": 16, "ensemble": 2},
    "strategy": {"earlier_strategies": True, "hidden_size": 16, "ensemble": 4},
}


def made(rows: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Whether two signs are the same, one in each input, in every column and with noise; no sum of the two says so."""
    noise = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (2, rows, 1), generator=noise) * 2.0 - 1
    inputs = [sign + torch.randn(rows, width, generator=noise) for sign, width in zip(signs, (12, 6), strict=True)]
    return inputs, (signs[0] == signs[1])[:, 0].long()


def fitted(inputs: list[Tensor], labels: Tensor, members: int = 4, seed: int = 13) -> Callable[[list[Tensor]], Tensor]:
    first, output = [nn.Linear(one.shape[1], 64) for one in inputs], nn.Linear(64, 2)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits, labels[rows], reduction="sum")

    fit_ensemble(first, output, [one.clone() for one in inputs], loss, members, seed)

    def head(given: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return output(gelu(sum(layer(one) for layer, one in zip(first, given, strict=True))))

    return head


def test_it_learns_what_no_sum_says() -> None:
    head = fitted(*made(4000, 1))
    inputs, labels = made(1000, 2)
    assert float((head(inputs).argmax(dim=1) == labels).float().mean()) > 0.9


def test_the_scale_of_inputs_does_not_matter() -> None:
    inputs, labels = made(500, 1)
    one, other = fitted(inputs, labels), fitted([3 * inputs[0] + 5, inputs[1] / 7 - 1], labels)
    torch.testing.assert_close(one(inputs), other([3 * inputs[0] + 5, inputs[1] / 7 - 1]), atol=1e-3, rtol=1e-3)


def test_the_seed_decides() -> None:
    inputs, labels = made(500, 1)
    one, same, other = (fitted(inputs, labels, seed=seed)(inputs) for seed in (13, 13, 14))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_heads_with_a_hidden_layer_are_fitted_and_nothing_else(
    tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]
) -> None:
    config = tiny_config(tmp_path, heads=HEADS)
    model = build_model(config, CPU.device, CPU.dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert refit_heads(model, sources, lambda batch: batch, CPU, config, print) == ["emotion", "strategy"]
    assert torch.equal(torch.get_rng_state(), random)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    layers = {f"heads.{name}.layers.{at}.{part}" for name in HEADS for at in (1, 4) for part in ("weight", "bias")}
    assert changed == {*layers, "heads.strategy.earlier.weight"}


def test_a_run_ends_with_them_and_can_be_taken_up_again(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run: RunFolder = quiet_train(tiny_config(tmp_path, heads=HEADS))
    assert [line["step"] for line in read_metrics(run) if line.get("refit") == ["emotion", "strategy"]] == [4]
    heads = run.heads.read_bytes()
    _, model, _ = load_artifact(run, CPU.device, CPU.dtype)
    assert model.heads.strategy.output.in_features == 16
    assert quiet_train(tiny_config(tmp_path, heads=HEADS), resume=True).heads.read_bytes() == heads


@pytest.mark.parametrize("hidden", [None, 15])
def test_hidden_units_are_shared_out(hidden: int | None, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"heads\.strategy.*a multiple of it"):
        tiny_config(tmp_path, heads={"strategy": {"ensemble": 4, "hidden_size": hidden}})
