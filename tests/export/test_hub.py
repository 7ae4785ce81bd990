"""Pushing, against a stub of the hub's client: what is asked of it, and in which order."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError

from warmline.errors import WarmlineError
from warmline.export import folder
from warmline.export.folder import Destination


class Stub:
    """Records calls; `refuse` names one that fails."""

    calls: list[tuple[str, dict[str, Any]]]
    refuse: str | None = None

    def __init__(self, token: str) -> None:
        self.token = token

    def whoami(self) -> dict[str, str]:
        return self._done("whoami", {}) or {"name": "me"}

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self._done("create_repo", {"repo_id": repo_id, **options})
        return f"https://hub/{repo_id}"

    def upload_folder(self, **options: Any) -> None:
        self._done("upload_folder", options)

    def _done(self, name: str, options: dict[str, Any]) -> None:
        Stub.calls.append((name, options))
        if Stub.refuse == name:
            raise HfHubHTTPError("401: bad\ntoken", response=httpx.Response(401, request=httpx.Request("GET", "https://hub")))


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    Stub.calls, Stub.refuse = [], None
    monkeypatch.setattr(folder, "HfApi", Stub)
    monkeypatch.setattr(folder, "get_token", lambda: "a-token")


def test_push(tmp_path: Path) -> None:
    assert Destination.check("me/friend", private=True).upload(tmp_path) == "https://hub/me/friend"
    assert [name for name, _ in Stub.calls] == ["whoami", "create_repo", "upload_folder"]
    made, sent = Stub.calls[1][1], Stub.calls[2][1]
    assert (made["repo_id"], made["private"], made["exist_ok"]) == ("me/friend", True, True)
    assert (sent["repo_id"], sent["folder_path"]) == ("me/friend", tmp_path)


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("no route"), httpx.InvalidURL("Invalid port"), ValueError("Unknown scheme"), ImportError("no socksio")]
)
def test_a_hub_that_cannot_be_reached(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Stub) -> None:
        raise error

    monkeypatch.setattr(Stub, "whoami", fail)
    with pytest.raises(WarmlineError, match=r"^--push: the hub cannot be reached \([^\n]+$"):
        Destination.check("me/friend")


@pytest.mark.parametrize("name", ["friend", "me/", "/friend", "a/b/c"])
def test_a_name_without_owner(name: str) -> None:
    with pytest.raises(WarmlineError, match="me/friend"):
        Destination.check(name)
    assert Stub.calls == []


@pytest.mark.parametrize("refuse", ["whoami", "create_repo", "upload_folder"])
def test_a_refusal_is_one_line(refuse: str, tmp_path: Path) -> None:
    Stub.refuse = refuse
    with pytest.raises(WarmlineError, match="401: bad token") as refused:
        Destination.check("me/friend").upload(tmp_path)
    assert "\n" not in str(refused.value)
    assert [name for name, _ in Stub.calls][-1] == refuse


def test_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "get_token", lambda: None)
    with pytest.raises(WarmlineError, match="HF_TOKEN"):
        Destination.check("me/friend")
    assert Stub.calls == []
