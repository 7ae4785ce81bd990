"""What a head must beat: predictors without a tuned language model, fitted on the same training rows.

All are logistic regressions; what differs is what they see: nothing (majority), earlier strategies and the turn's position, TF-IDF of the
text, or the frozen base's hidden state where the head reads (the linear probe). One regularisation C each, chosen by accuracy on
validation.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from warmline.conversation import Split
from warmline.files import cache_file, keep
from warmline.metrics.statistics import BoolArray, FloatArray, IntArray

TEXT_GRID = (0.1, 1.0, 3.0)
DENSE_GRID = (0.001, 0.01, 0.1, 1.0)
_TOKENS = r"\w+(?:'\w+)?|[^\w\s]"
"""Words, and each mark by itself: `?` and `!` say much about emotion and strategy."""

_FORMAT = 2
"""Part of every cache key: raise it when a baseline changes."""


class Fitted(NamedTuple):
    """A fitted baseline's probabilities.

    Attributes:
        valid: [validation rows, classes].
        test: [test rows, classes].
        c: The inverse regularisation that was chosen.
    """

    valid: FloatArray
    test: FloatArray
    c: float


Features = Mapping[Split, Any]
"""One matrix a split, [rows, features], dense or sparse."""


def text_features(texts: Mapping[Split, Sequence[str]], pieces: bool) -> Features:
    """TF-IDF fitted on train: words and pairs of words with punctuation.

    Args:
        texts: One a row.
        pieces: Pieces of words too, which help where texts are short and misspelt (2 points on GoEmotions, none on ESConv).
    """
    vectorizer = (
        make_union(_words(), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3)) if pieces else _words()
    )
    vectorizer.fit(texts["train"])
    return {split: vectorizer.transform(one).tocsr() for split, one in texts.items()}


def reply_judge(replies: Sequence[str], targets: IntArray) -> Any:
    """A scikit-learn pipeline from a reply's text to its strategy, to look at generated replies with."""
    return make_pipeline(_words(), OneVsRestClassifier(_sparse(1.0))).fit(replies, targets)


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(token_pattern=_TOKENS, ngram_range=(1, 2), sublinear_tf=True, min_df=2)


def scaled_features(matrices: Mapping[Split, npt.NDArray[Any]]) -> Features:
    """Each column with mean 0 and variance 1 on train."""
    scaler = StandardScaler().fit(matrices["train"])
    return {split: scaler.transform(matrix) if len(matrix) else matrix for split, matrix in matrices.items()}


def fit_text(features: Features, targets: Mapping[Split, IntArray], classes: int) -> Fitted:
    """Logistic regression on sparse text features, one class against the rest."""
    return _best(features, targets, classes, TEXT_GRID, lambda c: OneVsRestClassifier(_sparse(c)))


def fit_dense(matrices: Mapping[Split, npt.NDArray[Any]], targets: Mapping[Split, IntArray], classes: int) -> Fitted:
    """Multinomial logistic regression on dense features, each scaled on train.

    On states it is the linear probe: what they know, whether or not the head that reads them was ever trained.

    Args:
        matrices: [rows, features] a split; at least two labels in train. Without validation rows the strongest regularisation is taken.
        targets: [rows] a split.
        classes: Number of labels.
    """
    return _best(scaled_features(matrices), targets, classes, DENSE_GRID, lambda c: LogisticRegression(C=c, max_iter=300))


def fit_labels(features: Features, labels: BoolArray, c: float, sparse: bool) -> Fitted:
    """One logistic regression a label, for rows with several.

    Args:
        features: As `text_features` or `scaled_features` give.
        labels: [train rows, labels].
        c: Inverse regularisation, chosen in the single-label protocol.
        sparse: Whether the features are.
    """
    model = OneVsRestClassifier(_sparse(c) if sparse else LogisticRegression(C=c, max_iter=100))
    with _quiet():
        model.fit(features["train"], labels)
        return Fitted(model.predict_proba(features["valid"]), model.predict_proba(features["test"]), c)


def _sparse(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, solver="liblinear", dual=True, tol=0.1, random_state=0)


def _best(
    features: Features, targets: Mapping[Split, IntArray], classes: int, grid: Sequence[float], make: Callable[[float], Any]
) -> Fitted:
    """The model that is right most often on validation; of equals the one with more regularisation."""
    best, most = None, -1.0
    chooses = len(targets["valid"]) > 0
    for c in grid if chooses else grid[:1]:
        model = make(c)
        with _quiet():
            model.fit(features["train"], targets["train"])
        accuracy = float((model.predict(features["valid"]) == targets["valid"]).mean()) if chooses else 0.0
        if accuracy > most:
            best, most, chosen = model, accuracy, c
    return Fitted(_probabilities(best, features["valid"], classes), _probabilities(best, features["test"], classes), chosen)


def _probabilities(model: Any, matrix: Any, classes: int) -> FloatArray:
    """[rows, classes]; a class without a training row has probability 0."""
    found = np.zeros((matrix.shape[0], classes))
    if len(found):
        found[:, model.classes_] = model.predict_proba(matrix)
    return found


def best_thresholds(probabilities: FloatArray, truth: BoolArray) -> FloatArray:
    """Each label's threshold with the highest F1 on validation, half way between two neighbouring probabilities.

    Args:
        probabilities: [rows, labels].
        truth: [rows, labels].

    Returns:
        [labels]; 0.5 for a label that is never true there.
    """
    thresholds = np.full(truth.shape[1], 0.5)
    for label in range(truth.shape[1]):
        order = np.argsort(-probabilities[:, label], kind="stable")
        ranked, hits = probabilities[order, label], np.cumsum(truth[order, label])
        if not hits[-1]:
            continue
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
        f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal probabilities cannot be parted
        last = int(f1.argmax())
        below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        thresholds[label] = (ranked[last] + below) / 2
    return thresholds


def cached(name: str, data: Mapping[str, str], compute: Callable[[], Mapping[str, Fitted]]) -> dict[str, Fitted]:
    """Baselines that depend on data alone, kept in the cache.

    Args:
        name: Of the group.
        data: What they depend on, such as the sha256 of the files.
        compute: Fits them.
    """
    key = json.dumps([_FORMAT, name, sklearn.__version__, dict(data)], sort_keys=True)
    path = cache_file(f"baselines-{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz")
    with suppress(OSError, ValueError, KeyError), np.load(path) as file:
        names = sorted({entry.rsplit(".", 1)[0] for entry in file.files})
        return {one: Fitted(file[f"{one}.valid"], file[f"{one}.test"], float(file[f"{one}.c"])) for one in names}
    found = dict(compute())
    arrays: dict[str, Any] = {f"{one}.{field}": value for one, fitted in found.items() for field, value in fitted._asdict().items()}
    keep(path, lambda aside: np.savez(aside, **arrays))
    return found


@contextmanager
def _quiet() -> Any:
    """Without scikit-learn's notes on a solver that stopped early or a label without examples: neither changes what is reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Label not")
        yield
