"""EQ-Bench v2: predict four emotions' intensities after a dialogue. It needs no judge, and is not EQ-Bench 3."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from warmline.eqbench.suites import EQBENCH2_COMMIT, EQBENCH2_SHA256, read_pinned
from warmline.evaluation.replies import cut_off
from warmline.journal import Journal, ask_once, content_key
from warmline.metrics.statistics import cluster_bootstrap, difference, weighted_ratio
from warmline.responders import Answer, ChatRequest, Responder

NAME = "EQ-Bench v2"
TEMPERATURE, MAX_TOKENS = 0.01, 60
LEAST_PARSED = 0.8333
"""Share of questions that must be parseable; a run with fewer has no score."""
CONSTANT_SCORE = 38.9
"""Of answering 3 everywhere: below it, a model knows less than a constant."""

_ANSWER = re.compile(r"(\w+):\s+(\d+)")
_ASK_FOR_REVISION = " Then critique your answer by thinking it through step by step. Finally, give your revised scores."


class Question(NamedTuple):
    """One dialogue.

    Attributes:
        id: "1" to "171".
        prompt: As in the file: it asks for a first pass, a critique and revised scores.
        reference: Intensity by emotion, 0 to 10.
    """

    id: str
    prompt: str
    reference: dict[str, float]


def load_questions(folder: Path) -> list[Question]:
    """The 171 questions.

    Raises:
        WarmlineError: the file is missing or not that of the pinned revision.
    """
    (text,) = read_pinned(folder, EQBENCH2_SHA256).values()
    questions = []
    for name, item in json.loads(text).items():
        answer = item["reference_answer_fullscale"]
        questions.append(Question(name, item["prompt"], {answer[f"emotion{n}"]: float(answer[f"emotion{n}_score"]) for n in range(1, 5)}))
    return questions


def without_revision(prompt: str) -> str:
    """The prompt for a first pass only, as the official code cuts it since v2.1."""
    prompt = prompt.replace(_ASK_FOR_REVISION, "").replace("First pass scores:\n", "")
    head, _, rest = prompt.partition("Critique: <your critique here>")
    return f"{head}\n{rest[rest.find('[End of answer]') :]}\nYour answer:\n"


def parse_answers(reply: str) -> dict[str, str]:
    """Intensity by word, from every `Word: number` of a reply; the last one counts."""
    return dict(_ANSWER.findall(reply))


def question_score(answers: Mapping[str, str | float], reference: Mapping[str, float]) -> float | None:
    """10 less a penalty for each emotion's distance; random answers average 0. None unless exactly the four emotions were answered."""
    if set(answers) != set(reference):
        return None
    return 10 - 0.7477 * sum(_penalty(abs(float(answers[emotion]) - reference[emotion])) for emotion in reference)


def _penalty(distance: float) -> float:
    if distance == 0:
        return 0.0
    return 6.5 / (1 + math.exp(-1.2 * (distance - 4))) if distance <= 5 else distance


def benchmark_score(scores: Sequence[float | None]) -> float:
    """10 times the mean over parseable questions; 0 without any."""
    parsed = [score for score in scores if score is not None]
    return 10 * sum(parsed) / len(parsed) if parsed else 0.0


def ask(questions: Sequence[Question], responder: Responder, journal: Journal, advance: Callable[[], None]) -> list[Answer]:
    """A reply to each question, revision off; found in the journal or asked for and kept there."""
    longest = min(MAX_TOKENS, responder.max_tokens)  # part of the key: a shorter answer is another one
    requests = [
        ChatRequest([{"role": "user", "content": without_revision(question.prompt)}], TEMPERATURE, longest) for question in questions
    ]
    keys = [content_key(model=responder.identity, benchmark=NAME, **request.sent()) for request in requests]
    about = [{"benchmark": NAME, "model": responder.identity, "question": question.id} for question in questions]
    return ask_once(journal, responder, requests, about, keys, advance)


def report(questions: Sequence[Question], answers: Mapping[str, Sequence[Answer]], seed: int) -> dict[str, Any]:
    """Scores of base and tuned, and their paired difference.

    Args:
        questions: What was asked.
        answers: By model, in the questions' order.
        seed: Of the bootstrap over questions.
    """
    scores = {
        model: [
            question_score(parse_answers(answer.text or ""), question.reference) for question, answer in zip(questions, given, strict=True)
        ]
        for model, given in answers.items()
    }
    result: dict[str, Any] = {
        "context": {
            "benchmark": NAME,
            "revision": f"EQ-bench/EQ-Bench@{EQBENCH2_COMMIT}",
            "files_sha256": EQBENCH2_SHA256,
            "questions": len(questions),
            "decoding": {"temperature": TEMPERATURE, "max_tokens": MAX_TOKENS, "revision": False, "attempts": 1},
            "constant_answer_score": CONSTANT_SCORE,
        }
    }
    failed = []
    for model, values in scores.items():
        parsed = sum(value is not None for value in values)
        fails = parsed < LEAST_PARSED * len(questions)
        failed += [model] if fails else []
        result[model] = {
            "score": None if fails else benchmark_score(values),
            "reason": f"{parsed} of {len(questions)} questions parseable, fewer than {LEAST_PARSED:.2%}" if fails else None,
            "interval": None if fails else cluster_bootstrap(_ten_times_mean(values), range(len(values)), seed),
            "parsed": parsed,
            "parse_rate": parsed / len(questions),
            "errors": sum(answer.text is None for answer in answers[model]),
            "cut_off": cut_off([answer.cut for answer in answers[model] if answer.text is not None]),
        }
    if failed:
        result["difference"] = {"tuned_minus_base": None, "interval": None, "reason": f"no score of {' and '.join(failed)}"}
        return result
    paired = difference(_ten_times_mean(scores["tuned"]), _ten_times_mean(scores["base"]))
    gain = result["tuned"]["score"] - result["base"]["score"]
    result["difference"] = {"tuned_minus_base": gain, "interval": cluster_bootstrap(paired, range(len(questions)), seed), "reason": None}
    return result


def _ten_times_mean(scores: Sequence[float | None]) -> Callable[..., Any]:
    return weighted_ratio([10 * (score or 0.0) for score in scores], [float(score is not None) for score in scores])
