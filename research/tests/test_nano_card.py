"""The model card of warmline-nano is what the records beside its weights give: no number was typed into it."""

from importlib import resources
from pathlib import Path

from nano.card import write_card

NANO = Path(str(resources.files("warmline") / "assets" / "nano"))


def test_the_card_is_what_the_records_give(tmp_path: Path) -> None:
    for name in ("corpus.json", "pretraining.json", "evaluation.json", "model.safetensors"):
        (tmp_path / name).symlink_to(NANO / name)
    write_card(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == (NANO / "README.md").read_bytes()
