"""Earlier strategies as numbers: the fast form for labels against the plain one, and no look at the present or the future."""

import numpy as np
import pytest
import torch

from warmline.data.earlier import FEATURES, earlier_features, features_of_labels


@pytest.mark.parametrize("labels", [[], [3], [0, 0], [1, 2, 3], [7, 0, 1, 1, 5, 2, 7]])
def test_labels_are_one_hot_distributions(labels: list[int]) -> None:
    found = features_of_labels(np.array(labels, dtype=np.int32))
    assert found.shape == (len(labels), FEATURES)
    assert found.dtype == np.float32
    for at in range(len(labels)):
        expected = earlier_features(torch.eye(8)[torch.tensor(labels[:at], dtype=torch.int64)])
        np.testing.assert_allclose(found[at], expected.numpy(), rtol=1e-6)


def test_what_the_numbers_say() -> None:
    before = torch.eye(8)[torch.tensor([5, 2, 2, 7])]
    found = earlier_features(before)
    last, middle, third, shares, number = found[:8], found[8:16], found[16:24], found[24:32], found[32]
    assert [int(slot.argmax()) for slot in (last, middle, third)] == [7, 2, 2]
    assert shares.tolist() == [0, 0, 0.5, 0, 0, 0.25, 0, 0.25]
    assert number.item() == pytest.approx(np.log(5))
    assert not bool(earlier_features(before[:0]).any())


def test_neither_present_nor_future_is_seen() -> None:
    one, other = (features_of_labels(np.array(labels, dtype=np.int32)) for labels in ([4, 1, 6, 2], [4, 1, 3, 0]))
    np.testing.assert_array_equal(one[:3], other[:3])
    assert not np.array_equal(one[3], other[3])
