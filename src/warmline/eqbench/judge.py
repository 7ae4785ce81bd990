"""The judge: what it is sent, what counts as an answer, and a client that asks again and never pays twice."""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from warmline.eqbench.answers import Journal, content_key
from warmline.eqbench.costs import Prices
from warmline.eqbench.play import Transcript, parse_sections
from warmline.eqbench.responders import FIRST_QUESTION, Answer, ChatRequest, Endpoint
from warmline.eqbench.suites import SECTION_LIMITS, Form, Scenario, Suite, fill
from warmline.errors import WarmlineError, shown
from warmline.judges import UnusableAnswerError, read_verdict

Order = Literal["tuned first", "base first"]

TEMPERATURE, MAX_TOKENS = 0.0, 8_000
ATTEMPTS = 3
"""Times the judge is asked before an unusable answer is an error."""
DEBRIEF_LIMIT, ANALYSIS_LIMIT = 4_000, 6_000
"""Characters that the pairwise judge sees."""
TOP_SCORE = 20.0
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*20)?\s*")


class Job(NamedTuple):
    """One thing to judge.

    Attributes:
        kind: `rubric` scores one transcript, `pairwise` compares two.
        scenario: What was played.
        iteration: From 1.
        subject: `base` or `tuned` for a rubric, the order for a pair.
        prompt: The whole message.
        identity: Of the models judged.
    """

    kind: Literal["rubric", "pairwise"]
    scenario: Scenario
    iteration: int
    subject: str
    prompt: str
    identity: str


class Verdict(NamedTuple):
    """What became of a job.

    Attributes:
        job: It.
        scores: Of a rubric, by criterion, 0 to 20; of a pair, pluses of the `first` and the `second` respondent. None after an error.
        error: Why there are none.
    """

    job: Job
    scores: dict[str, float] | None
    error: str | None


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

    return read_verdict(text, form.scored, read)


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

    return read_verdict(text, form.pairwise_criteria, read)


class Judge:
    """Asks the judge and keeps every answer.

    Args:
        endpoint: Where it answers.
        journal: Where its answers are kept, usable or not: all were paid for.
        labels: Of the suite.
        prices: What a token costs; None if it is not known.
        max_cost: No new request is made once so much was spent in this run; None for no limit.
    """

    def __init__(
        self, endpoint: Endpoint, journal: Journal, labels: tuple[str, str], prices: Prices | None = None, max_cost: float | None = None
    ) -> None:
        self.endpoint = endpoint
        self.requests = self.found = self.unusable = self.failed = self.retries = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.temperatures: set[float] = set()
        """Of the answers that count."""
        self._journal = journal
        self._labels = labels
        self._prices = prices
        self._max_cost = max_cost
        self._lock = threading.Lock()

    @property
    def spent(self) -> float | None:
        """Cost of this run's answers; None without prices."""
        return self._prices.cost(self.prompt_tokens, self.completion_tokens) if self._prices else None

    def usage(self) -> dict[str, Any]:
        """What was asked and paid, for the results."""
        return {
            "answers": self.requests,
            "answers_from_an_earlier_run": self.found,
            "unusable_answers": self.unusable,
            "failed_requests": self.failed,
            "requests_sent_again": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.spent,
        }

    def judge(self, jobs: Sequence[Job], suite: Suite, advance: Callable[[], None] = lambda: None) -> list[Verdict]:
        """A verdict on every job: from the journal, or asked for up to three times.

        Args:
            jobs: In the order of the verdicts.
            suite: Of the scenarios.
            advance: Called once a job is settled.

        Raises:
            WarmlineError: the cost limit was reached, the endpoint refuses, or not one of the jobs has a usable answer.
        """
        keys = [self.key(job) for job in jobs]
        verdicts = [self._earlier(job, key, suite) for job, key in zip(jobs, keys, strict=True)]
        pending = [at for at, verdict in enumerate(verdicts) if verdict.scores is None]
        for _ in range(len(jobs) - len(pending)):
            self.found += 1
            advance()
        for _ in range(ATTEMPTS):
            before = self.requests
            pending = self._round(jobs, keys, pending, verdicts, suite, advance)
            if self.requests == before:  # not one answer: the endpoint is silent, and was asked often enough
                break
        if jobs and len(pending) == len(jobs):
            raise WarmlineError(
                f"{self.endpoint.url}: no usable answer of `{self.endpoint.name}` to any of {len(jobs)} questions, such as: "
                f"{verdicts[0].error}; all replies are kept, run again to go on, perhaps with another --judge-model"
            )
        for _ in pending:
            advance()
        return verdicts

    def ask_first(self) -> None:
        """As of the endpoint, with this judge's settings."""
        self.endpoint.ask_first(ChatRequest(FIRST_QUESTION, TEMPERATURE, MAX_TOKENS))

    def key(self, job: Job) -> str:
        """The journal's key of a job: its whole request, and which answer of which models it is about."""
        return content_key(
            judge=self.endpoint.identity,
            kind=job.kind,
            models=job.identity,
            scenario=job.scenario.id,
            iteration=job.iteration,
            subject=job.subject,
            prompt=job.prompt,
        )

    def settled(self, job: Job, suite: Suite) -> bool:
        """Whether the journal already holds a usable answer."""
        return self._earlier(job, self.key(job), suite).scores is not None

    def _round(
        self, jobs: Sequence[Job], keys: list[str], pending: list[int], verdicts: list[Verdict], suite: Suite, advance: Callable[[], None]
    ) -> list[int]:
        """Ask once for each pending job; returns those still without an answer."""

        def done(index: int, answer: Answer) -> None:
            at = pending[index]
            with self._lock:
                verdicts[at] = self._settle(jobs[at], keys[at], answer, suite)
            if verdicts[at].scores is not None:
                advance()
            if self._max_cost is not None and (self.spent or 0.0) > self._max_cost:
                raise WarmlineError(
                    f"--max-cost {self._max_cost:g}: reached after {self.requests} judge answers, which are kept; run again with a higher "
                    "limit to go on"
                )

        if pending:
            requests = [ChatRequest([{"role": "user", "content": jobs[at].prompt}], TEMPERATURE, MAX_TOKENS) for at in pending]
            self.endpoint.run(requests, done)
        return [at for at in pending if verdicts[at].scores is None]

    def _settle(self, job: Job, key: str, answer: Answer, suite: Suite) -> Verdict:
        self.retries += answer.retries
        if answer.text is None:
            self.failed += 1
            return Verdict(job, None, answer.error)
        self._journal.add(
            key,
            kind=job.kind,
            scenario=job.scenario.id,
            iteration=job.iteration,
            subject=job.subject,
            judge=self.endpoint.name,
            temperature=self.endpoint.temperature(TEMPERATURE),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            text=answer.text,
        )
        self.requests += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        verdict = self._read(job, answer.text, suite)
        self.unusable += verdict.scores is None
        if verdict.scores is not None:
            self.temperatures.add(self.endpoint.temperature(TEMPERATURE))
        return verdict

    def _earlier(self, job: Job, key: str, suite: Suite) -> Verdict:
        verdict = Verdict(job, None, "never answered")
        for record in self._journal.find(key):
            verdict = self._read(job, record["text"], suite)
            if verdict.scores is not None:
                self.temperatures.add(record.get("temperature", TEMPERATURE))  # journals that do not say it were written at the protocol's
                break
        return verdict

    def _read(self, job: Job, text: str, suite: Suite) -> Verdict:
        form = suite.form(job.scenario)
        try:
            scores = parse_rubric(text, form) if job.kind == "rubric" else parse_pairwise(text, form, self._labels)
        except UnusableAnswerError as error:
            return Verdict(job, None, f"unusable answer: {error}")
        return Verdict(job, scores, None)
