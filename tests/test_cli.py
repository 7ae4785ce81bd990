"""The command line: what it prints, and one line with status 2 for every user error."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.conftest import ConfigFactory
from tests.tools import metrics
from warmline import cli
from warmline.config import dump_config
from warmline.redteam import suites
from warmline.runs import RunFolder, read_json, write_json
from warmline.sources.files import sample_dir


class Done(NamedTuple):
    status: int
    out: str
    err: str


Warmline = Callable[..., Done]


@pytest.fixture
def warmline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Warmline:
    """Runs a command in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["warmline", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = 0 if ended.code is None else int(ended.code)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def config_file(tiny_config: ConfigFactory, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config(tmp_path / "runs", training={"max_steps": 1}, validation={"conversations": 2})))
    return path


def refusal(done: Done) -> str:
    assert done.status == 2
    assert done.err.endswith("\n")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("warmline: ")
    return done.err


def test_train_then_evaluate(warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    done = warmline("train", config_file, "--set", "name=other", "--set", "training.max_steps=2", "--set", "validation.every=1")
    assert done.status == 0
    run = RunFolder.open(tmp_path / "runs" / "other")
    assert [line["step"] for line in metrics(run, "train")] == [1, 2]
    assert [line["step"] for line in metrics(run, "validation")] == [0, 1, 2]
    assert "done: 2 steps" in done.out
    assert "self-check: causal" in done.out
    quick = ("--replies", "0", "--no-baselines")
    result = json.loads(warmline("evaluate", run.path, "--json", *quick).out)
    assert result == read_json(run.evaluation)
    table = warmline("evaluate", run.path, *quick)
    assert table.status == 0
    assert "emotion" in table.out
    assert "majority" in table.out
    assert "this run exists" in refusal(warmline("train", config_file, "--set", "name=other"))
    differs = warmline("train", config_file, "--resume", "--set", "name=other", "--set", "seed=5")
    assert "differs from the run's at `seed`" in refusal(differs)


@pytest.mark.slow
def test_ablate(warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    few = ("--variants", "no-safety", "--conversations", "3", "--probe-rows", "10")
    table = warmline("ablate", config_file, *few, "--seeds", "14")
    assert table.status == 0
    for shown in ("1 of 2: full, seed 14", "2 of 2: no-safety, seed 14", "variant minus full", "one seed"):
        assert shown in table.out
    result = json.loads(warmline("ablate", config_file, *few, "--seeds", "14", "--json").out)
    assert result == read_json(RunFolder(tmp_path / "runs" / "tiny").ablation_results)
    assert result["context"]["seeds"] == [14]
    assert "--seeds 14;15: expected whole numbers" in refusal(warmline("ablate", config_file, "--seeds", "14;15"))
    assert "unknown variant `none`" in refusal(warmline("ablate", config_file, "--variants", "none"))


def test_plan(warmline: Warmline, config_file: Path) -> None:
    content = json.loads(warmline("plan", config_file, "--json").out)
    assert (content["steps"], content["row_tokens"]) == (1, 512)
    more = json.loads(warmline("plan", config_file, "--json", "--ranks", "3", "--set", "training.accumulation=2").out)
    assert more["rows_per_step"] == 6
    done = warmline("plan", config_file)
    assert done.status == 0
    assert "goemotions" in done.out
    assert "1 steps" in done.out


def test_paths_are_taken_as_typed(warmline: Warmline, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(sample_dir(), tmp_path / "data #2")
    for typed in (tmp_path / "data #2", "~/data #2"):
        assert warmline("plan", config_file, "--data-dir", typed).status == 0
        assert warmline("data", "stats", "--data-dir", typed).status == 0
    assert f"{tmp_path / 'data'}: data folder not found" in refusal(warmline("plan", config_file, "--data-dir", tmp_path / "data"))
    for typed in ("", "a\nb"):
        assert "expected a path" in refusal(warmline("plan", config_file, "--data-dir", typed))
        assert "expected a path" in refusal(warmline("report", typed))
    assert f"{tmp_path / 'run'}: not a run folder" in refusal(warmline("report", "~/run"))


def test_plan_writes_nothing(warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    warmline("plan", config_file)
    assert not (tmp_path / "runs").exists()


def test_data_stats(warmline: Warmline) -> None:
    stats = json.loads(warmline("data", "stats", "--data-dir", "sample", "--json").out)
    assert set(stats["sources"]) == {"empathetic_dialogues", "esconv", "goemotions", "safety"}
    flat = json.loads(warmline("data", "stats", "--data-dir", "sample", "--alpha", "1", "--json").out)
    assert flat["mixture"]["shares"]["goemotions"] > stats["mixture"]["shares"]["goemotions"]
    done = warmline("data", "stats", "--data-dir", "sample")
    assert done.status == 0
    assert "esconv" in done.out


def test_redteam(warmline: Warmline, finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suites.load_red_team()
    monkeypatch.setattr(suites, "load_red_team", lambda: suite._replace(items=suite.items[:3]))
    done = warmline("redteam", finished_copy.path, "--country", "GB", "--max-new-tokens", "4")
    assert done.status == 0
    assert "guard on" in done.out
    assert "no clinician" in done.out
    assert finished_copy.red_team_sheet.is_file()
    done = warmline("redteam", finished_copy.path, "--max-new-tokens", "4", "--json")
    assert json.loads(done.out) == read_json(finished_copy.red_team)
    assert "go together" in refusal(warmline("redteam", finished_copy.path, "--judge-url", "http://localhost:1/v1"))
    assert "folder not found" in refusal(warmline("redteam", finished_copy.path, "--suite-dir", finished_copy.path / "nowhere"))


def test_guard(warmline: Warmline) -> None:
    report = json.loads(warmline("guard", "--data-dir", "sample", "--json").out)
    assert report["suites"]["red_team"]["recall"]["n"] > 20
    assert report["suites"]["xstest"]["n"] is None
    assert report["ordinary"]["esconv"]["n"] > 0
    done = warmline("guard", "--data-dir", "sample")
    assert done.status == 0
    assert "missing" in done.out


def test_data_dir_option_wins(warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: data folder not found" in refusal(warmline("plan", config_file, "--data-dir", tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["a: [1, 2", "- a list", "", "name: tiny", "name: tiny\nmodell: {}", "\x00", "model: nano\nname: a"])
@pytest.mark.parametrize("command", ["plan", "train"])
def test_bad_configuration(command: str, content: str, warmline: Warmline, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert str(path) in refusal(warmline(command, path))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.learning_rate=-1", "`training.learning_rate`"),
        ("training.learing_rate=1", "did you mean `"),
        ("no-equals", "expected key=value"),
        ("=1", "expected key=value"),
        ("name.deeper=1", "`name` is a value, not a section"),
        ("training.epochs=[", "not a YAML value"),
        ("training.epochs=many", "`training.epochs`"),
        ("name=../elsewhere", "`name`"),
        ("data.dir=/nowhere/at/all", "data folder not found"),
        ("data.row_tokens=20", "more than data.row_tokens = 20"),
        (
            "data.sources.esconv.objectives=[emotion]",
            "esconv.objectives: `emotion` is none of what it can train: lm, strategy",
        ),
        ("model.name=nobody/nothing", "cannot load `nobody/nothing`"),
        ("model.name=/nowhere", "cannot load `/nowhere`"),
        ("training.precision=fp16", "fp16 needs a GPU"),
        ("lora.target_modules=[nothing]", "lora.target_modules: `nothing` is no linear layer"),
        ("lora.target_modules=[q_proj, v_prj]", "lora.target_modules: `v_prj` is no linear layer"),
        ("lora.target_modules=[q_proj, lm_head]", "lora.target_modules: `lm_head` is no linear layer"),
        ("lora.target_modules=[]", "`lora.target_modules`"),
        ("data.sources.esconv.objectives=[]", "data.sources.esconv.objectives: empty"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "train"])
def test_bad_value(command: str, override: str, said: str, warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    assert said in refusal(warmline(command, config_file, "--set", override))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.random_init_seed=null", "has no model.safetensors"),
        ("output_dir=/dev/null/runs", "cannot write the run folder"),
        ("trackers=[trackio]", "track"),
    ],
)
def test_bad_value_when_training(override: str, said: str, warmline: Warmline, config_file: Path) -> None:
    overrides = [part for one in override.split() for part in ("--set", one)]
    assert said in refusal(warmline("train", config_file, *overrides))


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "absent.yaml"),
        ("plan", "."),
        ("train", "absent.yaml"),
        ("evaluate", "absent"),
        ("errors", "absent"),
        ("facts", "absent"),
        ("report", "absent"),
        ("export", "absent", "--out", "out"),
        ("chat", "absent"),
        ("chat", "absent", "--country", "XX"),
        ("chat", "absent", "--temperature", "9"),
        ("run", "absent.yaml"),
        ("evaluate", "."),
        ("data", "stats", "--data-dir", "absent"),
        ("data", "stats", "--data-dir", "sample", "--alpha", "0"),
        ("data", "stats", "--data-dir", "sample", "--alpha", "1.5"),
        ("data", "card", "--data-dir", "absent"),
    ],
)
def test_bad_path_or_number(arguments: tuple[str, ...], warmline: Warmline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(warmline(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("trian", "a.yaml"),
        ("plan", "a.yaml", "--unknown"),
        ("plan", "a.yaml", "--ranks", "0"),
        ("data", "stats", "--alpha", "x"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], warmline: Warmline) -> None:
    refusal(warmline(*arguments))


def test_errors(warmline: Warmline, finished_copy: RunFolder) -> None:
    result = json.loads(warmline("errors", finished_copy.path, "--prompts", "2", "--json").out)
    assert result == read_json(finished_copy.error_taxonomy)
    table = warmline("errors", finished_copy.path, "--prompts", "2")
    assert table.status == 0
    assert "invented fact" in table.out
    assert "8 of 8" in table.out


def test_facts(warmline: Warmline, finished_copy: RunFolder) -> None:
    asked = "facts", finished_copy.path, "--questions", "2", "--max-new-tokens", "4"
    result = json.loads(warmline(*asked, "--json").out)
    assert result == read_json(finished_copy.facts)
    table = warmline(*asked)
    assert table.status == 0
    assert "right replies to 2 questions of fact" in table.out
    assert "wrong belief" in table.out
    assert "replies cut at 4 tokens: 2 of 2 of the base's" in table.out


def test_report(warmline: Warmline, finished_copy: RunFolder) -> None:
    done = warmline("report", finished_copy.path)
    assert (done.status, done.out) == (0, f"{finished_copy.report}\n")
    assert finished_copy.report.read_text(encoding="utf-8").startswith("# tiny: what the tuning changed\n")


def test_export(warmline: Warmline, finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert "--dtype int8: expected one of bfloat16" in refusal(warmline("export", finished.path, "--out", out, "--dtype", "int8"))
    monkeypatch.setattr("warmline.export.folder.get_token", lambda: None)
    assert "no Hugging Face token" in refusal(warmline("export", finished.path, "--out", out, "--push", "me/friend"))
    assert not out.exists()
    done = warmline("export", finished.path, "--out", out, "--base", "me/base")
    assert "random numbers" in refusal(done)
    done = warmline("export", finished.path, "--out", out)
    assert (done.status, done.out) == (0, f"writing\nwritten to {out}; its README.md is the model card\n")
    assert "--overwrite replaces it" in refusal(warmline("export", finished.path, "--out", out))


def test_inspect(warmline: Warmline, finished_copy: RunFolder) -> None:
    fine = warmline("inspect", finished_copy.path)
    assert fine.status == 0
    assert fine.err == ""
    for said in ("a folder on this machine, seed 0", "rank 4, alpha 8", "12", "adapter/adapter_model.safetensors", "hash holds"):
        assert said in fine.out
    heads = read_json(finished_copy.heads_description)
    write_json(finished_copy.heads_description, {**heads, "labels": {**heads["labels"], "[red]\x1b[2Jloud[/]": ["a", "b"]}})
    loud = warmline("inspect", finished_copy.path)
    assert "labels of the [red]\\x1b[2Jloud[/] head" in loud.out
    write_json(finished_copy.heads_description, heads)
    (finished_copy.path / "adapter" / "\x1b[2Jevil.bin").write_bytes(b"\x80\x04")
    finished_copy.report.symlink_to("/etc/passwd")
    link = warmline("inspect", finished_copy.path)
    assert "report.md: a link out of the folder" in refusal(link)
    finished_copy.report.unlink()
    done = warmline("inspect", finished_copy.path, "--json")
    assert "\\x1b[2Jevil.bin: no file that a run has there" in refusal(done)
    assert "\x1b" not in done.out + done.err
    found = json.loads(done.out)
    assert [entry["note"] for entry in found["entries"] if "evil" in entry["name"]] == ["not listed; pickle: code for whoever unpickles it"]
    assert found["refusals"] == [found["refusals"][0]]
    refusal(warmline("inspect", finished_copy.path / "nowhere"))


def test_run_does_every_step(warmline: Warmline, config_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from warmline import pipeline

    monkeypatch.setattr(pipeline, "STEPS", pipeline.STEPS[-1:])
    assert warmline("run", config_file, "--quick").status == 0
    assert (tmp_path / "runs" / "tiny" / "report.md").is_file()
    assert "done before" in warmline("run", config_file, "--quick").out


@pytest.mark.parametrize("damage", ["heads.json", "heads.safetensors", "adapter/adapter_model.safetensors", "config.yaml", "manifest.json"])
def test_damaged_run(damage: str, warmline: Warmline, finished_copy: RunFolder) -> None:
    path = finished_copy.path / damage
    path.write_bytes(path.read_bytes()[:40])
    refusal(warmline("evaluate", finished_copy.path))


def test_damaged_data(warmline: Warmline, config_file: Path, tmp_path: Path) -> None:
    from warmline.sources.files import sample_dir

    shutil.copytree(sample_dir(), tmp_path / "data")
    (tmp_path / "data" / "esconv" / "ESConv.json").write_text("[{")
    assert "ESConv.json" in refusal(warmline("train", config_file, "--data-dir", tmp_path / "data"))


def test_interrupted(warmline: Warmline, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("warmline.training.loop.train", interrupt)
    done = warmline("train", config_file)
    assert done.status == 130
    assert done.err == "warmline: interrupted; train goes on with `--resume`, other commands when started again\n"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("data",),
        ("plan",),
        ("train",),
        ("evaluate",),
        ("errors",),
        ("facts",),
        ("eqbench",),
        ("ablate",),
        ("redteam",),
        ("guard",),
        ("report",),
        ("export",),
        ("inspect",),
        ("chat",),
        ("run",),
        ("data", "fetch"),
        ("data", "stats"),
        ("data", "card"),
    ],
)
def test_help(command: tuple[str, ...], warmline: Warmline) -> None:
    done = warmline(*command, "--help")
    assert done.status == 0
    assert "Usage: " in done.out
    assert "--help" in done.out


def test_help_waits_for_no_library_that_takes_seconds() -> None:
    slow = "torch", "transformers", "sklearn", "matplotlib", "openai"
    asked = f"import sys; from warmline import cli; assert cli.app; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_as_a_program(config_file: Path, tmp_path: Path) -> None:
    """The installed entry point, in a process of its own: nothing but the message reaches the user."""
    config_file.write_text(yaml.safe_dump({"name": "a", "model": {"name": "nano"}, "surprise": 1}))
    program = Path(sys.executable).with_name("warmline")
    done = subprocess.run([program, "plan", config_file], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "40"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"warmline: {config_file}: unknown key `surprise`; ")
    assert done.stderr.count("\n") == 1


def test_bench_without_a_gpu_writes_no_model(tmp_path: Path, warmline: Warmline) -> None:
    status, _, err = warmline("bench", "--model", tmp_path / "model")
    assert status == 2
    assert "needs a CUDA GPU" in err
    assert not (tmp_path / "model").exists()
