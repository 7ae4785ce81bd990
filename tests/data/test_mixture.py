import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline.data.mixture import MixtureSampler, sample_probabilities, whole_percent

SIZES = st.lists(st.integers(1, 200_000), min_size=1, max_size=6)
SMALL_SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
ALPHAS = st.floats(0.01, 1)


def through_json(state):
    return json.loads(json.dumps(state))


def test_the_briefs_shares():
    shares = sample_probabilities([25_000, 1_300, 58_000], 0.5)
    roots = [math.sqrt(size) for size in (25_000, 1_300, 58_000)]
    assert shares.tolist() == pytest.approx([root / sum(roots) for root in roots])
    assert whole_percent(shares) == [36, 8, 56]


@given(SIZES, ALPHAS)
def test_probabilities_follow_the_formula(sizes, alpha):
    total = sum(size**alpha for size in sizes)
    assert sample_probabilities(sizes, alpha).tolist() == pytest.approx([size**alpha / total for size in sizes])


@given(SIZES, ALPHAS)
def test_probabilities_sum_to_one(sizes, alpha):
    assert sample_probabilities(sizes, alpha).sum() == pytest.approx(1)


@given(SIZES)
def test_alpha_one_keeps_proportions(sizes):
    assert sample_probabilities(sizes, 1).tolist() == pytest.approx([size / sum(sizes) for size in sizes])


@given(SIZES, st.tuples(ALPHAS, ALPHAS))
def test_a_lower_alpha_helps_the_smallest(sizes, alphas):
    smallest = sizes.index(min(sizes))
    low, high = (sample_probabilities(sizes, alpha)[smallest] for alpha in sorted(alphas))
    assert low >= high - 1e-12


@pytest.mark.parametrize(("sizes", "alpha"), [([], 0.5), ([3, 0], 0.5), ([3, -1], 0.5), ([3], 0), ([3], 1.1), ([3], float("nan"))])
def test_impossible_mixtures_are_refused(sizes, alpha):
    with pytest.raises(ValueError, match=r"size|alpha"):
        sample_probabilities(sizes, alpha)


@given(SIZES, ALPHAS)
def test_whole_percent_sums_to_100_and_is_within_one(sizes, alpha):
    shares = sample_probabilities(sizes, alpha)
    percent = whole_percent(shares)
    assert sum(percent) == 100
    assert np.abs(np.asarray(percent) - shares * 100).max() < 1


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_realised_shares_are_the_promised_ones(alpha):
    sampler = MixtureSampler([19_532, 910, 30_587, 124], alpha, seed=13)
    draws = 20_000
    counts = Counter(sampler.draw().source for _ in range(draws))
    for source, share in enumerate(sampler.probabilities):
        assert abs(counts[source] - draws * share) <= 4 * math.sqrt(draws * share * (1 - share))


@given(SMALL_SIZES, st.integers(0, 2**32), st.integers(1, 4))
def test_every_pass_over_a_source_is_a_permutation(sizes, seed, passes):
    sampler = MixtureSampler(sizes, 0.5, seed)
    drawn = [[] for _ in sizes]
    while len(drawn[0]) < passes * sizes[0]:
        source, conversation = sampler.draw()
        drawn[source].append(conversation)
    for size, order in zip(sizes, drawn, strict=True):
        for start in range(0, len(order) - size + 1, size):
            assert sorted(order[start : start + size]) == list(range(size))


def test_passes_are_shuffled_anew():
    sampler = MixtureSampler([50], 0.5, seed=0)
    first, second = ([sampler.draw().conversation for _ in range(50)] for _ in range(2))
    assert first != second
    assert first != list(range(50))


@given(SMALL_SIZES, st.integers(0, 2**32), st.integers(0, 2500))
def test_restore_continues_to_the_exact_draw(sizes, seed, before):
    whole = MixtureSampler(sizes, 0.5, seed)
    for _ in range(before):
        whole.draw()
    resumed = MixtureSampler(sizes, 0.5, seed)
    resumed.restore(through_json(whole.state()))
    assert [resumed.draw() for _ in range(60)] == [whole.draw() for _ in range(60)]


def test_restore_goes_back_too():
    sampler = MixtureSampler([30, 5], 0.5, seed=1)
    state = sampler.state()
    ahead = [sampler.draw() for _ in range(1500)]
    sampler.restore(state)
    assert [sampler.draw() for _ in range(1500)] == ahead


def test_a_state_does_not_change_with_later_draws():
    sampler = MixtureSampler([30, 5], 0.5, seed=1)
    state = sampler.state()
    sampler.draw()
    assert state == {"drawn": [0, 0]}


def test_the_state_of_another_mixture_is_refused():
    with pytest.raises(ValueError, match="state of 3 sources"):
        MixtureSampler([30, 5], 0.5, seed=1).restore({"drawn": [1, 2, 3]})


CAPS = st.floats(0.1, 3)


def until_the_end(sampler):
    drawn = []
    while (draw := sampler.draw()) is not None:
        drawn.append(draw)
    return drawn


@given(SMALL_SIZES, ALPHAS, st.integers(0, 2**32), CAPS)
def test_a_cap_is_kept_to_the_draw_and_ends_the_stream(sizes, alpha, seed, cap):
    sampler = MixtureSampler(sizes, alpha, seed, cap)
    counts = Counter(draw.source for draw in until_the_end(sampler))
    assert [counts[source] for source in range(len(sizes))] == [math.floor(cap * size) for size in sizes]
    assert all(sampler.capped)
    assert sampler.draw() is None
    assert sampler.state()["drawn"] == [counts[source] for source in range(len(sizes))]


@given(SMALL_SIZES, ALPHAS, st.integers(0, 2**32), st.floats(1, 3))
def test_until_a_source_is_capped_the_draws_are_those_without_a_cap(sizes, alpha, seed, cap):
    free, sampler = MixtureSampler(sizes, alpha, seed), MixtureSampler(sizes, alpha, seed, cap)
    while not any(sampler.capped):
        assert sampler.draw() == free.draw()


@given(SMALL_SIZES, st.integers(0, 2**32), CAPS, st.data())
def test_restore_continues_across_a_cap(sizes, seed, cap, data):
    whole = until_the_end(MixtureSampler(sizes, 0.5, seed, cap))
    before = data.draw(st.integers(0, len(whole)))
    begun = MixtureSampler(sizes, 0.5, seed, cap)
    for _ in range(before):
        begun.draw()
    resumed = MixtureSampler(sizes, 0.5, seed, cap)
    resumed.restore(through_json(begun.state()))
    assert until_the_end(resumed) == whole[before:]


def test_after_a_cap_the_others_share_on_in_proportion():
    sampler = MixtureSampler([20_000, 50, 30_000], 0.5, seed=13, max_passes=2)
    while not any(sampler.capped):
        sampler.draw()
    assert sampler.capped == [False, True, False]
    draws = 20_000
    counts = Counter(sampler.draw().source for _ in range(draws))
    first, _, third = sampler.probabilities
    share = first / (first + third)
    assert counts[1] == 0
    assert abs(counts[0] - draws * share) <= 4 * math.sqrt(draws * share * (1 - share))


def test_seeds_give_different_streams():
    def stream(seed: int) -> tuple[tuple[int, int], ...]:
        sampler = MixtureSampler([40, 40], 0.5, seed)
        return tuple(sampler.draw() for _ in range(40))

    assert len({stream(seed) for seed in range(20)}) == 20
