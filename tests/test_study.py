"""The study's driver: what is done is skipped, order is kept, failures and time are survived, and every trial is a valid configuration."""

import shutil
import sys
import time
from pathlib import Path

import pytest
from scripts.study import ALPHAS, Job, Study, _trials, _wanted, collect, run_jobs

import warmline
from tests.conftest import ConfigFactory
from tests.reporting import results
from trials import START, TEACHERS, TRIALS
from warmline.ablation.variants import VARIANTS
from warmline.config import load_config
from warmline.data.template import Message
from warmline.evaluation.finished import FinishedRun
from warmline.reporting.report import write_report
from warmline.runs import RunFolder, read_json, write_json
from warmline.training.plan import plan_run

REPOSITORY = Path(__file__).parents[1]
STUDY = REPOSITORY / "configs" / "gemma3-270m.yaml"
TALK = [Message(role="user", content="My cat ran away.")]


def job(folder: Path, name: str, *after: str, code: str = "", needs: str = "") -> Job:
    """Writes its file, after the file it needs is there."""
    check = f"assert pathlib.Path({str(folder / needs)!r}).is_file(), 'too early'" if needs else ""
    write = f"pathlib.Path({str(folder / name)!r}).write_text('x')"
    program = "; ".join(part for part in ("import pathlib, time", check, code, write) if part)
    return Job(name, (sys.executable, "-c", program), folder / name, after)


def test_order_is_kept_and_what_is_done_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "earlier").write_text("x")
    jobs = [
        job(tmp_path, "earlier", code="raise SystemExit('again')"),
        job(tmp_path, "second", "first", needs="first"),
        job(tmp_path, "first", "earlier", code="time.sleep(0.3)"),
        job(tmp_path, "third", "not asked for"),
    ]
    run_jobs(jobs, 3, 1, tmp_path / "logs")
    assert all((tmp_path / one.name).is_file() for one in jobs)
    printed = capsys.readouterr().out
    assert "done before" in printed
    assert "FAILED" not in printed


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(tmp_path, "bad", code="raise SystemExit('no data')"), job(tmp_path, "needs-it", "bad"), job(tmp_path, "other")]
    run_jobs(jobs, 1, 1, tmp_path / "logs")
    assert (tmp_path / "other").is_file()
    assert not (tmp_path / "needs-it").exists()
    printed = capsys.readouterr().out
    assert "no data" in printed
    assert "not begun" in printed


def test_out_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    run_jobs([job(tmp_path, "endless", code="time.sleep(60)"), job(tmp_path, "later")], 1, 0.02, tmp_path / "logs")
    assert time.monotonic() - began < 20
    assert "stopped: out of time" in capsys.readouterr().out
    assert not (tmp_path / "later").exists()


def test_only_takes_parts_of_names() -> None:
    assert [name for name in ("eqbench", "redteam", "alpha-1") if _wanted(name, "red,alpha")] == ["redteam", "alpha-1"]
    assert _wanted("anything", "")


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_is_a_configuration(name: str) -> None:
    assert load_config(STUDY, [*START, *TRIALS[name]]) != load_config(STUDY, START) or name == "joint"


def test_the_study_trains_every_variant_once(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    jobs = list(Study(STUDY, config, None, [], [13, 14]).jobs(0, 4, None))
    names = [one.name for one in jobs]
    assert len(set(names)) == len(names)
    assert len({one.done for one in jobs}) == len(jobs)
    assert {f"variant-{variant}-seed{seed}" for variant in VARIANTS for seed in (13, 14)} <= set(names)
    assert {f"train-alpha-{alpha}-seed13" for alpha in ALPHAS if alpha != 0.5} <= set(names)  # the main run has 0.5
    for one in jobs:
        if one.name.startswith("train-alpha"):
            assert f"training.max_steps={plan_run(config).steps}" in one.command
        assert set(one.after) <= set(names)
        if one.name.startswith("train-labels-28"):
            assert f"name=tiny-{one.name.removeprefix('train-')}" in one.command


def test_runs_of_28_labels_have_teachers_of_28(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    folder = tmp_path / "teachers"
    teachers = [one.name for one in _trials(TEACHERS, "13,14", folder, STUDY, None, None)]
    assert teachers == ["emotion-seed13", "emotion-seed14", "emotion-28-seed13", "emotion-28-seed14"]
    config = tiny_config(tmp_path, distill={"teachers": [str(folder / name) for name in teachers[:2]]})
    [job] = [one for one in Study(STUDY, config, None, [], [13]).jobs(0, 4, None) if one.name == "train-labels-28-seed13"]
    assert f"distill.teachers=[{folder / teachers[2]}, {folder / teachers[3]}]" in job.command


def test_what_is_published_is_enough_to_make_the_report_again(finished: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "runs" / "tiny")))
    context = FinishedRun.open(run.path).context()
    first, second = context["seed"], context["seed"] + 1
    other = RunFolder(run.ablation / f"tiny-full-seed{second}")
    write_json(run.evaluation, results.evaluation(context))
    write_json(other.evaluation, results.evaluation({**context, "seed": second}))
    write_json(run.red_team, results.red_team(context))
    out, overrides = tmp_path / "published", [f"output_dir={run.path.parent}"]
    collect(run.config, out, overrides=overrides, seeds=f"{first},{second}", base=None)
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 2**21
    assert warmline.load(out / "results" / "adapter").read(TALK) == warmline.load(run.path).read(TALK)
    assert not list(out.rglob("tokenizer.json"))
    summary = read_json(out / "results" / "summary.json")
    assert summary["emotion_27_accuracy"]["source"] == ["evaluation.json", f"full/seed-{second}.json"]
    assert all((out / "results" / name).is_file() for name in summary["emotion_27_accuracy"]["source"])
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.copytree(again / "results" / "run", again, dirs_exist_ok=True)
    assert write_report(again).read_bytes() == (out / "report.md").read_bytes()
