"""EQ-Bench v2: the published scores, the parser, and what fails."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from warmline.eqbench import v2
from warmline.eqbench.v2 import (
    Question,
    ask,
    benchmark_score,
    load_questions,
    parse_answers,
    question_score,
    report,
    without_revision,
)
from warmline.journal import Journal
from warmline.responders import Answer, ChatRequest, Done

REFERENCE = {"Sad": 2.0, "Glad": 0.0, "Angry": 6.0, "Calm": 9.0}


@pytest.fixture(scope="module")
def questions(shared: Path) -> list[Question]:
    return load_questions(shared / "data" / "eqbench_v2" / "data")


def published_score(first_pass: Sequence[float | None], revised: Sequence[float | None]) -> float:
    """The score of a run with revision: the revised one if it is not lower and at least 95 % as many questions are parseable."""
    first, second = benchmark_score(first_pass), benchmark_score(revised)
    counts = [sum(score is not None for score in scores) for scores in (first_pass, revised)]
    return second if second >= first and counts[1] >= 0.95 * counts[0] else first


def test_every_published_score_is_reproduced(questions: list[Question], shared: Path) -> None:
    files = sorted((shared / "data" / "eqbench_v2" / "results").glob("*.json"))
    assert len(files) == 6
    differences = {}
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        answers = content["raw_results"]["1"]["respondent_answers"]
        passes = [
            [question_score(answers.get(question.id, {}).get(name, {}), question.reference) for question in questions]
            for name in ("first_pass", "revised")
        ]
        differences[file.name] = abs(published_score(*passes) - content["benchmark_score"])
    print({name.split("_")[0]: round(difference, 4) for name, difference in differences.items()})
    assert max(differences.values()) < 0.02


def test_the_parser_reads_the_raw_replies_as_published(questions: list[Question], shared: Path) -> None:
    """First-pass answers from the verbatim reply before `Critique` or `Revised`."""
    content = json.loads((shared / "data" / "eqbench_v2" / "results" / "gpt-4-0613_eqbench_v2_results.json").read_text(encoding="utf-8"))
    raw = content["raw_results"]["1"]
    for question in questions:
        first = raw["raw_inference"][question.id].split("Critique")[0]
        assert parse_answers(first) == raw["respondent_answers"][question.id]["first_pass"]


def test_a_constant_answer_scores_what_the_floor_says(questions: list[Question]) -> None:
    scores = [question_score(dict.fromkeys(question.reference, 3), question.reference) for question in questions]
    assert benchmark_score(scores) == pytest.approx(v2.CONSTANT_SCORE, abs=0.05)


def test_the_prompt_asks_for_one_pass(questions: list[Question]) -> None:
    for question in questions:
        prompt = without_revision(question.prompt)
        assert not any(word in prompt for word in ("Critique:", "Revised scores", "revised score", "critique your answer", "First pass"))
        assert all(f"{emotion}: <score>" in prompt for emotion in question.reference)
        assert prompt.endswith("You must score at least one emotion > 0.\n\nYour answer:\n")


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        ({"Sad": "2", "Glad": "0", "Angry": "6", "Calm": "9"}, 10.0),
        ({"Sad": "2", "Glad": "0", "Angry": "6", "Calm": "2"}, 10 - 0.7477 * 7),
        ({"Sad": "6", "Glad": "0", "Angry": "6", "Calm": "9"}, 10 - 0.7477 * 3.25),
        ({"Sad": "2", "Glad": "0", "Angry": "6"}, None),
        ({"Sad": "2", "Glad": "0", "Angry": "6", "Cool": "9"}, None),
        ({"Sad": "2", "Glad": "0", "Angry": "6", "Calm": "9", "Extra": "1"}, None),
    ],
)
def test_a_question(answers: dict[str, str], score: float | None) -> None:
    found = question_score(answers, REFERENCE)
    assert found == (None if score is None else pytest.approx(score))


def test_the_parser() -> None:
    assert parse_answers("Sad: 3\nGlad:4\n**Angry**: 5\nCalm: 10/10 Sad: 2") == {"Sad": "2", "Calm": "10"}


class Scripted:
    """Answers from a function of the question's number."""

    identity = "scripted"
    max_tokens = 60

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.asked = 0

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        for at, request in enumerate(requests):
            assert (request.temperature, request.max_tokens, request.min_p) == (0.01, 60, None)
            done(at, Answer(self.texts[self.asked]))
            self.asked += 1


def made(count: int) -> list[Question]:
    return [Question(str(n), f"Question {n}\nCritique: <your critique here>\n[End of answer]", REFERENCE) for n in range(count)]


GOOD, CLOSE, BAD = "Sad: 2\nGlad: 0\nAngry: 6\nCalm: 9", "Sad: 4\nGlad: 0\nAngry: 6\nCalm: 9", "I feel a lot."


def test_base_and_tuned_are_compared_in_pairs(tmp_path: Path) -> None:
    journal, questions = Journal(tmp_path / "replies.jsonl"), made(30)
    tuned = Scripted([GOOD] * 28 + [BAD] * 2)
    answers = {"tuned": ask(questions, tuned, journal, lambda: None)}
    assert [answer.text for answer in ask(questions, tuned, journal, lambda: None)] == [answer.text for answer in answers["tuned"]]
    assert tuned.asked == 30  # the second time from the journal
    answers["base"] = [Answer(CLOSE)] * 30
    result = report(questions, answers, seed=1)
    assert (result["tuned"]["score"], result["tuned"]["parsed"], result["tuned"]["reason"]) == (100.0, 28, None)
    assert result["base"]["score"] == pytest.approx(100 - 7.477 * 0.5403, abs=0.01)
    assert result["difference"]["tuned_minus_base"] == pytest.approx(100 - result["base"]["score"])
    assert result["difference"]["interval"] == pytest.approx([100 - result["base"]["score"]] * 2)
    assert result["context"]["benchmark"] == "EQ-Bench v2"


def test_a_shorter_answer_is_another_one(tmp_path: Path) -> None:
    """What was cut at fewer tokens than the protocol's is not found again when there is more room; both say whether they were cut."""

    class Local(Scripted):
        def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
            for at, request in enumerate(requests):
                done(at, Answer(GOOD, cut=request.max_tokens < 60))

    journal, questions, local = Journal(tmp_path / "replies.jsonl"), made(3), Local([])
    for room, cut in ((24, True), (60, False), (12_000, False), (24, True)):
        local.max_tokens = room
        assert [answer.cut for answer in ask(questions, local, journal, lambda: None)] == [cut] * 3
    assert len(journal.path.read_text(encoding="utf-8").splitlines()) == 6
    result = report(questions, dict.fromkeys(("base", "tuned"), [Answer(GOOD, cut=True)] * 3), seed=1)
    assert (result["base"]["cut_off"]["n"], result["base"]["score"]) == (3, 100.0)  # the protocol's own length: for information


def test_too_few_parseable_answers_are_no_score() -> None:
    """24 of 29 are 82.8 %, 25 of 30 are 83.33 %."""
    failed = report(made(29), {"base": [Answer(GOOD)] * 29, "tuned": [Answer(GOOD)] * 24 + [Answer(None, "gone")] * 5}, seed=1)
    assert (failed["tuned"]["score"], failed["tuned"]["interval"], failed["tuned"]["errors"]) == (None, None, 5)
    assert failed["tuned"]["reason"] == "24 of 29 questions parseable, fewer than 83.33%"
    assert failed["difference"] == {"tuned_minus_base": None, "interval": None, "reason": "no score of tuned"}
    passed = report(made(30), {"base": [Answer(GOOD)] * 30, "tuned": [Answer(GOOD)] * 25 + [Answer(BAD)] * 5}, seed=1)
    assert passed["tuned"]["score"] == 100.0
