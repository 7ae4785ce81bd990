"""The study's driver: what is done is skipped, order is kept, failures and time are survived, and every trial is a valid configuration."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from tests.reporting import results

import warmline
from study import ALPHAS, Study, _wanted, collect, pack
from tests.conftest import ConfigFactory
from trials import START, TRIALS
from warmline.ablation.variants import all_variants
from warmline.config import load_config
from warmline.data.template import Message
from warmline.evaluation.finished import FinishedRun
from warmline.reporting.report import write_report
from warmline.runs import RunFolder, read_json, write_json
from warmline.training.plan import plan_run

REPOSITORY = Path(__file__).parents[2]
STUDY = REPOSITORY / "configs" / "training_config.yaml"
TALK = [Message(role="user", content="My cat ran away.")]


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
    assert {f"variant-{variant}-seed{seed}" for variant in all_variants() for seed in (13, 14)} <= set(names)
    assert {f"train-alpha-{alpha}-seed13" for alpha in ALPHAS if alpha != 0.5} <= set(names)  # the main run has 0.5
    for one in jobs:
        if one.name.startswith("train-alpha"):
            assert f"training.max_steps={plan_run(config).steps}" in one.command
        assert set(one.after) <= set(names)
        if one.name.startswith("train-labels-28"):
            assert f"name=tiny-{one.name.removeprefix('train-')}" in one.command


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
    assert warmline.load(out / "export", base=context["base_model"]).read(TALK) == warmline.load(run.path).read(TALK)
    assert not list(out.rglob("tokenizer.json"))
    summary = read_json(out / "results" / "summary.json")
    assert summary["emotion_27_accuracy"]["source"] == ["evaluation.json", f"full/seed-{second}.json"]
    assert all((out / "results" / name).is_file() for name in summary["emotion_27_accuracy"]["source"])
    again = Path(shutil.copytree(out, tmp_path / "again"))
    assert write_report(again).read_bytes() == (out / "report.md").read_bytes()


def test_what_is_packed_is_enough_to_collect_elsewhere(finished: RunFolder, tmp_path: Path) -> None:
    here = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "here" / "tiny")))
    write_json(here.evaluation, results.evaluation(FinishedRun.open(here.path).context()))
    shutil.copytree(finished.path, here.ablation / "tiny-full-seed14")
    shutil.copytree(finished.path, here.ablation / "tiny-lm-only-seed14")
    taken_over = Path(shutil.copytree(finished.path, here.ablation / "tiny-full-seed13"))
    write_json(RunFolder(taken_over).origin, {"run": "tiny", "step": 12})
    unfinished = Path(shutil.copytree(finished.path, here.path.parent / "tiny-full-again"))
    RunFolder(unfinished).heads_description.unlink()
    shutil.copytree(finished.path, here.path.parent / "someone-elses")
    write_json(here.path.parent / "tuning" / "tuning.json", [])
    pack(here.config, tmp_path / "parts", overrides=[f"output_dir={here.path.parent}"], part_mib=0.1)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) > 1
    assert max(part.stat().st_size for part in parts) <= 0.1 * 2**20
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "elsewhere", filter="data")
    adapters = [name for name in names if name.endswith("adapter_model.safetensors")]
    assert adapters == [f"tiny/{where}adapter/adapter_model.safetensors" for where in ("", "ablation/tiny-full-seed14/")]
    assert not [name for name in names if "checkpoints" in name or name.startswith("someone")]
    assert names.index(adapters[0]) > names.index("tiny/ablation/tiny-lm-only-seed14/heads.json")
    published = []
    for folder in (here.path.parent, tmp_path / "elsewhere"):
        out = folder / "published"
        collect(here.config, out, overrides=[f"output_dir={folder}"], seeds="13,14", base=None)
        published.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert published[0] == published[1]
    assert Path("results/tuning.json") in published[0]
