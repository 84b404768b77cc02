"""A model on the Hugging Face hub, downloaded once into the hub's own cache."""

import re
from pathlib import Path

from limbeck.backends.folder import Dtype, load_folder
from limbeck.errors import TeacherError
from limbeck.model import LocalModel
from limbeck.pretrained import weight_files

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "README.md")
_SUBFOLDERS = ("*/*",)
_PATIENCE_S = 10.0


def load_hub(repository: str, *, name: str, dtype: Dtype) -> LocalModel:
    """Load `org/name` or `org/name@revision`; what was downloaded before loads without the hub.

    Args:
        repository: The hub's name of the model, with an optional branch, tag or commit.
        name: How the user named the model.
        dtype: `float32` or `bfloat16`.

    Raises:
        TeacherError: The name is malformed, the hub cannot be reached or refuses, or the files are no
            causal language model.
    """
    repo, _, revision = repository.partition("@")
    if not _NAME.fullmatch(repo):
        raise TeacherError(f"model hf:{repository} must have the form hf:org/name[@revision]")
    folder = _download(repo, revision or None)
    return load_folder(folder, name=name, dtype=dtype, source=f"{repo}@{folder.name}")


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(weights: str) -> Path:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_SMALL_FILES, weights],
            ignore_patterns=list(_SUBFOLDERS),
            etag_timeout=_PATIENCE_S,
        )
        return Path(folder)

    try:
        folder = fetch("*.safetensors")
        return folder if weight_files(folder) else fetch("pytorch_model*.bin")
    except GatedRepoError as error:
        raise TeacherError(
            f"model hf:{repo} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise TeacherError(f"model hf:{repo} has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise TeacherError(
            f"model hf:{repo} does not exist on the hub, or is private: then `hf auth login` first"
        ) from error
    except (HFValidationError, PermissionError) as error:
        raise TeacherError(f"model hf:{repo} cannot be downloaded: {error}") from error
    # A broken connection surfaces as whatever the hub's HTTP library raises, and that library changes.
    except Exception as error:
        raise TeacherError(
            f"model hf:{repo} is not in the local cache and the hub cannot be reached "
            f"({type(error).__name__}); connect to the internet, or give a folder"
        ) from error
