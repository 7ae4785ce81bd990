"""Playing the scenarios: every user turn in order, then the debrief, each reply kept in the journal as soon as it is there."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from warmline.data.template import Message
from warmline.eqbench.suites import Form, Suite, fill
from warmline.journal import Journal, ask_once, content_key
from warmline.responders import Answer, ChatRequest, Responder

MODELS = ("base", "tuned")
MAX_TOKENS = 12_000
DECODING: dict[str, dict[str, float | None]] = {
    "turn": {"temperature": 0.7, "max_tokens": MAX_TOKENS, "min_p": 0.1},
    "debrief": {"temperature": 0.5, "max_tokens": MAX_TOKENS, "min_p": None},
}
"""Of the protocol; for the results' context."""
SHORT_REPLY = 100
"""Characters: the official harness leaves out a task in which no reply is this long; here it is judged, and counted."""


@dataclass(slots=True)
class Transcript:
    """One scenario, played once by one model; it grows while it is played.

    Attributes:
        model: `base` or `tuned`.
        scenario: Id.
        iteration: From 1.
        messages: User and assistant in turn.
        debrief: The reflection at the end; None where the scenario has none or the model failed before.
        error: Why it is incomplete; None if it is complete.
        cut: Whether each reply was cut, turn by turn, the debrief last.
    """

    model: str
    scenario: str
    iteration: int
    messages: list[Message] = field(default_factory=list)
    debrief: str | None = None
    error: str | None = None
    cut: list[bool] = field(default_factory=list)

    @property
    def replies(self) -> list[str]:
        """What the model said, debrief aside."""
        return [message["content"] for message in self.messages if message["role"] == "assistant"]


def play(
    suite: Suite,
    responder: Responder,
    model: str,
    iterations: int,
    journal: Journal,
    advance: Callable[[], None] = lambda: None,
    before: Callable[[], None] = lambda: None,
) -> list[Transcript]:
    """Play every scenario `iterations` times.

    Scenarios go forward together, one turn at a time, so that a local model answers them in batches.

    Args:
        suite: What to play.
        responder: Who answers.
        model: `base` or `tuned`.
        iterations: Times each scenario is played.
        journal: Where replies are kept, and found again.
        advance: Called once a reply.
        before: Called before replies are asked for; not at all when the journal has every one.

    Returns:
        Iteration by iteration, in the suite's order; those that failed carry their error.
    """
    scenarios = {scenario.id: scenario for scenario in suite.scenarios}
    transcripts = [Transcript(model, name, iteration) for iteration in range(1, iterations + 1) for name in scenarios]

    def ask(going: Sequence[Transcript], requests: Sequence[ChatRequest]) -> list[Answer]:
        tasks: list[dict[str, Any]] = [{"scenario": each.scenario, "iteration": each.iteration} for each in going]
        keys = [
            content_key(model=responder.identity, limit=responder.max_tokens, **task, **request.sent())
            for task, request in zip(tasks, requests, strict=True)
        ]
        about = [{"model": responder.identity, **task} for task in tasks]
        return ask_once(journal, responder, requests, about, keys, advance, before)

    for turn in range(max(len(scenario.prompts) for scenario in suite.scenarios)):
        going = [each for each in transcripts if each.error is None and turn < len(scenarios[each.scenario].prompts)]
        for each in going:
            scenario = scenarios[each.scenario]
            each.messages.append({"role": "user", "content": fill(suite.form(scenario).master, scenario_prompt=scenario.prompts[turn])})
        requests = [ChatRequest([*each.messages], 0.7, MAX_TOKENS, 0.1, repetition=each.iteration) for each in going]
        for each, answer in zip(going, ask(going, requests), strict=True):
            if answer.text is None:
                each.error = f"turn {turn + 1}: {answer.error}"
            else:
                each.messages.append({"role": "assistant", "content": without_thoughts(answer.text)})
                each.cut.append(answer.cut)
    going = [each for each in transcripts if each.error is None and scenarios[each.scenario].debriefed]
    last: Message = {"role": "user", "content": suite.debrief}
    requests = [ChatRequest([*each.messages, last], 0.5, MAX_TOKENS, repetition=each.iteration) for each in going]
    for each, answer in zip(going, ask(going, requests), strict=True):
        if answer.text is None:
            each.error = f"debrief: {answer.error}"
        else:
            each.debrief = without_thoughts(answer.text).strip()
            each.cut.append(answer.cut)
    return transcripts


def without_thoughts(reply: str) -> str:
    """A reply as the harness takes it in, before history, sections and judge see it: what follows a reasoning model's thoughts.

    Whatever stands before the first closing tag goes, too; thoughts that never end stay.
    """
    for tag in ("think", "reasoning"):
        if f"<{tag}>" in reply and f"</{tag}>" in reply:
            reply = reply.partition(f"</{tag}>")[2].strip()
    return reply


def parse_sections(reply: str, form: Form) -> tuple[str, ...]:
    """The text under each heading that the master prompt asks for, empty where it is missing, as the official harness finds it.

    A section ends at the next `#`, the last one at `--`. Case does not matter; apostrophes may be curly, hyphens spaces.
    """
    found = []
    for heading in form.headings:
        end = "--" if heading == form.headings[-1] else "#"
        match = re.search(rf"#\s*{_loosely(heading)}\s*\n(.*?)(?={end}|\Z)", reply, re.IGNORECASE | re.DOTALL)
        found.append(match[1].strip() if match else "")
    return tuple(found)


def _loosely(heading: str) -> str:
    return re.escape(heading).replace("'", "[\u2019']").replace(r"\-", "[- ]").replace(r"\ ", " ")


def section_report(suite: Suite, transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """How well a model kept to the section format: a reply without it gives the judge empty sections and no error.

    Returns:
        `turns` asked for sections, `parsed` with all of them, `without_any`, `rate` (None without such turns), and a `note` when the
        format was ignored.
    """
    forms = {scenario.id: suite.form(scenario) for scenario in suite.scenarios}
    parsed = [
        [bool(section) for section in parse_sections(reply, forms[transcript.scenario])]
        for transcript in transcripts
        if forms[transcript.scenario].headings
        for reply in transcript.replies
    ]
    whole, none = sum(map(all, parsed)), sum(not any(sections) for sections in parsed)
    note = None
    if parsed and whole < len(parsed):
        note = f"{len(parsed) - whole} of {len(parsed)} replies lack a section ({none} have none): the judge sees those sections empty"
    return {"turns": len(parsed), "parsed": whole, "without_any": none, "rate": whole / len(parsed) if parsed else None, "note": note}
