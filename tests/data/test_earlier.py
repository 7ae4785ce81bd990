"""Earlier strategies as numbers: against the plain form, annotated or not, and no look at the present or the future."""

import numpy as np
import pytest
import torch

from tests.reference.earlier import slow_features
from warmline.data.packing import earlier_features, features


def features_of(*labels: int) -> torch.Tensor:
    return earlier_features(torch.eye(8)[list(labels)])


@pytest.mark.parametrize("labels", [[], [3], [0, 0], [1, 2, 3], [7, 0, 1, 1, 5, 2, 7], [number % 8 for number in range(25)]])
def test_annotated_strategies(labels: list[int]) -> None:
    found = features_of(*labels)
    assert found.shape == (len(labels), features(8))
    assert found.dtype == torch.float32
    one_hot = [[float(strategy == label) for strategy in range(8)] for label in labels]
    for at, row in enumerate(found):
        np.testing.assert_allclose(row.numpy(), slow_features(one_hot[:at]), rtol=1e-5, atol=1e-7)


def test_of_any_number_of_classes() -> None:
    """What a class says does not depend on how many there are beside it."""
    said = torch.eye(3)[[2, 0, 1, 1]]
    few, many = earlier_features(said), earlier_features(torch.cat([said, torch.zeros(4, 5)], dim=1))
    assert few.shape == (4, features(3))
    blocks = many[:, :72].reshape(4, 9, 8)
    assert torch.equal(few, torch.cat([blocks[:, :, :3].reshape(4, 27), many[:, 72:]], dim=1))


def test_distributions_where_nobody_annotated() -> None:
    said = torch.rand(12, 8, generator=torch.Generator().manual_seed(13)).softmax(dim=1)
    for at, row in enumerate(earlier_features(said)):
        np.testing.assert_allclose(row.numpy(), slow_features(said[:at].tolist()), rtol=1e-5, atol=1e-7)


def test_what_the_numbers_say() -> None:
    found = features_of(5, 2, 2, 7, 0)[4]
    order, shares, number, reached = found[:40].reshape(5, 8), found[64:72], found[72], found[73:]
    assert [int(slot.argmax()) for slot in order[:4]] == [7, 2, 2, 5]
    assert not bool(order[4].any())
    assert shares.tolist() == [0, 0, 0.5, 0, 0, 0.25, 0, 0.25]
    assert number.item() == pytest.approx(np.log(5))
    assert reached.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert not bool(features_of(5)[0].any())


def test_neither_present_nor_future_is_seen() -> None:
    one, other = features_of(4, 1, 6, 2), features_of(4, 1, 3, 0)
    assert torch.equal(one[:3], other[:3])
    assert not torch.equal(one[3], other[3])
