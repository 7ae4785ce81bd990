"""Processes of a study: what is done is skipped, order is kept, failures and time are survived."""

import sys
import time
from pathlib import Path

import pytest

from jobs import Job, run_jobs


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
