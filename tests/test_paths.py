"""Names that may be told to anyone."""

from pathlib import Path

import pytest

from warmline.paths import public_name


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "gpt2", "nano", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_hub_id_stays_whole(model: str) -> None:
    assert public_name(model) == model


@pytest.mark.parametrize(
    "model", ["/home/me/base", "/home/me/base/", "~/x/base", "./base", "../a/base", "C:\\me\\base", "a/b/base", "~base/base"]
)
def test_of_a_folder_the_last_part_is_told(model: str) -> None:
    assert public_name(model) == "./base"


def test_a_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("secret/base") == "./base"
