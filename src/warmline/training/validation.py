"""Losses, head accuracy, and what replies are like, on fixed validation sets, the same in every run with the same seed."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from warmline.companion import Companion
from warmline.config import LossWeights, RunConfig
from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate, sequential_rows
from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.model.device import Place
from warmline.model.losses import chunked_kl
from warmline.model.multitask import MultiTaskModel
from warmline.rewriting.insight import Insight
from warmline.rewriting.manner import manner, waiting_turns
from warmline.tasks import all_objectives

REPLY_TOKENS = 200
"""Longest reply to a validation turn."""


class Validator:
    """Fixed validation conversations of each source, chosen once by the seed.

    Args:
        config: Of the run.
        sources: Encoded validation data.
        place: Where and in which precision.
        template: To answer the turns of `validation.replies` with; None answers none.
    """

    def __init__(self, config: RunConfig, sources: list[EncodedSource], place: Place, template: ChatTemplate | None = None) -> None:
        self._weights = config.loss
        self._heads = [task.name for task in config.tasks]
        self._sums = (*config.objectives, "task_kl", *(f"{head}_accuracy" for head in self._heads))
        self._metric = config.validation.metric
        self._sources = sources
        self._place = place
        self._template = template
        self._prompts: list[list[Message]] = []
        if template is not None and config.validation.replies:
            self._prompts = [one.messages for one in waiting_turns(config.data, config.seed, config.validation.replies, "valid")]
        if self._metric not in ("total", "flawed") and not any(source.target_counts()[self._metric].any() for source in sources):
            raise WarmlineError(f"validation.metric: no source has a target for `{self._metric}`; choose another metric")
        self._rows = []
        for index, source in enumerate(sources):
            order = np.random.default_rng([config.seed, index]).permutation(len(source))[: config.validation.conversations]
            draws = [Draw(index, int(at)) for at in np.sort(order)]
            self._rows += [(index, row) for row in sequential_rows(sources, draws, config.pass_tokens)]

    @torch.no_grad()
    def __call__(self, model: MultiTaskModel, accelerator: Accelerator) -> dict[str, Any]:
        """Score the model; every rank takes its part and gets the whole.

        Returns:
            The loss of each objective (nats, mean over targets), their weighted `total`, `task_kl` (KL to the base
            a reply token of the task sources, nats: drift there predicts forgetting), head accuracies, and each source's own `lm`.
            What has no target is None. With `validation.replies` what `manner` finds, too, less `n` and `forms`.
        """
        was_training = model.training
        model.eval()
        table = torch.zeros(len(self._sources), len(self._sums), 2, dtype=torch.float64)
        ranks = accelerator.num_processes
        for first in range(0, len(self._rows), ranks):  # spread layers are gathered together: every rank does as many forward passes
            at = first + accelerator.process_index
            source, row = self._rows[min(at, len(self._rows) - 1)]
            scored = self._score(model, collate(self._sources, [row]).to(model.backbone.device))
            if at < len(self._rows):
                table[source] += scored
        model.train(was_training)
        table = accelerator.reduce(table.float().to(accelerator.device), "sum").cpu().double()
        return {**self._summary(table), **self._manner(model, accelerator)}

    def _manner(self, model: MultiTaskModel, accelerator: Accelerator) -> dict[str, Any]:
        """Of the first rank; the others wait for it."""
        if self._template is None or not self._prompts:
            return {}
        found: list[dict[str, Any] | None] = [None]
        if accelerator.is_main_process:
            was_training = model.training
            model.eval()
            insight = Insight(model.backbone, self._template, self._place)
            said = manner(Companion(model, self._template, self._place), insight, self._prompts, REPLY_TOKENS)[0]
            found = [{key: value for key, value in said.items() if key not in ("n", "forms")}]
            model.train(was_training)
        broadcast_object_list(found)
        return found[0] or {}

    def _score(self, model: MultiTaskModel, batch: Batch) -> Tensor:
        """[sums, (sum, count)] of one row."""
        with self._place.autocast():
            states = model.states(batch)
            with model.backbone.reference():
                base = model.states(batch)
            terms, logits = model.terms(states, batch, base[batch.safety_positions])
            backbone = model.backbone
            task_kl = chunked_kl(
                states[batch.lm_positions],
                backbone.unembedding,
                base[batch.lm_positions],
                backbone.base_unembedding,
                torch.ones(len(batch.lm_positions), device=batch.tokens.device),
            )
        hits = [batch.heads[head].targets.gather(1, logits[head].argmax(dim=1, keepdim=True)).sum() for head in self._heads]
        sums = [*(term.sum for term in terms.values()), task_kl, *hits]
        counts = [
            *(term.targets for term in terms.values()),
            len(batch.lm_targets),
            *(len(batch.heads[head].targets) for head in self._heads),
        ]
        return torch.stack([torch.stack([value.double() for value in sums]).cpu(), torch.tensor(counts, dtype=torch.float64)], dim=1)

    def _summary(self, table: Tensor) -> dict[str, Any]:
        totals = table.sum(dim=0)

        def mean(pair: Tensor) -> float | None:
            return float(pair[0] / pair[1]) if pair[1] > 0 else None

        found: dict[str, Any] = {name: mean(totals[at]) for at, name in enumerate(self._sums)}
        found["total"] = total_loss(found, self._weights)
        found["lm_by_source"] = {
            source.name: value for index, source in enumerate(self._sources) if (value := mean(table[index][0])) is not None
        }
        return found

    def value(self, scores: dict[str, Any]) -> float:
        """The named metric, lower is better."""
        value: float = scores[self._metric]
        return value


def total_loss(scores: dict[str, float | None], weights: LossWeights) -> float:
    """sum_o lambda_o * loss_o over the objectives that have a loss."""
    total = 0.0
    for name in all_objectives():
        value = scores.get(name)
        if value is not None:
            total += weights[name] * value
    return total
