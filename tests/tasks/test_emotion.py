"""The emotion head's rows and both of its protocols, against scikit-learn."""

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import accuracy_score, f1_score

from warmline.conversation import SPLITS, Conversation, Split, Turn
from warmline.metrics.baselines import best_thresholds
from warmline.sources.goemotions import GoEmotionsSettings
from warmline.tasks import TASKS
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL
from warmline.tasks.task import Evidence, HeadSettings, LabelRows, label_rows

EMOTION = TASKS["emotion"]
RNG = np.random.default_rng(0)


def rows_of(*pairs: tuple[str, tuple[str, ...]]) -> LabelRows:
    return label_rows(EMOTION, [Conversation(str(at), (Turn("user", text, {"emotion": found}),)) for at, (text, found) in enumerate(pairs)])


def test_rows_and_seen_texts() -> None:
    test = rows_of(("Thanks!", ("gratitude",)), ("Meh", ("neutral",)), ("Wow no", ("surprise", "anger")))
    assert test.single(27).tolist() == [True, False, False]
    assert test.labels.sum(axis=1).tolist() == [1, 1, 2]
    assert test.seen(rows_of(("thanks!", ("joy",)))).tolist() == [True, False, False]


@pytest.fixture(scope="module")
def comments() -> dict[Split, list[Conversation]]:
    """Of every label some rows, every fifth with a second one; texts 0 to 9 of test also stand in train."""

    def split(name: Split) -> list[Conversation]:
        drawn = [int(RNG.integers(28)) if at >= 28 else at for at in range(80)]
        labels = [(EMOTIONS_AND_NEUTRAL[label], *((EMOTIONS[at % 27],) if at % 5 == 0 else ())) for at, label in enumerate(drawn)]
        texts = [f"text {at}" if at < 10 else f"{name} {at}" for at in range(80)]
        turns = [Turn("user", text, {"emotion": tuple(dict.fromkeys(found))}) for text, found in zip(texts, labels, strict=True)]
        return [Conversation(str(at), (turn,)) for at, turn in enumerate(turns)]

    return {name: split(name) for name in SPLITS}


def evidence(comments: Mapping[Split, list[Conversation]], outputs: int) -> Evidence:
    logits: dict[Split, np.ndarray] = {split: RNG.normal(size=(80, outputs)) for split in ("valid", "test")}
    return Evidence(comments, logits, None, logits["test"] + RNG.normal(size=(80, outputs)), None, {}, 13)


@pytest.mark.parametrize("outputs", [27, 28])
def test_one_emotion_of_27(comments: dict[Split, list[Conversation]], outputs: int) -> None:
    """Rows whose only label is an emotion, with and without texts that train has too; of 28 outputs the first 27 count."""
    given = evidence(comments, outputs)
    found = EMOTION.score(given)["single_label_27"]
    rows = label_rows(EMOTION, comments["test"])
    single = [at for at, row in enumerate(rows.labels) if row.sum() == 1 and not row[27]]
    assert 10 < len(single) < 80
    for kept, scores in ((single, found), ([at for at in single if at >= 10], found["without_seen_texts"])):
        truth, guess = rows.labels[kept].argmax(axis=1), given.logits["test"][kept, :27].argmax(axis=1)
        assert scores["n"] == len(kept)
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, guess))
        assert scores["macro_f1"] == pytest.approx(f1_score(truth, guess, labels=range(27), average="macro", zero_division=0))
    assert found["without_seen_texts"]["left_out"] == len(single) - found["without_seen_texts"]["n"]
    assert given.served is not None
    served, own = (logits[single, :27].argmax(axis=1) for logits in (given.served, given.logits["test"]))
    assert found["in_context"]["accuracy"] == pytest.approx(accuracy_score(rows.labels[single].argmax(axis=1), served))
    assert found["in_context"]["changed"] == pytest.approx(np.mean(served != own))
    assert (found["calibration"] is None) == (outputs == 28)  # sigmoids give no distribution over the 27


def test_all_28_labels(comments: dict[Split, list[Conversation]]) -> None:
    """Every row, with thresholds that validation alone chose."""
    given = evidence(comments, 28)
    found = EMOTION.score(given)["multi_label_28"]
    truth = label_rows(EMOTION, comments["test"]).labels
    thresholds = best_thresholds(expit(given.logits["valid"]), label_rows(EMOTION, comments["valid"]).labels)
    guess = expit(given.logits["test"]) >= thresholds
    assert found["thresholds"] == dict(zip(EMOTIONS_AND_NEUTRAL, thresholds.tolist(), strict=True))
    assert (found["n"], found["without_seen_texts"]["n"]) == (80, 70)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))


def test_a_head_of_27_has_no_answer_of_28(comments: dict[Split, list[Conversation]]) -> None:
    found = EMOTION.score(evidence(comments, 27))["multi_label_28"]
    assert found["accuracy"] is found["macro_f1"] is None
    assert "27 outputs" in found["absent"]["head"]


def test_reports_lead_with_the_27(comments: dict[Split, list[Conversation]]) -> None:
    scores = EMOTION.score(evidence(comments, 28))
    assert EMOTION.protocols(scores) == {
        "emotion, 27-way": scores["single_label_27"],
        "emotion, 28 labels": scores["multi_label_28"],
    }


@pytest.mark.parametrize(("labels", "independent"), [(27, False), (28, True)])
def test_outputs_follow_the_source(labels: int, independent: bool) -> None:
    outputs = EMOTION.outputs({"goemotions": GoEmotionsSettings(labels=labels)})
    assert outputs == EMOTIONS_AND_NEUTRAL[:labels]
    assert EMOTION.independent(len(outputs)) is independent


def test_class_weights_have_no_part_in_28_labels() -> None:
    with pytest.raises(ValueError, match=r"heads\.emotion\.class_weights: 28 labels have thresholds"):
        EMOTION.refuse(HeadSettings(class_weights=0.5), 28)
    EMOTION.refuse(HeadSettings(class_weights=0.5), 27)
