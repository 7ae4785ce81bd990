"""A Qwen3 decoder with LoRA that runs the same modules with fewer passes over memory and less recomputation.

transformers and PEFT hold the weights; this walks over them. What it saves, against the plain path:

- layers that share an input (query, key, value; gate, up) are one product, and so are their adapters;
- an adapter takes part in its layer's product, or adds into it (`addmm_`), instead of making three more [tokens, width] tensors;
- norm, head split with norm and rotary embedding, gated SiLU and 4-bit unpacking are one kernel each (`kernels.py`);
- tokens stay [tokens, heads, head size] throughout, the layout that variable-length attention takes;
- a recomputed layer stops before its last product: only the layer's output would need it, and that is known;
- three states a layer, kept on the device (`selective`) or in the host's memory (`offload`), spare attention and the product after it too.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from warmline.model.attention import Attended, attend_backward, attend_forward
from warmline.model.joint_linear import JointLinear, Projected
from warmline.model.kernels import (
    HeadLayout,
    gated_silu,
    gated_silu_backward,
    rms_norm,
    rms_norm_backward,
    split_heads,
    split_heads_backward,
)
from warmline.model.offload import HostStore

Checkpointing = Literal["none", "selective", "full", "offload"]


class Pass(NamedTuple):
    """What every layer of one forward pass shares.

    Attributes:
        cos: [tokens, head size].
        sin: [tokens, head size].
        bounds: [conversations + 1], int32.
        longest: Tokens of the longest conversation.
        adapters: False runs the frozen base.
    """

    cos: Tensor
    sin: Tensor
    bounds: Tensor
    longest: int
    adapters: bool


class FusedLayer:
    """One decoder layer.

    Args:
        layer: transformers' Qwen3DecoderLayer with PEFT's adapters in all seven projections.
    """

    def __init__(self, layer: nn.Module) -> None:
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        self.input_norm: Any = layer.input_layernorm
        self.middle_norm: Any = layer.post_attention_layernorm
        self.scaling = float(attention.scaling)
        norms = torch.stack([attention.q_norm.weight.detach(), attention.k_norm.weight.detach()])
        self.heads = HeadLayout(norms, attention.q_norm.variance_epsilon, attention.k_proj.out_features // attention.head_dim)
        self.qkv = JointLinear([attention.q_proj, attention.k_proj, attention.v_proj], roomy=True)
        self.out = JointLinear([attention.o_proj], roomy=False)
        self.gate_up = JointLinear([mlp.gate_proj, mlp.up_proj], roomy=True)
        self.down = JointLinear([mlp.down_proj], roomy=False)
        self.linears = (self.qkv, self.out, self.gate_up, self.down)
        self.parameters = [tensor for linear in self.linears for tensor in linear.parameters]

    def __call__(self, x: Tensor, run: Pass, checkpointing: Checkpointing, store: HostStore | None = None, place: int = 0) -> Tensor:
        """One layer, [tokens, hidden] to [tokens, hidden].

        Args:
            x: [tokens, hidden].
            run: Shared by all layers.
            checkpointing: What is kept for the backward pass.
            store: Where `offload` keeps it.
            place: The layer's number, its slot there.
        """
        if not torch.is_grad_enabled():
            return self.forward(x, run)[0]
        slot = None if store is None else (store, place)
        return _Layer.apply(x, self, run, checkpointing, slot, *self.parameters)  # type: ignore[no-untyped-call,no-any-return]

    def attend(self, x: Tensor, run: Pass, kept: "Kept | None" = None) -> "FirstHalf":
        """The first half, up to what the output projection takes."""
        projected = _project(self.qkv, self.input_norm, x, run, kept and kept.reduced[0])
        heads = split_heads(projected.y, self.heads, run.cos, run.sin)
        attended = (kept and kept.attended) or attend_forward(*heads, self.scaling, None, run.bounds, run.longest)
        if not run.adapters:
            return FirstHalf(projected, heads, attended, None)
        return FirstHalf(projected, heads, attended, kept.reduced[1] if kept else self.out.reduce(attended.out.view(len(x), -1)))

    def join(self, x: Tensor, first: "FirstHalf") -> Tensor:
        """The state between the halves."""
        return self.out.product(first.attended.out.view(len(x), -1), first.reduced_out, x)

    def activate(self, middle: Tensor, run: Pass, kept: "Kept | None" = None) -> "SecondHalf":
        """The second half, up to what the down projection takes."""
        projected = _project(self.gate_up, self.middle_norm, middle, run, kept and kept.reduced[2])
        states = gated_silu(projected.y)
        if not run.adapters:
            return SecondHalf(projected, states, None)
        return SecondHalf(projected, states, kept.reduced[3] if kept else self.down.reduce(states))

    def forward(self, x: Tensor, run: Pass) -> "tuple[Tensor, Tensor, FirstHalf, SecondHalf]":
        """Output, the state between the halves, and what each half made on the way."""
        first = _without_weight(self.attend(x, run))
        middle = self.join(x, first)
        second = _without_weight(self.activate(middle, run))
        return self.down.product(second.states, second.reduced_down, middle), middle, first, second

    def backward(
        self, grad: Tensor, x: Tensor, middle: Tensor, first: "FirstHalf", second: "SecondHalf", run: Pass
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the layer's input and of its `parameters`."""
        grad_states, down = self.down.backward(second.states, second.reduced_down, grad)
        grad_gate_up = gated_silu_backward(grad_states, second.projected.y)
        del grad_states
        projected = second.projected
        grad_normed, gate_up = self.gate_up.backward(projected.normed, projected.reduced, grad_gate_up, projected.weight)
        norm = self.middle_norm
        grad_middle = rms_norm_backward(grad_normed, middle, norm.weight, norm.variance_epsilon, residual=grad)
        attended, projected = first.attended, first.projected
        grad_flat, out = self.out.backward(attended.out.view(len(x), -1), first.reduced_out, grad_middle)
        grad_attended = grad_flat.view_as(attended.out)
        grads = attend_backward(grad_attended, *first.heads, attended, self.scaling, None, run.bounds, run.longest)
        grad_qkv = split_heads_backward(grads, projected.y, self.heads, run.cos, run.sin)
        grad_normed, qkv = self.qkv.backward(projected.normed, projected.reduced, grad_qkv, projected.weight)
        norm = self.input_norm
        grad_x = rms_norm_backward(grad_normed, x, norm.weight, norm.variance_epsilon, residual=grad_middle)
        return grad_x, [*qkv, *out, *gate_up, *down]


class FirstHalf(NamedTuple):
    """What the first half of a layer makes and its backward pass needs.

    Attributes:
        projected: Queries, keys and values in one.
        heads: The same apart, after norm and rotary embedding, each [tokens, its heads, head size].
        attended: Their attention.
        reduced_out: [tokens, room].
    """

    projected: Projected
    heads: tuple[Tensor, Tensor, Tensor]
    attended: Attended
    reduced_out: Tensor | None


class SecondHalf(NamedTuple):
    """What the second half of a layer makes and its backward pass needs.

    Attributes:
        projected: Gate and up in one.
        states: [tokens, intermediate].
        reduced_down: [tokens, room].
    """

    projected: Projected
    states: Tensor
    reduced_down: Tensor | None


class Kept(NamedTuple):
    """What a layer that is recomputed need not compute again.

    Attributes:
        reduced: Of the four joint layers, each [tokens, its room]: small, and kept on the device in every mode.
        attended: The attention, where it is kept.
    """

    reduced: tuple[Tensor, Tensor, Tensor, Tensor]
    attended: Attended | None


class FusedDecoder:
    """Runs a Qwen3 decoder with its adapters.

    Args:
        decoder: transformers' Qwen3Model with PEFT's adapters in all seven projections.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder: Any = decoder
        self._layers = [FusedLayer(layer) for layer in decoder.layers]  # type: ignore[union-attr]
        copies = [copy for layer in self._layers for linear in layer.linears for copy in linear.working_copies()]
        kinds = [[copy for copy in copies if copy[0].is_contiguous() is dense] for dense in (True, False)]
        self._copies = [([target for target, _, _ in kind], [parameter for _, parameter, _ in kind]) for kind in kinds]
        self._store: HostStore | None = None
        self._to_scale = [(target, factor) for target, _, factor in copies if factor != 1]

    def __call__(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        bounds: Tensor,
        longest: int,
        checkpointing: Checkpointing = "none",
        adapters: bool = True,
    ) -> Tensor:
        """[tokens] to final hidden states [tokens, hidden]."""
        with torch.autocast(tokens.device.type, enabled=False):
            if adapters:
                self._refresh()
            x = self._decoder.embed_tokens(tokens)
            cos, sin = self._decoder.rotary_emb(x[None], position_ids[None])
            run = Pass(cos[0].contiguous(), sin[0].contiguous(), bounds, longest, adapters)
            store = self._host_store(x.device) if checkpointing == "offload" and torch.is_grad_enabled() else None
            for place, layer in enumerate(self._layers):
                x = layer(x, run, checkpointing, store, place)
            norm = self._decoder.norm
            return _Norm.apply(x, norm.weight.detach(), norm.variance_epsilon)  # type: ignore[no-untyped-call,no-any-return]

    def _host_store(self, device: torch.device) -> HostStore | None:
        """Made on first use; without CUDA there is nothing to keep states away from."""
        if self._store is None and device.type == "cuda":
            self._store = HostStore(device)
        return self._store

    @torch.no_grad()
    def _refresh(self) -> None:
        """Copy the adapters, which the optimiser keeps in fp32, into the products' precision: a few launches for all dense ones."""
        for targets, parameters in self._copies:
            torch._foreach_copy_(targets, parameters)
        for target, factor in self._to_scale:
            target.mul_(factor)


def can_fuse(decoder: nn.Module) -> bool:
    """Whether this is a Qwen3 decoder whose seven projections all carry one adapter without dropout and bias."""
    if getattr(getattr(decoder, "config", None), "model_type", None) != "qwen3" or getattr(decoder, "has_sliding_layers", False):
        return False
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    projections = [module for name, module in decoder.named_modules() if name.rpartition(".")[2] in names]
    return bool(projections) and all(_is_plain_lora(module) for module in projections)


class _Layer(torch.autograd.Function):
    """A layer with its own backward pass.

    `none` keeps everything; `full` the input alone; `selective` input, attention and the state between the halves; `offload` the same in
    the host's memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: FusedLayer,
        run: Pass,
        checkpointing: Checkpointing,
        slot: tuple[HostStore, int] | None,
        *_: Tensor,
    ) -> Tensor:
        out, middle, first, second = layer.forward(x, run)
        ctx.layer, ctx.run, ctx.slot = layer, run, slot
        if checkpointing == "none":
            ctx.halves = first, second
            states: tuple[Tensor, ...] = (x, middle)
        else:
            views = (first.projected.reduced, second.projected.reduced)  # of a tensor that must not stay
            qkv, gate_up = (None if view is None else view.clone() for view in views)
            ctx.halves = None
            ctx.reduced = qkv, first.reduced_out, gate_up, second.reduced_down
            ctx.statistics = first.attended.statistics
            states = (x,) if checkpointing == "full" else (x, middle, first.attended.out)
        if slot is not None:
            slot[0].put(slot[1], states)
        else:
            ctx.save_for_backward(*states)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        layer: FusedLayer = ctx.layer
        run: Pass = ctx.run
        x, *others = ctx.saved_tensors if ctx.slot is None else ctx.slot[0].get(ctx.slot[1])
        if ctx.halves is not None:
            first, second = ctx.halves
            (middle,) = others
        else:
            kept = Kept(ctx.reduced, Attended(others[1], ctx.statistics) if others else None)
            first = layer.attend(x, run, kept)
            middle = others[0] if others else layer.join(x, first)
            second = layer.activate(middle, run, kept)
            ctx.reduced = ctx.statistics = None
        ctx.halves = None
        grad_x, pairs = layer.backward(grads[0].contiguous(), x, middle, first, second, run)
        return grad_x, None, None, None, None, *pairs


def _without_weight(half: Any) -> Any:
    """Weights unpacked in the forward pass are not held: those of every layer would add up."""
    return half._replace(projected=half.projected._replace(weight=None))


class _Norm(torch.autograd.Function):
    """The last norm, outside the layers' own backward passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return rms_norm(x, weight, epsilon)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        return rms_norm_backward(grads[0].contiguous(), x, weight, ctx.epsilon), None, None


def _project(linear: JointLinear, norm: Any, x: Tensor, run: Pass, reduced: Tensor | None) -> Projected:
    """Norm and projection of a state."""
    if run.adapters:
        return linear.project(rms_norm(x, norm.weight, norm.variance_epsilon, linear.room), reduced)
    normed = rms_norm(x, norm.weight, norm.variance_epsilon)
    return Projected(normed, None, linear.product(normed, None), None)


def _is_plain_lora(module: Any) -> bool:
    state = getattr(getattr(getattr(module, "base_layer", None), "weight", None), "quant_state", None)
    if state is not None and (state.quant_type != "nf4" or state.state2 is None):
        return False
    if not hasattr(module, "lora_A") or len(module.active_adapters) != 1 or module.active_adapters[0] not in module.lora_A:
        return False
    name = module.active_adapters[0]
    dropout = module.lora_dropout[name] if name in module.lora_dropout else nn.Identity()
    return isinstance(dropout, nn.Identity) and module.base_layer.bias is None and not module.lora_bias[name]
