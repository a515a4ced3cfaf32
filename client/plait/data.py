"""Data sets on this machine: checked by the server before anything is trained."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from plait.checks import Check, Issue
from plait.errors import PlaitError
from plait.files import Files
from plait.slices import Progress


class Data:
    def __init__(self, files: Files) -> None:
        self._files = files

    def check(
        self,
        path: str | os.PathLike[str],
        spec: Mapping[str, Any] | None = None,
        role: str = "training",
        *,
        keep: bool | None = None,
        on_progress: Progress | None = None,
    ) -> Check:
        """Sends a file or folder, and says what is wrong with it as training, validation or test data.

        `spec` is the `multimodal` part of a create body. The sent file stays if it is good, so that a job can
        name it (`check.file`) without sending it again. With errors it is deleted: what will be trained on is
        another file. `keep` decides otherwise.
        """
        file = self._files.push(path, on_progress=on_progress)
        try:
            check = self.complete(self._files.validate(file.id, spec, role))
        except BaseException:
            # What went wrong is what the caller must hear of, not that the file could not be deleted either.
            with suppress(PlaitError):
                self._files.delete(file.id)
            raise
        if not (check.is_good if keep is None else keep):
            self._files.delete(file.id)
        return check

    def complete(self, check: Check) -> Check:
        """The check with every issue, also where it found more than its answer holds."""
        if check.issues_total <= len(check.issues):
            return check
        for file_id in check.result_files:
            if self._files.get(file_id).filename.endswith("issues.jsonl"):
                lines = self._files.content(file_id).decode("utf-8", "replace").split("\n")
                issues = [Issue.of(json.loads(line)) for line in lines if line.strip()]
                return replace(check, issues=issues)
        return check
