"""What the judge is shown of a conversation, and what counts as its answer."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from warmline.eqbench.play import Transcript, parse_sections
from warmline.eqbench.suites import SECTION_LIMITS, Form, Scenario, Suite, fill
from warmline.errors import shown
from warmline.judges import LONGEST, UnusableAnswerError, read_verdict

DEBRIEF_LIMIT, ANALYSIS_LIMIT = 4_000, 6_000
"""Characters that the pairwise judge sees."""
TOP_SCORE = 20.0
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*20)?\s*")
_FENCE = "```json"
_STRING = re.compile(r'"((?:\\.|[^"\\]+|"(?!\s*[,:}\]]))*)("?)', re.DOTALL)
"""A JSON string: a quotation mark before punctuation ends it, every other one is inside. No match fails once begun, so it is quick."""
_ESCAPED_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)

Read = TypeVar("Read")


def rubric_prompt(suite: Suite, scenario: Scenario, transcript: Transcript) -> str:
    """The rubric judge's message: the whole conversation, nothing cut."""
    form = suite.form(scenario)
    turns = []
    for message in transcript.messages:
        speaker, content = ("User", message["content"]) if message["role"] == "user" else ("Assistant", "")
        if message["role"] == "assistant":
            content = _under_headings(form, parse_sections(message["content"], form), "\n") if form.headings else message["content"]
        turns.append(f"{speaker}:\n{content}\n")
    filled = fill(form.rubric, transcript="---\n".join(turns), debrief=transcript.debrief or "", output_format=form.output_format)
    return _without_markup(filled)


def pairwise_prompt(suite: Suite, scenario: Scenario, first: Transcript, second: Transcript) -> str:
    """The pairwise judge's message: both conversations, long sections cut, so that length does not win."""
    form = suite.form(scenario)
    values = {"scenario_notes": scenario.notes or "[No scenario notes available]"}
    for letter, transcript in (("A", first), ("B", second)):
        values[f"conversation_history_{letter}"] = _history(form, transcript)
        values[f"debrief_{letter}"] = _cut(_without_markup(_after_thinking(transcript.debrief or "[No Debrief Provided]")), DEBRIEF_LIMIT)
        values[f"response_{letter}"] = _cut(_after_thinking(_without_markup(transcript.replies[0])), ANALYSIS_LIMIT)
    return _without_markup(fill(form.pairwise, transcript_being_analysed=scenario.prompts[0].strip(), **values))


def _history(form: Form, transcript: Transcript) -> str:
    entries = []
    for message in transcript.messages:
        content = message["content"]
        if message["role"] == "assistant":
            if form.headings:
                sections = parse_sections(content, form)
                content = _under_headings(form, tuple(map(_cut, sections, SECTION_LIMITS)), "\n\n")
            else:
                content = _cut(_after_thinking(content), ANALYSIS_LIMIT)
        entries.append(f"{message['role'].capitalize()}:\n{_without_markup(content)}\n---")
    return "\n".join(entries)


def _under_headings(form: Form, sections: tuple[str, ...], gap: str) -> str:
    """The sections as the judge sees them; the pairwise judge gets an empty line under each heading, the rubric judge none."""
    blocks = [f"# {heading}{gap}{section}" for heading, section in zip(form.headings, sections, strict=True)]
    return "\n\n".join([*blocks, "--"])


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "... [truncated]"


def _after_thinking(text: str) -> str:
    return text.partition("</think>")[2].strip() if "<think>" in text and "</think>" in text else text


def _without_markup(text: str) -> str:
    return text.replace("*", "").replace("#", "")


def with_escaped_quotes(text: str) -> str:
    """JSON in which quotation marks inside a string are escaped, such as `{"why": "he is "fine" now", "fit": 3}`."""
    before, brace, after = text.partition("{")
    return before + brace + _STRING.sub(lambda string: f'"{_ESCAPED_OR_QUOTE.sub(_escaped, string[1])}{string[2]}', after)


def _escaped(found: re.Match[str]) -> str:
    return '\\"' if found[0] == '"' else found[0]


def _read_mending(text: str, keys: Sequence[str], read: Callable[[dict[str, Any]], Read]) -> Read:
    """As `read_verdict`, but the last of several code blocks counts before all else, with its stray quotation marks mended if need be."""
    last = text[-LONGEST:].rpartition(_FENCE)[2]
    for tried in (last, with_escaped_quotes(last)):
        try:
            return read_verdict(tried, keys, read)
        except UnusableAnswerError:
            continue
    return read_verdict(text, keys, read)


def parse_rubric(text: str, form: Form) -> dict[str, float]:
    """Scores by criterion: every scored one must be there and lie in 0 to 20; style criteria may be missing.

    Raises:
        UnusableAnswerError: no JSON, a scored criterion missing, no number, or outside the scale.
    """

    def read(content: dict[str, Any]) -> dict[str, float]:
        scores = {}
        for criterion in form.rubric_criteria:
            if criterion not in content:
                if criterion in form.scored:
                    raise UnusableAnswerError(f"`{criterion}` is missing")
                continue
            score = _score(content[criterion])
            if score is not None:
                scores[criterion] = score
            elif criterion in form.scored:
                raise UnusableAnswerError(f"`{criterion}` is `{shown(content[criterion])}`, expected 0 to 20")
        return scores

    return _read_mending(text, form.scored, read)


def _score(value: Any) -> float | None:
    number = _NUMBER.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    return float(number[1]) if number is not None and float(number[1]) <= TOP_SCORE else None


def parse_pairwise(text: str, form: Form, labels: tuple[str, str]) -> dict[str, float]:
    """Pluses of the `first` and the `second` respondent, summed over the criteria.

    Raises:
        UnusableAnswerError: no JSON, a criterion missing, another label than the two, or not one to five pluses.
    """

    def read(content: dict[str, Any]) -> dict[str, float]:
        pluses = {"first": 0.0, "second": 0.0}
        for criterion in form.pairwise_criteria:
            if criterion not in content:
                raise UnusableAnswerError(f"`{criterion}` is missing")
            value = content[criterion] if isinstance(content[criterion], str) else ""
            named = [label in value for label in labels]
            if sum(named) != 1 or not 1 <= value.count("+") <= 5:
                wrong = shown(content[criterion])
                raise UnusableAnswerError(f"`{criterion}` is `{wrong}`, expected {labels[0]} or {labels[1]} and one to five pluses")
            pluses["first" if named[0] else "second"] += value.count("+")
        return pluses

    return _read_mending(text, form.pairwise_criteria, read)
