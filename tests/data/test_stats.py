import json

import pytest

from warmline.config import DataConfig
from warmline.data.cards import data_stats


@pytest.fixture(scope="module")
def official_stats(official):
    return data_stats(DataConfig(dir=str(official)))


@pytest.fixture(scope="module")
def sample_stats():
    return data_stats(DataConfig(dir="sample"))


def counts(stats, source, *columns):
    return [tuple(stats["sources"][source][split][column] for column in columns) for split in ("train", "valid", "test")]


def test_official_empathetic_dialogues(official_stats):
    assert counts(official_stats, "empathetic_dialogues", "conversations", "utterances") == [
        (19_532, 84_165),
        (2_769, 12_074),
        (2_546, 10_969),
    ]


def test_official_esconv(official_stats):
    assert counts(official_stats, "esconv", "conversations", "strategy_targets") == [(910, 12_759), (195, 2_722), (195, 2_895)]


def test_official_goemotions(official_stats):
    assert counts(official_stats, "goemotions", "rows", "emotion_targets", "single_label") == [
        (43_410, 30_587, 23_485),
        (5_426, 3_834, 2_956),
        (5_427, 3_821, 2_984),
    ]


def test_official_strategy_table(official_stats):
    assert official_stats["sources"]["esconv"]["train"]["labels"]["strategies"] == {
        "Question": 2_622,
        "Others": 2_354,
        "Affirmation and Reassurance": 1_988,
        "Providing Suggestions": 1_987,
        "Self-disclosure": 1_185,
        "Reflection of feelings": 990,
        "Information": 835,
        "Restatement or Paraphrasing": 798,
    }


def test_goemotions_with_28_labels_counts_every_row(official):
    disabled = {name: {"enabled": False} for name in ("empathetic_dialogues", "esconv", "safety")}
    config = DataConfig.model_validate({"dir": str(official), "sources": {"goemotions": {"labels": 28}, **disabled}})
    assert counts(data_stats(config), "goemotions", "rows", "emotion_targets", "single_label") == [
        (43_410, 43_410, 23_485),
        (5_426, 5_426, 2_956),
        (5_427, 5_427, 2_984),
    ]


def test_mixture_follows_the_training_conversations(official_stats):
    mixture = official_stats["mixture"]
    roots = {name: size ** mixture["alpha"] for name, size in mixture["conversations"].items()}
    assert mixture["shares"] == pytest.approx({name: root / sum(roots.values()) for name, root in roots.items()})
    assert sum(mixture["percent"].values()) == 100


@pytest.mark.parametrize("source", ["empathetic_dialogues", "esconv", "goemotions", "safety"])
def test_rows_are_used_or_left_out_for_a_reason(sample_stats, source):
    for split in sample_stats["sources"][source].values():
        assert split["rows"] == split["conversations"] + sum(split["left_out"].values())


def test_only_the_objectives_of_a_source_are_counted(sample_stats):
    esconv = sample_stats["sources"]["esconv"]["train"]
    assert esconv["strategy_targets"] == esconv["lm_targets"] > 0
    assert esconv["emotion_targets"] == esconv["safety_targets"] == 0


def test_labels_are_counted_by_turn(sample_stats):
    esconv = sample_stats["sources"]["esconv"]["train"]
    assert sum(esconv["labels"]["strategies"].values()) == esconv["strategy_targets"]
    ed = sample_stats["sources"]["empathetic_dialogues"]["train"]
    assert sum(ed["labels"]["situations"].values()) == ed["conversations"]


def test_stats_are_plain_json(sample_stats):
    assert json.loads(json.dumps(sample_stats)) == sample_stats
