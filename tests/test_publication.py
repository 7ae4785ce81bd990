"""What is published follows from its own files: the report to the byte, the figures to the digit; no dead link, no path of a machine."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from warmline.config import differing_keys, load_config
from warmline.reporting.report import write_report
from warmline.runs import read_json

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "results" / "recipe"
PAGES = [
    ROOT / "README.md", ROOT / "report.md", ROOT / "src" / "warmline" / "assets" / "nano" / "README.md",
    *(page for folder in ("docs", "research", "results") for page in sorted((ROOT / folder).rglob("*.md"))),
]  # fmt: skip


def test_the_recipe_on_a_real_qwen_is_the_recipe(tmp_path: Path) -> None:
    """The brief's own file with another base, and a report that follows from what lies beside it."""
    today = load_config(ROOT / "configs" / "training_config.yaml")
    assert differing_keys(load_config(RECIPE / "config.yaml"), today) == ["model.name"]
    again = Path(shutil.copytree(RECIPE, tmp_path / "again"))
    assert write_report(again).read_bytes() == (RECIPE / "report.md").read_bytes()


def figures() -> Iterator[str]:
    """What README's table and the recipe's own have to say, base before tuned."""
    evaluation, benches, errors, red_team = (
        read_json(RECIPE / "results" / f"{name}.json") for name in ("evaluation", "eq_bench_results", "errors", "red_team")
    )
    for head in (evaluation["heads"]["emotion"]["single_label_27"], evaluation["heads"]["strategy"]):
        for scores in (head["baselines"]["linear_probe"], head):
            yield f"{100 * scores['accuracy']:.1f} % / {scores['macro_f1']:.3f}"
    told = evaluation["language"]["sources"]
    kl = evaluation["language"]["kl_per_token"]
    yield f"{kl['task']['value']:.3f} / {kl['safety']['value']:.3f}"
    v2 = benches["eq_bench_v2"]
    for model in ("base", "tuned"):
        yield " / ".join(f"{told[source][model]['perplexity']['value']:.1f}" for source in ("empathetic_dialogues", "esconv"))
        yield f"| {evaluation['replies']['speakers'][model]['words_mean']:.1f} |"
        yield " / ".join(f"{100 * errors['classes'][name][model]['share']:.1f} %" for name in ("generic_reply", "invented_fact"))
        yield "{:.1f} ({:.1f} to {:.1f})".format(v2[model]["score"], *v2[model]["interval"])
        yield f"{100 * benches['models'][model]['sections']['rate']:.1f} %"
        yield " / ".join(str(failures(red_team, model, guard)) for guard in ("guard_off", "guard_on"))


def failures(red_team: dict[str, Any], model: str, guard: str) -> int:
    return int(red_team["summary"]["red_team"][model][guard]["failures"]["hits"])


@pytest.mark.parametrize("page", [ROOT / "README.md", RECIPE / "README.md"], ids=["README", "recipe"])
def test_the_tables_have_the_figures_of_the_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\N{MINUS SIGN}", "-")
    assert [one for one in figures() if one not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_no_link_is_dead(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [one for one in targets if "://" not in one and not (page.parent / one).exists()] == []


def test_nothing_published_is_large() -> None:
    sizes = {path: path.stat().st_size for folder in ("results", "docs") for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert max(sizes.values()) < 5e6
    assert sum(sizes[path] for path in sizes if path.is_relative_to(RECIPE)) < 3e6


def test_no_path_of_a_machine() -> None:
    for path in [ROOT / "report.md", *(found for found in (ROOT / "results").rglob("*") if found.is_file())]:
        if path.suffix not in (".png", ".safetensors"):
            assert not re.search(r"/(home|root|work|Users)/", path.read_text(encoding="utf-8")), path
