"""Commands that measure a run and say what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from warmline.cli.options import AsJson, DataDir, JudgeBatch, JudgeModel, JudgeUrl, LongestReply, RunPath, Strength, folder_option, show
from warmline.errors import WarmlineError
from warmline.model import REPLY_TOKENS

_SUITES_HELP = "Folder with simple_safety_tests/ and xstest/"


def evaluate(
    run: RunPath,
    replies: Annotated[int, typer.Option(min=0, help="Held-out prompts of a data set that base and tuned model answer; 0 for none.")] = 20,
    baselines: Annotated[bool, typer.Option(help="Fit what the heads must beat; on the official data this takes minutes, once.")] = True,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """Score a finished run on the test splits: heads beside baselines, language model and replies beside the base."""
    from warmline.evaluation.evaluate import evaluate as evaluate_run
    from warmline.evaluation.view import evaluation_summary
    from warmline.runs import RunFolder

    result = evaluate_run(run, replies, baselines, max_new_tokens, strength)
    written = f"written to {RunFolder(run, strength).evaluation}, with pictures beside it"
    show(result, as_json, lambda: [evaluation_summary(result), written])


def eqbench(
    run: RunPath,
    suite: Annotated[str | None, typer.Option(help="official or sample; official by default where its files are found.")] = None,
    eqbench_dir: Annotated[Path | None, folder_option("Folder with copies of the benchmark's files.")] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_batch: JudgeBatch = None,
    iterations: Annotated[int, typer.Option(min=1, help="Times each scenario is played; 3 to 5 for a claim.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to each endpoint.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 240.0,
    price_in: Annotated[float | None, typer.Option(min=0, help="What a million prompt tokens of the judge cost.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="What a million completion tokens of the judge cost.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Refuse to start, or stop, above this cost.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply; less than the protocol's is recorded.")] = 12_000,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Conversations answered together by a model in this process.")] = None,
    v2: Annotated[bool, typer.Option(help="Run EQ-Bench v2 beside it, which needs no judge.")] = True,
    base_url: Annotated[str | None, typer.Option(help="Endpoint that serves the base; in this process by default.")] = None,
    tuned_url: Annotated[str | None, typer.Option(help="Endpoint that serves the tuned model; in this process by default.")] = None,
    base_model: Annotated[str, typer.Option(help="The base's name at its endpoint.")] = "base",
    tuned_model: Annotated[str, typer.Option(help="The tuned model's name at its endpoint.")] = "tuned",
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """EQ-Bench 3 and v2, base beside tuned; without a judge the transcripts are written and no score."""
    from warmline.eqbench.judge import Spending
    from warmline.eqbench.run import Players, Selection, ServedModel, eq_bench
    from warmline.eqbench.view import remarks, scores_table
    from warmline.judges import named_judge
    from warmline.runs import RunFolder

    base = ServedModel(base_url, base_model) if base_url is not None else None
    tuned = ServedModel(tuned_url, tuned_model) if tuned_url is not None else None
    result = eq_bench(
        run,
        Selection(suite, eqbench_dir, iterations, v2),
        Players(base, tuned, max_new_tokens, batch_size, concurrency, timeout, strength),
        named_judge(judge_url, judge_model, judge_batch, concurrency, timeout),
        Spending(price_in, price_out, max_cost),
    )
    title = f"{result['context']['run']}: {result['context']['label']}"
    written = f"written to {RunFolder(run, strength).eq_bench} and {RunFolder(run, strength).eq_bench_folder}"
    show(result, as_json, lambda: [title, scores_table(result), *remarks(result), written])


def redteam(
    run: RunPath,
    suite_dir: Annotated[Path | None, folder_option(f"{_SUITES_HELP}; our own suite runs without it.")] = None,
    without_kl: Annotated[Path | None, folder_option("A run of the same base, trained without the safety KL.", "RUN")] = None,
    country: Annotated[str | None, typer.Option(help="ISO code, such as GB: whose hotlines are right.")] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_batch: JudgeBatch = None,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """The safety sheet: base beside tuned on red-team prompts, with the guard off and on."""
    from warmline.judges import named_judge
    from warmline.redteam.run import RedTeamOptions, red_team
    from warmline.redteam.summary import red_team_table
    from warmline.runs import RunFolder

    judge = named_judge(judge_url, judge_model, judge_batch)
    options = RedTeamOptions(suite_dir, without_kl, country=country, judge=judge, max_new_tokens=max_new_tokens, strength=strength)
    result = red_team(run, options)
    folder = RunFolder(run, strength)
    written = f"written to {folder.red_team_sheet} and {folder.red_team}; rate replies in {folder.human_ratings}"
    show(result, as_json, lambda: [*red_team_table(result), written])


def compare(
    run: RunPath,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out turns of dialogues that each voice answers.")] = 100,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_batch: JudgeBatch = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to the judge.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 240.0,
    max_new_tokens: LongestReply = 400,
    temperature: Annotated[float, typer.Option(min=0, help="Of the replies; 0 takes the likeliest token.")] = 0.0,
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """Blind judging of replies: tuned beside base, and beside the base that is told in words how a friend talks."""
    from warmline.evaluation.compare import compare as compare_voices
    from warmline.evaluation.view import comparison_tables
    from warmline.judges import named_judge
    from warmline.runs import RunFolder

    judge = named_judge(judge_url, judge_model, judge_batch, concurrency, timeout)
    result = compare_voices(run, prompts, max_new_tokens, temperature, judge, strength)
    folder = RunFolder(run, strength)
    written = f"written to {folder.comparison}; every reply in {folder.comparison_replies}"
    show(result, as_json, lambda: [*comparison_tables(result), written])


def guard(
    suite_dir: Annotated[Path | None, folder_option(f"{_SUITES_HELP}.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """How well the guard hears risk: recall and false alarms on the suites and on ordinary turns. Needs no run."""
    from warmline.redteam.guard_report import guard_report, guard_table

    result = guard_report(suite_dir, data_dir)
    show(result, as_json, lambda: guard_table(result))


def errors(
    run: RunPath,
    prompts: Annotated[int, typer.Option(min=1, help="Most held-out prompts of one data set.")] = 20,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """Base and tuned replies to held-out prompts: five examples, and how often each makes eight kinds of error."""
    from warmline.evaluation.errors import analyse
    from warmline.evaluation.view import errors_table
    from warmline.runs import RunFolder

    result = analyse(run, prompts, max_new_tokens, strength)
    cut_off = result["cut_off"].items()
    cuts = [f"{side}: {cut['n']} of {cut['of']} replies were cut at {max_new_tokens} tokens" for side, cut in cut_off]
    folder = RunFolder(run, strength)
    written = f"written to {folder.error_taxonomy}, {folder.examples.name}, {folder.replies.name}"
    show(result, as_json, lambda: [errors_table(result), *cuts, written])


def facts(
    run: RunPath,
    questions: Annotated[int | None, typer.Option(min=1, help="How many, from the first; all by default.")] = None,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    strength: Strength = 1.0,
    as_json: AsJson = False,
) -> None:
    """Warmth's price: questions of fact asked neutrally, sadly and with a wrong belief; how often base and tuned are right."""
    from warmline.evaluation.facts import ask_facts
    from warmline.evaluation.view import facts_summary
    from warmline.runs import RunFolder

    result = ask_facts(run, questions, max_new_tokens, strength)
    show(result, as_json, lambda: [*facts_summary(result), f"written to {RunFolder(run, strength).facts}"])


def dial(
    run: RunPath,
    strengths: Annotated[str, typer.Option(help="Of the adapter, from 0, the base, to 1, as trained.")] = "0,0.25,0.5,0.75,1",
    prompts: Annotated[int, typer.Option(min=1, help="Turns of validation dialogues that are answered.")] = 40,
    as_json: AsJson = False,
) -> None:
    """What the adapter's strength changes, on validation: replies, forms, drift, heads; with a picture."""
    from warmline.evaluation.dial import dial as measure
    from warmline.evaluation.view import dial_summary
    from warmline.runs import RunFolder

    try:
        chosen = [float(one) for one in strengths.split(",")]
    except ValueError:
        raise WarmlineError(f"--strengths {strengths}: expected numbers from 0 to 1 with commas between, such as 0,0.5,1") from None
    result = measure(run, chosen, prompts)
    show(result, as_json, lambda: [*dial_summary(result), f"written to {RunFolder(run).dial}, with a picture beside it"])


def report(run: RunPath) -> None:
    """Write report.md into the run folder, from its JSON files; what was not measured is said, with the command that would."""
    from warmline.reporting.report import write_report

    print(write_report(run))
