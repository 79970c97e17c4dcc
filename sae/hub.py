"""Dictionaries on a Hugging Face hub, in SAELens's layout: `SAE.from_pretrained` of SAELens reads them there as well.

Needs the extra `hub`. Only the configuration and the weights travel; nothing that is fetched can run code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl_interp.core.errors import RunError, UserError
from rl_interp.sae.export import CONFIG, WEIGHTS, load
from rl_interp.sae.model import SAE


def push(
    directory: Path | str,
    repo: str,
    folder: str = "",
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a dictionary that `save` wrote; returns the commit's address.

    Args:
        repo: `owner/name` of a model repository, which is made if it is not there.
        folder: in it, so that one repository holds the dictionaries of many layers.
        private: whether a repository that is made is private.
        token: by default that of `hf auth login` or `HF_TOKEN`.
        endpoint: of the hub; by default `HF_ENDPOINT` or huggingface.co.

    Raises:
        RunError: the directory holds no dictionary.
        UserError: the extra is not installed, or the hub says no or does not answer.
    """
    load(directory)
    with _said_by_the_hub(repo):
        api = _hub().HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=directory, path_in_repo=folder, allow_patterns=[CONFIG, WEIGHTS],
            commit_message=f"Add {folder or 'a sparse autoencoder'}",
        )  # fmt: skip
    return str(commit.commit_url)


def pull(
    repo: str,
    folder: str = "",
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> SAE:
    """Fetch a dictionary from a hub; once fetched, it comes from the hub's cache on this machine.

    Args:
        revision: a branch, tag or commit; by default the newest.

    Raises:
        RunError: no dictionary there, or one that can't be read.
        UserError: the extra is not installed, or the hub says no or does not answer.
    """
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    with _said_by_the_hub(repo):
        path = _hub().snapshot_download(
            repo, revision=revision, allow_patterns=[prefix + CONFIG, prefix + WEIGHTS], token=token, endpoint=endpoint
        )
    return load(Path(path) / prefix)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise UserError(
            "the hub needs huggingface_hub, which is not installed; install the extra: pip install 'rl-interp[hub]'."
        ) from None
    return huggingface_hub


@contextmanager
def _said_by_the_hub(repo: str) -> Iterator[None]:
    """What the client raises, in one sentence."""
    try:
        yield
    except (UserError, RunError):
        raise
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the hub did not give or take {repo!r} ({first}); see its name, your token and the network."
        ) from None
