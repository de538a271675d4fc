"""The folders that the steps of the pipeline hand on: raw texts, tokens, prepared data; each with a manifest."""

from pathlib import Path
from typing import Any

from skimrnn.errors import UserError
from skimrnn.files import read_json


def read_manifest(folder: Path, dataset: str | None, *keys: str) -> dict[str, Any]:
    """The manifest of a step's folder, which must have these keys and be about `dataset` (None: about any).

    The folder of another dataset or of another step is a `UserError`.
    """
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or "dataset" not in manifest:
        raise UserError(f"{folder / 'manifest.json'}: not a manifest of this pipeline: make the folder again")
    if dataset is not None and manifest["dataset"] != dataset:
        raise UserError(f"{folder}: holds {manifest['dataset']!r}, not {dataset!r}: give the right folder")
    if missing := [key for key in keys if key not in manifest]:
        raise UserError(f"{folder}: another step's folder (its manifest has no {missing[0]!r}): give the right folder")
    return manifest
