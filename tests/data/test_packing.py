import json
import math
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.collate import slow_collate
from warmline.config import DataConfig
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import Draw, MixtureSampler
from warmline.data.packing import RowPacker, collate, count_targets, earlier_features, features, sequential_rows
from warmline.data.template import ChatTemplate
from warmline.tasks.emotion import EMOTIONS_AND_NEUTRAL

LENGTHS = st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=30), min_size=1, max_size=3)


def packer_of(sources, row_tokens, lookahead, seed=13, alpha=0.5, max_passes=None) -> RowPacker:
    return RowPacker(sources, MixtureSampler([len(source) for source in sources], alpha, seed, max_passes), row_tokens, lookahead)


def tokens_in(sources, row) -> int:
    return sum(int(sources[draw.source].lengths[draw.conversation]) for draw in row)


@pytest.fixture(scope="module")
def realistic():
    """Lengths as those of the four sources: short listener chats, long support chats, single comments, safety chats."""
    random = np.random.default_rng(0)

    def lengths(mean: float, spread: float, number: int):
        return np.clip(random.lognormal(math.log(mean), spread, number), 8, 2048).astype(int).tolist()

    return [lengths(110, 0.35, 19_532), lengths(850, 0.45, 910), lengths(28, 0.45, 30_587), lengths(180, 0.4, 124)]


# RowPacker


@given(lengths=LENGTHS, row_tokens=st.integers(64, 200), lookahead=st.integers(1, 40), seed=st.integers(0, 99))
def test_no_row_is_empty_or_over_capacity(source_of, lengths, row_tokens, lookahead, seed):
    sources = [source_of(part) for part in lengths]
    packer = packer_of(sources, row_tokens, lookahead, seed)
    assert all(0 < tokens_in(sources, packer.row()) <= row_tokens for _ in range(20))


@given(lengths=LENGTHS, row_tokens=st.integers(64, 200), lookahead=st.integers(1, 40), seed=st.integers(0, 99))
def test_nothing_is_lost_or_doubled(source_of, lengths, row_tokens, lookahead, seed):
    sources = [source_of(part) for part in lengths]
    packer = packer_of(sources, row_tokens, lookahead, seed)
    packed = Counter(draw for _ in range(20) for draw in packer.row())
    state = packer.state()
    waiting = Counter(Draw(*pair) for pair in state["waiting"])
    sampler = MixtureSampler([len(source) for source in sources], 0.5, seed)
    drawn = Counter(sampler.draw() for _ in range(sum(state["sampler"]["drawn"])))
    assert packed + waiting == drawn


@given(lengths=LENGTHS, rows=st.integers(0, 15), lookahead=st.integers(1, 40), seed=st.integers(0, 99))
def test_restore_continues_to_the_exact_row(source_of, lengths, rows, lookahead, seed):
    sources = [source_of(part) for part in lengths]
    whole, resumed = (packer_of(sources, 100, lookahead, seed) for _ in range(2))
    for _ in range(rows):
        whole.row()
    resumed.restore(json.loads(json.dumps(whole.state())))
    assert [resumed.row() for _ in range(10)] == [whole.row() for _ in range(10)]


def test_restore_forgets_what_waited(source_of):
    sources = [source_of([30, 40, 50, 60])]
    packer = packer_of(sources, 100, 8)
    state = packer.state()
    rows = [packer.row() for _ in range(20)]
    packer.restore(state)
    assert [packer.row() for _ in range(20)] == rows


def test_without_lookahead_rows_keep_the_order_of_the_draws(source_of):
    sources = [source_of([30, 40, 50, 60])]
    packer, sampler = packer_of(sources, 100, 1), MixtureSampler([4], 0.5, 13)
    packed = [draw for _ in range(20) for draw in packer.row()]
    assert packed == [sampler.draw() for _ in packed]


def test_nothing_waits_for_long(source_of, realistic):
    """The conversation that did not fit opens the next row, so the oldest one waits for one row only."""
    sources = [source_of(part) for part in realistic]
    packer = packer_of(sources, 2048, 256)
    packer.row()
    for _ in range(200):
        oldest = packer.state()["waiting"][0]
        assert packer.row()[0] == oldest


def test_rows_of_realistic_lengths_are_full(source_of, realistic):
    sources = [source_of(part) for part in realistic]
    packer = packer_of(sources, 2048, 256)
    fill = sum(tokens_in(sources, packer.row()) for _ in range(400)) / (400 * 2048)
    assert fill >= 0.97


def test_packed_shares_are_the_promised_ones(source_of, realistic):
    sources = [source_of(part) for part in realistic]
    packer = packer_of(sources, 2048, 256)
    packed = Counter(draw.source for _ in range(600) for draw in packer.row())
    number = packed.total()
    shares = MixtureSampler([len(source) for source in sources], 0.5, 13).probabilities
    for source, share in enumerate(shares):
        assert abs(packed[source] - number * share) <= 4 * math.sqrt(number * share * (1 - share))


def test_a_row_of_exactly_its_capacity_is_full(source_of):
    sources = [source_of([50])]
    assert len(packer_of(sources, 100, 4).row()) == 2


CAPPED = {"lengths": LENGTHS, "lookahead": st.integers(1, 40), "seed": st.integers(0, 99), "passes": st.integers(1, 3)}


def rows_until_the_end(packer) -> list:
    return list(iter(packer.row, ()))


@given(**CAPPED)
def test_a_cap_packs_every_conversation_so_often_and_then_nothing(source_of, lengths, lookahead, seed, passes):
    """What waited in the lookahead comes too, so that whole passes are whole for every conversation."""
    sources = [source_of(part) for part in lengths]
    packer = packer_of(sources, 100, lookahead, seed, max_passes=passes)
    packed = Counter(draw for row in rows_until_the_end(packer) for draw in row)
    assert packed == {Draw(source, at): passes for source, part in enumerate(lengths) for at in range(len(part))}
    assert packer.row() == ()


@given(**CAPPED, data=st.data())
def test_restore_continues_to_the_exact_row_across_a_cap(source_of, lengths, lookahead, seed, passes, data):
    sources = [source_of(part) for part in lengths]
    whole = rows_until_the_end(packer_of(sources, 100, lookahead, seed, max_passes=passes))
    before = data.draw(st.integers(0, len(whole)))
    begun, resumed = (packer_of(sources, 100, lookahead, seed, max_passes=passes) for _ in range(2))
    for _ in range(before):
        begun.row()
    resumed.restore(json.loads(json.dumps(begun.state())))
    assert rows_until_the_end(resumed) == whole[before:]


# Fixed lists


@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=60), row_tokens=st.integers(64, 200))
def test_sequential_rows_hold_everything_once_in_order(source_of, lengths, row_tokens):
    sources = [source_of(lengths)]
    chosen = [Draw(0, at) for at in range(len(lengths))]
    rows = list(sequential_rows(sources, chosen, row_tokens))
    assert [draw for row in rows for draw in row] == chosen
    assert all(0 < tokens_in(sources, row) <= row_tokens for row in rows)


def test_no_rows_of_nothing(source_of):
    assert list(sequential_rows([source_of([5])], [], 100)) == []


# collate


def columns(*parts):
    """Pairs of each conversation, flat, and their ends."""
    flat = np.asarray([pair for part in parts for pair in part], np.int32).reshape(-1, 2)
    return flat, np.cumsum([len(part) for part in parts]).astype(np.int32)


def labels(**of_heads):
    """Labels of each head and where each conversation's end."""
    found = {name: columns(*parts) for name, parts in of_heads.items()}
    return {name: flat.astype(np.int64) for name, (flat, _) in found.items()}, {name: ends for name, (_, ends) in found.items()}


@pytest.fixture
def three_sources():
    """A chat with two replies and a strategy, a comment with two emotions, and two safety chats."""
    support = EncodedSource(
        "esconv", ("lm", "strategy"),
        np.asarray([10, 11, 12, 13, 14, 15, 16], np.int32), np.asarray([7], np.int32),
        *columns([(2, 4), (6, 7)]), *labels(strategy=[[(1, 1 << 3), (5, 1 << 7)]]), np.asarray([0], np.int32),
    )  # fmt: skip
    comment = EncodedSource(
        "goemotions", ("emotion",),
        np.asarray([20, 21, 22], np.int32), np.asarray([3], np.int32),
        *columns([]), *labels(emotion=[[(2, 1 << 2 | 1 << 27)]]), np.asarray([0], np.int32),
    )  # fmt: skip
    safety = EncodedSource(
        "safety", ("safety",),
        np.asarray([30, 31, 32, 33, 34, 40, 41, 42], np.int32), np.asarray([5, 8], np.int32),
        *columns([(1, 3), (4, 5)], [(2, 3)]), *labels(), np.asarray([0, 1], np.int32),
    )  # fmt: skip
    return [support, comment, safety]


ROWS = [(Draw(0, 0), Draw(1, 0)), (Draw(2, 1), Draw(2, 0))]


def test_collate_lays_conversations_one_after_the_other(three_sources):
    batch = collate(three_sources, ROWS)
    assert batch.tokens.tolist() == [10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 40, 41, 42, 30, 31, 32, 33, 34]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]
    assert batch.bounds.tolist() == [0, 7, 10, 13, 18]
    assert batch.longest == 7


def test_collate_predicts_reply_tokens_from_one_place_earlier(three_sources):
    batch = collate(three_sources, ROWS)
    assert batch.lm_positions.tolist() == [1, 2, 5]
    assert batch.lm_targets.tolist() == [12, 13, 16]


def test_collate_shifts_the_heads_places(three_sources):
    batch = collate(three_sources, ROWS)
    emotion, strategy = batch.heads["emotion"], batch.heads["strategy"]
    assert (strategy.positions.tolist(), strategy.targets.nonzero().tolist()) == ([1, 5], [[0, 3], [1, 7]])
    assert emotion.positions.tolist() == [9]
    assert torch.equal(strategy.earlier, earlier_features(torch.eye(8)[[3, 7]]))
    assert emotion.targets.nonzero().tolist() == [[0, 2], [0, 27]]
    assert emotion.targets.shape == (1, len(EMOTIONS_AND_NEUTRAL))
    assert emotion.earlier.shape == (1, 0)  # users' turns follow no reply's label


def test_collate_weighs_each_safety_conversation_as_one(three_sources):
    batch = collate(three_sources, ROWS)
    assert batch.safety_positions.tolist() == [11, 13, 14, 16]
    assert batch.safety_weights.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert batch.safety_draws == (Draw(2, 1), Draw(2, 0))


def test_collate_gives_the_documented_types(three_sources):
    batch = collate(three_sources, ROWS)
    assert batch.bounds.dtype == torch.int32
    for rows in batch.heads.values():
        assert (rows.positions.dtype, rows.targets.dtype, rows.earlier.dtype) == (torch.int64, torch.float32, torch.float32)
    assert batch.safety_weights.dtype == torch.float32
    integers = ("tokens", "position_ids", "lm_positions", "lm_targets", "safety_positions")
    assert {getattr(batch, name).dtype for name in integers} == {torch.int64}


def test_collate_of_a_row_that_teaches_nothing(source_of):
    batch = collate([source_of([4])], [(Draw(0, 0),)])
    assert (len(batch.lm_positions), len(batch.safety_positions)) == (0, 0)
    assert {name: tuple(rows.targets.shape) for name, rows in batch.heads.items()} == {"emotion": (0, 28), "strategy": (0, 8)}
    assert {name: tuple(rows.earlier.shape) for name, rows in batch.heads.items()} == {"emotion": (0, 0), "strategy": (0, features(8))}
    assert all(len(rows.positions) == 0 for rows in batch.heads.values())


def test_safety_conversations_can_also_be_learnt(three_sources):
    three_sources[2] = EncodedSource(**{**vars(three_sources[2]), "objectives": ("safety", "lm")})
    batch = collate(three_sources, [(Draw(2, 0),)])
    assert batch.lm_positions.tolist() == batch.safety_positions.tolist() == [0, 1, 3]


@pytest.fixture(scope="module")
def sample_sources(nano_tokenizer, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMLINE_CACHE", str(tmp_path_factory.mktemp("encoded")))
        config = DataConfig.model_validate({"dir": "sample", "sources": {"safety": {"objectives": ["safety", "lm"]}}})
        return encode_split("train", config, ChatTemplate(nano_tokenizer))


def test_collate_equals_the_slow_reference(sample_sources):
    packer = packer_of(sample_sources, 1024, 64)
    for _ in range(15):
        rows = [packer.row(), packer.row()]
        batch, expected = collate(sample_sources, rows), slow_collate(sample_sources, rows)
        assert list(batch.safety_draws) == expected.pop("safety_draws")
        assert torch.allclose(batch.safety_weights, torch.tensor(expected.pop("safety_weights"), dtype=torch.float32))
        earlier = torch.tensor(expected.pop("strategy.earlier")).reshape(-1, features(8))
        assert torch.allclose(batch.heads["strategy"].earlier, earlier)
        found = {
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            **{f"{head}.{name}": value for head, rows in batch.heads.items() for name, value in rows._asdict().items()},
        }
        assert {name: found[name].tolist() for name in expected} == expected


def test_counted_targets_are_those_of_the_batch(sample_sources):
    packer = packer_of(sample_sources, 1024, 64)
    counts = [source.target_counts() for source in sample_sources]
    for _ in range(10):
        rows = [packer.row(), packer.row()]
        batch = collate(sample_sources, rows)
        assert count_targets(counts, rows) == {
            "lm": len(batch.lm_targets),
            "emotion": len(batch.heads["emotion"].targets),
            "strategy": len(batch.heads["strategy"].targets),
            "safety": len(batch.safety_draws),
        }


def test_safety_weights_sum_to_the_number_of_conversations(sample_sources):
    batch = collate(sample_sources, [tuple(Draw(3, at) for at in range(20))])
    assert batch.safety_weights.sum().item() == pytest.approx(20, rel=1e-5)


def test_real_rows_are_full(sample_sources):
    packer = packer_of(sample_sources, 1024, 256)
    fill = sum(tokens_in(sample_sources, packer.row()) for _ in range(200)) / (200 * 1024)
    assert fill >= 0.97
