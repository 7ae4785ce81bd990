"""The chunked losses against the dense ones, and what each objective's sum means."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.reference.losses import dense_cross_entropy, dense_kl
from tests.tools import ESCONV, GOEMOTIONS, Tiny
from warmline.config import LossWeights
from warmline.data.encoding import EncodedSource
from warmline.model import losses
from warmline.model.fast.logits import cross_entropy_rows
from warmline.model.losses import (
    Term,
    chunked_cross_entropy,
    chunked_kl,
    class_weights,
    head_loss,
    token_kl,
    token_nats,
    weighted_loss,
)
from warmline.model.multitask import count_weights

TOKENS, VOCABULARY, HIDDEN = 23, 50, 16
CHUNKS = (1, VOCABULARY, 3 * VOCABULARY + 7, 7 * VOCABULARY, 23 * VOCABULARY, 2**26)


class Inputs:
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        self.hidden, self.weight = normal(TOKENS, HIDDEN).requires_grad_(), normal(VOCABULARY, HIDDEN).requires_grad_()
        self.base_hidden, self.base_weight = normal(TOKENS, HIDDEN), normal(VOCABULARY, HIDDEN)
        self.targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
        self.weights = torch.rand(TOKENS, generator=generator)


Loss = Callable[[Inputs], Tensor]
PAIRS: dict[str, tuple[Loss, Loss]] = {
    "cross_entropy": (
        lambda given: chunked_cross_entropy(given.hidden, given.weight, given.targets),
        lambda given: dense_cross_entropy(given.hidden, given.weight, given.targets),
    ),
    "kl": (
        lambda given: chunked_kl(given.hidden, given.weight, given.base_hidden, given.base_weight, given.weights),
        lambda given: dense_kl(given.hidden, given.weight, given.base_hidden, given.base_weight, given.weights),
    ),
}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", PAIRS)
def test_chunked_equals_dense(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk)
    given = Inputs()
    chunked, dense = (loss(given) for loss in PAIRS[name])
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-5)
    asked = [given.hidden, given.weight]
    for mine, obvious in zip(torch.autograd.grad(3 * chunked, asked), torch.autograd.grad(3 * dense, asked), strict=True):
        torch.testing.assert_close(mine, obvious, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_frozen_unembedding(name: str) -> None:
    given = Inputs()
    given.weight.requires_grad_(False)
    chunked, dense = (loss(given) for loss in PAIRS[name])
    mine, obvious = (torch.autograd.grad(loss, given.hidden)[0] for loss in (chunked, dense))
    torch.testing.assert_close(mine, obvious, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_token_by_token_equals_dense(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk)
    given = Inputs()
    nats = token_nats(given.hidden, given.weight, given.targets)
    kl = token_kl(given.hidden, given.weight, given.base_hidden, given.base_weight)
    for at in range(TOKENS):
        one = slice(at, at + 1)
        hidden, base = given.hidden[one], given.base_hidden[one]
        torch.testing.assert_close(nats[at], dense_cross_entropy(hidden, given.weight, given.targets[one]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(kl[at], dense_kl(hidden, given.weight, base, given.base_weight, torch.ones(1)), rtol=1e-5, atol=1e-5)
    assert not token_nats(given.hidden[:0], given.weight, given.targets[:0]).numel()


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


@pytest.mark.parametrize("name", PAIRS)
def test_never_holds_all_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 5 * VOCABULARY)
    chunked, dense = PAIRS[name]
    given = Inputs()
    with _Largest() as largest:
        chunked(given).backward()
    assert largest.elements == max(5 * VOCABULARY, VOCABULARY * HIDDEN)
    with _Largest() as largest:
        dense(given).backward()
    assert largest.elements == TOKENS * VOCABULARY


@pytest.mark.parametrize("name", PAIRS)
def test_no_target_is_a_zero_that_joins_the_graph(name: str) -> None:
    given = Inputs()
    for field in ("base_hidden", "targets", "weights"):
        setattr(given, field, getattr(given, field)[:0])
    states = given.hidden
    given.hidden = states[:0]
    loss = PAIRS[name][0](given)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, [states, given.weight]):
        assert not bool(gradient.any())


@pytest.mark.parametrize("name", PAIRS)
def test_no_gradient_work_without_grad(name: str) -> None:
    given = Inputs()
    with torch.no_grad():
        loss = PAIRS[name][0](given)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, PAIRS[name][1](given).detach(), rtol=1e-5, atol=1e-5)


def test_kl_of_equal_states_is_exactly_zero() -> None:
    given = Inputs()
    kl = chunked_kl(given.hidden, given.weight, given.hidden.detach(), given.weight.detach(), given.weights)
    assert kl.item() == 0.0


def test_several_emotions_share_the_mass() -> None:
    logits = torch.randn(2, 27, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 28)
    targets[0, [3, 5]] = 1
    targets[1, [8, 27]] = 1  # neutral is no class here
    scores = log_softmax(logits, dim=1)
    expected = -(scores[0, 3] + scores[0, 5]) / 2 - scores[1, 8]
    torch.testing.assert_close(head_loss(logits, targets, False), expected)


def test_a_label_beyond_the_outputs_costs_nothing() -> None:
    logits, targets = torch.randn(2, 27, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 28)
    targets[0, 27] = targets[1, 3] = 1
    torch.testing.assert_close(head_loss(logits, targets, False), -log_softmax(logits, dim=1)[1, 3])


def test_28_labels_are_independent() -> None:
    logits = torch.randn(3, 28, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(3, 28)
    targets[0, [3, 27]] = targets[1, 0] = 1
    chances = logits.sigmoid()
    expected = -(targets * chances.log() + (1 - targets) * (1 - chances).log()).sum()
    torch.testing.assert_close(head_loss(logits, targets, True), expected)


def test_a_head_s_loss_is_a_sum() -> None:
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 7, 3, 3, 1])
    expected = -log_softmax(logits, dim=1)[range(5), targets].sum()
    torch.testing.assert_close(head_loss(logits, torch.eye(8)[targets], False), expected)


def test_class_weights_count_targets() -> None:
    logits = torch.randn(3, 27, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(3, 28)
    targets[0, 3] = targets[1, 4] = targets[2, 3] = targets[2, 4] = 1
    weights = torch.ones(27)
    weights[3], weights[4] = 0.5, 2.0
    scores = log_softmax(logits, dim=1)
    expected = -0.5 * scores[0, 3] - 2 * scores[1, 4] - 1.25 * (scores[2, 3] + scores[2, 4]) / 2
    torch.testing.assert_close(head_loss(logits, targets, False, weights), expected)
    of_eight = torch.arange(1.0, 9.0)
    mine = head_loss(logits[:, :8], torch.eye(8)[[0, 7, 3]], False, of_eight)
    torch.testing.assert_close(mine, torch.nn.functional.cross_entropy(logits[:, :8], torch.tensor([0, 7, 3]), of_eight, reduction="sum"))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_mean_class_weight_over_the_targets_is_1(exponent: float) -> None:
    counts = [100.0, 25.0, 4.0]
    weights = class_weights(counts, exponent)
    assert weights is not None
    assert sum(weight * count for weight, count in zip(weights, counts, strict=True)) / sum(counts) == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(25**exponent)
    assert class_weights(counts, 0.0) is None


def test_class_weights_count_the_training_data(tiny: Tiny, sources: list[EncodedSource]) -> None:
    found = count_weights(tiny.model.heads, sources, {"emotion": 0.0, "strategy": 1.0})
    assert list(found) == ["strategy"]
    labels = [bits.bit_length() - 1 for bits in sources[ESCONV].labels["strategy"][:, 1].tolist()]
    counts = torch.bincount(torch.tensor(labels), minlength=8).clamp(min=1)
    torch.testing.assert_close(found["strategy"] * counts, (found["strategy"] * counts)[0].expand(8))


def test_class_weights_share_a_target_of_several_labels(tiny: Tiny, sources: list[EncodedSource]) -> None:
    """Neutral is none of the 27, and a comment of two emotions is half a target of each."""
    weights = count_weights(tiny.model.heads, sources, {"emotion": 1.0, "strategy": 0.0})["emotion"]
    counts = torch.zeros(27)
    for bits in sources[GOEMOTIONS].labels["emotion"][:, 1].tolist():
        emotions = [label for label in range(27) if bits >> label & 1]
        counts[emotions] += 1 / max(len(emotions), 1)
    torch.testing.assert_close(weights * counts.clamp(min=1), (weights * counts.clamp(min=1))[0].expand(27))


def test_weighted_loss_divides_by_the_whole_step() -> None:
    values = [torch.tensor(value, requires_grad=True) for value in (6.0, 3.0, 0.0, 4.0)]
    terms = {name: Term(value, 2) for name, value in zip(("lm", "emotion", "strategy", "safety"), values, strict=True)}
    weights = LossWeights.model_validate({"lm": 1.0, "emotion": 0.5, "strategy": 0.25, "safety": 0.1})
    loss = weighted_loss(terms, weights, {"lm": 12, "emotion": 4, "strategy": 0, "safety": 8})
    assert loss.item() == pytest.approx(6 / 12 + 0.5 * 3 / 4 + 0.1 * 4 / 8)
    loss.backward()
    assert [value.grad.item() for value in values] == pytest.approx([1 / 12, 0.5 / 4, 0.25, 0.1 / 8])


@pytest.mark.gpu
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_kernel_agrees_with_torch(wants_gradient: bool) -> None:
    logits = (torch.randn(37, 151_936, device="cuda") * 4).bfloat16()
    targets = torch.randint(151_936, (37,), device="cuda")
    wide = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, targets, reduction="none")
    expected.sum().backward()
    before = logits.clone()
    found = cross_entropy_rows(logits, targets, wants_gradient)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    if wants_gradient:
        torch.testing.assert_close(logits.double(), wide.grad, rtol=2**-8, atol=1e-9)  # half a bf16 step
    else:
        assert torch.equal(logits, before)
