"""Gemma 3 as a fast sampler of many short texts at once: the published forward pass on one batch of equally padded prompts.

transformers' `generate` is not used because the cost lies elsewhere than it expects: at thousands of sequences the 262,144-token
unembedding and its softmax would take most of every step, and here only ids that spell plain English are wanted. So the unembedding is cut
to those ids. Attention is a plain product over a preallocated cache; with prompt and text within Gemma's sliding window of 512 tokens,
local and global layers differ in their rotary base only.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

WINDOW = 512


class GemmaSampler:
    """Gemma 3 (text only, one key-value head) with an unembedding cut to `ids`.

    Args:
        folder: A Hugging Face folder with config.json and model.safetensors.
        ids: Token ids that may be sampled, sorted.
        device: Where to run.
        dtype: Of weights and cache.
    """

    def __init__(self, folder: Path, ids: Sequence[int], device: str, dtype: torch.dtype) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        if self.config["num_key_value_heads"] != 1 or self.config["model_type"] != "gemma3_text":
            raise SystemExit(f"{folder}: not a Gemma 3 text model with one key-value head")
        self.device, self.dtype = device, dtype
        self.ids = torch.tensor(list(ids), device=device)
        self.load(load_file(folder / "model.safetensors"))
        self.layers = self.config["num_hidden_layers"]
        self.heads, self.head_dim = self.config["num_attention_heads"], self.config["head_dim"]
        bases = {kind: values["rope_theta"] for kind, values in self.config["rope_parameters"].items()}
        powers = torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim
        self.frequencies = {kind: base**-powers for kind, base in bases.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take other weights of the same names, as `safetensors` files of transformers have them."""
        self.weights = {name.removeprefix("model."): tensor.to(self.device, self.dtype) for name, tensor in state.items()}
        self.unembedding = self.weights["embed_tokens.weight"][self.ids].contiguous()

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], 1 + self.weights[name + ".weight"].float(), self.config["rms_norm_eps"]).to(self.dtype)

    def _rotary(self, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines [b, t, 1, head_dim] of each kind of layer."""
        tables = {}
        for kind, frequencies in self.frequencies.items():
            angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2)[:, :, None]
            tables[kind] = (angles.cos().to(self.dtype), angles.sin().to(self.dtype))
        return tables

    def forward(self, tokens: Tensor, positions: Tensor, cache: Tensor, start: int, mask: Tensor) -> Tensor:
        """Hidden states after the final norm of the last token.

        Args:
            tokens: [b, t] token ids.
            positions: [b, t], counted from each prompt's own first token.
            cache: [layers, 2, b, length, head_dim]; slots start .. start + t are written.
            start: First slot.
            mask: [b, t, start + t], added to the scores: 0 where a token may look, minus infinity elsewhere.

        Returns:
            [b, hidden].
        """
        w, (batch, length) = self.weights, tokens.shape
        x = F.embedding(tokens, w["embed_tokens.weight"]) * torch.tensor(self.config["hidden_size"] ** 0.5, dtype=self.dtype)
        rotary = self._rotary(positions)
        mask = mask[:, :, None].to(self.dtype)
        for layer in range(self.layers):
            name = f"layers.{layer}"
            cos, sin = rotary[self.config["layer_types"][layer]]
            h = self._norm(x, f"{name}.input_layernorm")
            q = F.linear(h, w[f"{name}.self_attn.q_proj.weight"]).view(batch, length, self.heads, self.head_dim)
            k = F.linear(h, w[f"{name}.self_attn.k_proj.weight"]).view(batch, length, 1, self.head_dim)
            q = rotate(self._norm(q, f"{name}.self_attn.q_norm"), cos, sin)
            cache[layer, 0, :, start : start + length] = rotate(self._norm(k, f"{name}.self_attn.k_norm"), cos, sin)[:, :, 0]
            cache[layer, 1, :, start : start + length] = F.linear(h, w[f"{name}.self_attn.v_proj.weight"])
            keys, values = cache[layer, :, :, : start + length]
            # the four query heads share one key-value head: they are four more rows of one product
            scores = (q.flatten(1, 2) @ keys.transpose(1, 2)) * self.config["query_pre_attn_scalar"] ** -0.5
            scores = scores.view(batch, length, self.heads, -1) + mask
            attended = torch.softmax(scores.float(), -1).to(self.dtype).flatten(1, 2) @ values
            attended = F.linear(attended.view(batch, length, -1), w[f"{name}.self_attn.o_proj.weight"])
            x = x + self._norm(attended, f"{name}.post_attention_layernorm")
            h = self._norm(x, f"{name}.pre_feedforward_layernorm")
            gate = F.gelu(F.linear(h, w[f"{name}.mlp.gate_proj.weight"]), approximate="tanh")
            h = F.linear(gate * F.linear(h, w[f"{name}.mlp.up_proj.weight"]), w[f"{name}.mlp.down_proj.weight"])
            x = x + self._norm(h, f"{name}.post_feedforward_layernorm")
        return self._norm(x[:, -1], "norm")

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, temperature: float, min_p: float, generator: torch.Generator
    ) -> Tensor:
        """Continue every prompt by the same number of tokens.

        Args:
            prompts: Token ids, each beginning with BOS.
            new_tokens: How many to sample; the longest prompt and they must fit the sliding window together.
            temperature: Divides the logits.
            min_p: Tokens less probable than this share of the most probable one are never drawn.
            generator: On the sampler's device.

        Returns:
            [prompts, new_tokens] token ids.
        """
        longest = max(map(len, prompts))
        if longest + new_tokens > WINDOW:
            raise ValueError(f"prompt of {longest} and {new_tokens} new tokens exceed the window of {WINDOW}")
        batch = len(prompts)
        tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=self.device)
        slots = torch.arange(longest + new_tokens, device=self.device)
        hidden_slots = torch.where(slots < pads[:, None], -1e9, 0.0)  # finite: a padded row of minus infinities would give NaN
        cache = torch.zeros(self.layers, 2, batch, longest + new_tokens, self.head_dim, device=self.device, dtype=self.dtype)
        future = torch.full((longest, longest), -1e9, device=self.device).triu(1)
        states = []
        chunk = 256  # the scores of a whole prefill at once would take tens of GB
        for begin in range(0, batch, chunk):
            rows = slice(begin, begin + chunk)
            positions = (slots[:longest] - pads[rows, None]).clamp(min=0)
            part = cache[:, :, rows]
            mask = hidden_slots[rows, None, :longest] + future
            states.append(self.forward(tokens[rows], positions, part, 0, mask))
        state = torch.cat(states)
        out = torch.empty(batch, new_tokens, dtype=torch.long, device=self.device)
        for step in range(new_tokens):
            out[:, step] = self._draw(state, temperature, min_p, generator)
            if step + 1 < new_tokens:
                place = longest + step
                mask = hidden_slots[:, None, : place + 1]
                state = self.forward(out[:, step : step + 1], (place - pads)[:, None], cache, place, mask)
        return out

    def _draw(self, state: Tensor, temperature: float, min_p: float, generator: torch.Generator) -> Tensor:
        logits = (state @ self.unembedding.T).float() / temperature
        floor = logits.amax(-1, keepdim=True) + torch.tensor(min_p, device=self.device).log()
        # the largest of log p + Gumbel noise is a draw from p: no sort, no cumulative sum
        noise = torch.empty_like(logits).exponential_(generator=generator).log_()
        return self.ids[logits.masked_fill_(logits < floor, float("-inf")).sub_(noise).argmax(-1)]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, in halves as transformers lays them out."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
