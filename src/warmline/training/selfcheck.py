"""Before step 1, a few seconds of proof that the model reads what the objectives think it reads.

A backbone that attends to the future, leaks between packed conversations, drops its adapter's gradient or cannot switch its adapter off
still trains without a word, and every number afterwards is wrong. Each check here has failed on some public code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate
from warmline.errors import WarmlineError
from warmline.model.device import AGREEMENT, Place, gap, tolerance
from warmline.model.multitask import MultiTaskModel

PROBE_TOKENS = 512


def self_check(model: MultiTaskModel, sources: list[EncodedSource], place: Place) -> list[str]:
    """Run every check on a few short conversations of the training data.

    Args:
        model: The unwrapped model; left as it was found.
        sources: Training data, at least one source.
        place: Its precision decides how close "equal" is.

    Returns:
        One line a check, for people.

    Raises:
        WarmlineError: the first check that fails, saying what is broken.
    """
    was_training = model.training
    model.eval()
    try:
        draws = _probe(sources)
        batch = collate(sources, [tuple(draws)]).to(model.backbone.device)
        with torch.no_grad():
            see = _See(model, place)
            states = see(batch)
            lines = [
                _check_precision(model, place),
                _check_shape(model, batch, states),
                _check_causal(batch, states, see),
                _check_isolated(batch, states, see),
                _check_alone(sources, draws[-1], states, see),
                _check_reference(model, batch, states, see),
            ]
        lines.append(_check_gradients(model, batch, place))
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    return lines


class _See(NamedTuple):
    """Gives hidden states, [tokens, hidden]."""

    model: MultiTaskModel
    place: Place

    def __call__(self, batch: Batch) -> Tensor:
        """Under an autocast of its own: it caches its casts of the weights, and a check changes weights in between."""
        with self.place.autocast():
            return self.model.states(batch)

    def unmoved(self, before: Tensor, after: Tensor) -> bool:
        """Whether a changed token left these states as they were."""
        return gap(before, after) <= tolerance(self.model, self.place.dtype)

    @property
    def sameness(self) -> str:
        """What `unmoved` proves, in words."""
        return "the same up to rounding" if tolerance(self.model, self.place.dtype) else "bit-identical"


def _check_precision(model: MultiTaskModel, place: Place) -> str:
    """A base that was stored in 4 bits brings precisions of its own, which another card may not have."""
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        held = parameter.dtype if state is None else state.dtype
        if not parameter.requires_grad and held.is_floating_point and held not in (place.dtype, torch.float32):
            raise WarmlineError(
                f"self-check: {name} is in {_name(held)} and the run computes in {_name(place.dtype)}: the base was not cast when loaded"
            )
    return f"base weights in {_name(place.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _probe(sources: list[EncodedSource]) -> list[Draw]:
    """Two short conversations a source, and more of them to have at least three."""
    draws: list[Draw] = []
    for place, source in enumerate(sources):
        order = source.lengths.argsort(kind="stable")
        short = order[source.lengths[order] <= PROBE_TOKENS]
        chosen = short[len(short) // 4 :][: 2 if len(sources) > 1 else 3]
        draws += [Draw(place, int(index)) for index in chosen]
    if len(draws) < 2:
        raise WarmlineError(f"self-check: no two training conversations of at most {PROBE_TOKENS} tokens; shorten the data's turns")
    return draws


def _check_shape(model: MultiTaskModel, batch: Batch, states: Tensor) -> str:
    expected = (len(batch.tokens), model.backbone.hidden_size)
    if tuple(states.shape) != expected:
        raise WarmlineError(f"self-check: hidden states are {tuple(states.shape)}, expected {expected}: a row was cut or padded")
    if not bool(states.isfinite().all()):
        raise WarmlineError("self-check: hidden states hold NaN or infinity; try training.precision: bf16 or fp32")
    return f"hidden states [{expected[0]} tokens, {expected[1]}], finite"


def _with_token(batch: Batch, position: int) -> Batch:
    """The batch with another token at one position."""
    changed = batch.tokens.clone()
    changed[position] = changed[position - 1] if changed[position - 1] != changed[position] else changed[position] - 1
    return Batch(**{**batch.__dict__, "tokens": changed})


def _check_causal(batch: Batch, states: Tensor, see: _See) -> str:
    start, end = batch.bounds[-2:].tolist()
    changed = see(_with_token(batch, end - 1))
    if not see.unmoved(states[start : end - 1], changed[start : end - 1]):
        raise WarmlineError("self-check: attention is not causal: a later token changes earlier states, so replies leak into the heads")
    if torch.equal(changed[end - 1], states[end - 1]):
        raise WarmlineError("self-check: changing a token changes nothing: the backbone ignores its input")
    return f"causal: a later token leaves earlier states {see.sameness}"


def _check_isolated(batch: Batch, states: Tensor, see: _See) -> str:
    first_end = int(batch.bounds[1])
    changed = see(_with_token(batch, 1))
    if not see.unmoved(states[first_end:], changed[first_end:]):
        raise WarmlineError("self-check: packing leaks: a token of one conversation changes the states of another in the same row")
    return f"isolated: packed neighbours stay {see.sameness}"


def _check_alone(sources: list[EncodedSource], draw: Draw, states: Tensor, see: _See) -> str:
    alone = see(collate(sources, [(draw,)]).to(states.device))
    packed = states[-len(alone) :]
    apart = float((packed.double() - alone.double()).norm() / alone.double().norm())  # one token may be a sink of huge values, and chaotic
    if apart > AGREEMENT[see.place.dtype]:
        raise WarmlineError(f"self-check: a conversation packed differs from itself alone by {apart:.1e} of its states' norm")
    return f"packed equals alone (apart by {apart:.0e} of the states' norm)"


def _check_reference(model: MultiTaskModel, batch: Batch, states: Tensor, see: _See) -> str:
    """Perturb what is tuned: the tuned states must move, the base's must not."""
    with model.backbone.reference():
        base = see(batch)
    with _moved(_tuned_parameters(model)):
        moved = see(batch)
        with model.backbone.reference():
            still = see(batch)
    if torch.equal(moved, states):
        raise WarmlineError("self-check: the tuned weights do not reach the hidden states: the adapter is not in the forward pass")
    if not torch.equal(still, base):
        raise WarmlineError("self-check: the base moves with the tuned weights: the adapter cannot be switched off, the KL would be wrong")
    return "adapter off equals the base"


def _check_gradients(model: MultiTaskModel, batch: Batch, place: Place) -> str:
    with _moved(list(model.heads.parameters())):  # their output layers are zero before the first step, and let nothing through
        with place.autocast():
            states = model.states(batch)
            with torch.no_grad():
                base = torch.zeros_like(states[batch.safety_positions])
            terms, _ = model.terms(states, batch, base)
            loss = torch.stack([term.sum for term in terms.values()]).sum()
        torch.autograd.backward(loss)
    groups = {"tuned weights": _tuned_parameters(model)}
    groups |= {f"{name} head": list(model.heads[name].parameters()) for name in model.heads if len(batch.heads[name].positions)}
    for name, parameters in groups.items():
        if not any(parameter.grad is not None and bool(parameter.grad.abs().max() > 0) for parameter in parameters):
            raise WarmlineError(f"self-check: no gradient reaches the {name}; nothing would be learned there")
    return f"gradients reach {', '.join(groups)}"


@contextmanager
def _moved(parameters: list[Tensor]) -> Iterator[None]:
    """Inside it, each parameter is another one; afterwards it is what it was, to the bit."""
    saved = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)


def _tuned_parameters(model: MultiTaskModel) -> list[Tensor]:
    return [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
