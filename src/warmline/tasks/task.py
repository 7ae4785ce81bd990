"""What a head is: everything in which one head differs from another.

A new head is a subclass of `HeadTask`, in a file of its own, and a place in `TASKS`; a source whose turns carry its labels
(`sources.source`) gives it something to learn. Training, validation, self-check, curves, evaluation, ablation, report, export and serving
go over the heads of a run and ask them. scikit-learn and SciPy are imported where something is scored: a configuration is read without.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from warmline.conversation import Conversation, Split
from warmline.metrics.scores import compared, confusion, per_class, single_label_statistics, with_intervals
from warmline.metrics.statistics import BoolArray, FloatArray, IntArray, Statistic, weighted_mean
from warmline.settings import Count, Section, Share

_EXPONENTS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}
Exponent = Annotated[Share, BeforeValidator(lambda given: _EXPONENTS.get(given, given) if isinstance(given, str) else given)]
CONTEXT_TURNS = 3
"""Before a reply, as its context where only words are looked at."""

IN_CONTEXT = "the same rows as when serving: each the user's last turn behind turns of a held-out dialogue, drawn by the seed"
NO_CONTEXT = "neither empathetic_dialogues nor esconv is enabled, so there are no earlier turns to stand before a comment"
PROTOCOL = "rows with exactly one label; what the head reads stands before the reply"


class HeadSettings(Section):
    """One classification head on the final states; its weights stay in fp32."""

    hidden_size: Count | None = Field(None, description="Width of one hidden layer; null for a linear head.")
    dropout: Share = Field(0.1, description="Dropout on the state that the head reads.")
    class_weights: Exponent = Field(
        0.0,
        description="x: each target counts in proportion to n^-x of its class's n training targets, with mean 1 over these. 0 counts all "
        "alike, 1 gives every class the same part of the loss; none, sqrt and balanced are 0, 0.5 and 1. Lifts rare classes (macro-F1), "
        "costs accuracy and calibration.",
    )


class HiddenReply(NamedTuple):
    """What became of a head's answers when the replies that follow were hidden.

    Attributes:
        asked: Turns, one of each conversation that has any.
        moved: Of these, how many have other logits than before: none, for a head that reads before the reply.
    """

    asked: int
    moved: int

    def warning(self, name: str) -> str | None:
        """A line that says so of a head, or None."""
        if not self.moved:
            return None
        return (
            f"{name} head: with the reply hidden, what it says of {self.moved} of {self.asked} turns changes; it reads the reply it "
            "should predict"
        )


class Evidence(NamedTuple):
    """What a head is scored by, in the order of its rows.

    Attributes:
        conversations: Of the source that carries its labels, by split.
        logits: The head's on valid and test, [rows, outputs].
        inputs: What it reads, of the frozen base, [rows, width] a split; None where no baseline is asked for.
        served: Its logits on test as when serving: a head that reads the turn alone behind earlier turns, one that sees earlier labels
            with its own in their place. None where that is not measured or no other thing.
        hidden: For a head that reads before the reply.
        data: What baselines that read no model depend on: sha256 of the source's files, the version of its loader, the labels.
        seed: Of the bootstrap.
    """

    conversations: Mapping[Split, Sequence[Conversation]]
    logits: Mapping[Split, FloatArray]
    inputs: Mapping[Split, npt.NDArray[Any]] | None
    served: FloatArray | None
    hidden: HiddenReply | None
    data: Mapping[str, str]
    seed: int


class HeadTask:
    """A head, its labels, its scores and its words.

    Attributes:
        name: In configurations (`heads.<name>`, `loss.<name>`), artefacts, results and the API.
        standard: Whether a configuration that does not name it has it; one that earlier runs did not have is off for them.
        title: What it tells, in words.
        plural: Of its labels, in counts and pictures.
        labels: Everything that people may have said of a turn, in the order of the ids; at most 63.
        classes: So many of the labels, from the first, are answers where one is asked for.
        reads: The turns that carry its labels. `user`: it reads the last token (end of turn) of the user's turn. `assistant`: the last
            token of the header of the assistant's turn, whose state predicts the reply's first token. Both come before the reply.
        alone: Whether its training turns stand alone, so that it is served the user's turn alone, behind the system prompt.
        weight: Of its loss where a configuration names none.
        settings: Its section under `heads`.
        lead: For people: what stands before a label in a sentence, as in `heard joy`.
        explanation: What its probabilities say, in a sentence or two.
        words: What a label is called where its name will not do.
        families: Of labels, each with one hue on the page (`serving/web/style.css`); empty for a head without colours.
    """

    name: str
    standard: bool = False
    title: str
    plural: str
    labels: tuple[str, ...]
    reads: Literal["user", "assistant"]
    alone: bool = False
    weight: float = 0.2
    settings: type[HeadSettings] = HeadSettings
    lead: str = "reads"
    explanation: str = ""
    words: Mapping[str, str] = {}
    families: Mapping[str, str] = {}

    @property
    def classes(self) -> int:
        """As of the class."""
        return len(self.labels)

    def outputs(self, sources: Mapping[str, Section]) -> tuple[str, ...]:
        """Labels that the head answers with, the first of `labels`.

        Args:
            sources: The settings of the run's sources, by name.
        """
        return self.labels[: self.classes]

    def independent(self, outputs: int) -> bool:
        """Whether a head of so many outputs gives each a probability of its own (sigmoid) and not all together one (softmax)."""
        return False

    def sees_earlier(self, settings: HeadSettings) -> bool:
        """Whether the labels of the earlier replies are an input: annotated in training, its own probabilities when serving."""
        return False

    def refuse(self, settings: HeadSettings, outputs: int) -> None:
        """Refuse settings that do not go together.

        Raises:
            ValueError: which, and how to mend it.
        """
        if self.independent(outputs) and settings.class_weights:
            raise ValueError(f"heads.{self.name}.class_weights: {outputs} labels have thresholds from validation instead; set it to 0")

    def reading(self, settings: HeadSettings) -> str:
        """What it reads, in words."""
        if self.reads == "user":
            return "scaled final hidden state at the last token (end of turn) of the user's turn" + (
                ", which is run alone" if self.alone else ""
            )
        earlier = f"; and the earlier replies' {self.plural}: annotated, or where nobody annotates the head's own probabilities"
        said = "scaled final hidden state at the last token of the assistant's header, before the reply"
        return said + (earlier if self.sees_earlier(settings) else "")

    def word(self, label: str) -> str:
        """A label as people are told it."""
        return self.words.get(label, label)

    def hint(self, label: str) -> str | None:
        """What a reply with this label does, as a note to whoever writes it; None for a head of users' turns."""
        return None

    def missed(self, label: str, reply: str) -> bool:
        """Whether a reply plainly does not do what its label says; only what a glance at the text can tell."""
        return False

    def told(self, probabilities: Mapping[str, float]) -> str:
        """The likeliest label in words: `heard sadness 62 %`."""
        label = likeliest(probabilities)
        return f"{self.lead} {self.word(label)} {f'{probabilities[label]:.0%}'.removesuffix('%')} %"

    # scores

    def score(self, evidence: Evidence) -> dict[str, Any]:
        """The head on the test split, beside what it must beat; what `evaluation.json` holds under its name.

        Of softmax heads; one that is `independent` has a `score` of its own.
        """
        rows = {split: label_rows(self, found) for split, found in evidence.conversations.items()}
        truth = {split: one.targets(self.classes) for split, one in rows.items()}
        kept = {split: one.single(self.classes) for split, one in rows.items()}
        baselines = {}
        if evidence.inputs is not None:
            from warmline.metrics.baselines import cached, fit_dense, fit_text, text_features

            texts = {split: [text for text, single in zip(one.texts, kept[split], strict=True) if single] for split, one in rows.items()}
            baselines = {
                **cached(self.name, evidence.data, lambda: {"tfidf": fit_text(text_features(texts, pieces=True), truth, self.classes)}),
                "linear_probe": fit_dense({split: found[kept[split]] for split, found in evidence.inputs.items()}, truth, self.classes),
            }
        own = {split: logits[kept[split]][:, : self.classes] for split, logits in evidence.logits.items()}
        clusters = rows["test"].dialogues[kept["test"]]
        found = {
            "protocol": PROTOCOL,
            **with_intervals(single_label_statistics(truth["test"], own["test"]), clusters, evidence.seed),
            **beside(truth["test"], own["test"], truth["train"], baselines, self.labels[: self.classes], clusters, evidence.seed),
            "calibration": calibrated(own, truth),
        }
        if self.alone and evidence.served is None:
            found |= {"in_context": None, "absent": {"in_context": NO_CONTEXT}}
        elif evidence.served is not None and self.alone:
            served = evidence.served[kept["test"]][:, : self.classes]
            changed = served.argmax(axis=1) != own["test"].argmax(axis=1)
            alone, behind = (single_label_statistics(truth["test"], logits) for logits in (own["test"], served))
            found["in_context"] = in_context_scores(alone, behind, changed, clusters, evidence.seed)
        return {**found, **({} if evidence.hidden is None else {"hidden_reply": evidence.hidden._asdict()})}

    def protocols(self, scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What `score` gave, protocol by protocol, each with its title; the first is what reports lead with."""
        return {self.name: scores}

    def leading(self, scores: dict[str, Any]) -> dict[str, Any]:
        """The first of the protocols."""
        return next(iter(self.protocols(scores).values()))

    def as_served(self, scores: dict[str, Any]) -> dict[str, Any] | None:
        """The part of `score` that says what serving can be asked for, where that is not the first protocol itself."""
        return None

    def warnings(self, scores: dict[str, Any]) -> list[str]:
        """Lines for people who read the scores: that it reads the reply which it should predict."""
        line = HiddenReply(**scores["hidden_reply"]).warning(self.name) if "hidden_reply" in scores else None
        return [] if line is None else [line]


def likeliest(probabilities: Mapping[str, float]) -> str:
    """The label with the highest probability."""
    return max(probabilities, key=lambda label: probabilities[label])


class LabelRows(NamedTuple):
    """The labelled turns of one split, in the order in which encoded sources give their targets.

    Attributes:
        texts: [rows], the user's turn that is read, or the last turns before the reply.
        labels: [rows, labels].
        dialogues: [rows], which conversation a row belongs to.
    """

    texts: list[str]
    labels: BoolArray
    dialogues: IntArray

    def single(self, classes: int) -> BoolArray:
        """[rows], True where the only label is one of the first `classes`."""
        return sole(self.labels, classes)

    def targets(self, classes: int) -> IntArray:
        """[single rows], the label's place."""
        return np.asarray(self.labels[self.single(classes)].argmax(axis=1))

    def seen(self, others: "LabelRows") -> BoolArray:
        """[rows], True where the text, without regard to case, also stands in the other split, whatever its labels there."""
        known = {text.lower() for text in others.texts}
        return np.asarray([text.lower() in known for text in self.texts], dtype=bool)


def sole(labels: BoolArray, classes: int) -> BoolArray:
    """[rows], True where exactly one of the labels, [rows, labels], applies and it is among the first `classes`."""
    return np.asarray((labels.sum(axis=1) == 1) & labels[:, :classes].any(axis=1))


def label_rows(task: HeadTask, conversations: Sequence[Conversation]) -> LabelRows:
    """A row for each turn that carries a label of the head."""
    texts, labels, dialogues = [], [], []
    for number, conversation in enumerate(conversations):
        for at, turn in enumerate(conversation.turns):
            if turn.role != task.reads or not turn.labels.get(task.name):
                continue
            before = conversation.turns[max(0, at - CONTEXT_TURNS) : at]
            texts.append(turn.text if task.reads == "user" else " ".join(one.text for one in before))
            labels.append([label in turn.labels[task.name] for label in task.labels])
            dialogues.append(number)
    return LabelRows(texts, np.asarray(labels, bool).reshape(-1, len(task.labels)), np.asarray(dialogues, np.int64))


def beside(
    truth: IntArray,
    own: FloatArray,
    train: IntArray,
    baselines: Mapping[str, Any],
    labels: tuple[str, ...],
    clusters: IntArray,
    seed: int,
    describe: Any = None,
) -> dict[str, Any]:
    """What stands beside a head's own scores where each row has one answer.

    Args:
        truth: [test rows].
        own: [test rows, classes], the head's logits.
        train: [train rows], for the majority class.
        baselines: `metrics.baselines.Fitted` by name.
        labels: Names of the classes.
        clusters: [test rows], what the bootstrap draws.
        seed: Of the bootstrap.
        describe: How one predictor's scores are told, from its [test rows, classes]; None gives them with intervals.

    Returns:
        `majority`, `baselines` (each with the head's gain over it), `per_class`, `labels`, `confusion`.
    """

    def plainly(probabilities: FloatArray) -> dict[str, Any]:
        return with_intervals(single_label_statistics(truth, probabilities), clusters, seed)

    tell, classes, head = describe or plainly, len(labels), single_label_statistics(truth, own)
    majority, guess = int(np.bincount(train, minlength=classes).argmax()), own.argmax(axis=1)
    always = np.tile(np.arange(classes) == majority, (len(truth), 1)).astype(float)
    return {
        "majority": {"label": labels[majority], **tell(always)},
        "baselines": {
            name: {
                "c": fitted.c,
                **tell(fitted.test),
                "head_minus_this": compared(head, single_label_statistics(truth, fitted.test), clusters, seed),
            }
            for name, fitted in baselines.items()
        },
        "per_class": per_class(one_hot(truth, classes), one_hot(guess, classes), labels),
        "labels": list(labels),
        "confusion": confusion(truth, guess, classes).tolist(),
    }


def in_context_scores(
    alone: Mapping[str, Statistic], served: Mapping[str, Statistic], changed: BoolArray, clusters: IntArray, seed: int
) -> dict[str, Any]:
    """A head that reads the turn alone, on the same rows behind earlier turns.

    Args:
        alone: Its statistics without them.
        served: Behind them.
        changed: [rows], True where its answer is another one.
        clusters: [rows], what the bootstrap draws.
        seed: Of the bootstrap.
    """
    return {
        "protocol": IN_CONTEXT,
        **with_intervals({**served, "changed": weighted_mean(changed)}, clusters, seed),
        "head_minus_this": compared(alone, served, clusters, seed),
    }


def calibrated(logits: Mapping[Split, FloatArray], truth: Mapping[Split, IntArray]) -> dict[str, Any]:
    """Calibration on test, with the temperature that validation chose."""
    from warmline.metrics.calibration import calibration, fit_temperature

    return calibration(logits["test"], truth["test"], fit_temperature(logits["valid"], truth["valid"]))


def one_hot(classes: IntArray, number: int) -> BoolArray:
    """[rows, classes], True at each row's class."""
    return np.asarray(classes[:, None] == np.arange(number))
