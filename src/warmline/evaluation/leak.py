"""Does a strategy predictor see the reply it should predict?

The reply gives its strategy away: with it in the input a bag of words says 50 to 57 % of ESConv's strategies, without it about 30 %, and
what honest models of these eight labels have published lies between 28 and 36 %. So a score far above what the earlier strategies tell is
a reason to look for a leak, and a head can be asked directly: hide the reply and see whether it still says the very same.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from warmline.data.encoding import EncodedSource
from warmline.evaluation.heads import predict
from warmline.metrics.statistics import FloatArray
from warmline.model.multitask import MultiTaskModel
from warmline.model.rounding import gap, tolerance
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


class HiddenReply(NamedTuple):
    """What became of a strategy head's answers when the replies were hidden.

    Attributes:
        asked: Turns, one of each conversation that has any.
        moved: Of these, how many have other logits than before: none, for a head that reads before the reply.
    """

    asked: int
    moved: int

    def warning(self) -> str | None:
        """A line that says so, or None."""
        if not self.moved:
            return None
        return (
            f"strategy head: with the reply hidden, what it says of {self.moved} of {self.asked} turns changes; it reads the reply it "
            "should predict"
        )


def hide_replies(
    model: MultiTaskModel, source: EncodedSource, logits: FloatArray, place: Place, pass_tokens: int, seed: int
) -> HiddenReply:
    """Score the split once more, in each conversation with one reply, and all that follows it, overwritten by other tokens.

    Overwritten and not cut off: with as many tokens in the same places, what does not depend on them comes out the same to the last bit, in
    any precision (`model/rounding.py`, which also knows the one exception). A reply that is cut off changes shapes and with them the
    rounding, which in bf16 is enough to break a near tie; and how far a conversation alone is from itself in a batch does not measure
    that: on a CPU it may be nothing at all. So a head that reads a reply is found by the smallest change. What the length of the reply
    would tell it is not looked for.

    Args:
        model: In evaluation mode.
        source: ESConv's encoded test split, its replies with it (objective `lm`).
        logits: [strategy rows, 8], what the head said when the split was scored.
        place: Device and precision, as when it was scored.
        pass_tokens: Tokens of a forward pass, as when it was scored.
        seed: Of the turns that are asked.
    """
    tokens, asked = _overwritten(source, seed)
    hidden = replace(source, tokens=tokens)
    again = predict(model, [hidden], place, pass_tokens).strategy_logits.double()
    allowed, before = tolerance(model, place.dtype), torch.from_numpy(logits)
    return HiddenReply(len(asked), sum(gap(before[row], again[row]) > allowed for row in asked))


def _overwritten(source: EncodedSource, seed: int) -> tuple[np.ndarray, list[int]]:
    """The split's tokens, [all tokens], with a header's last token in place of everything after it, and the strategy rows to ask."""
    random = np.random.default_rng(seed)
    tokens, asked = source.tokens.copy(), []
    for index in range(len(source)):
        encoded = source[index]
        if not len(encoded.strategy):
            continue
        turn = int(random.integers(len(encoded.strategy)))
        asked.append(int(source.strategy_ends[index]) - len(encoded.strategy) + turn)
        end = int(source.token_ends[index])
        start = end - len(encoded.tokens) + _reply_start(encoded.replies, int(encoded.strategy[turn, 0]))
        tokens[start:end] = tokens[start - 1]
    return tokens, asked


def _reply_start(replies: np.ndarray, position: int) -> int:
    """First token of the reply that a strategy target belongs to: the first reply that ends after the position that is read."""
    return int(replies[replies[:, 1] > position][0, 0])
