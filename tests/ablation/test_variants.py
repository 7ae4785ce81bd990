"""Each variant's configuration, and which variants are worth training."""

from pathlib import Path

import pytest

from tests.conftest import ConfigFactory
from warmline.ablation.variants import all_variants, choose_variants, variant_config
from warmline.config import differing_keys
from warmline.errors import WarmlineError


@pytest.mark.parametrize("variant", all_variants())
def test_only_the_losses_change(variant: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"early_stop": 2})
    derived = variant_config(config, variant, seed=14)
    book_keeping = {"name", "output_dir", "seed", "training.early_stop", "validation.artifact"}
    assert set(differing_keys(config, derived)) == book_keeping | {f"loss.{name}" for name in all_variants()[variant]}
    assert all(derived.loss[name] == 0 for name in all_variants()[variant])
    assert (derived.name, derived.seed) == (f"tiny-{variant}-seed14", 14)
    assert derived.output_dir == tmp_path / "tiny" / "ablation"


def test_a_cut_run_has_a_name_of_its_own(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert variant_config(config, "full", 13, planned_steps=100).name == "tiny-full-seed13-4steps"


def test_full_is_always_there(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert choose_variants(config, None).variants == list(all_variants())
    choice = choose_variants(config, ["lm-only"])
    assert choice.variants == ["full", "lm-only"]
    assert set(choice.left_out) == {"no-emotion", "no-strategy", "no-safety"}


def test_variants_that_train_alike_are_left_out(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    without_weight = tiny_config(tmp_path, loss={"emotion": 0})
    assert choose_variants(without_weight, None).variants == ["full", "no-strategy", "no-safety", "lm-only"]
    without_source = tiny_config(tmp_path, data={"sources": {"goemotions": {"enabled": False}}}, loss={"strategy": 0})
    choice = choose_variants(without_source, None)
    assert choice.variants == ["full", "no-safety"]
    assert choice.left_out["lm-only"] == "trains the same losses as no-safety (lm)"
    with pytest.raises(WarmlineError, match="--variants: no-emotion trains the same losses as full"):
        choose_variants(without_weight, ["no-emotion"])
    heads_only = tiny_config(tmp_path, loss={"lm": 0})
    assert choose_variants(heads_only, None).left_out == {"lm-only": "no loss is left to train"}


def test_unknown_variant(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="unknown variant `no-love`; known: full, no-emotion"):
        choose_variants(tiny_config(tmp_path), ["no-love"])
