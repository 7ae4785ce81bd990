"""What is read of encoded conversations: row i is label i of the source, and a probe reads exactly what its head reads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ConfigFactory
from tests.reference.objectives import states_alone
from tests.tools import CPU, ED, ESCONV, GOEMOTIONS, Tiny, perturb
from warmline.conversation import Conversation, Turn
from warmline.data.encoding import EncodedSource, encode
from warmline.data.mixture import Draw
from warmline.data.packing import collate, earlier_features
from warmline.data.template import ChatTemplate
from warmline.model.artifacts import build_model
from warmline.model.base import load_tokenizer
from warmline.model.reader import Reader, without_unlikely
from warmline.tasks import TASKS

Sources = list[EncodedSource]
PLACES = [("emotion", GOEMOTIONS), ("strategy", ESCONV)]


@pytest.fixture(params=[False, True], ids=["plain", "sees earlier"])
def made(request: pytest.FixtureRequest, tiny_config: ConfigFactory, tmp_path: Path) -> Tiny:
    """A noisy model; its strategy head may see earlier strategies."""
    config = tiny_config(tmp_path, heads={"strategy": {"earlier_strategies": request.param}})
    model = build_model(config, CPU.device, CPU.dtype).eval()
    perturb(model)
    return Tiny(model, config, ChatTemplate(load_tokenizer(config.model)))


def bits_of(labels: np.ndarray) -> list[int]:
    return [sum(1 << at for at in np.flatnonzero(row)) for row in labels]


@torch.no_grad()
def by_hand(made: Tiny, sources: Sources, draws: list[Draw], head: str) -> list[tuple[torch.Tensor, torch.Tensor, int, int]]:
    """Of each label, conversation by conversation: what the head reads of the state, its earlier labels, bits, and the draw's place."""
    found = []
    for place, draw in enumerate(draws):
        one = sources[draw.source][draw.conversation]
        states = states_alone(made.model, torch.from_numpy(one.tokens.astype(np.int64)))
        states = states / (states.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
        said = [[float(bits >> at & 1) for at in range(len(TASKS[head].labels))] for _, bits in one.labels[head].tolist()]
        earlier = earlier_features(torch.tensor(said))
        found += [(states[at], earlier[row], bits, place) for row, (at, bits) in enumerate(one.labels[head].tolist())]
    return found


@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize(("head", "place"), PLACES)
def test_a_probe_reads_what_its_head_reads(head: str, place: int, base: bool, made: Tiny, sources: Sources) -> None:
    """In the order of the labels; inside `reference()` it is the base's."""
    draws, own, reader = [Draw(place, at) for at in (2, 0, 1, 3)], made.model.heads[head], Reader(made.model, CPU, 512)
    if base:
        with made.model.backbone.reference():
            found, expected = reader.read(head, sources, draws), by_hand(made, sources, draws, head)
    else:
        found, expected = reader.read(head, sources, draws), by_hand(made, sources, draws, head)
    assert len(found.labels) == len(expected) > 3
    assert bits_of(found.labels) == [bits for _, _, bits, _ in expected]
    states, earlier = torch.stack([row[0] for row in expected]), torch.stack([row[1] for row in expected])
    inputs = torch.cat([states, earlier], dim=1) if own.sees_earlier else states
    torch.testing.assert_close(torch.from_numpy(found.inputs), inputs, rtol=0, atol=1e-5)
    with torch.no_grad():
        logits = own(torch.from_numpy(found.inputs[:, : states.shape[1]]), torch.from_numpy(found.inputs[:, states.shape[1] :]))
    assert torch.equal(torch.from_numpy(found.logits), logits.double())
    assert len(np.unique(found.logits, axis=0)) > 1


@pytest.mark.parametrize(("head", "place"), PLACES)
def test_it_does_not_matter_how_much_a_pass_reads(head: str, place: int, made: Tiny, sources: Sources) -> None:
    long, short = (Reader(made.model, CPU, tokens).read(head, [sources[place]]) for tokens in (4096, 128))
    for found, expected in zip(long, short, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert bits_of(long.labels) == sources[place].labels[head][:, 1].tolist()


@torch.no_grad()
def test_own_choices_know_the_replies_of_their_conversation_alone(made: Tiny, sources: Sources) -> None:
    head, draws = made.model.heads["strategy"], [Draw(ESCONV, at) for at in range(3)]
    found, by_label = Reader(made.model, CPU, 4096).read("strategy", sources, draws), by_hand(made, sources, draws, "strategy")
    expected = [
        head.by_own_choices(torch.stack([state for state, _, _, place in by_label if place == one])) for one in range(len(draws))
    ]  # fmt: skip
    np.testing.assert_allclose(found.own_choices, torch.cat(expected).double(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(found.own_choices, found.logits) != head.sees_earlier


def test_every_row_knows_its_conversation(tiny: Tiny) -> None:
    """Parts of one that was longer than a row share a number; no other shares it."""

    def talk(name: str, turns: int) -> Conversation:
        return Conversation(name, tuple(Turn("user", f"I feel {at}, and more", {"emotion": ("joy",)}) for at in range(turns)))

    made = [encode(name, [talk("long", 12), talk("short", 2)], ("emotion",), tiny.template, 64) for name in ("one", "other")]
    assert [source.split_conversations for source in made] == [1, 1]
    numbers = Reader(tiny.model.eval(), CPU, 256).read("emotion", made).conversations.tolist()
    firsts = [numbers[at] for at in (0, 12, 14, 26)]
    assert len(set(firsts)) == 4
    assert numbers == [number for number, rows in zip(firsts, (12, 2, 12, 2), strict=True) for _ in range(rows)]


def test_some_rows_are_all_of_those_rows(tiny: Tiny, sources: Sources) -> None:
    found = Reader(tiny.model.eval(), CPU, 512).read("emotion", sources, [Draw(GOEMOTIONS, at) for at in range(5)])
    kept = np.asarray([True, False, True, False, False])
    for part, whole in zip(found.only(kept), found, strict=True):
        assert np.array_equal(part, whole[[0, 2]])


def test_passes_give_every_conversation_once_in_order(tiny: Tiny, sources: Sources) -> None:
    reader, chosen = Reader(tiny.model.eval(), CPU, 600), [sources[ED], sources[GOEMOTIONS]]
    passes = list(reader.passes(chosen))
    drawn = [draw for one in passes for draw in one.row]
    assert drawn == [Draw(place, at) for place, source in enumerate(chosen) for at in range(len(source))]
    assert all(one.states.shape == (len(one.batch.tokens), tiny.model.backbone.hidden_size) for one in passes)
    assert not any(one.states.requires_grad for one in passes)
    some = list(reader.passes(chosen, [Draw(1, 4), Draw(0, 0)]))
    assert [draw for one in some for draw in one.row] == [Draw(1, 4), Draw(0, 0)]


@torch.no_grad()
def test_what_the_base_would_hardly_say_is_not_learned(made: Tiny, sources: Sources) -> None:
    """Token by token beside each conversation alone; where a reply ends is learned all the same."""
    end, few = made.template.layout.end_of_turn, [sources[ED], sources[GOEMOTIONS]]
    found, other = without_unlikely(made.model, few, CPU, 80.0, end, 512)
    assert other is few[1]
    expected = []
    for at in range(len(few[0])):
        one = few[0][at]
        with made.model.backbone.reference():
            logits = states_alone(made.model, torch.from_numpy(one.tokens.astype(np.int64))) @ made.model.backbone.base_unembedding.T
        perplexity = torch.ones(len(one.tokens))
        for first, last in one.replies.tolist():
            targets = torch.from_numpy(one.tokens[first:last].astype(np.int64))
            perplexity[first:last] = torch.nn.functional.cross_entropy(logits[first - 1 : last - 1], targets, reduction="none").exp()
        expected.append((perplexity.numpy() > 80) & (one.tokens != end))
    assert found.skipped is not None
    assert np.array_equal(found.skipped, np.concatenate(expected))
    assert 0 < found.skipped.sum() < (few[0].target_counts()["lm"].sum())
    batch = collate([found], [(Draw(0, 1), Draw(0, 2))])
    assert len(batch.lm_targets) == found.target_counts()["lm"][1:3].sum()
    assert (batch.lm_targets == end).sum() == len(found[1].replies) + len(found[2].replies)
