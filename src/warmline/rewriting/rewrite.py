"""`warmline rewrite`: the base writes the replies anew that it is to learn, and answers the prompts that hold it to itself.

Several candidates a reply are drawn. Rules refuse those that claim a human life, lecture, list, copy and so on (`flaws.py`). Of the others
the one is kept that says most about what it answers: its log-likelihood after the user's message, less that after another user's, both by
the base itself, less log(1 + how often its first three words were chosen before). What is as likely after another message is refused as
generic. Replies are written in rounds, the first of each conversation, then the second: each sees the ones before it in the base's own
words, as it will when the model is talked to.

A base that is too small to follow the voice can be tuned on conversations in it first (the source `friend`); the run then writes in the
base's place, shown the conversation alone. Prompts that nobody answered are always the base's.

Some replies were written by hand for this project (`assets/written`, without the conversations that they answer). They come first, and
nothing is drawn in their place; with `conversations: 0` they are all there is beside the answers.

Each round's replies are appended to their file as they come, so that the same command goes on after a crash.
"""

import hashlib
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from warmline.config import RunConfig
from warmline.conversation import Conversation, Split, Turn
from warmline.data.enabled import EnabledSource, data_checksums, enabled_sources
from warmline.data.own_words import Spot, read_words, words_file
from warmline.errors import WarmlineError
from warmline.lock import hold
from warmline.model.backbone import Sampling
from warmline.model.description import read_description
from warmline.responders import Endpoint
from warmline.rewriting.flaws import flaw, words
from warmline.rewriting.insight import Insight
from warmline.rewriting.prompt import examples, voice
from warmline.rewriting.writer import Drawn, Wanted, Writer
from warmline.runs import RunFolder, read_json, write_json, write_text
from warmline.sources.files import assets_dir
from warmline.tasks import TASKS

MANIFEST, CARD = "rewriting.json", "README.md"
CHUNK = 2048
"""Replies written between two writes to disk."""
EXAMPLES = 20
BY_HAND = assets_dir() / "written"


class Options(NamedTuple):
    """How replies are written.

    Attributes:
        candidates: Drawn for each reply.
        conversations: Of each source's train split at most, drawn by the seed; None for all, 0 for only what is written by hand. Of
            validation, as many as validation takes.
        temperature: Of the candidates.
        min_p: Tokens below this share of the likeliest one's probability are left out.
        max_new_tokens: Longest candidate; one that is cut is refused.
        answer_tokens: Longest answer to a prompt of a source that is unanswered; these are greedy and kept as they are.
    """

    candidates: int = 6
    conversations: int | None = None
    temperature: float = 0.7
    min_p: float = 0.1
    max_new_tokens: int = 110
    answer_tokens: int = 400


def rewrite(
    config: RunConfig, folder: Path, options: Options | None = None, endpoint: Endpoint | None = None, tuned: RunFolder | None = None
) -> dict[str, Any]:
    """Write the replies of every enabled source that trains the language model, and the answers of every one that is unanswered.

    Args:
        config: Of the run that will learn them.
        folder: Where they go; what is there already is kept and not written again.
        options: How.
        endpoint: Where the base is served; None to run it in this process.
        tuned: A finished run on the same base that writes in its place, in this process, at its strength.

    Returns:
        The manifest: what wrote them and how, how many were accepted and why others were not, and pairs for a reader.

    Raises:
        WarmlineError: bad or missing data, a base that cannot be loaded, a run on another base, a folder whose replies were written
            otherwise.
    """
    options = options or Options()
    data = config.data.model_copy(update={"own_words": None})
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder, "rewrite"):
        made_by = _made_by(config, options, endpoint, tuned)
        path = folder / MANIFEST
        if path.is_file() and (before := read_json(path)["made_by"]) != made_by:
            other = ", ".join(sorted(key for key in made_by if before.get(key) != made_by[key]))
            raise WarmlineError(f"{folder}: its replies were written otherwise ({other}); name another folder, or remove this one")
        write_json(path, {"made_by": made_by, "complete": False})
        sources = [one for one in enabled_sources(data) if one.source.unanswered or _is_told_by_people(one)]
        writer = Writer(config, endpoint, tuned)
        report: dict[str, dict[str, Any]] = {}
        pairs: list[dict[str, Any]] = []
        for source in sources:
            splits: tuple[Split, ...] = ("train", "valid", "test") if source.source.unanswered else ("train", "valid")
            for split in splits:
                most = options.conversations
                if split != "train" and most != 0:
                    most = config.validation.conversations
                found, shown = _write_split(source, split, folder, writer, options, None if source.source.unanswered else most, config.seed)
                report.setdefault(source.name, {})[split] = found
                pairs += shown
        random.Random(config.seed).shuffle(pairs)
        result = {
            "made_by": made_by,
            "complete": True,
            "data_sha256": data_checksums(data),
            "rule": __doc__.split("\n\n")[1].replace("\n", " ") if __doc__ else "",
            "sources": report,
            "examples": pairs[:EXAMPLES],
        }
        write_json(path, result)
        write_text(folder / CARD, _card(result))
    return result


def _is_told_by_people(source: EnabledSource) -> bool:
    """Whether its replies are people's, and are learned; those to people in danger were written with care and stay."""
    return "lm" in source.objectives and source.source.of_people and not source.source.danger


def _made_by(config: RunConfig, options: Options, endpoint: Endpoint | None, tuned: RunFolder | None) -> dict[str, Any]:
    weights = None if tuned is None else _weights_on_same_base(tuned, config)
    shown = voice() + json.dumps([one._asdict() for one in examples()])
    return {
        "base_model": config.model.name,
        "base_revision": config.model.revision,
        "base_random_init_seed": config.model.random_init_seed,
        "load_in_4bit": config.model.load_in_4bit,
        "served_by": None if endpoint is None else endpoint.identity,
        "tuned_weights_sha256": weights,
        "strength": None if tuned is None else tuned.strength,
        "voice_sha256": hashlib.sha256(shown.encode()).hexdigest(),
        "seed": config.seed,
        **options._asdict(),
    }


def _weights_on_same_base(tuned: RunFolder, config: RunConfig) -> str:
    """Their sha256, where the run is on the configuration's base."""
    description = read_description(tuned)
    if description["base_model"] != config.model.name:
        raise WarmlineError(f"{tuned.path}: is tuned from {description['base_model']}, and the configuration's base is {config.model.name}")
    return str(description["weights_sha256"])


def _write_split(
    source: EnabledSource, split: Split, folder: Path, writer: Writer, options: Options, most: int | None, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was found of a split, and pairs for a reader."""
    path = words_file(folder, source.name, split)
    conversations = list(source.load(split).conversations)
    random.Random(f"{seed}/{source.name}/{split}").shuffle(conversations)
    chosen = conversations[:most]
    by_hand = _by_hand(source, split, conversations)
    known = {**by_hand, **read_words(path)}
    if known:
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in known.values()))  # without half a line
    openings = Counter(_opening(record["reply"]) for record in known.values() if record["reply"] is not None)
    pairs: list[dict[str, Any]] = []
    for wanted in _rounds(chosen, known, source.source.unanswered):
        doing = f"{source.name}, {split}: {len(known):,} replies so far"
        draw = int.from_bytes(hashlib.sha256(f"{seed}/{source.name}/{split}/{wanted[0].spot}".encode()).digest()[:4], "big")
        records: list[dict[str, Any]]
        if source.source.unanswered:
            sampling = Sampling(options.answer_tokens, 0, 1.0, 0.0, draw)
            drawn = writer.draw(wanted, 1, sampling, doing)
            records = [{"reply": found[0].text or None if found else None, "refused": {}} for found in drawn]
        else:
            sampling = Sampling(options.max_new_tokens, options.temperature, 1.0, options.min_p, draw)
            records = _chosen(wanted, writer.draw(wanted, options.candidates, sampling, doing), writer.insight, openings)
        lines = []
        for one, record in zip(wanted, records, strict=True):
            known[one.spot] = {**one.spot._asdict(), **record}
            lines.append(json.dumps(known[one.spot], ensure_ascii=False))
            pairs.append({
                "source": source.name, **one.spot._asdict(), "user": one.history[-1].text,
                "human": one.human.text if one.human else None, "own": record["reply"],
            })  # fmt: skip
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    return {**_counts(known, path), "by_hand": len(by_hand)}, pairs


def _by_hand(source: EnabledSource, split: Split, conversations: Sequence[Conversation]) -> dict[Spot, dict[str, Any]]:
    """The replies written for this project to conversations of this split, where they are the official ones."""
    spots = {spot for one in conversations for spot in _spots(one, unanswered=False)}
    return {
        spot: {**record, "by_hand": True} for spot, record in read_words(words_file(BY_HAND, source.name, split)).items() if spot in spots
    }


def _rounds(conversations: Sequence[Conversation], known: dict[Spot, dict[str, Any]], unanswered: bool) -> Iterator[list[Wanted]]:
    """Chunks of replies to write: the first of every conversation, then the second, with what was written before in its place."""
    told = [(one, list(one.turns)) for one in conversations]
    spots = [list(_spots(one, unanswered)) for one in conversations]
    for turn in range(max(map(len, spots), default=0)):
        wanted: list[Wanted] = []
        for (conversation, turns), own in zip(told, spots, strict=True):
            if turn:
                _put(turns, own[:turn][-1:], known)
            if turn < len(own) and own[turn] not in known:
                at = own[turn].turn
                wanted.append(Wanted(own[turn], turns[:at], turns[at] if at < len(turns) else None, conversation.kind))
        for first in range(0, len(wanted), CHUNK):
            yield wanted[first : first + CHUNK]


def _spots(conversation: Conversation, unanswered: bool) -> Iterator[Spot]:
    """Where its replies belong; further messages of one who has just replied stay as they are."""
    yield from (Spot(conversation.id, at) for at in conversation.reply_places())
    if unanswered:
        yield Spot(conversation.id, len(conversation.turns))


def _put(turns: list[Turn], spots: Sequence[Spot], known: dict[Spot, dict[str, Any]]) -> None:
    for spot in spots:
        if spot.turn < len(turns) and (reply := known.get(spot, {}).get("reply")) is not None:
            turns[spot.turn] = Turn("assistant", reply, turns[spot.turn].labels)


def _chosen(
    wanted: Sequence[Wanted], drawn: Sequence[Sequence[Drawn]], insight: Insight | None, openings: Counter[str]
) -> list[dict[str, Any]]:
    """For each reply the best candidate, or none, and why the others were refused."""
    refused = [Counter[str]() for _ in wanted]
    passed: list[tuple[int, str]] = []
    for at, (one, found) in enumerate(zip(wanted, drawn, strict=True)):
        for candidate in found:
            reason = _refusal(one, candidate)
            if reason is None:
                passed.append((at, candidate.text))
            else:
                refused[at][reason] += 1
    asked = [one.history[-1].text for one in wanted]
    scores = insight.of([(asked[at], asked[at - 1], text) for at, text in passed]) if insight else [math.inf] * len(passed)
    best: dict[int, list[tuple[float, str]]] = {}
    for (at, text), said in zip(passed, scores, strict=True):
        if said <= 0:
            refused[at]["generic"] += 1
        else:
            best.setdefault(at, []).append((0.0 if insight is None else said, text))
    records = []
    for at in range(len(wanted)):
        reply: str | None = None
        score: float | None = None
        if at in best:
            score, reply = max(best[at], key=lambda one: one[0] - math.log1p(openings[_opening(one[1])]))
            openings[_opening(reply)] += 1
        records.append({"reply": reply, "insight": score, "refused": dict(refused[at])})
    return records


def _refusal(one: Wanted, candidate: Drawn) -> str | None:
    if candidate.cut:
        return "cut off"
    said = [turn.text for turn in one.history if turn.role == "user"] + [example.reply for example in examples()]
    earlier = [turn.text for turn in one.history if turn.role == "assistant"]
    if (reason := flaw(candidate.text, said, earlier)) is not None:
        return reason
    labels = one.human.labels if one.human else {}
    missed = any(TASKS[name].missed(label, candidate.text) for name, found in labels.items() for label in found)
    return "drifts from its label" if missed else None


def _opening(reply: str) -> str:
    return " ".join(words(reply)[:3])


def _counts(known: dict[Spot, dict[str, Any]], path: Path) -> dict[str, Any]:
    replies = [record["reply"] for record in known.values() if record["reply"] is not None]
    refused = sum((Counter(record.get("refused", {})) for record in known.values()), Counter[str]())
    return {
        "replies": len(known),
        "accepted": len(replies),
        "words_median": statistics.median(len(reply.split()) for reply in replies) if replies else None,
        "candidates_refused": dict(refused.most_common()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
    }


def _card(result: dict[str, Any]) -> str:
    made_by = result["made_by"]
    lines = [
        "# Replies in the base's own words",
        "",
        f"Written by `{made_by['base_model']}` (revision {made_by['base_revision'] or 'not pinned'}"
        + (f", served at {made_by['served_by']}" if made_by["served_by"] else "")
        + (
            f", tuned (weights {made_by['tuned_weights_sha256'][:12]}, strength {made_by['strength']:g})"
            if made_by["tuned_weights_sha256"]
            else ""
        )
        + f"), {made_by['candidates']} candidates a reply, temperature {made_by['temperature']:g}, seed {made_by['seed']}; the voice and "
        f"its examples have sha256 {made_by['voice_sha256'][:12]}.",
        "",
        result["rule"],
        "",
        "Users' turns are those of the data sets named below, and replies answer them: the data sets' terms hold for what is made of this "
        "(ESConv and EmpatheticDialogues: CC BY-NC 4.0), and so do the base's.",
        "",
        "| source | split | replies | by hand | accepted | words (median) | refused candidates |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for source, splits in result["sources"].items():
        for split, found in splits.items():
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in found["candidates_refused"].items()) or "-"
            lines.append(
                f"| {source} | {split} | {found['replies']:,} | {found['by_hand']:,} | {found['accepted']:,} "
                f"| {found['words_median'] or '-'} | {reasons} |"
            )
    return "\n".join(lines) + "\n"
