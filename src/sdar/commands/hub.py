"""Uploading an exported folder to the Hugging Face Hub, with its failures in one sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sdar.errors import INTERRUPTS, RunFailed, UserError, told

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class Hub:
    """A model repository on the Hub, or on the server that ``HF_ENDPOINT`` names.

    ``private``  whether only its owner may see it; a repository that is public already is then not written to
    ``name``     the last part of its id

    UserError: the id is none, or there is no token.
    """

    def __init__(self, repo_id: str, *, private: bool = True) -> None:
        from huggingface_hub import get_token

        if not _ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith((".git", ".", "-")):
            raise UserError(f"push_to_hub must be OWNER/NAME of a model on the Hub, got {repo_id!r}")
        self._token = get_token()
        if self._token is None:
            raise UserError(f"push_to_hub={repo_id} needs a token with write access: hf auth login, or set HF_TOKEN")
        self.repo_id = repo_id
        self.private = private
        self.name = repo_id.rpartition("/")[2]

    def push(self, folder: Path) -> str:
        """Upload the folder as one commit and return its address. RunFailed: it is not there, and ``folder`` stays."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=self._token)
        try:
            address = api.create_repo(self.repo_id, private=self.private, exist_ok=True)
            if self.private and api.repo_info(self.repo_id).private is False:
                raise RunFailed(self._failure(folder, "it exists and is public; private=false uploads to it"))
            api.upload_folder(
                repo_id=self.repo_id, folder_path=folder, commit_message="Upload a model exported by sdar"
            )
        except (RunFailed, *INTERRUPTS):
            raise
        except Exception as error:  # of the HTTP library that the Hub's own is built on, which changes with its version
            raise RunFailed(self._failure(folder, self._reason(error))) from error
        return str(address)

    def _failure(self, folder: Path, reason: str) -> str:
        return (
            f"push_to_hub={self.repo_id}: {reason}; the exported folder {folder} is whole, and can be uploaded later: "
            f"hf upload {self.repo_id} {folder}"
        )

    def _reason(self, error: Exception) -> str:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            return "the Hub does not accept the token (status 401)"
        if status == 403:
            return "the token may not write there (status 403)"
        words = (told(error).strip().splitlines() or [""])[0][:200]
        words = words.replace(self._token or "\0", "[the token]")
        return f"the Hub refuses (status {status}: {words})" if status is not None else f"the Hub fails ({words})"
