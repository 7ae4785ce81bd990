"""No import runs backwards: a part of the package knows those before it in this list, and none behind."""

import ast
from pathlib import Path

import warmline

LAYERS = (
    "errors", "paths", "plain_yaml", "progress", "files", "settings", "retired", "conversation", "runs", "lock", "safety", "metrics",
    "tasks", "sources", "config", "data", "model", "companion", "openai_server", "responders", "journal", "judges", "rewriting",
    "training", "evaluation", "redteam", "eqbench", "ablation", "reporting", "export", "inspection", "bench", "serving", "pipeline", "cli",
)  # fmt: skip
ROOT = Path(warmline.__file__).parent


def imported(path: Path) -> set[str]:
    """Parts of the package that a module imports, at its top or inside a function."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("warmline.")]
    return {name.split(".")[1] for name in names}


def test_no_import_runs_backwards() -> None:
    modules = {path: path.relative_to(ROOT).with_suffix("").parts[0] for path in ROOT.rglob("*.py") if not path.name.startswith("__main")}
    assert {part for path, part in modules.items() if path.parent != ROOT or part != "__init__"} == set(LAYERS)
    for path, part in modules.items():
        if part != "__init__":
            later = {other for other in imported(path) if LAYERS.index(other) > LAYERS.index(part)}
            assert not later, f"{path.relative_to(ROOT)} imports {', '.join(sorted(later))}"
