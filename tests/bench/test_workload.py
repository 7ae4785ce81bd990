"""The benchmark trains on what it says it trains on."""

import numpy as np
import pytest

from warmline.bench.step import cases, run_bench
from warmline.bench.workload import FULL_ROWS, ROW_TOKENS, full_source, lengths, mixture_sources, packed_batches
from warmline.errors import WarmlineError
from warmline.runs import read_json


def test_mixture_has_the_lengths_it_names() -> None:
    sources = {source.name: source for source in mixture_sources(vocabulary=100)}
    medians = {name: float(np.median(source.lengths)) for name, source in sources.items()}
    assert medians["empathetic_dialogues"] == pytest.approx(150, rel=0.1)
    assert medians["esconv"] == pytest.approx(730, rel=0.1)
    assert medians["goemotions"] == pytest.approx(50, rel=0.1)
    total = sum(len(source) for source in sources.values())
    assert len(sources["goemotions"]) / total == pytest.approx(0.56, abs=0.01)


def test_every_objective_has_targets() -> None:
    counts = {source.name: source.target_counts() for source in mixture_sources(vocabulary=100)}
    assert counts["empathetic_dialogues"]["lm"].all()
    assert counts["esconv"]["strategy"].all()
    assert counts["goemotions"]["emotion"].all()
    assert counts["safety"]["safety"].all()
    assert not counts["goemotions"]["lm"].any()


def test_our_step_on_unsloth_is_measured_on_both_workloads() -> None:
    own = [(case.backend, case.workload, case.case) for case in cases("model", 2) if case.contender == "ours" and case.backend == "unsloth"]
    assert own == [("unsloth", "mix", "warmline on Unsloth, packed"), ("unsloth", "full", "warmline on Unsloth, packed")]
    assert len({(case.workload, case.case) for case in cases("model", 2)}) == len(cases("model", 2))


def test_full_rows_are_full() -> None:
    sources = full_source(vocabulary=100)
    assert set(sources[0].lengths.tolist()) == {ROW_TOKENS}
    assert len(next(packed_batches(sources, FULL_ROWS * ROW_TOKENS))) == FULL_ROWS


def test_padded_and_packed_contenders_see_the_same_lengths() -> None:
    padded = np.mean(lengths(4000, np.random.default_rng(0)))
    packed = np.average(
        [source.lengths.mean() for source in mixture_sources(100)], weights=[len(source) for source in mixture_sources(100)]
    )
    assert padded == pytest.approx(packed, rel=0.1)


def test_cases_have_names_of_their_own() -> None:
    names = [(case.case, case.workload) for case in cases("model", 2)]
    assert len(set(names)) == len(names)
    assert {case.contender for case in cases("model", 2)} == {"ours", "transformers", "unsloth"}


def test_needs_a_gpu(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(WarmlineError, match="needs a CUDA GPU"):
        run_bench(cases("model", 2)[:1], tmp_path, print)


def test_nothing_to_run_overwrites_nothing(tmp_path) -> None:
    with pytest.raises(WarmlineError, match="no case's name holds that text"):
        run_bench([], tmp_path, print)


def test_what_is_written_names_no_place(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("warmline.bench.step.count_gpus", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a card")
    monkeypatch.setattr("warmline.bench.step._run", lambda _: {"error": "not run"})
    run_bench(cases("/home/me/q8b", 1)[:1], tmp_path, print)
    assert read_json(tmp_path / "bench.json")["measurements"][0]["model"] == "q8b"
