"""A Hugging Face model card: metadata as the hub's specification has it, and a page, filled from a run's own files."""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from warmline.config import RunConfig
from warmline.data.enabled import SAMPLE
from warmline.data.template import END_OF_TURN, ChatTemplate, Message
from warmline.model.base import model_path
from warmline.paths import NANO, is_folder
from warmline.reporting.facts import Absent, Facts, enabled_names, inherited_terms, shape_errors
from warmline.reporting.glance import glance
from warmline.reporting.report import environment, tidy
from warmline.settings import ModelConfig
from warmline.sources import SOURCES
from warmline.tasks import TASKS

_EXAMPLE = (
    Message(role="user", content="I got the job!"),
    Message(role="assistant", content="You did it! How does it feel?"),
    Message(role="user", content="A little scary, to be honest."),
)


class HubBase(NamedTuple):
    """The base's place on a hub, or why it has none; one of the two is None."""

    hub_id: str | None
    reason: str | None


def base_on_hub(config: ModelConfig, named: str | None = None) -> HubBase:
    """Under which id others find the base.

    Args:
        config: Of the run.
        named: What the user calls it.
    """
    name = named or config.name
    if config.random_init_seed is not None:
        return HubBase(None, f"the base is random numbers from seed {config.random_init_seed}, which no hub has")
    if name == NANO:
        return HubBase(None, "the base lies inside the warmline package, and on no hub")
    if is_folder(name):
        return HubBase(None, "the base was a folder of the machine that trained it; `--base` names its id on a hub")
    return HubBase(name, None)


def model_card(facts: Facts, exported: dict[str, Any], template: ChatTemplate) -> str:
    """The card's text, front matter included.

    Args:
        facts: Of the run; results that are absent are said, with the reason.
        exported: What `export.json` holds.
        template: Shows the prompt format.

    Raises:
        WarmlineError: a results file of another version.
    """
    config = facts.config
    licence = _licence(config, exported["base"]["hub_id"])
    here = (config.output_dir / config.name).as_posix()
    lines = [line._replace(answer=line.answer.replace(here, "RUN")) for line in glance(facts)]
    page = environment().get_template("model_card.md.j2")
    values = {
        "config": config.model_dump(mode="json"),
        "heads": facts.heads,
        "tasks": {name: TASKS[name] for name in facts.heads["labels"]},
        "exported": exported,
        "lines": lines,
        "quick": facts.quick,
        "licence": licence,
        "sources": {name: SOURCES[name].facts for name in enabled_names(config)},
        "sample": config.data.dir == SAMPLE,
        "prompt": template.render(_EXAMPLE, add_generation_prompt=True),
        "end_of_turn": END_OF_TURN[template.name],
        "example": list(_EXAMPLE),
    }
    with shape_errors(facts, None):
        body = tidy(page.render(values))
    return f"---\n{_metadata(facts, exported, licence).to_yaml()}\n---\n\n{body}\n"


class Licence(NamedTuple):
    """Terms of the tuned weights.

    Attributes:
        identifier: As the hub spells it; `other` where only the base's terms bind.
        inherited: Licences that come from data sets, by the title of each.
        of_base: The base's own licence, where its folder has a card that says so.
    """

    identifier: str
    inherited: dict[str, str]
    of_base: str | None


def _licence(config: RunConfig, hub_id: str | None) -> Licence:
    inherited = inherited_terms(config)
    card = Path(model_path(config.model)) / "README.md"
    of_base = None
    if hub_id is None and config.model.random_init_seed is None and card.is_file():
        of_base = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
    terms = {one.lower().replace(" ", "-") for one in inherited.values()} or {of_base or "other"}
    return Licence(terms.pop() if len(terms) == 1 else "other", inherited, of_base)


def _metadata(facts: Facts, exported: dict[str, Any], licence: Licence) -> ModelCardData:
    config, hub_id = facts.config, exported["base"]["hub_id"]
    whole, adapter = "dtype" in exported["merged"], config.lora is not None
    hubs = [SOURCES[name].facts.hub for name in enabled_names(config)] if config.data.dir != SAMPLE else []
    datasets = [hub for hub in hubs if hub is not None]
    measured = measured_results(facts)
    other = licence.identifier == "other"
    return ModelCardData(
        language="en",
        license=licence.identifier,
        license_name="as-the-base-model" if other else None,
        license_link=f"https://huggingface.co/{hub_id}" if other and hub_id else None,
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        base_model=hub_id,
        base_model_relation=None if hub_id is None else "finetune" if whole else "adapter",
        datasets=datasets or None,
        tags=[
            "warmline",
            "empathetic-dialogue",
            *(f"{head}-classification" for head in facts.heads["labels"]),
            *(["lora"] if adapter else []),
        ],
        model_name=config.name if measured else None,
        eval_results=measured or None,
    )


def measured_results(facts: Facts) -> list[EvalResult]:
    """What goes into the card's `model-index`: numbers of the tuned model that the run's results hold, and no others.

    Numbers of the sample data inside the package stay out of it, since the hub's data sets of those names are the official ones.
    """
    if facts.config.data.dir == SAMPLE:
        return []
    found: list[EvalResult] = []
    evaluation, benchmark = facts.results["evaluation"], facts.results["eqbench"]
    if not isinstance(evaluation, Absent):
        with shape_errors(facts, "evaluation"):
            found += _evaluated(evaluation, facts.config)
    if not isinstance(benchmark, Absent):
        with shape_errors(facts, "eqbench"):
            found += _benchmarked(benchmark)
    return found


def _evaluated(evaluation: dict[str, Any], config: RunConfig) -> list[EvalResult]:
    found = []
    for head, task in TASKS.items():
        source = next((name for name in enabled_names(config) if head in config.data.sources[name].objectives), None)
        measured = evaluation["heads"].get(head)
        scores = measured and (task.as_served(measured) or task.leading(measured))
        if source is not None and SOURCES[source].facts.hub and scores and scores.get("accuracy") is not None:
            found += [
                _result(source, "text-classification", task.title, metric, name, scores[key])
                for metric, name, key in (("accuracy", "accuracy", "accuracy"), ("f1", "macro-F1", "macro_f1"))
            ]
    for source, losses in evaluation["language"]["sources"].items():
        if SOURCES[source].facts.hub:
            value = losses["tuned"]["perplexity"]["value"]
            found.append(_result(source, "text-generation", "replies, teacher-forced", "perplexity", "perplexity", value))
    return found


def _benchmarked(benchmark: dict[str, Any]) -> list[EvalResult]:
    scores = []
    if benchmark["context"]["official"] and benchmark["rubric"] is not None:
        scores.append(("EQ-Bench 3 rubric", benchmark["rubric"]["tuned"]["score"]))
    if benchmark["eq_bench_v2"] is not None:
        scores.append(("EQ-Bench v2", benchmark["eq_bench_v2"]["tuned"]["score"]))
    return [
        EvalResult(
            task_type="text-generation", dataset_type="eq-bench", dataset_name=name, metric_type="score", metric_name="score",
            metric_value=value,
        )
        for name, value in scores if value is not None
    ]  # fmt: skip


def _result(source: str, task_type: str, task: str, metric: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type=task_type,
        task_name=task,
        dataset_type=SOURCES[source].facts.hub or source,
        dataset_name=SOURCES[source].facts.title,
        dataset_split="test",
        metric_type=metric,
        metric_name=name,
        metric_value=value,
    )
