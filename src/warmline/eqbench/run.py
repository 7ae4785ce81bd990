"""`warmline eqbench`: base and tuned through the scenarios, past the judge if there is one, and everything said in one file."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from warmline.config import load_config
from warmline.eqbench import v2
from warmline.eqbench.judge import MAX_TOKENS as JUDGE_TOKENS
from warmline.eqbench.judge import TEMPERATURE as JUDGE_TEMPERATURE
from warmline.eqbench.judge import Estimate, Judging, Spending, all_jobs, with_readable_rubrics
from warmline.eqbench.play import DECODING, MAX_TOKENS, MODELS, SHORT_REPLY, Transcript, play, section_report
from warmline.eqbench.scores import pairwise_report, ratings_report, rubric_report
from warmline.eqbench.suites import Suite, find_eqbench2, find_eqbench3, official_suite, sample_suite
from warmline.eqbench.view import write_picture_of_scores
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun, run_context
from warmline.evaluation.replies import cut_off, too_many_cut
from warmline.journal import Journal
from warmline.judges import ATTEMPTS, Judge
from warmline.lock import writes_run
from warmline.model.description import read_description
from warmline.responders import EMPTY_REPLY, Endpoint, LocalModel, Responder
from warmline.runs import RunFolder, write_json, write_text

NO_JUDGE = (
    "no judge was given (--judge-url and --judge-model, or --judge-batch): the transcripts are written, and nothing stands in for a score"
)
MANY, USUAL, LARGE_GPU = 64, 16, 120 * 2**30
"""Conversations that a local model answers together, on a GPU of so many bytes and elsewhere. An 8-billion model's cache takes 144 KiB a
token: 64 replies as long as the protocol allows take 105 GiB."""
MODEL_KEYS = ("WARMLINE_MODEL_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the keys."""


class Selection(NamedTuple):
    """What is played.

    Attributes:
        suite: `official`, `sample`, or None for the official one where its files are found, else the sample.
        folder: Holds copies of the benchmark's files; None for the fetched ones.
        iterations: Times each scenario is played.
        v2: Whether EQ-Bench v2 is run beside it.
    """

    suite: str | None = None
    folder: Path | None = None
    iterations: int = 1
    v2: bool = True


class ServedModel(NamedTuple):
    """A model under test behind an OpenAI-compatible endpoint.

    Attributes:
        url: Its base, such as http://localhost:8000/v1.
        name: The model's name there.
    """

    url: str
    name: str


class Players(NamedTuple):
    """Who answers for base and tuned, and how much at a time.

    Attributes:
        base: Where the base is served; None to run it in this process.
        tuned: Likewise for the tuned model.
        max_new_tokens: Longest reply; the protocol has 12,000.
        batch_size: Conversations that a model in this process answers together; None is 64 on a GPU of 120 GiB or more, else 16.
        concurrency: Requests at a time to each endpoint.
        timeout: Seconds for one request.
        strength: Of the adapter of a model in this process, as of `evaluate`.
    """

    base: ServedModel | None = None
    tuned: ServedModel | None = None
    max_new_tokens: int = MAX_TOKENS
    batch_size: int | None = None
    concurrency: int = 8
    timeout: float = 240.0
    strength: float = 1.0


@writes_run("eqbench")
def eq_bench(
    path: Path,
    selection: Selection,
    players: Players,
    judge: Judge | None = None,
    spending: Spending | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the benchmark on a finished run and write `results/eq_bench_results.json`.

    Replies and judge answers are kept in `eqbench/` of the run folder the moment they arrive, so that the same command goes on after a
    crash and asks for nothing twice.

    Args:
        path: A finished run folder.
        selection: What is played.
        players: Who answers.
        judge: Who scores; None for transcripts alone.
        spending: On the judge; None where its prices are not known and nothing limits it.
        console: Where progress and remarks go; standard error by default.

    Returns:
        What was written.

    Raises:
        AnswersNeeded: the judge's requests are written, and wait for answers.
        WarmlineError: an unfinished run, missing or changed suite files, a refused cost, an endpoint that refuses or never answers, a
            strength where another server has the tuned model.
    """
    console, spending = console or Console(stderr=True), spending or Spending()
    if players.tuned and players.strength != 1:
        raise WarmlineError(
            "--strength: another server answers for the tuned model, with its own adapter; let it serve what "
            "`warmline export --strength` wrote, and name that folder as the run"
        )
    folder = RunFolder.open(path, players.strength)
    suite, (questions, no_questions) = _suite(selection, console), _questions(selection)
    judging = Judging(judge, suite, Journal(folder.eq_bench_folder / "judge.jsonl"), spending) if judge else None
    estimate = Estimate.before(suite, selection.iterations, players.max_new_tokens)
    cost = spending.cost(estimate.prompt_tokens, estimate.completion_tokens) if judge else None
    console.print(_announcement(suite, selection.iterations, estimate, cost, judge is not None), highlight=False)
    if judge:
        spending.allow(estimate)
    context, models = _models(folder, players)
    seed = int(context["seed"])
    replies = Journal(folder.eq_bench_folder / "replies.jsonl")
    transcripts: dict[str, list[Transcript]] = {}
    with _progress(console) as progress:
        for model in MODELS:
            task = progress.add_task(f"{model} plays", total=(suite.turns + suite.debriefs) * selection.iterations)
            advance, before = partial(progress.advance, task), judging.ask_first if judging else lambda: None
            transcripts[model] = play(suite, models[model], model, selection.iterations, replies, advance, before)
        lines = [json.dumps(asdict(each), ensure_ascii=False) for model in MODELS for each in transcripts[model]]
        write_text(folder.eq_bench_folder / "transcripts.jsonl", "\n".join(lines) + "\n")
        second = _run_v2(questions, models, replies, progress, seed)
        scored: dict[str, Any] = {**dict.fromkeys(("judge", "rubric", "pairwise", "ratings")), "reason": NO_JUDGE}
        errors = _play_errors(transcripts)
        if judging and (reason := _too_many_cut(transcripts, players.max_new_tokens)):
            scored["reason"] = reason
        elif judging:
            identities = {model: models[model].identity for model in MODELS}
            scored, judge_errors = _judged(suite, transcripts, identities, judging, spending, selection.iterations, progress, seed)
            errors += judge_errors
    result = {
        "context": {**context, **_protocol(folder, suite, selection, players, models, judging)},
        "models": {model: _model_report(suite, transcripts[model]) for model in MODELS},
        **scored,
        "errors": errors,
        "estimate": {**estimate._asdict(), "cost": cost} if judge else None,
        "eq_bench_v2": second,
        "eq_bench_v2_reason": no_questions,
    }
    write_json(folder.eq_bench, result)
    write_picture_of_scores(folder, result)
    return result


def _announcement(suite: Suite, iterations: int, estimate: Estimate, cost: float | None, judged: bool) -> str:
    """What will be asked, and what it is likely to cost."""
    line = f"{suite.name}: {len(suite.scenarios)} scenarios, {iterations} time(s), {estimate.model_calls} replies of base and tuned"
    if not judged:
        return f"{line}, no judge"
    tokens = f"about {estimate.prompt_tokens:,} tokens in and {estimate.completion_tokens:,} out"
    return f"{line}, {estimate.judge_calls} judge calls, {tokens}" + ("" if cost is None else f", likely cost {cost:.2f}")


def _suite(selection: Selection, console: Console) -> Suite:
    if selection.suite not in (None, "official", "sample"):
        raise WarmlineError(f"--suite {selection.suite}: expected official or sample")
    if selection.suite == "sample":
        return sample_suite()
    found = find_eqbench3(selection.folder)
    if found is not None:
        return official_suite(found)
    if selection.suite == "official" or selection.folder is not None:
        where = selection.folder or "the fetched data"
        raise WarmlineError(
            f"{where}: no EQ-Bench 3 files (scenario_prompts.txt); get them with `warmline data fetch --eqbench`, or take --suite sample"
        )
    console.print(
        "EQ-Bench 3's files are not here (`warmline data fetch --eqbench` gets them): running the six scenarios written for warmline. "
        "Their results are not EQ-Bench."
    )
    return sample_suite()


def _questions(selection: Selection) -> tuple[list[v2.Question], None] | tuple[None, str]:
    """EQ-Bench v2's, or why there are none; they go with either suite."""
    if not selection.v2:
        return None, "EQ-Bench v2 was switched off (--no-v2)"
    found = find_eqbench2(selection.folder)
    if found is None:
        where = selection.folder or "the fetched data"
        return None, f"EQ-Bench v2's questions are not in {where}; `warmline data fetch --eqbench` gets them"
    return v2.load_questions(found), None


def _models(folder: RunFolder, players: Players) -> tuple[dict[str, Any], dict[str, Responder]]:
    """The context of the run, and who answers for base and tuned; a model is only loaded if one of them runs here."""
    longest = players.max_new_tokens
    models: dict[str, Responder] = {}
    for model, served in (("base", players.base), ("tuned", players.tuned)):
        if served:
            models[model] = Endpoint(
                f"--{model}-url", served.url, served.name, MODEL_KEYS, players.concurrency, players.timeout, max_tokens=longest
            )
    if len(models) == len(MODELS):
        return run_context(folder, load_config(folder.config)), models
    finished = FinishedRun.open(folder.path, folder.strength)
    context, heads = finished.context(), read_description(folder)
    at = "" if folder.strength == 1 else f"/strength {folder.strength}"
    fingerprints = {
        "base": f"{context['base_model']}@{context['base_revision']}/{context['base_random_init_seed']}/{context['dtype']}",
        "tuned": f"{heads['weights_sha256']}/{context['dtype']}{at}",
    }
    batch_size, seed = players.batch_size or usual_batch(finished.place.device), int(context["seed"])
    for model in MODELS:
        if model not in models:
            models[model] = LocalModel(finished.companion, model == "base", fingerprints[model], batch_size, longest, seed)
    return context, models


def usual_batch(device: torch.device) -> int:
    """Conversations that a model there answers together when nobody says."""
    return MANY if device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE_GPU else USUAL


def _too_many_cut(transcripts: dict[str, list[Transcript]], longest: int) -> str | None:
    """Why the judge is not asked: scores and wins of replies that were cut would be about their room, and cost as much."""
    reason = too_many_cut({model: [cut for each in transcripts[model] for cut in each.cut] for model in MODELS}, longest)
    return f"{reason}: the judge was not asked; --max-new-tokens gives more room" if reason else None


def _run_v2(
    questions: list[v2.Question] | None, models: dict[str, Responder], journal: Journal, progress: Progress, seed: int
) -> dict[str, Any] | None:
    if questions is None:
        return None
    answers = {}
    for model in MODELS:
        task = progress.add_task(f"{model}, {v2.NAME}", total=len(questions))
        answers[model] = v2.ask(questions, models[model], journal, partial(progress.advance, task))
    return v2.report(questions, answers, seed)


def _judged(
    suite: Suite,
    transcripts: dict[str, list[Transcript]],
    identities: dict[str, str],
    judging: Judging,
    spending: Spending,
    iterations: int,
    progress: Progress,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rubric, pairs and ratings, and every error that keeps something out of them."""
    rubric, pairwise = all_jobs(suite, transcripts, identities)
    spending.allow(Estimate.of_prompts([job.prompt for job in judging.left([*rubric, *pairwise])]))
    advance = partial(progress.advance, progress.add_task("judge", total=len(rubric) + len(pairwise)))
    scored = judging.judge(rubric, advance)
    if not judging.asked.waiting:  # whoever answers a batch is asked for both kinds at once, before it is known what can be read
        pairwise = with_readable_rubrics(pairwise, scored)
    compared = judging.judge(pairwise, advance)
    judging.asked.settle()
    report = {
        "judge": judging.usage(),
        "rubric": rubric_report(suite, scored, iterations, seed),
        "pairwise": pairwise_report(suite, compared, iterations, seed),
        "ratings": ratings_report(compared),
        "reason": None,
    }
    failed = [(verdict.job, verdict.error) for verdict in (*scored, *compared) if verdict.error is not None]
    return report, [_error(job.kind, job.scenario.id, job.iteration, job.subject, error) for job, error in failed]


def _play_errors(transcripts: dict[str, list[Transcript]]) -> list[dict[str, Any]]:
    failed = [(each, each.error) for model in MODELS for each in transcripts[model] if each.error is not None]
    return [_error("reply", each.scenario, each.iteration, each.model, error) for each, error in failed]


def _error(kind: str, scenario: str, iteration: int, subject: str, error: str) -> dict[str, Any]:
    return {"kind": kind, "scenario": scenario, "iteration": iteration, "subject": subject, "error": error}


def _model_report(suite: Suite, transcripts: list[Transcript]) -> dict[str, Any]:
    """What is known of a model's replies without a judge."""
    replies = [reply for each in transcripts for reply in each.replies]
    return {
        "tasks": len(transcripts),
        "complete": sum(each.error is None for each in transcripts),
        "errors": sum(each.error is not None for each in transcripts),
        "replies": len(replies),
        "empty_replies": sum(not reply.strip() for reply in replies),
        "cut_off": cut_off([cut for each in transcripts for cut in each.cut]),
        "mean_characters": sum(map(len, replies)) / len(replies) if replies else None,
        "tasks_without_a_long_reply": sum(all(len(reply.strip()) < SHORT_REPLY for reply in each.replies) for each in transcripts),
        "sections": section_report(suite, transcripts),
    }


def _protocol(
    folder: RunFolder, suite: Suite, selection: Selection, players: Players, models: dict[str, Responder], judging: Judging | None
) -> dict[str, Any]:
    """What the numbers depend on besides the run."""
    local = [model for model in MODELS if isinstance(models[model], LocalModel)]
    deviations = [f"a task whose replies are all under {SHORT_REPLY} characters is judged; the official harness leaves it out"]
    if players.max_new_tokens < MAX_TOKENS:
        deviations.append(f"replies end at {players.max_new_tokens} tokens, not {MAX_TOKENS}")
    if local:
        deviations.append(f"{' and '.join(local)} in this process, with the run's chat template; an empty reply stands as `{EMPTY_REPLY}`")
        if read_description(folder)["system_prompt"]:
            deviations.append("the run's system prompt stands before every conversation")
    for model in models.values():
        deviations += model.deviations() if isinstance(model, Endpoint) else []
    temperature = max(judging.temperatures, default=JUDGE_TEMPERATURE) if judging else None
    if judging and temperature != JUDGE_TEMPERATURE:
        deviations.append(f"the judge takes no other temperature than {temperature:g}")
    return {
        "suite": suite.name,
        "official": suite.official,
        "label": "EQ-Bench 3" if suite.official else "warmline-six: six scenarios written for this project; not EQ-Bench",
        "revision": suite.revision,
        "files_sha256": suite.sha256,
        "scenarios": len(suite.scenarios),
        "turns": suite.turns,
        "debriefs": suite.debriefs,
        "dropped_scenarios": list(suite.dropped),
        "iterations": selection.iterations,
        "decoding": {**DECODING, "max_new_tokens": players.max_new_tokens},
        "models": {model: models[model].identity for model in MODELS},
        "judge": {
            **judging.answered_by(),
            "url": judging.asked.url,
            "temperature": temperature,
            "max_tokens": JUDGE_TOKENS,
            "attempts": ATTEMPTS,
        }
        if judging
        else None,
        "deviations": deviations,
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
