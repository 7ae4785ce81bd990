import pytest

from warmline.config import DataConfig
from warmline.data.cards import data_stats, write_cards

SAMPLE = DataConfig(dir="sample")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "deep"
    write_cards(SAMPLE, folder)
    return folder


@pytest.fixture(scope="module")
def stats():
    return data_stats(SAMPLE)


def table(card: str) -> dict[str, dict[str, str]]:
    """The counts table as {split: {column: cell}}."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


NAMES = ["empathetic_dialogues", "esconv", "goemotions", "safety"]


@pytest.mark.parametrize("name", NAMES)
def test_card_has_its_picture(folder, name):
    assert f"({name}.png)" in (folder / f"{name}.md").read_text(encoding="utf-8")
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_card_shows_the_counts_that_were_made(folder, stats, name):
    shown = table((folder / f"{name}.md").read_text(encoding="utf-8"))
    assert set(shown) == {"train", "valid", "test"}
    for split, row in shown.items():
        assert row == {column: f"{stats['sources'][name][split][column.replace(' ', '_')]:,}" for column in row}


@pytest.mark.parametrize("name", NAMES)
def test_card_shows_conversations_and_something_to_learn(folder, name):
    columns = table((folder / f"{name}.md").read_text(encoding="utf-8"))["train"]
    assert "conversations" in columns
    assert any(column.endswith("targets") for column in columns)


@pytest.mark.parametrize("name", NAMES)
def test_card_names_origin_licence_and_problems(folder, name):
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert all(part in text for part in ("**Origin:**", "**Licence:**", "## Preprocessing", "## Known problems"))


def test_non_commercial_data_say_so(folder):
    assert all("CC BY-NC 4.0" in (folder / f"{name}.md").read_text(encoding="utf-8") for name in ("empathetic_dialogues", "esconv"))


def test_card_says_what_was_left_out(folder, stats):
    number = stats["sources"]["goemotions"]["train"]["left_out"]["only neutral"]
    assert f"Left out of train: {number:,} rows (only neutral)." in (folder / "goemotions.md").read_text(encoding="utf-8")


def test_card_shows_its_share(folder, stats):
    share = stats["mixture"]["shares"]["esconv"]
    assert f"{share:.1%} of the draws at alpha = 0.5" in (folder / "esconv.md").read_text(encoding="utf-8")


def test_card_says_when_its_share_ends(tmp_path):
    write_cards(DataConfig(dir="sample", max_passes=4), tmp_path)
    assert "of the draws at alpha = 0.5, until it has been passed 4 times\n" in (tmp_path / "esconv.md").read_text(encoding="utf-8")


def test_disabled_sources_get_no_card(tmp_path):
    off = {name: {"enabled": False} for name in NAMES[:3]}
    cards = write_cards(DataConfig.model_validate({"dir": "sample", "sources": off}), tmp_path)
    assert cards == [tmp_path / "safety.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["safety.md", "safety.png"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, refused):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in refused(write_cards, SAMPLE, tmp_path / "file" / "cards")
