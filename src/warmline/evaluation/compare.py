"""`warmline compare`: blind judging of chat replies on held-out turns, by whoever judges.

Three voices answer the same turns: the base, the tuned model, and the base with the voice that the tuned model was to learn
(`assets/voice.md`) as its system prompt, which is what anybody could have for nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from warmline.config import DataConfig, RunConfig, load_config
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun, run_context
from warmline.evaluation.preference import (
    FLAGS,
    PAIRS,
    RUBRIC,
    TEMPERATURE,
    TOKENS,
    Orders,
    Reading,
    described,
    flag_report,
    pair_report,
    preference_request,
    read_preference,
)
from warmline.evaluation.qualitative import RULE, Prompt, draw_prompts, read_replies
from warmline.evaluation.replies import answer_all, cut_off, describe_replies, too_many_cut
from warmline.journal import Journal
from warmline.judges import Judge, Verdict, answered_by, verdicts
from warmline.lock import writes_run
from warmline.model.artifacts import refuse_strength
from warmline.model.backbone import Sampling
from warmline.model.description import read_description
from warmline.responders import FIRST_QUESTION, ChatRequest
from warmline.runs import RunFolder, write_json, write_text
from warmline.sources import SOURCES

VOICES = {
    "base": "the untuned base",
    "tuned": "the tuned model",
    "voiced_base": "the untuned base with assets/voice.md as its system prompt",
}
_PLACE = ("source", "conversation", "turn")
PROMPTS, LONGEST, SHOWN = 100, 400, 10
DRAW = "From test splits of dialogues, the safety set left out, as many of each source as can be, and no reply of any voice read: "
PROTOCOL = (
    "Each pair of replies is shown in both orders, each order by itself, as A and B behind the whole conversation. A prompt is a win where "
    "both orders prefer the tuned reply, or one does and the other is a tie; a flip where each order prefers another."
)
NO_JUDGE = (
    "no judge was given (--judge-url and --judge-model, or --judge-batch): the replies are written, and nothing stands in for a verdict"
)


@writes_run("compare")
def compare(
    path: Path, prompts: int = PROMPTS, longest: int = LONGEST, temperature: float = 0.0, judge: Judge | None = None, strength: float = 1.0
) -> dict[str, Any]:
    """Let three voices answer held-out turns, ask which answer a friend should have given, and write `results/comparison.json`.

    Replies and verdicts are kept in `comparison/` of the run folder, so that judging again makes no reply anew, needs no model, and asks
    for no verdict twice.

    Args:
        path: A finished run folder.
        prompts: How many turns.
        longest: Tokens of a reply at most.
        temperature: Of the replies; 0 takes the likeliest token.
        judge: Who prefers; None for replies alone.
        strength: As of `evaluate`.

    Returns:
        What was written; docs/evaluation.md has its layout.

    Raises:
        AnswersNeeded: the judge's requests are written, and wait for answers.
        WarmlineError: an unfinished run, missing data, a judge that refuses or never answers.
    """
    folder = RunFolder.open(path, strength)
    config = load_config(folder.config)
    refuse_strength(strength, config)
    if judge:
        judge.ask_first(ChatRequest(FIRST_QUESTION, TEMPERATURE, TOKENS))
    context, records = voiced_replies(folder, config, prompts, Sampling(longest, temperature, seed=config.seed))
    unfair = {
        pair: too_many_cut({voice: [one["cut"][voice] for one in records] for voice in voices}, longest) for pair, voices in PAIRS.items()
    }
    judged: dict[str, Any] | None = None
    read: list[dict[str, Orders]] = [{} for _ in records]
    errors: list[dict[str, Any]] = []
    if judge:
        fair = [pair for pair, reason in unfair.items() if reason is None]
        read, given = ask_for_preferences(judge, Journal(folder.comparison_judge), records, fair)
        answered = answered_by(judge, [(one.model, one.date) for one in given if one.model is not None])
        judged = {**answered, "url": judge.url, "rubric": RUBRIC, "temperature": judge.temperature(TEMPERATURE), "max_tokens": TOKENS}
        asked = [(record, pair, order) for record in records for pair in fair for order in ("tuned is A", "tuned is B")]
        errors = [
            {**{key: record[key] for key in _PLACE}, "pair": pair, "order": order, "error": one.error}
            for (record, pair, order), one in zip(asked, given, strict=True)
            if one.content is None
        ]
    sources = list(dict.fromkeys(record["source"] for record in records))

    def part(source: str | None) -> dict[str, Any]:
        mine = [at for at, record in enumerate(records) if source in (None, record["source"])]
        return summarise([records[at] for at in mine], [read[at] for at in mine] if judge else None, unfair, config.seed)

    result = {
        "context": {**context, "n": len(records), "protocol": PROTOCOL, "flags": FLAGS, "judge": judged},
        "reason": None if judge else NO_JUDGE,
        **part(None),
        "by_source": {source: part(source) for source in sources},
        "items": [
            {**{key: record[key] for key in _PLACE}, "pairs": described(orders)} for record, orders in zip(records, read, strict=True)
        ],
        "examples": [
            {**{key: record[key] for key in (*_PLACE, "messages", "replies", "cut")}, "pairs": described(orders)}
            for record, orders in zip(records[:SHOWN], read, strict=False)
        ],
        "errors": errors,
    }
    write_json(folder.comparison, result)
    return result


def draw_dialogue_prompts(data: DataConfig, seed: int, number: int) -> list[Prompt]:
    """Held-out turns of dialogues, by `RULE`, as many of each source as can be; the first have one more where it is not even.

    Args:
        data: Which sources there are, and where.
        seed: Of the run.
        number: How many in all; fewer where a source has fewer test dialogues.

    Raises:
        WarmlineError: bad or missing files, or no source of dialogues.
    """
    drawn = [prompt for prompt in draw_prompts(data, seed, number) if not SOURCES[prompt.source].danger]
    sources = [name for name in SOURCES if any(prompt.source == name for prompt in drawn)]
    if not sources:
        told = [name for name, source in SOURCES.items() if "lm" in source.carries and source.of_people and not source.danger]
        raise WarmlineError(f"data.sources: no held-out dialogue; enable one of {', '.join(told)}")
    shares = {name: number // len(sources) + (at < number % len(sources)) for at, name in enumerate(sources)}
    return sorted(one for name in sources for one in [each for each in drawn if each.source == name][: shares[name]])


def voiced_replies(folder: RunFolder, config: RunConfig, number: int, sampling: Sampling) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Replies of every voice to the same turns, in `comparison/replies.jsonl`; made once, since a file of the same is read.

    Args:
        folder: Of a finished run.
        config: Its own.
        number: Turns.
        sampling: How replies are drawn.

    Returns:
        What they depend on, and one record a prompt: the prompt's fields, `replies` and `cut`, both by voice.
    """
    voice = resources.files("warmline").joinpath("assets", "voice.md").read_text(encoding="utf-8").strip()
    description = read_description(folder)
    wanted = {
        **run_context(folder, config),
        "weights_sha256": description["weights_sha256"],
        "split": "test",
        "rule": DRAW + RULE,
        "prompts": number,
        "decoding": {**sampling._asdict()},
        "voices": VOICES,
        "voice_sha256": hashlib.sha256(voice.encode()).hexdigest(),
        "system_prompt": description["system_prompt"],
    }
    stored = read_replies(folder.comparison_replies)
    if stored is not None and {key: value for key, value in stored[0].items() if key != "dtype"} == wanted:
        return stored
    finished = FinishedRun.open(folder.path, folder.strength)
    context = {**wanted, "dtype": finished.context()["dtype"]}
    prompts = draw_dialogue_prompts(config.data, config.seed, number)
    plain = [prompt.messages for prompt in prompts]
    voiced = [[Message(role="system", content=voice), *messages] for messages in plain]
    made = {
        name: answer_all(finished.companion, voiced if name == "voiced_base" else plain, sampling, base=name != "tuned") for name in VOICES
    }
    records = [
        {
            **{key: value for key, value in prompt._asdict().items() if key not in ("situation", "danger")},
            "replies": {name: replies[at].text for name, replies in made.items()},
            "cut": {name: replies[at].cut for name, replies in made.items()},
        }
        for at, prompt in enumerate(prompts)
    ]
    lines = [json.dumps(line, ensure_ascii=False) for line in [{"context": context}, *records]]
    write_text(folder.comparison_replies, "\n".join(lines) + "\n")
    return context, records


def ask_for_preferences(
    judge: Judge, journal: Journal, records: Sequence[dict[str, Any]], pairs: Sequence[str]
) -> tuple[list[dict[str, Orders]], list[Verdict[Reading]]]:
    """Both orders of every pair.

    Args:
        judge: Who is asked.
        journal: Of its answers.
        records: Of `voiced_replies`.
        pairs: Those to ask about, by their names in PAIRS.

    Returns:
        By prompt and pair what was read; and every verdict: prompt by prompt, pair by pair, two orders each.

    Raises:
        AnswersNeeded: requests wait for answers.
        WarmlineError: the judge refuses, or has no usable answer at all.
    """
    requests = []
    for record in records:
        for pair in pairs:
            one, other = (record["replies"][voice] for voice in PAIRS[pair])
            requests += [preference_request(record["messages"], one, other), preference_request(record["messages"], other, one)]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verdicts of the judge", total=len(requests))
        given = verdicts(judge, journal, requests, read_preference, lambda: progress.advance(task))
    judge.settle()
    if given and all(one.content is None for one in given):
        raise WarmlineError(
            f"{judge.place}: no usable answer to any of {len(given)} questions, such as: {given[0].error}; the replies are kept"
        )
    orders = iter([Orders(one.content, other.content) for one, other in zip(given[::2], given[1::2], strict=True)])
    return [{pair: next(orders) for pair in pairs} for _ in records], given


def summarise(
    records: Sequence[dict[str, Any]], read: Sequence[Mapping[str, Orders]] | None, unfair: Mapping[str, str | None], seed: int
) -> dict[str, Any]:
    """Figures of all prompts, or of one source's.

    Args:
        records: At least one, of `voiced_replies`.
        read: By prompt and pair; None without a judge.
        unfair: By pair, why it is not compared.
        seed: Of the bootstraps.

    Returns:
        `prompts`; `voices`, of each the length of its replies, how many were cut, and its `flags`; `pairs`, as `pair_report`, or the
        `reason` why not, or None without a judge.
    """
    voices: dict[str, Any] = {}
    for voice in VOICES:
        cut = cut_off([record["cut"][voice] for record in records])
        voices[voice] = {**describe_replies([record["replies"][voice] for record in records]), "cut_off": cut, "flags": None}
        if read is not None:
            voices[voice]["flags"] = flag_report([_readings_of(voice, orders) for orders in read], seed)
    pairs = None
    if read is not None:
        pairs = {pair: {"reason": unfair[pair]} if unfair[pair] else pair_report([one[pair] for one in read], seed) for pair in PAIRS}
    return {"prompts": len(records), "voices": voices, "pairs": pairs}


def _readings_of(voice: str, orders: Mapping[str, Orders]) -> list[tuple[str, ...]]:
    found = []
    for pair, read in orders.items():
        first, second = PAIRS[pair]
        if voice in (first, second):
            found += read.readings_of("first" if voice == first else "second")
    return found
