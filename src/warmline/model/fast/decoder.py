"""A decoder with LoRA that runs the same modules with fewer passes over memory and less recomputation.

transformers and PEFT hold the weights; this walks over them. What it saves, against the plain path:

- layers that share an input (query, key, value; gate, up) are one product, and so are their adapters;
- an adapter takes part in its layer's product, or adds into it (`addmm_`), instead of making three more [tokens, width] tensors;
- norm (and the residual it is added to), head split with rotary embedding (and norm), gated activation and 4-bit unpacking are one
  kernel each (`kernels.py`);
- tokens stay [tokens, heads, head size] throughout, the layout that variable-length attention takes;
- a recomputed layer stops before its last product: only the layer's output would need it, and that is known (Gemma norms it);
- three states a layer, kept on the device (`selective`) or in the host's memory (`offload`), spare attention and the product after it too.
"""

import inspect
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from warmline.model.choose import GATES, attention_kinds, gate_activation, has_fused_layers
from warmline.model.fast.attention import Attended, Scope, attend_backward, attend_forward
from warmline.model.fast.kernels import (
    Activation,
    HeadLayout,
    Norm,
    gated,
    gated_backward,
    rms_norm,
    rms_norm_backward,
    split_heads,
    split_heads_backward,
)
from warmline.model.fast.linear import JointLinear, Projected
from warmline.model.fast.offload import HostStore
from warmline.model.fast.parts import Added, FirstHalf, Kept, Made, SecondHalf

Checkpointing = Literal["none", "selective", "full", "offload"]


class Pass(NamedTuple):
    """What every layer of one forward pass shares.

    Attributes:
        rotary: Cosines and sines, each [tokens, head size], of each kind of attention layer.
        bounds: [conversations + 1], int32.
        longest: Tokens of the longest conversation.
        adapters: False runs the frozen base.
    """

    rotary: dict[str, tuple[Tensor, Tensor]]
    bounds: Tensor
    longest: int
    adapters: bool


class FusedLayer:
    """One decoder layer. Gemma's also norms what attention and MLP give, before adding it to the state.

    Args:
        layer: transformers' layer with PEFT's adapters in all seven projections.
        kind: Of its attention.
        activation: Of its gate.
    """

    def __init__(self, layer: nn.Module, kind: str, activation: Activation) -> None:
        attention: Any = layer.self_attn
        mlp: Any = layer.mlp
        norms_outputs = hasattr(layer, "pre_feedforward_layernorm")
        self.input_norm = _norm(layer.input_layernorm)
        self.middle_norm = _norm(layer.pre_feedforward_layernorm if norms_outputs else layer.post_attention_layernorm)
        self.out_norm = _norm(layer.post_attention_layernorm) if norms_outputs else None
        self.down_norm = _norm(layer.post_feedforward_layernorm) if norms_outputs else None
        self.kind, self.activation = kind, activation
        self.window: int | None = attention.config.sliding_window if kind == "sliding_attention" else None
        self.scaling = float(attention.scaling)
        self.heads = HeadLayout(_head_norms(attention), attention.k_proj.out_features // attention.head_dim)
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

    def scope(self, run: Pass) -> Scope:
        """What its attention sees."""
        return Scope(run.bounds, run.longest, self.scaling, self.window)

    def attend(self, x: Tensor, run: Pass, kept: "Kept | None" = None) -> "FirstHalf":
        """The first half, up to what the output projection takes."""
        projected = _project(self.qkv, self.input_norm, x, run, kept and kept.reduced[0])
        heads = split_heads(projected.y, self.heads, *run.rotary[self.kind])
        attended = (kept and kept.attended) or attend_forward(*heads, self.scope(run))
        if not run.adapters:
            return FirstHalf(projected, heads, attended, None)
        return FirstHalf(projected, heads, attended, kept.reduced[1] if kept else self.out.reduce(attended.out.view(len(x), -1)))

    def join(self, x: Tensor, first: "FirstHalf") -> "Added":
        """The state between the halves."""
        return _add(self.out, self.out_norm, first.attended.out.view(len(x), -1), first.reduced_out, x)

    def leave(self, middle: Tensor, second: "SecondHalf") -> "Added":
        """The layer's output."""
        return _add(self.down, self.down_norm, second.states, second.reduced_down, middle)

    def activate(self, middle: Tensor, run: Pass, kept: "Kept | None" = None) -> "SecondHalf":
        """The second half, up to what the down projection takes."""
        projected = _project(self.gate_up, self.middle_norm, middle, run, kept and kept.reduced[2])
        states = gated(projected.y, self.activation)
        if not run.adapters:
            return SecondHalf(projected, states, None)
        return SecondHalf(projected, states, kept.reduced[3] if kept else self.down.reduce(states))

    def forward(self, x: Tensor, run: Pass) -> "tuple[Tensor, Made]":
        """Output, and what was made on the way."""
        first = _without_weight(self.attend(x, run))
        middle, of_out = self.join(x, first)
        second = _without_weight(self.activate(middle, run))
        out, of_down = self.leave(middle, second)
        return out, Made(middle, first, second, of_out, of_down)

    def make_again(self, x: Tensor, middle: Tensor | None, run: Pass, kept: "Kept") -> "Made":
        """What `forward` made, without the layer's output.

        Args:
            x: The layer's input.
            middle: The state between the halves, where it is kept.
            run: Shared by all layers.
            kept: What else is.
        """
        first, of_out, of_down = self.attend(x, run, kept), None, None
        if middle is None or self.out_norm is not None:
            middle, of_out = self.join(x, first)
        second = self.activate(middle, run, kept)
        if self.down_norm is not None:
            of_down = self.down.product(second.states, second.reduced_down)
        return Made(middle, first, second, of_out, of_down)

    def backward(self, grad: Tensor, x: Tensor, made: "Made", run: Pass) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the layer's input and of its `parameters`."""
        middle, first, second, of_out, of_down = made
        grad_states, down = self.down.backward(second.states, second.reduced_down, _before(self.down_norm, grad, of_down))
        grad_gate_up = gated_backward(grad_states, second.projected.y, self.activation)
        del grad_states
        projected = second.projected
        grad_normed, gate_up = self.gate_up.backward(projected.normed, projected.reduced, grad_gate_up, projected.weight)
        grad_middle = rms_norm_backward(grad_normed, middle, self.middle_norm, residual=grad)
        attended, projected = first.attended, first.projected
        grad_joined = _before(self.out_norm, grad_middle, of_out)
        grad_flat, out = self.out.backward(attended.out.view(len(x), -1), first.reduced_out, grad_joined)
        grad_attended = grad_flat.view_as(attended.out)
        grads = attend_backward(grad_attended, *first.heads, attended, self.scope(run))
        grad_qkv = split_heads_backward(grads, projected.y, self.heads, *run.rotary[self.kind])
        grad_normed, qkv = self.qkv.backward(projected.normed, projected.reduced, grad_qkv, projected.weight)
        grad_x = rms_norm_backward(grad_normed, x, self.input_norm, residual=grad_middle)
        return grad_x, [*qkv, *out, *gate_up, *down]


class FusedDecoder:
    """Runs a decoder with its adapters.

    Args:
        decoder: transformers' decoder, for which `can_fuse` holds.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder: Any = decoder
        self._kinds, activation = attention_kinds(decoder.config), GATES[gate_activation(decoder.config)]
        self._layers = [
            FusedLayer(layer, kind, activation)
            for layer, kind in zip(decoder.layers, self._kinds, strict=True)  # type: ignore[arg-type]
        ]
        self._norm = _norm(decoder.norm)
        self._by_kind = "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters  # type: ignore[union-attr]
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
        """[tokens] to final hidden states, [tokens, hidden]."""
        with torch.autocast(tokens.device.type, enabled=False):
            if adapters:
                self._refresh()
            x = self._decoder.embed_tokens(tokens)
            run = Pass(self._rotary(x, position_ids), bounds, longest, adapters)
            store = self._host_store(x.device) if checkpointing == "offload" and torch.is_grad_enabled() else None
            for place, layer in enumerate(self._layers):
                x = layer(x, run, checkpointing, store, place)
            return _LastNorm.apply(x, self._norm)  # type: ignore[no-untyped-call,no-any-return]

    def _rotary(self, x: Tensor, position_ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Gemma's local layers turn by another base than its global ones; other embeddings know no kinds."""
        kinds: dict[str, tuple[str, ...]] = {kind: (kind,) if self._by_kind else () for kind in self._kinds}
        pairs = {kind: self._decoder.rotary_emb(x[None], position_ids[None], *named) for kind, named in kinds.items()}
        return {kind: (cos[0].contiguous(), sin[0].contiguous()) for kind, (cos, sin) in pairs.items()}

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
    """Whether this is a decoder with fused layers whose seven projections all carry one adapter without dropout and a bias of its own."""
    if not has_fused_layers(getattr(decoder, "config", None)):
        return False
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    projections = [module for name, module in decoder.named_modules() if name.rpartition(".")[2] in names]
    return bool(projections) and all(_is_plain_lora(module) for module in projections)


def _head_norms(attention: Any) -> Norm | None:
    """Of queries and keys; None where they have none."""
    if not hasattr(attention, "q_norm"):
        return None
    query, key = _norm(attention.q_norm), _norm(attention.k_norm)
    return Norm(torch.stack([query.weight, key.weight]), query.epsilon)


def _norm(module: Any) -> Norm:
    """A norm as the kernels take it; Gemma's weight is a distance from one, added in fp32."""
    weight = module.weight.detach()
    return Norm(1 + weight.float(), module.eps) if hasattr(module, "eps") else Norm(weight, module.variance_epsilon)


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
        out, made = layer.forward(x, run)
        middle, first, second = made[:3]
        ctx.layer, ctx.run, ctx.slot, ctx.made = layer, run, slot, None
        if checkpointing == "none":
            ctx.made = made
            states: tuple[Tensor, ...] = (x,)
        else:
            views = (first.projected.reduced, second.projected.reduced)  # of a tensor that must not stay
            qkv, gate_up = (None if view is None else view.clone() for view in views)
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
        made = ctx.made
        if made is None:
            kept = Kept(ctx.reduced, Attended(others[1], ctx.statistics) if others else None)
            made = layer.make_again(x, others[0] if others else None, run, kept)
            ctx.reduced = ctx.statistics = None
        ctx.made = None
        grad_x, pairs = layer.backward(grads[0].contiguous(), x, made, run)
        return grad_x, None, None, None, None, *pairs


def _without_weight(half: Any) -> Any:
    """Weights unpacked in the forward pass are not held: those of every layer would add up."""
    return half._replace(projected=half.projected._replace(weight=None))


class _LastNorm(torch.autograd.Function):
    """The last norm, outside the layers' own backward passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm) -> Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        return rms_norm(x, norm)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return rms_norm_backward(grads[0].contiguous(), x, ctx.norm), None


def _add(linear: JointLinear, norm: Norm | None, x: Tensor, reduced: Tensor | None, residual: Tensor) -> Added:
    """A layer's product, normed where the model does so, on top of a residual."""
    if norm is None:
        return Added(linear.product(x, reduced, residual), None)
    product = linear.product(x, reduced)
    return Added(rms_norm(product, norm, residual=residual), product)


def _before(norm: Norm | None, grad: Tensor, product: Tensor | None) -> Tensor:
    """The gradient of what `_add` added, before its norm."""
    return grad if norm is None or product is None else rms_norm_backward(grad, product, norm)


def _project(linear: JointLinear, norm: Norm, x: Tensor, run: Pass, reduced: Tensor | None) -> Projected:
    """Norm and projection of a state."""
    if run.adapters:
        return linear.project(rms_norm(x, norm, linear.room), reduced)
    normed = rms_norm(x, norm)
    return Projected(normed, None, linear.product(normed, None), None)


def _is_plain_lora(module: Any) -> bool:
    state = getattr(getattr(getattr(module, "base_layer", None), "weight", None), "quant_state", None)
    if state is not None and (state.quant_type != "nf4" or state.state2 is None):
        return False
    if not hasattr(module, "lora_A") or len(module.active_adapters) != 1 or module.active_adapters[0] not in module.lora_A:
        return False
    name = module.active_adapters[0]
    dropout = module.lora_dropout[name] if name in module.lora_dropout else nn.Identity()
    return isinstance(dropout, nn.Identity) and not module.lora_bias[name]
