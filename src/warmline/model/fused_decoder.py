"""A Qwen3 decoder with LoRA that runs the same modules with fewer passes over memory and less recomputation.

transformers and PEFT hold the weights; this walks over them. What it saves, against the plain path:

- layers that share an input (query, key, value; gate, up) are one product, and so are their adapters;
- an adapter takes part in its layer's product, or adds into it (`addmm_`), instead of making three more [tokens, width] tensors;
- norm, head split with norm and rotary embedding, gated SiLU and 4-bit unpacking are one kernel each (`kernels.py`);
- tokens stay [tokens, heads, head size] throughout, the layout that variable-length attention takes;
- a recomputed layer stops before its last product: only the layer's output would need it, and that is known;
- three states a layer, kept on the device (`selective`) or in the host's memory (`offload`), spare attention and the product after it too.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from warmline.model.attention import Attended, attend_backward, attend_forward
from warmline.model.kernels import (
    HeadLayout,
    gated_silu,
    gated_silu_backward,
    join_packed,
    rms_norm,
    rms_norm_backward,
    split_heads,
    split_heads_backward,
    unpack_nf4,
)
from warmline.model.offload import HostStore

Checkpointing = Literal["none", "selective", "full", "offload"]
_ALIGNED = 8  # values: 16 bytes, what the fastest products ask of a row


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


class JointLinear:
    """Frozen linear layers that share their input, with their adapters: y = x W^T + scale * (x A^T) B^T, the outputs side by side.

    Where the input comes from a kernel of ours, it comes with room: [x, x A^T] times [W, B]^T is one product, and y is written once.

    Args:
        modules: PEFT's LoRA layers, in the order of their outputs. Plain weights are moved into one tensor that the modules then view.
        roomy: Whether inputs come with room.
    """

    def __init__(self, modules: Sequence[Any], roomy: bool) -> None:
        name = modules[0].active_adapters[0]
        layers = [module.base_layer for module in modules]
        self.a = [module.lora_A[name].weight for module in modules]
        self.b = [module.lora_B[name].weight for module in modules]
        self.scales = [float(module.scaling[name]) for module in modules]
        self._widths = [module.out_features for module in modules]
        self._ranks = [len(a) for a in self.a]
        self._inside = int(self.a[0].shape[1])
        self.room = -(-sum(self._ranks) // _ALIGNED) * _ALIGNED
        state = getattr(layers[0].weight, "quant_state", None)
        like = {"dtype": layers[0].weight.dtype if state is None else state.dtype, "device": layers[0].weight.device}
        self._a = torch.zeros(self.room, self._inside, **like)
        self._packed = None if state is None else join_packed(layers)
        if self._packed is None and (roomy or len(layers) > 1):
            self._joint = _join([layer.weight for layer in layers], self.room)
            self._b = self._joint[:, self._inside :]
        else:
            self._joint = layers[0].weight.detach()
            self._b = torch.zeros(sum(self._widths), self.room, **like)

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of each layer in turn."""
        return [tensor for pair in zip(self.a, self.b, strict=True) for tensor in pair]

    def working_copies(self) -> list[tuple[Tensor, Tensor, float]]:
        """(target, parameter, factor) of the half-precision copies that the products take: A scaled, and B on a block diagonal."""
        starts = _starts(self._ranks)
        a_targets = [self._a[start : start + rank] for start, rank in zip(starts, self._ranks, strict=True)]
        blocks = zip(self._b.split(self._widths), self._ranks, starts, strict=True)
        b_targets = [rows[:, start : start + rank] for rows, rank, start in blocks]
        return [
            *zip(a_targets, self.a, self.scales, strict=True),
            *((target, b, 1.0) for target, b in zip(b_targets, self.b, strict=True)),
        ]

    def weight(self) -> Tensor:
        """W, [sum of outs, in]; 4-bit ones are unpacked for the moment of their use."""
        if self._packed is None:
            return self._joint[:, : self._inside]
        joint = self._a.new_empty(sum(self._widths), self._inside)
        unpack_nf4(self._packed, joint)
        return joint

    def _weight_and_b(self) -> Tensor:
        """[W, B], [sum of outs, in + room]."""
        if self._packed is None:
            return self._joint
        joint = self._a.new_empty(sum(self._widths), self._inside + self.room)
        unpack_nf4(self._packed, joint[:, : self._inside])
        joint[:, self._inside :] = self._b
        return joint

    def roomy_product(self, roomy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, x A^T and y of an input that comes with room.

        Args:
            roomy: [tokens, in + room], x in its first columns; x A^T goes into the others.
        """
        x, reduced = roomy.split([self._inside, self.room], dim=1)
        torch.mm(x, self._a.T, out=reduced)
        return x, reduced, roomy @ self._weight_and_b().T

    def reduce(self, x: Tensor) -> Tensor:
        """Product of x with every scaled A, [tokens, room]."""
        return x @ self._a.T

    def product(self, x: Tensor, reduced: Tensor | None, residual: Tensor | None = None) -> Tensor:
        """y, [tokens, sum of outs], on top of a residual; without `reduced` the adapters are left out."""
        y = x @ self.weight().T if residual is None else torch.addmm(residual, x, self.weight().T)
        return y if reduced is None else y.addmm_(reduced, self._b.T)

    def backward(self, x: Tensor, reduced: Tensor | None, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the product.

        Args:
            x: [tokens, in], its input.
            reduced: [tokens, room], as from `reduce`.
            grad: [tokens, sum of outs].

        Returns:
            [tokens, in], and the gradients of `parameters`, fp32.

        Raises:
            ValueError: the adapters were left out of the forward pass.
        """
        if reduced is None:
            raise ValueError("a pass without adapters has no backward pass")
        grad_reduced = grad @ self._b
        grad_a = _wide_product(grad_reduced.T, x)
        grad_b = _wide_product(grad.T, reduced).split(self._widths)
        pairs: list[Tensor] = []
        for part_b, rank, start, scale in zip(grad_b, self._ranks, _starts(self._ranks), self.scales, strict=True):
            part_a = grad_a[start : start + rank]
            pairs += [part_a if scale == 1 else part_a * scale, part_b[:, start : start + rank]]
        return (grad @ self.weight()).addmm_(grad_reduced, self._a), pairs


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

    def attend(self, x: Tensor, run: Pass, known: Attended | None = None) -> "FirstHalf":
        """The first half, up to what the output projection takes; `known` is its attention where that was kept."""
        normed, reduced, qkv = _project(self.qkv, self.input_norm, x, run.adapters)
        query, key, value = split_heads(qkv, self.heads, run.cos, run.sin)
        attended = known or attend_forward(query, key, value, self.scaling, None, run.bounds, run.longest)
        reduced_out = self.out.reduce(attended.out.view(len(x), -1)) if run.adapters else None
        return FirstHalf(normed, reduced, qkv, (query, key, value), attended, reduced_out)

    def join(self, x: Tensor, first: "FirstHalf") -> Tensor:
        """The state between the halves."""
        return self.out.product(first.attended.out.view(len(x), -1), first.reduced_out, x)

    def activate(self, middle: Tensor, run: Pass) -> "SecondHalf":
        """The second half, up to what the down projection takes."""
        normed, reduced, gate_up = _project(self.gate_up, self.middle_norm, middle, run.adapters)
        states = gated_silu(gate_up)
        return SecondHalf(normed, reduced, gate_up, states, self.down.reduce(states) if run.adapters else None)

    def forward(self, x: Tensor, run: Pass) -> "tuple[Tensor, Tensor, FirstHalf, SecondHalf]":
        """Output, the state between the halves, and what each half made on the way."""
        first = self.attend(x, run)
        middle = self.join(x, first)
        second = self.activate(middle, run)
        return self.down.product(second.states, second.reduced_down, middle), middle, first, second

    def backward(
        self, grad: Tensor, x: Tensor, middle: Tensor, first: "FirstHalf", second: "SecondHalf", run: Pass
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the layer's input and of its `parameters`."""
        grad_states, down = self.down.backward(second.states, second.reduced_down, grad)
        grad_gate_up = gated_silu_backward(grad_states, second.gate_up)
        del grad_states
        grad_normed, gate_up = self.gate_up.backward(second.normed, second.reduced, grad_gate_up)
        norm = self.middle_norm
        grad_middle = rms_norm_backward(grad_normed, middle, norm.weight, norm.variance_epsilon, residual=grad)
        attended = first.attended
        grad_flat, out = self.out.backward(attended.out.view(len(x), -1), first.reduced_out, grad_middle)
        grad_attended = grad_flat.view_as(attended.out)
        grads = attend_backward(grad_attended, *first.heads, attended, self.scaling, None, run.bounds, run.longest)
        grad_qkv = split_heads_backward(grads, first.qkv, self.heads, run.cos, run.sin)
        grad_normed, qkv = self.qkv.backward(first.normed, first.reduced, grad_qkv)
        norm = self.input_norm
        grad_x = rms_norm_backward(grad_normed, x, norm.weight, norm.variance_epsilon, residual=grad_middle)
        return grad_x, [*qkv, *out, *gate_up, *down]


class FirstHalf(NamedTuple):
    """What the first half of a layer makes and its backward pass needs.

    Attributes:
        normed: [tokens, hidden].
        reduced: [tokens, 3 * rank], None without adapters, as all `reduced` here.
        qkv: [tokens, (query heads + 2 key heads) * head size].
        heads: Queries, keys and values, each [tokens, its heads, head size].
        attended: Their attention.
        reduced_out: [tokens, rank].
    """

    normed: Tensor
    reduced: Tensor | None
    qkv: Tensor
    heads: tuple[Tensor, Tensor, Tensor]
    attended: Attended
    reduced_out: Tensor | None


class SecondHalf(NamedTuple):
    """What the second half of a layer makes and its backward pass needs.

    Attributes:
        normed: [tokens, hidden].
        reduced: [tokens, 2 * rank].
        gate_up: [tokens, 2 * intermediate].
        states: [tokens, intermediate].
        reduced_down: [tokens, rank].
    """

    normed: Tensor
    reduced: Tensor | None
    gate_up: Tensor
    states: Tensor
    reduced_down: Tensor | None


class FusedDecoder:
    """Runs a Qwen3 decoder with its adapters.

    Args:
        decoder: transformers' Qwen3Model with PEFT's adapters in all seven projections.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder: Any = decoder
        self._layers = [FusedLayer(layer) for layer in decoder.layers]  # type: ignore[union-attr]
        copies = [copy for layer in self._layers for linear in layer.linears for copy in linear.working_copies()]
        self._copies = [[copy for copy in copies if copy[0].is_contiguous() is dense] for dense in (True, False)]
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
        for copies in self._copies:
            torch._foreach_copy_([target for target, _, _ in copies], [parameter for _, parameter, _ in copies])
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
        ctx.halves = (first, second) if checkpointing == "none" else None
        states = {"none": (x, middle), "full": (x,)}.get(checkpointing, (x, middle, first.attended.out))
        ctx.statistics = first.attended.statistics if len(states) == 3 else ()
        if slot is not None:
            slot[0].put(slot[1], states)
        else:
            ctx.save_for_backward(*states)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        layer: FusedLayer = ctx.layer
        run: Pass = ctx.run
        x, *kept = ctx.saved_tensors if ctx.slot is None else ctx.slot[0].get(ctx.slot[1])
        if ctx.halves is not None:
            first, second = ctx.halves
            (middle,) = kept
        else:
            first = layer.attend(x, run, Attended(kept[1], ctx.statistics) if kept else None)
            middle = kept[0] if kept else layer.join(x, first)
            second = layer.activate(middle, run)
        ctx.halves = ctx.statistics = None
        grad_x, pairs = layer.backward(grads[0].contiguous(), x, middle, first, second, run)
        return grad_x, None, None, None, None, *pairs


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


def _project(linear: JointLinear, norm: Any, x: Tensor, adapters: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Norm, its product with every A, and the layers' outputs."""
    if adapters:
        return linear.roomy_product(rms_norm(x, norm.weight, norm.variance_epsilon, linear.room))
    normed = rms_norm(x, norm.weight, norm.variance_epsilon)
    return normed, None, linear.product(normed, None)


def _join(weights: list[nn.Parameter], room: int) -> Tensor:
    """One tensor that holds the weights one below the other, and zeros in `room` more columns; each parameter becomes a view of it."""
    joint = weights[0].detach().new_zeros(sum(map(len, weights)), weights[0].shape[1] + room)
    for weight, part in zip(weights, joint.split([len(weight) for weight in weights]), strict=True):
        part[:, :-room] = weight.detach()
        weight.data = part[:, :-room]
    return joint


def _wide_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` with an fp32 result, for gradients that the optimiser keeps in fp32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def _starts(widths: list[int]) -> list[int]:
    return [sum(widths[:at]) for at in range(len(widths))]


def _is_plain_lora(module: Any) -> bool:
    state = getattr(getattr(getattr(module, "base_layer", None), "weight", None), "quant_state", None)
    if state is not None and (state.quant_type != "nf4" or state.state2 is None):
        return False
    if not hasattr(module, "lora_A") or len(module.active_adapters) != 1 or module.active_adapters[0] not in module.lora_A:
        return False
    name = module.active_adapters[0]
    dropout = module.lora_dropout[name] if name in module.lora_dropout else nn.Identity()
    return isinstance(dropout, nn.Identity) and module.base_layer.bias is None and not module.lora_bias[name]
