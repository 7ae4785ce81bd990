"""`warmline eqbench`: base and tuned through the scenarios, past the judge if there is one, and everything said in one file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from warmline.config import load_config
from warmline.eqbench import v2 as eqbench2
from warmline.eqbench.answers import Journal
from warmline.eqbench.costs import Estimate, Prices, check_cost, estimate_before, estimate_prompts
from warmline.eqbench.fetch import find_eqbench2, find_eqbench3
from warmline.eqbench.judge import ATTEMPTS, Job, Judge, Verdict, pairwise_prompt, rubric_prompt
from warmline.eqbench.judge import MAX_TOKENS as JUDGE_TOKENS
from warmline.eqbench.judge import TEMPERATURE as JUDGE_TEMPERATURE
from warmline.eqbench.play import DECODING, MAX_TOKENS, SHORT_REPLY, Transcript, play, section_report
from warmline.eqbench.responders import EMPTY_REPLY, JUDGE_KEYS, Endpoint, LocalModel, Responder
from warmline.eqbench.scores import MODELS, pairwise_report, ratings_report, rubric_report
from warmline.eqbench.suites import Suite, official_suite, sample_suite
from warmline.eqbench.view import draw
from warmline.errors import WarmlineError
from warmline.evaluation.compared import cut_off, too_many_cut
from warmline.evaluation.finished import FinishedRun, run_context
from warmline.lock import writes_run
from warmline.model.description import read_description
from warmline.runs import RunFolder, write_json, write_text

NO_JUDGE = "no judge was given (--judge-url and --judge-model): the transcripts are written, and nothing stands in for a score"
MANY, USUAL, LARGE_GPU = 64, 16, 120 * 2**30
"""Conversations that a local model answers together, on a GPU of so many bytes and elsewhere. An 8-billion model's cache takes 144 KiB a
token: 64 replies as long as the protocol allows take 105 GiB."""
MODEL_KEYS = ("WARMLINE_MODEL_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the keys."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run of the benchmark is asked to do.

    Attributes:
        suite: `official`, `sample`, or None for the official one where its files are found, else the sample.
        eqbench_dir: Folder with copies of the benchmark's files; None for the fetched ones.
        judge_url: Base of an OpenAI-compatible endpoint; None for no judge.
        judge_model: The judge's name there.
        iterations: Times each scenario is played.
        concurrency: Requests at a time to each endpoint.
        timeout: Seconds for one request.
        price_in: Of a million prompt tokens of the judge.
        price_out: Of a million completion tokens of the judge.
        max_cost: Refuse, or stop, above it.
        max_new_tokens: Longest reply of the models under test; the protocol has 12,000.
        batch_size: Conversations that a local model answers together; None is 64 on a GPU of 120 GiB or more, else 16.
        v2: Whether EQ-Bench v2 is run beside it.
        base_url: Endpoint that serves the base; None to run it in this process.
        tuned_url: Likewise for the tuned model.
        base_model: The base's name at its endpoint.
        tuned_model: The tuned model's.
    """

    suite: str | None = None
    eqbench_dir: Path | None = None
    judge_url: str | None = None
    judge_model: str | None = None
    iterations: int = 1
    concurrency: int = 8
    timeout: float = 240.0
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None
    max_new_tokens: int = MAX_TOKENS
    batch_size: int | None = None
    v2: bool = True
    base_url: str | None = None
    tuned_url: str | None = None
    base_model: str = "base"
    tuned_model: str = "tuned"


@writes_run("eqbench")
def eq_bench(path: Path, options: Options, console: Console | None = None) -> dict[str, Any]:
    """Run the benchmark on a finished run and write `results/eq_bench_results.json`.

    Replies and judge answers are kept in `eqbench/` of the run folder the moment they arrive, so that the same command goes on after a
    crash and asks for nothing twice.

    Args:
        path: A finished run folder.
        options: What to do.
        console: Where progress and remarks go; standard error by default.

    Returns:
        What was written.

    Raises:
        WarmlineError: an unfinished run, missing or changed suite files, a refused cost, an endpoint that refuses or never answers.
    """
    console = console or Console(stderr=True)
    folder = RunFolder.open(path)
    suite, (questions, no_questions) = _suite(options, console), _questions(options)
    judge_endpoint, prices = _judge_endpoint(options), _prices(options)
    estimate = estimate_before(suite, options.iterations, options.max_new_tokens)
    cost = estimate.cost(prices)
    console.print(_announcement(suite, options, estimate, cost if judge_endpoint else None, judge_endpoint is not None), highlight=False)
    if judge_endpoint:
        check_cost(estimate, prices, options.max_cost)
    judge = None
    if judge_endpoint:
        judge = Judge(judge_endpoint, Journal(folder.eq_bench_folder / "judge.jsonl"), suite.labels, prices, options.max_cost)
    context, models = _models(folder, options)
    replies = Journal(folder.eq_bench_folder / "replies.jsonl")
    transcripts: dict[str, list[Transcript]] = {}
    with _progress(console) as progress:
        for model in MODELS:
            task = progress.add_task(f"{model} plays", total=(suite.turns + suite.debriefs) * options.iterations)
            advance, before = partial(progress.advance, task), judge.ask_first if judge else lambda: None
            transcripts[model] = play(suite, models[model], model, options.iterations, replies, advance, before)
        lines = [json.dumps(each.as_json(), ensure_ascii=False) for model in MODELS for each in transcripts[model]]
        write_text(folder.eq_bench_folder / "transcripts.jsonl", "\n".join(lines) + "\n")
        second = _run_v2(questions, models, replies, progress, int(context["seed"]))
        judged: dict[str, Any] = {**dict.fromkeys(("judge", "rubric", "pairwise", "ratings")), "reason": NO_JUDGE, "judge_errors": []}
        if judge and (reason := _too_many_cut(transcripts, options)):
            judged["reason"] = reason
        elif judge:
            identities = {model: models[model].identity for model in MODELS}
            judged = _judged(suite, transcripts, identities, judge, options, prices, progress, int(context["seed"]))
    errors = [*_play_errors(transcripts), *judged.pop("judge_errors")]
    result = {
        "context": {**context, **_protocol(folder, suite, options, models, judge)},
        "models": {model: _model_report(suite, transcripts[model]) for model in MODELS},
        **judged,
        "errors": errors,
        "estimate": {**estimate._asdict(), "cost": cost} if judge_endpoint else None,
        "eq_bench_v2": second,
        "eq_bench_v2_reason": no_questions,
    }
    write_json(folder.eq_bench, result)
    draw(folder, result)
    return result


def _announcement(suite: Suite, options: Options, estimate: Estimate, cost: float | None, judged: bool) -> str:
    """What will be asked, and what it is likely to cost."""
    line = f"{suite.name}: {len(suite.scenarios)} scenarios, {options.iterations} time(s), {estimate.model_calls} replies of base and tuned"
    if not judged:
        return f"{line}, no judge"
    tokens = f"about {estimate.prompt_tokens:,} tokens in and {estimate.completion_tokens:,} out"
    return f"{line}, {estimate.judge_calls} judge calls, {tokens}" + ("" if cost is None else f", likely cost {cost:.2f}")


def _suite(options: Options, console: Console) -> Suite:
    if options.suite not in (None, "official", "sample"):
        raise WarmlineError(f"--suite {options.suite}: expected official or sample")
    if options.suite == "sample":
        return sample_suite()
    found = find_eqbench3(options.eqbench_dir)
    if found is not None:
        return official_suite(found)
    if options.suite == "official" or options.eqbench_dir is not None:
        where = options.eqbench_dir or "the fetched data"
        raise WarmlineError(
            f"{where}: no EQ-Bench 3 files (scenario_prompts.txt); get them with `warmline data fetch --eqbench`, or take --suite sample"
        )
    console.print(
        "EQ-Bench 3's files are not here (`warmline data fetch --eqbench` gets them): running the six scenarios written for warmline. "
        "Their results are not EQ-Bench."
    )
    return sample_suite()


def _questions(options: Options) -> tuple[list[eqbench2.Question], None] | tuple[None, str]:
    """EQ-Bench v2's, or why there are none; they go with either suite."""
    if not options.v2:
        return None, "EQ-Bench v2 was switched off (--no-v2)"
    found = find_eqbench2(options.eqbench_dir)
    if found is None:
        where = options.eqbench_dir or "the fetched data"
        return None, f"EQ-Bench v2's questions are not in {where}; `warmline data fetch --eqbench` gets them"
    return eqbench2.load_questions(found), None


def _judge_endpoint(options: Options) -> Endpoint | None:
    if options.judge_url is None and options.judge_model is None:
        return None
    if options.judge_url is None or options.judge_model is None:
        raise WarmlineError("--judge-url and --judge-model belong together; give both, or neither to write transcripts only")
    return Endpoint("--judge-url", options.judge_url, options.judge_model, JUDGE_KEYS, options.concurrency, options.timeout)


def _prices(options: Options) -> Prices | None:
    if options.price_in is None and options.price_out is None:
        return None
    if options.price_in is None or options.price_out is None:
        raise WarmlineError("--price-in and --price-out belong together: what a million prompt and completion tokens of the judge cost")
    return Prices(options.price_in, options.price_out)


def _models(folder: RunFolder, options: Options) -> tuple[dict[str, Any], dict[str, Responder]]:
    """The context of the run, and who answers for base and tuned; a model is only loaded if one of them runs here."""
    urls = {"base": (options.base_url, options.base_model), "tuned": (options.tuned_url, options.tuned_model)}
    models: dict[str, Responder] = {}
    for model, (url, name) in urls.items():
        if url is not None:
            models[model] = Endpoint(
                f"--{model}-url", url, name, MODEL_KEYS, options.concurrency, options.timeout, max_tokens=options.max_new_tokens
            )
    if len(models) == len(MODELS):
        return run_context(folder, load_config(folder.config)), models
    finished = FinishedRun.open(folder.path)
    context, heads = finished.context(), read_description(folder)
    fingerprints = {
        "base": f"{context['base_model']}@{context['base_revision']}/{context['base_random_init_seed']}/{context['dtype']}",
        "tuned": f"{heads['weights_sha256']}/{context['dtype']}",
    }
    batch_size = options.batch_size or usual_batch(finished.place.device)
    for model in MODELS:
        if model not in models:
            models[model] = LocalModel(
                finished.companion, model == "base", fingerprints[model], batch_size, options.max_new_tokens, int(context["seed"])
            )
    return context, models


def usual_batch(device: torch.device) -> int:
    """Conversations that a model there answers together when nobody says."""
    return MANY if device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE_GPU else USUAL


def _too_many_cut(transcripts: dict[str, list[Transcript]], options: Options) -> str | None:
    """Why the judge is not asked: scores and wins of replies that were cut would be about their room, and cost as much."""
    reason = too_many_cut({model: [cut for each in transcripts[model] for cut in each.cut] for model in MODELS}, options.max_new_tokens)
    return f"{reason}: the judge was not asked; --max-new-tokens gives more room" if reason else None


def _run_v2(
    questions: list[eqbench2.Question] | None, models: dict[str, Responder], journal: Journal, progress: Progress, seed: int
) -> dict[str, Any] | None:
    if questions is None:
        return None
    answers = {}
    for model in MODELS:
        task = progress.add_task(f"{model}, {eqbench2.NAME}", total=len(questions))
        answers[model] = eqbench2.ask(questions, models[model], journal, partial(progress.advance, task))
    return eqbench2.report(questions, answers, seed)


def _jobs(suite: Suite, transcripts: dict[str, list[Transcript]], identities: dict[str, str]) -> tuple[list[Job], list[Job]]:
    """What there is to judge: every complete transcript, and every pair of them in both orders, sorted as the harness does."""
    scenarios = {scenario.id: scenario for scenario in suite.scenarios}
    complete = {
        model: {(each.scenario, each.iteration): each for each in transcripts[model] if each.error is None} for model in MODELS
    }  # fmt: skip
    rubric = [
        Job(
            "rubric",
            scenarios[each.scenario],
            each.iteration,
            model,
            rubric_prompt(suite, scenarios[each.scenario], each),
            identities[model],
        )
        for model in MODELS
        for each in complete[model].values()
    ]
    pairwise = []
    for scenario, iteration in sorted(complete["base"].keys() & complete["tuned"].keys()):
        base, tuned = (complete[model][scenario, iteration] for model in MODELS)
        for order, first, second in (("tuned first", tuned, base), ("base first", base, tuned)):
            prompt = pairwise_prompt(suite, scenarios[scenario], first, second)
            identity = f"{identities['tuned']} and {identities['base']}"
            pairwise.append(Job("pairwise", scenarios[scenario], iteration, order, prompt, identity))
    return rubric, pairwise


def _judged(
    suite: Suite,
    transcripts: dict[str, list[Transcript]],
    identities: dict[str, str],
    judge: Judge,
    options: Options,
    prices: Prices | None,
    progress: Progress,
    seed: int,
) -> dict[str, Any]:
    """Rubric, pairs and ratings, with every error that keeps something out of them."""
    rubric, pairwise = _jobs(suite, transcripts, identities)
    left = [job.prompt for job in (*rubric, *pairwise) if not judge.settled(job, suite)]
    check_cost(estimate_prompts(left), prices, options.max_cost)
    task = progress.add_task("judge", total=len(rubric) + len(pairwise))
    scored = judge.judge(rubric, suite, partial(progress.advance, task))
    compared = judge.judge(pairwise, suite, partial(progress.advance, task))
    return {
        "judge": judge.usage(),
        "rubric": rubric_report(suite, scored, options.iterations, seed),
        "pairwise": pairwise_report(suite, compared, options.iterations, seed),
        "ratings": ratings_report(compared),
        "reason": None,
        "judge_errors": _judge_errors([*scored, *compared]),
    }


def _play_errors(transcripts: dict[str, list[Transcript]]) -> list[dict[str, Any]]:
    return [
        {"kind": "reply", "scenario": each.scenario, "iteration": each.iteration, "subject": model, "error": each.error}
        for model in MODELS
        for each in transcripts[model]
        if each.error is not None
    ]


def _judge_errors(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {
            "kind": verdict.job.kind,
            "scenario": verdict.job.scenario.id,
            "iteration": verdict.job.iteration,
            "subject": verdict.job.subject,
            "error": verdict.error,
        }
        for verdict in verdicts
        if verdict.error is not None
    ]


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


def _protocol(folder: RunFolder, suite: Suite, options: Options, models: dict[str, Responder], judge: Judge | None) -> dict[str, Any]:
    """What the numbers depend on besides the run."""
    local = [model for model in MODELS if isinstance(models[model], LocalModel)]
    deviations = [f"a task whose replies are all under {SHORT_REPLY} characters is judged; the official harness leaves it out"]
    if options.max_new_tokens < MAX_TOKENS:
        deviations.append(f"replies end at {options.max_new_tokens} tokens, not {MAX_TOKENS}")
    if local:
        deviations.append(f"{' and '.join(local)} in this process, with the run's chat template; an empty reply stands as `{EMPTY_REPLY}`")
        if read_description(folder)["system_prompt"]:
            deviations.append("the run's system prompt stands before every conversation")
    for model in models.values():
        deviations += model.deviations() if isinstance(model, Endpoint) else []
    temperature = max(judge.temperatures, default=JUDGE_TEMPERATURE) if judge else None
    if judge and temperature != JUDGE_TEMPERATURE:
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
        "iterations": options.iterations,
        "decoding": {**DECODING, "max_new_tokens": options.max_new_tokens},
        "models": {model: models[model].identity for model in MODELS},
        "judge": {
            "model": judge.endpoint.name,
            "url": judge.endpoint.url,
            "temperature": temperature,
            "max_tokens": JUDGE_TOKENS,
            "attempts": ATTEMPTS,
        }
        if judge
        else None,
        "deviations": deviations,
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
