"""The judge at work: what it will cost, what there is to judge, and asking so that nothing is paid for twice."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from warmline.eqbench.play import MODELS, Transcript
from warmline.eqbench.prompts import pairwise_prompt, parse_pairwise, parse_rubric, rubric_prompt
from warmline.eqbench.suites import Scenario, Suite
from warmline.errors import WarmlineError
from warmline.journal import Journal, content_key
from warmline.judges import Judge, Judgement, UnusableAnswerError, answered_by
from warmline.responders import FIRST_QUESTION, ChatRequest

ORDERS = ("tuned first", "base first")
TEMPERATURE, MAX_TOKENS = 0.0, 8_000
CHARACTERS_A_TOKEN = 4.0
"""Of English prose, roughly."""
ANSWER_TOKENS = 750
"""Mean length of the 6,362 pairwise answers in the leaderboard file of 2025-04-28, at four characters a token."""
TURN_TOKENS, DEBRIEF_TOKENS = 1350, 1080
"""What the prompts ask the models for: 1,000 and 800 words. A model that writes less costs less."""

_COUNTS = (  # in the order of the results
    "answers", "answers_from_an_earlier_run", "unusable_answers", "failed_requests", "requests_sent_again", "prompt_tokens",
    "completion_tokens",
)  # fmt: skip


class Estimate(NamedTuple):
    """Calls and tokens to come.

    Attributes:
        model_calls: Replies of the models under test.
        judge_calls: Answers of the judge, if each is usable at once.
        prompt_tokens: Sent to the judge.
        completion_tokens: Back from it.
    """

    model_calls: int
    judge_calls: int
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def before(cls, suite: Suite, iterations: int, reply_tokens: int) -> "Estimate":
        """Of the whole run, before a single reply exists.

        Args:
            suite: What is played.
            iterations: Times.
            reply_tokens: Longest reply of the models, if shorter than what the prompts ask for.
        """
        tokens = 0.0
        for scenario in suite.scenarios:
            form = suite.form(scenario)
            turns = len(scenario.prompts)
            reply = min(TURN_TOKENS, reply_tokens) * turns + min(DEBRIEF_TOKENS, reply_tokens) * scenario.debriefed
            asked = (sum(map(len, scenario.prompts)) + len(form.master) * turns) / CHARACTERS_A_TOKEN
            tokens += 2 * (len(form.rubric) / CHARACTERS_A_TOKEN + asked + reply)  # base and tuned
            tokens += 2 * (len(form.pairwise + scenario.notes) / CHARACTERS_A_TOKEN + 2 * (asked + reply))  # both orders
        calls = 4 * len(suite.scenarios) * iterations
        return cls(2 * (suite.turns + suite.debriefs) * iterations, calls, round(tokens * iterations), calls * ANSWER_TOKENS)

    @classmethod
    def of_prompts(cls, prompts: Sequence[str]) -> "Estimate":
        """Of what is left to judge, once the prompts are known."""
        return cls(0, len(prompts), round(sum(map(len, prompts)) / CHARACTERS_A_TOKEN), len(prompts) * ANSWER_TOKENS)


@dataclass(frozen=True, slots=True)
class Spending:
    """What the judge costs, in whatever currency, and how much of it may be spent.

    Attributes:
        price_in: Of a million tokens that it is sent; None where it is not known.
        price_out: Of a million that come back.
        max_cost: Nothing is asked above it; None for no limit.

    Raises:
        WarmlineError: one price without the other.
    """

    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        """Prices come in pairs."""
        if (self.price_in is None) != (self.price_out is None):
            raise WarmlineError("--price-in and --price-out belong together: what a million prompt and completion tokens of the judge cost")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Of so many tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6

    def allow(self, estimate: Estimate) -> None:
        """Refuse to start what is likely to cost more than allowed.

        Raises:
            WarmlineError: above the limit, or a limit without prices.
        """
        if self.max_cost is None:
            return
        cost = self.cost(estimate.prompt_tokens, estimate.completion_tokens)
        if cost is None:
            raise WarmlineError("--max-cost: the judge's prices are not known; give --price-in and --price-out, per million tokens")
        if cost > self.max_cost:
            raise WarmlineError(
                f"--max-cost {self.max_cost:g}: {estimate.judge_calls} judge calls are likely to cost {cost:.2f}; raise the limit or take "
                "fewer --iterations"
            )


class Job(NamedTuple):
    """One thing to judge.

    Attributes:
        kind: `rubric` scores one transcript, `pairwise` compares two.
        scenario: What was played.
        iteration: From 1.
        subject: `base` or `tuned` for a rubric, one of ORDERS for a pair.
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


def all_jobs(suite: Suite, transcripts: Mapping[str, Sequence[Transcript]], identities: Mapping[str, str]) -> tuple[list[Job], list[Job]]:
    """A rubric for every complete transcript, and both orders of every pair of them, sorted.

    Args:
        suite: What was played.
        transcripts: By model.
        identities: Of the models.
    """
    scenarios = {scenario.id: scenario for scenario in suite.scenarios}
    complete = {model: {(each.scenario, each.iteration): each for each in transcripts[model] if each.error is None} for model in MODELS}
    rubric, pairwise = [], []
    for model in MODELS:
        for (played, iteration), transcript in complete[model].items():
            prompt = rubric_prompt(suite, scenarios[played], transcript)
            rubric.append(Job("rubric", scenarios[played], iteration, model, prompt, identities[model]))
    for played, iteration in sorted(complete["base"].keys() & complete["tuned"].keys()):
        base, tuned = (complete[model][played, iteration] for model in MODELS)
        for order, (first, second) in zip(ORDERS, ((tuned, base), (base, tuned)), strict=True):
            prompt = pairwise_prompt(suite, scenarios[played], first, second)
            identity = f"{identities['tuned']} and {identities['base']}"
            pairwise.append(Job("pairwise", scenarios[played], iteration, order, prompt, identity))
    return rubric, pairwise


def with_readable_rubrics(pairwise: Sequence[Job], rubric: Sequence[Verdict]) -> list[Job]:
    """The pairs that the harness compares: those in which the rubric of both transcripts was read.

    Args:
        pairwise: Of the same transcripts.
        rubric: Every verdict on them.
    """
    unread = {(verdict.job.scenario.id, verdict.job.iteration) for verdict in rubric if verdict.scores is None}
    return [job for job in pairwise if (job.scenario.id, job.iteration) not in unread]


class Judging:
    """Asks the judge and keeps every answer.

    Args:
        judge: Who answers.
        suite: What was played.
        journal: Where the judge's answers are kept; a server's usable or not, since all were paid for.
        spending: Prices, and the cost above which no new request is made in this run.
    """

    def __init__(self, judge: Judge, suite: Suite, journal: Journal, spending: Spending) -> None:
        self.asked = judge
        self.temperatures: set[float] = set()
        """Of the answers that count."""
        self._answered: set[tuple[str, str | None]] = set()
        self._suite, self._journal, self._spending = suite, journal, spending
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._lock = threading.Lock()

    def usage(self) -> dict[str, Any]:
        """What was asked and paid, for the results."""
        return {**self._counts, "cost": self._spent()}

    def ask_first(self) -> None:
        """As of the judge, with the protocol's settings."""
        self.asked.ask_first(ChatRequest(FIRST_QUESTION, TEMPERATURE, MAX_TOKENS))

    def answered_by(self) -> dict[str, Any]:
        """Whose answers count, and of when."""
        return answered_by(self.asked, self._answered)

    def left(self, jobs: Sequence[Job]) -> list[Job]:
        """Those on which the journal holds no usable answer."""
        return [job for job in jobs if self._kept(job).scores is None]

    def judge(self, jobs: Sequence[Job], advance: Callable[[], None] = lambda: None) -> list[Verdict]:
        """A verdict on every job: from the journal, or asked for up to three times.

        Args:
            jobs: In the order of the verdicts.
            advance: Called once a job is settled.

        Raises:
            WarmlineError: the cost limit was reached, the judge refuses, or not one of the jobs has a usable answer and none waits.
        """
        verdicts = [self._kept(job) for job in jobs]
        pending = [at for at, verdict in enumerate(verdicts) if verdict.scores is None]
        for _ in range(len(jobs) - len(pending)):
            self._counts["answers_from_an_earlier_run"] += 1
            advance()

        def take(index: int, given: Judgement) -> bool:
            with self._lock:
                verdict = verdicts[pending[index]] = self._settle(jobs[pending[index]], given)
                self._stop_above_the_limit()
            return verdict.scores is not None

        requests = [ChatRequest([{"role": "user", "content": jobs[at].prompt}], TEMPERATURE, MAX_TOKENS) for at in pending]
        self.asked.ask(requests, take, advance)
        if jobs and not self.asked.waiting and all(verdict.scores is None for verdict in verdicts):
            raise WarmlineError(
                f"{self.asked.place}: no usable answer of `{self.asked.name or 'the judge'}` to any of {len(jobs)} questions, such as: "
                f"{verdicts[0].error}; all replies are kept, run again to go on, perhaps with another --judge-model"
            )
        return verdicts

    def _spent(self) -> float | None:
        return self._spending.cost(self._counts["prompt_tokens"], self._counts["completion_tokens"])

    def _stop_above_the_limit(self) -> None:
        most, spent = self._spending.max_cost, self._spent()
        if most is not None and spent is not None and spent > most:
            raise WarmlineError(
                f"--max-cost {most:g}: reached after {self._counts['answers']} judge answers, which are kept; run again with a higher "
                "limit to go on"
            )

    def _key(self, job: Job) -> str:
        """The journal's: the whole request, and which answer of which models it is about."""
        return content_key(judge=self.asked.identity, models=job.identity, prompt=job.prompt, **_about(job))

    def _settle(self, job: Job, given: Judgement) -> Verdict:
        answer = given.answer
        self._counts["requests_sent_again"] += answer.retries
        if answer.text is None:
            self._counts["failed_requests"] += 1
            return Verdict(job, None, answer.error)
        temperature = self.asked.temperature(TEMPERATURE)
        tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
        record = {**_about(job), "judge": given.model, "date": given.date, "temperature": temperature, **tokens, "text": answer.text}
        verdict = self._read(job, record)
        if verdict.scores is not None or self.asked.url is not None:  # a batch's file still holds what is not usable
            self._journal.add(self._key(job), **record)
        for name, more in {"answers": 1, "unusable_answers": verdict.scores is None, **tokens}.items():
            self._counts[name] += more
        return verdict

    def _kept(self, job: Job) -> Verdict:
        """From the journal; the first usable answer counts."""
        verdict = Verdict(job, None, "never answered")
        for record in self._journal.find(self._key(job)):
            verdict = self._read(job, record)
            if verdict.scores is not None:
                break
        return verdict

    def _read(self, job: Job, record: Mapping[str, Any]) -> Verdict:
        text, form = record["text"], self._suite.form(job.scenario)
        try:
            scores = parse_rubric(text, form) if job.kind == "rubric" else parse_pairwise(text, form, self._suite.labels)
        except UnusableAnswerError as error:
            return Verdict(job, None, f"unusable answer: {error}")
        self.temperatures.add(record.get("temperature", TEMPERATURE))  # older journals do not say it, and were written at the protocol's
        self._answered.add((record["judge"], record.get("date")))
        return Verdict(job, scores, None)


def _about(job: Job) -> dict[str, Any]:
    return {"kind": job.kind, "scenario": job.scenario.id, "iteration": job.iteration, "subject": job.subject}
