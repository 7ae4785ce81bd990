"""The variants of a run: which losses each one switches off, and the configuration that follows from it."""

from collections.abc import Sequence
from typing import NamedTuple

from warmline.config import RunConfig
from warmline.data.enabled import enabled_sources
from warmline.errors import WarmlineError
from warmline.runs import RunFolder
from warmline.tasks import all_objectives

FULL = "full"


def all_variants() -> dict[str, tuple[str, ...]]:
    """The losses whose weight is 0 in each variant: none, each one but the language model's, and all of these."""
    beside = tuple(name for name in all_objectives() if name != "lm")
    return {FULL: (), **{f"no-{name}": (name,) for name in beside}, "lm-only": beside}


class ChosenVariants(NamedTuple):
    """Which variants are trained.

    Attributes:
        variants: Names, `full` first.
        left_out: The others of those that exist or were asked for, each with its reason.
    """

    variants: list[str]
    left_out: dict[str, str]


def variant_config(config: RunConfig, variant: str, seed: int, planned_steps: int | None = None) -> RunConfig:
    """The configuration of one variant: the run's own but for its name, place, seed and loss weights.

    Sources, mixture, packing and steps stay, so that the data come in the same order. A conversation whose only loss is off still passes
    through the model: that is the price of the same order. Nothing stops early, whatever the run's own `training.early_stop`, and the
    last step's weights are kept: either choice would go by another sum of losses in each variant.

    Args:
        config: The run's.
        variant: A key of `all_variants`.
        seed: Of this run.
        planned_steps: Steps of the run itself, when `config` cuts them short: the name then says so, and such a run never stands in the
            way of a whole one.
    """
    short = f"-{config.training.max_steps}steps" if planned_steps is not None else ""
    return config.model_copy(
        update={
            "name": f"{config.name}-{variant}-seed{seed}{short}",
            "output_dir": RunFolder(config.output_dir / config.name).ablation,
            "seed": seed,
            "loss": config.loss.model_copy(update=dict.fromkeys(all_variants()[variant], 0.0)),
            "training": config.training.model_copy(update={"early_stop": None}),
            "validation": config.validation.model_copy(update={"artifact": "last"}),
            "trackers": (),
        }
    )


def trained_objectives(config: RunConfig) -> set[str]:
    """Objectives that have a weight and a source."""
    sources = enabled_sources(config.data)
    return {name for name in config.objectives if config.loss[name] > 0 and any(name in source.objectives for source in sources)}


def choose_variants(config: RunConfig, wanted: Sequence[str] | None) -> ChosenVariants:
    """The variants that differ from each other; `full` is always one, since the others are compared with it.

    Args:
        config: The run's.
        wanted: Names; None takes all.

    Raises:
        WarmlineError: an unknown name, or a wanted variant that would train nothing or the same as another.
    """
    for name in wanted or ():
        if name not in all_variants():
            raise WarmlineError(f"--variants: unknown variant `{name}`; known: {', '.join(all_variants())}")
    trained = trained_objectives(config)
    seen: dict[frozenset[str], str] = {}
    left_out: dict[str, str] = {}
    for name, off in all_variants().items():
        left = frozenset(trained - set(off))
        if not left:
            left_out[name] = "no loss is left to train"
        elif left in seen:
            left_out[name] = f"trains the same losses as {seen[left]} ({', '.join(sorted(left))})"
        elif wanted is not None and name not in wanted and name != FULL:
            left_out[name] = "not asked for"
        else:
            seen[left] = name
    for name in wanted or ():
        if name in left_out:
            raise WarmlineError(f"--variants: {name} {left_out[name]} with this configuration's loss weights and sources; leave it out")
    return ChosenVariants(list(seen.values()), left_out)
