"""Drawing a token: transformers' own arithmetic, from one's own random numbers."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from warmline.model.backbone import Sampling
from warmline.model.generation import Columns, Replies, Room, draw_token, warpers

LOGITS = torch.randn(50, generator=torch.Generator().manual_seed(3)) * 3


def shares(sampling: Sampling, draws: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    warp = warpers(sampling)
    return torch.bincount(torch.tensor([draw_token(LOGITS, warp, generator) for _ in range(draws)]), minlength=50) / draws


def kept(sampling: Sampling) -> Tensor:
    """Probabilities by the definitions: temperature, then the nucleus, then the share of the likeliest."""
    probabilities = (LOGITS / sampling.temperature).softmax(0)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    probabilities[order[before >= sampling.top_p]] = 0
    probabilities /= probabilities.sum()
    probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("settings", [(0.7, 1.0, 0.0), (1.0, 0.8, 0.0), (1.5, 1.0, 0.2), (1.2, 0.9, 0.1)])
def test_draws_follow_the_definitions(settings: tuple[float, float, float]) -> None:
    sampling = Sampling(1, *settings)
    expected, found = kept(sampling), shares(sampling)
    assert torch.equal(found > 0, found * (expected > 0) > 0)  # nothing is drawn that was left out
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_no_temperature_takes_the_likeliest() -> None:
    assert draw_token(LOGITS, warpers(Sampling(1, 0)), None) == int(LOGITS.argmax())


def test_a_generator_of_ones_own_leaves_torchs_alone() -> None:
    before = torch.get_rng_state()
    first, again = (draw_token(LOGITS, warpers(Sampling(1, 1.0)), torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.get_rng_state())


class Counting:
    """A decoder of which token follows which: the next is made of the sum of all so far. It keeps what it saw in the columns."""

    def __init__(self) -> None:
        self.read_tokens = 0
        self.rows: list[int] = []

    def read(self, prompts: Sequence[list[int]], columns: Columns) -> Tensor:
        self.read_tokens += sum(map(len, prompts))
        flat = torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.float32)
        columns.update(flat.view(1, 1, -1, 1), flat.view(1, 1, -1, 1), 0)
        return torch.tensor([[float(sum(prompt))] for prompt in prompts])

    def go_on(self, tokens: Tensor, positions: Tensor, columns: Columns) -> Tensor:
        self.rows.append(len(tokens))
        columns.update(tokens.float().view(1, 1, -1, 1), tokens.float().view(1, 1, -1, 1), 0)
        keys, _, seen = columns.newest(0, None)
        assert torch.equal(seen.sum(dim=1), positions + 1)
        return (keys[:, 0, :, 0] * seen).sum(dim=1, keepdim=True)

    def logits(self, states: Tensor) -> Tensor:
        return torch.nn.functional.one_hot((3 * states[:, 0].long() + 1) % 47, 50).float()


def counted(prompt: list[int], end: int, most: int) -> list[int]:
    reply: list[int] = []
    while len(reply) < most and (token := (3 * (sum(prompt) + sum(reply)) + 1) % 47) != end:
        reply.append(token)
    return reply


@pytest.mark.parametrize("room", [Room(1, 10_000, 8, 99), Room(3, 10_000, 1, 99), Room(64, 60, 1000, 99), Room(64, 10_000, 1000, 99)])
def test_rows_that_come_and_go_answer_as_alone(room: Room) -> None:
    numbers = torch.randint(1, 50, (40, 9), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = [row[: 1 + at % 9] for at, row in enumerate(numbers)] * 2
    ended, passes = [], Counting()
    sampling = Sampling(12, temperature=0)
    replies = Replies(passes, room, sampling, 7, torch.device("cpu")).make(prompts, lambda: ended.append(1))
    assert replies == [counted(prompt, 7, 12) for prompt in prompts]
    assert len({len(reply) for reply in replies}) > 3  # some ended early, some were cut
    assert len(ended) == len(prompts)
    assert max(passes.rows) <= room.rows
    if room.rows == 64 and room.tokens == 10_000:
        assert passes.read_tokens < sum(map(len, prompts))  # equal prompts were read once


def test_no_prompt_has_no_reply() -> None:
    assert Replies(Counting(), Room(2, 100, 8, 99), Sampling(3, 0), 7, torch.device("cpu")).make([], lambda: None) == []
