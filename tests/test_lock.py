"""One writer a run folder, and no lock outlives its process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ConfigFactory
from tests.tools import metrics, quiet_train, start_training
from warmline import lock
from warmline.ablation.study import ablate
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import evaluate
from warmline.lock import LOCK, hold, writes_run
from warmline.pipeline import QUICK, run_steps
from warmline.reporting.report import write_report
from warmline.runs import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from warmline.lock import hold
with hold(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(finished_copy: RunFolder) -> Any:
    """A process that holds a finished run's folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(finished_copy.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_every_writer_is_refused_in_one_line_while_another_process_writes(
    holder: subprocess.Popen[str], finished_copy: RunFolder, tiny_config: ConfigFactory
) -> None:
    config = tiny_config(finished_copy.path.parent, name=finished_copy.path.name)
    before = {path: path.read_bytes() for path in finished_copy.path.rglob("*") if path.is_file()}
    for write in (
        lambda: quiet_train(config, resume=True), lambda: quiet_train(config, overwrite=True), lambda: ablate(config),
        lambda: run_steps(config, QUICK), lambda: evaluate(finished_copy.path), lambda: write_report(finished_copy.path),
    ):  # fmt: skip
        with pytest.raises(WarmlineError) as caught:
            write()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert message.startswith(f"{finished_copy.path}: in use by `warmline train` (process {holder.pid} on ")
        assert "wait for it or end it" in message
    assert {path: path.read_bytes() for path in finished_copy.path.rglob("*") if path.is_file()} == before


def test_a_killed_process_leaves_no_lock(holder: subprocess.Popen[str], finished_copy: RunFolder) -> None:
    holder.kill()
    holder.wait()
    with hold(finished_copy.path, "evaluate"):
        assert "`warmline evaluate`" in (finished_copy.path / LOCK).read_text()
        assert str(holder.pid) not in (finished_copy.path / LOCK).read_text()


def test_steps_of_one_command_share_the_folder(tmp_path: Path) -> None:
    with hold(tmp_path / "run", "run"), hold(tmp_path / "run" / ".." / "run", "train"):
        pass
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "run", "run"):
        raise ZeroDivisionError
    with hold(tmp_path / "run", "train"):
        pass


def test_ranks_of_one_run_are_one_writer(holder: subprocess.Popen[str], finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with hold(finished_copy.path, "train"):
        pass


def test_nothing_is_left_in_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="not a run folder"):
        evaluate(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_flock_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with hold(tmp_path, "train"):
        pass
    assert f"{tmp_path}: cannot be locked on this system" in caplog.text


def test_a_decorated_function_gives_back_its_result(finished_copy: RunFolder) -> None:
    @writes_run("evaluate")
    def act(path: Path, more: int) -> int:
        assert f"process {lock.os.getpid()}" in (path / LOCK).read_text()
        return more

    assert act(finished_copy.path, more=3) == 3


@pytest.mark.slow
def test_two_resumes_at_once_are_one(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 12}, checkpoint={"every": 2}, validation={"conversations": 2})
    first, second = start_training(config, resume=True), start_training(config, resume=True)
    first.join()
    second.join()
    assert sorted(code != 0 for code in (first.exitcode, second.exitcode)) == [False, True]
    lines = [(line["kind"], line["step"]) for line in metrics(RunFolder.open(tmp_path / "tiny"))]
    assert len(set(lines)) == len(lines) == 12 + 4


def test_overwriting_keeps_the_lock_that_is_held(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 1}, validation={"conversations": 2})
    run = quiet_train(config)
    (run.results / "old.json").write_text("{}")
    number = (run.path / LOCK).stat().st_ino
    quiet_train(config, overwrite=True)
    assert not (run.results / "old.json").exists()
    assert (run.path / LOCK).stat().st_ino == number


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(WarmlineError, match="run"), hold(tmp_path / "run", "train"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
