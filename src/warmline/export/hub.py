"""Push an exported folder to the Hugging Face Hub."""

from pathlib import Path
from typing import NamedTuple

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from warmline.errors import WarmlineError, reason_of

_FAILURES = (HfHubHTTPError, HFValidationError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError)
"""The last three are what a proxy's address that cannot be used comes to."""


class Destination(NamedTuple):
    """A model repository that may be written to."""

    hub_id: str
    private: bool
    api: HfApi

    @classmethod
    def check(cls, hub_id: str, private: bool = False) -> "Destination":
        """Look for a token and ask the hub whose it is, before anything is written.

        Args:
            hub_id: Such as `me/friend`.
            private: Of the repository, when it is made anew.

        Raises:
            WarmlineError: no token, one that the hub refuses, or no hub to be reached.
        """
        if hub_id.count("/") != 1 or not all(hub_id.split("/")):
            raise WarmlineError(f"--push {hub_id}: expected an owner and a name, as in me/friend")
        token = get_token()
        if token is None:
            raise WarmlineError("--push: no Hugging Face token; set HF_TOKEN, or log in with `hf auth login`")
        api = HfApi(token=token)
        try:
            api.whoami()
        except HfHubHTTPError as error:
            raise WarmlineError(f"--push: the hub does not accept the token ({reason_of(error)}); log in with `hf auth login`") from None
        except _FAILURES as error:
            raise WarmlineError(
                f"--push: the hub cannot be reached ({reason_of(error)}); leave --push out, and upload the folder later"
            ) from None
        return cls(hub_id, private, api)

    def upload(self, folder: Path) -> str:
        """Make the repository where it is missing, and upload everything in a folder as one commit.

        Returns:
            The repository's address.

        Raises:
            WarmlineError: the hub refused; the folder stays as it is.
        """
        try:
            made = self.api.create_repo(self.hub_id, repo_type="model", private=self.private, exist_ok=True)
            self.api.upload_folder(
                repo_id=self.hub_id, folder_path=folder, repo_type="model", commit_message="Upload a model exported by warmline"
            )
        except _FAILURES as error:
            raise WarmlineError(
                f"--push {self.hub_id}: the hub refused ({reason_of(error)}); the export is in {folder}, "
                f"`hf upload {self.hub_id} {folder}` tries again"
            ) from None
        return str(made)
