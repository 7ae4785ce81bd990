import errno
import json
import os
from pathlib import Path

import pytest

from warmline.errors import WarmlineError
from warmline.runs import RunFolder, read_json, read_manifest, write_folder, write_json, write_text


def fill_with(text: str):
    return lambda folder: (folder / "weights").write_text(text, encoding="utf-8")


def disk_full(folder: Path) -> None:
    (folder / "weights").write_text("half", encoding="utf-8")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    run.config.write_text("name: run\n", encoding="utf-8")
    run.heads_description.write_text("{}", encoding="utf-8")
    return run


def test_open_takes_a_finished_run(finished):
    assert RunFolder.open(finished.path).path == finished.path


def test_open_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(WarmlineError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_open_refuses_an_unfinished_run(finished):
    finished.heads_description.unlink()
    with pytest.raises(WarmlineError, match="has not finished"):
        RunFolder.open(finished.path)


def test_create_leaves_only_its_folders(tmp_path):
    run = RunFolder(tmp_path / "deep" / "run")
    run.create()
    assert names(run.path) == ["checkpoints", "results"]


def test_create_twice_keeps_what_is_there(finished):
    finished.create()
    assert finished.config.exists()


def test_create_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WarmlineError, match="cannot write the run folder"):
        RunFolder(tmp_path / "file" / "run").create()


def test_steps_are_sorted_as_numbers(finished):
    for step in (1_000_000, 90, 200):
        finished.checkpoint(step).mkdir()
    assert finished.steps() == [90, 200, 1_000_000]


def test_steps_see_complete_checkpoints_only(finished):
    finished.checkpoint(10).mkdir()
    for name in (".step-000020.writing", ".step-000030.old", "step-latest"):
        (finished.checkpoints / name).mkdir()
    (finished.checkpoints / "step-000040").write_text("", encoding="utf-8")
    assert finished.steps() == [10]


def test_steps_of_a_run_that_never_started(tmp_path):
    assert RunFolder(tmp_path / "none").steps() == []


def test_write_folder_replaces_the_whole(tmp_path):
    target = tmp_path / "best"
    target.mkdir()
    (target / "older").write_text("", encoding="utf-8")
    write_folder(target, fill_with("new"))
    assert names(tmp_path) == ["best"]
    assert names(target) == ["weights"]


def test_write_folder_makes_parents(tmp_path):
    write_folder(tmp_path / "deep" / "best", fill_with("new"))
    assert (tmp_path / "deep" / "best" / "weights").read_text(encoding="utf-8") == "new"


def test_write_folder_takes_over_the_leftovers_of_a_killed_run(tmp_path):
    for name in (".best.writing", ".best.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_text("", encoding="utf-8")
    write_folder(tmp_path / "best", fill_with("new"))
    assert names(tmp_path) == ["best"]
    assert names(tmp_path / "best") == ["weights"]


def test_a_kill_between_the_renames_loses_nothing_at_the_next_failed_try(tmp_path):
    target = tmp_path / "best"
    write_folder(target, fill_with("old"))
    target.rename(tmp_path / ".best.old")
    with pytest.raises(WarmlineError, match="No space left"):
        write_folder(target, disk_full)
    assert names(tmp_path) == ["best"]
    assert (target / "weights").read_text(encoding="utf-8") == "old"


def test_files_have_the_rights_of_new_ones(tmp_path):
    def fill(folder: Path) -> None:
        fill_with("new")(folder)
        (folder / "weights").chmod(0o600)  # as safetensors makes them

    write_folder(tmp_path / "best", fill)
    (tmp_path / "new").touch()
    assert (tmp_path / "best" / "weights").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_full_disk_leaves_what_stood_there(tmp_path):
    target = tmp_path / "best"
    write_folder(target, fill_with("old"))
    with pytest.raises(WarmlineError, match="No space left"):
        write_folder(target, disk_full)
    assert names(tmp_path) == ["best"]
    assert (target / "weights").read_text(encoding="utf-8") == "old"


def test_a_programming_error_is_not_hidden(tmp_path):
    def broken(folder: Path) -> None:
        raise KeyError("adapter")

    with pytest.raises(KeyError):
        write_folder(tmp_path / "best", broken)
    assert not (tmp_path / "best").exists()


def test_the_target_is_absent_while_it_is_filled(tmp_path):
    seen = []
    write_folder(tmp_path / "best", lambda folder: (seen.append((tmp_path / "best").exists()), fill_with("x")(folder)))
    assert seen == [False]


def test_what_is_renamed_is_on_the_disk(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_ino, (tmp_path / "best").exists())))
    write_folder(tmp_path / "best", fill_with("new"))
    assert flushed == [((tmp_path / "best" / "weights").stat().st_ino, False)]


def test_write_text_leaves_one_file(tmp_path):
    write_text(tmp_path / "deep" / "note", "é\n")
    assert names(tmp_path / "deep") == ["note"]
    assert (tmp_path / "deep" / "note").read_bytes() == "é\n".encode()


def test_write_text_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WarmlineError, match="cannot be written"):
        write_text(tmp_path / "file" / "note", "x")


def test_a_failed_rename_keeps_the_old_text(tmp_path, monkeypatch):
    write_text(tmp_path / "note", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(WarmlineError, match="No space left"):
        write_text(tmp_path / "note", "new")
    assert (tmp_path / "note").read_text(encoding="utf-8") == "old"


def test_json_reads_back(tmp_path):
    content = {"text": "é", "list": [1, 2.5, None]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_others_cannot_read(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe", b""])
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(WarmlineError) as caught:
        read_json(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_json_is_refused(tmp_path):
    with pytest.raises(WarmlineError, match="file not found"):
        read_json(tmp_path / "a.json")


def test_json_is_indented_and_keeps_letters(tmp_path):
    write_json(tmp_path / "a.json", {"name": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "name": "é"\n}\n'
    assert json.loads(text) == {"name": "é"}


@pytest.mark.parametrize("content", ["[]", "{}", '{"data_sha256": 5}', '{"data_sha256": {}, "versions": []}', "{"])
def test_a_manifest_that_is_none_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(WarmlineError, match=r"manifest\.json"):
        read_manifest(RunFolder(tmp_path))
