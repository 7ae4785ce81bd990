"""The notebook's code cells, run in order in a process of their own, on its configuration for a CPU with a smaller model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts.make_notebook import INSTALL, PARAMETERS, TARGET, make_notebook

from warmline.runs import RunFolder, read_json

ROOT = Path(__file__).parents[1]

# What Colab brings: a picture must exist to be shown.
IPYTHON = """
import sys, types
from pathlib import Path
display = types.ModuleType("IPython.display")
display.Image = lambda path: Path(path).read_bytes()
display.display = lambda picture: print(f"picture of {len(picture)} bytes")
sys.modules["IPython"], sys.modules["IPython.display"] = types.ModuleType("IPython"), display
"""


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(TARGET.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_file_is_what_the_script_makes() -> None:
    assert json.loads(TARGET.read_text(encoding="utf-8")) == make_notebook()


def test_no_outputs_and_every_cell_parses() -> None:
    for cell in code_cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        if INSTALL not in cell["metadata"].get("tags", []):
            compile("".join(cell["source"]), "cell", "exec")


@pytest.mark.slow(40)
def test_runs_without_a_gpu(tiny_model: Path, tmp_path: Path) -> None:
    settings = f"""
OVERRIDES = ["model.name={tiny_model}", "model.random_init_seed=0", "validation.conversations=4", "training.accumulation=1",
             "data.sources.safety.enabled=false",
             "data.sources.empathetic_dialogues.enabled=false"]
MAX_STEPS = 2
OUTPUT = {str(tmp_path / "runs")!r}
"""
    program = [IPYTHON]
    for cell in code_cells():
        tags = cell["metadata"].get("tags", [])
        if INSTALL not in tags:
            program.append("".join(cell["source"]) + (settings if PARAMETERS in tags else ""))
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(program))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder.open(tmp_path / "runs" / "nano")
    assert read_json(run.heads_description)["step"] == 2
    for shown in ("no GPU: the small model", "done: 2 steps", "picture of", "majority class", "\nemotion {", "\ntuned:", "\nbase: "):
        assert shown in done.stdout
