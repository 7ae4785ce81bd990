"""A loss of weight 0 trains nothing, and changes neither the order of the data nor the steps."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ablation.small import quick
from tests.conftest import ConfigFactory
from tests.tools import CPU, ED, ESCONV, GOEMOTIONS, SAFETY, Tiny, gradients, metrics, one_of_each, pack, perturb, quiet_train
from warmline.ablation.variants import all_variants, variant_config
from warmline.model.artifacts import build_model
from warmline.model.losses import weighted_loss
from warmline.tasks import all_objectives
from warmline.training.optimizer import rate_factor


@pytest.mark.parametrize("variant", all_variants())
def test_gradient_is_that_of_the_other_losses(variant: str, tiny: Tiny, sources: list) -> None:
    batch = pack(sources, one_of_each(sources, ED, ESCONV, GOEMOTIONS, SAFETY, GOEMOTIONS))
    with tiny.model.backbone.reference():
        base_states = tiny.model.states(batch)[batch.safety_positions]
    perturb(tiny.model)
    tiny.model.eval()
    weights = variant_config(tiny.config, variant, 13).loss
    counts = {"lm": len(batch.lm_targets), "emotion": 2, "strategy": len(batch.heads["strategy"].targets), "safety": 1}
    denominators = {name: counts[name] for name in all_objectives()}
    assert all(denominators.values())
    weighted_loss(tiny.model(batch, base_states), weights, denominators).backward()
    found = gradients(tiny.model)
    for parameter in tiny.model.parameters():
        parameter.grad = None
    terms = tiny.model(batch, base_states)
    left = [name for name in all_objectives() if name not in all_variants()[variant]]
    sum(tiny.config.loss[name] / denominators[name] * terms[name].sum for name in left).backward()
    for name, parameter in tiny.model.named_parameters():
        if parameter.requires_grad:
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-8)
    for head in ("emotion", "strategy"):
        largest = max(float(grad.abs().max()) for name, grad in found.items() if f"heads.{head}." in name)
        assert (largest == 0) == (head in all_variants()[variant])


@pytest.mark.slow
def test_same_data_and_an_untouched_head(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Steps, tokens, targets and shares are equal to the last bit; the unused head only shrinks by AdamW's weight decay."""
    config = quick(tiny_config, tmp_path, steps=4, weight_decay=0.1, warmup=0.0)
    runs = {name: quiet_train(variant_config(config, name, 13)) for name in ("full", "lm-only")}
    lines = {name: metrics(run, "train") for name, run in runs.items()}
    assert len(lines["full"]) == 4
    for full, lm_only in zip(lines["full"], lines["lm-only"], strict=True):
        for key in ("step", "tokens", "counts", "shares", "learning_rate", "fill"):
            assert full[key] == lm_only[key]
    assert lines["full"][0]["lm"] == lines["lm-only"][0]["lm"]  # the same weights at the start
    assert lines["full"][3]["lm"] != lines["lm-only"][3]["lm"]
    initial = build_model(variant_config(config, "lm-only", 13), CPU.device, CPU.dtype).heads.state_dict()
    heads = load_file(runs["lm-only"].heads)
    training = config.training
    kept = math.prod(1 - rate_factor(step, 4, training) * training.head_learning_rate * training.weight_decay for step in range(4))
    for name, tensor in heads.items():
        torch.testing.assert_close(tensor, initial[name] * (kept if tensor.ndim > 1 else 1), rtol=1e-6, atol=0)
    trained = load_file(runs["full"].heads)
    assert not torch.allclose(trained["strategy.layers.1.weight"], initial["strategy.layers.1.weight"] * kept, rtol=1e-3)
