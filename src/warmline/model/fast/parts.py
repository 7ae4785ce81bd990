"""What a layer's passes hand to each other."""

from typing import NamedTuple

from torch import Tensor

from warmline.model.fast.attention import Attended
from warmline.model.fast.linear import Projected


class FirstHalf(NamedTuple):
    """What the first half of a layer makes and its backward pass needs.

    Attributes:
        projected: Queries, keys and values in one.
        heads: The same apart, after norm and rotary embedding, each [tokens, its heads, head size].
        attended: Their attention.
        reduced_out: [tokens, room].
    """

    projected: Projected
    heads: tuple[Tensor, Tensor, Tensor]
    attended: Attended
    reduced_out: Tensor | None


class SecondHalf(NamedTuple):
    """What the second half of a layer makes and its backward pass needs.

    Attributes:
        projected: Gate and up in one.
        states: [tokens, intermediate].
        reduced_down: [tokens, room].
    """

    projected: Projected
    states: Tensor
    reduced_down: Tensor | None


class Added(NamedTuple):
    """A state with the product that was added to it.

    Attributes:
        state: [tokens, hidden].
        product: [tokens, hidden], before its norm; None where it has none and nothing needs it.
    """

    state: Tensor
    product: Tensor | None


class Made(NamedTuple):
    """What a layer's backward pass needs beside its input.

    Attributes:
        middle: The state between the halves, [tokens, hidden].
        first: Of the first half.
        second: Of the second.
        of_out: [tokens, hidden], the output projection's product where a norm follows it.
        of_down: The same of the down projection.
    """

    middle: Tensor
    first: FirstHalf
    second: SecondHalf
    of_out: Tensor | None
    of_down: Tensor | None


class Kept(NamedTuple):
    """What a layer that is recomputed need not compute again.

    Attributes:
        reduced: Of the four joint layers, each [tokens, its room]: small, and kept on the device in every mode.
        attended: The attention, where it is kept.
    """

    reduced: tuple[Tensor, Tensor, Tensor, Tensor]
    attended: Attended | None
