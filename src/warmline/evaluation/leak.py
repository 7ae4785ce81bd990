"""Does a strategy predictor see the reply it should predict?

The reply gives its strategy away: with it in the input a bag of words says 50 to 57 % of ESConv's strategies, without it about 30 %, and
what honest models of these eight labels have published lies between 28 and 36 %. So a score far above what the earlier strategies tell is
a reason to look for a leak, and a head can be asked directly: hide the reply and see whether it still says the same.
"""

import numpy as np
import torch

from warmline.data.earlier import annotated, earlier_features
from warmline.data.encoding import EncodedSource
from warmline.evaluation.statistics import FloatArray
from warmline.model.multitask import MultiTaskModel
from warmline.training.device import Place

SUSPICIOUS = 0.45
MARGIN = 0.10


def leak_limit(history_accuracy: float) -> float:
    """Accuracy above which a leak is likely: 45 % on ESConv; where strategies follow each other more strictly than there, 10 points more
    than the best text-free predictor.

    Args:
        history_accuracy: Of the best predictor from earlier strategies and position, on the same rows.
    """
    return max(SUSPICIOUS, history_accuracy + MARGIN)


def leak_warning(name: str, accuracy: float, history_accuracy: float) -> str | None:
    """A line that says what to look for, or None.

    Args:
        name: Of the predictor.
        accuracy: On the eight strategies of the test split.
        history_accuracy: As for `leak_limit`.
    """
    limit = leak_limit(history_accuracy)
    if accuracy <= limit:
        return None
    return (
        f"{name}: {accuracy:.1%} is above {limit:.1%}, which honest strategy predictors do not reach (earlier strategies alone give "
        f"{history_accuracy:.1%}); look for a leak of the reply into its input"
    )


@torch.no_grad()
def hidden_reply_agreement(
    model: MultiTaskModel, source: EncodedSource, logits: FloatArray, place: Place, seed: int, turns: int = 32
) -> tuple[int, int]:
    """Ask the strategy head again with everything from the reply on cut off.

    Args:
        model: In evaluation mode.
        source: ESConv's encoded test split, its replies with it (objective `lm`).
        logits: [strategy rows, 8], what the head said when it was scored.
        place: Device and precision.
        seed: Of the turns that are asked.
        turns: How many are asked, at most.

    Returns:
        How many of its guesses stay the same, and how many turns were asked. A head that reads before the reply keeps all, but for a
        tie that rounding breaks.
    """
    head, ends = model.heads.strategy, source.strategy_ends
    chosen = np.random.default_rng(seed).permutation(len(logits))[:turns]
    same = 0
    for row in chosen.tolist():
        conversation = int(np.searchsorted(ends, row, side="right"))
        encoded = source[conversation]
        own = row - int(ends[conversation] - len(encoded.strategy))
        position = int(encoded.strategy[own, 0])
        start = _reply_start(encoded.replies, position)
        tokens = torch.from_numpy(encoded.tokens[:start].astype(np.int64)).to(model.backbone.device)
        bounds = torch.tensor([0, start], dtype=torch.int32, device=tokens.device)
        with place.autocast():
            states = head.pick(model.backbone.hidden(tokens, torch.arange(start, device=tokens.device), bounds, start))
        earlier = earlier_features(annotated(encoded.strategy[: own + 1, 1]))[-1:].to(states.device)
        same += int(head.read(states[-1:], earlier).argmax()) == int(logits[row].argmax())
    return same, len(chosen)


def _reply_start(replies: np.ndarray, position: int) -> int:
    """First token of the reply that a strategy target belongs to: the first reply that ends after the position that is read."""
    return int(replies[replies[:, 1] > position][0, 0])
