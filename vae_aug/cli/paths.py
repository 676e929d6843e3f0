"""Checks of paths and names that need no TensorFlow, so that a wrong one is answered at once."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from vae_aug.errors import CheckpointError, RecordError, VAEAugError
from vae_aug.model.manifest import MANIFEST_NAME
from vae_aug.model.stored import BEST_CHECKPOINT, list_packaged, read_manifest
from vae_aug.records.shards import INFO_FILE, SHARD_NAME, get_split_name, read_info


def require_checkpoint(checkpoint: str) -> None:
    """Raise `CheckpointError` unless this names a checkpoint that can be read."""
    if is_folder_of_records(Path(checkpoint)):
        raise CheckpointError(
            f"{checkpoint}: is a folder of records; a checkpoint is wanted here. Make one of it "
            f"with vae-aug train {checkpoint} --out run."
        )
    read_manifest(checkpoint)


def require_records(folder: Path) -> None:
    """Raise `RecordError` unless this is a folder of records."""
    if is_folder_of_records(folder):
        if (folder / INFO_FILE).exists():
            read_info(folder)
        return
    way_out = f"Run vae-aug ingest first: vae-aug ingest SOURCE {folder}"
    if folder.is_dir() and any(folder.iterdir()):
        if is_folder_of_checkpoint(folder):
            raise RecordError(_describe_swap(folder))
        way_out = f"Run vae-aug ingest first: vae-aug ingest {folder} records"
        raise RecordError(f"{folder}: holds no records (NAME-00000-of-00001.tfrecord). {way_out}.")
    if folder.is_dir():
        raise RecordError(f"{folder}: is empty, where records are wanted. {way_out}.")
    if folder.suffix == ".keras" or (str(folder) in list_packaged() and not folder.exists()):
        raise RecordError(_describe_swap(folder))
    if folder.exists():
        raise RecordError(f"{folder}: is a file; give the folder of records that it is in.")
    raise RecordError(f"{folder}: no such folder. {way_out}.")


def _describe_swap(checkpoint: Path) -> str:
    return (
        f"{checkpoint}: is a checkpoint; a folder of records is wanted here. Name the checkpoint "
        f"by an option: RECORDS --ckpt {checkpoint}."
    )


def require_split(records: Path, split: str) -> None:
    """Raise `RecordError` if the description of records lists no such split."""
    if not (records / INFO_FILE).exists():
        return
    splits = read_info(records).image_splits
    if get_split_name(split) not in splits:
        others = " or ".join(f"--split {name}" for name in splits)
        raise RecordError(
            f"{records}: has no split {split}. Give {others}."
            if splits
            else f"{records}: holds no images. Run vae-aug ingest SOURCE {records} first."
        )


def require_source(source: Path) -> None:
    """Raise unless a file, a folder or files of a pattern are there."""
    if not source.exists() and not glob.glob(os.fspath(source)):
        raise VAEAugError(f"{source}: no such file or folder.")


def require_file(path: Path) -> None:
    """Raise unless this is a file."""
    if not path.is_file():
        kind = "is a folder, where a file is wanted" if path.is_dir() else "no such file"
        raise VAEAugError(f"{path}: {kind}.")


def is_folder_of_records(folder: Path) -> bool:
    """Tell whether a folder holds shards or their description."""
    return folder.is_dir() and any(
        name == INFO_FILE or SHARD_NAME.match(name) for name in os.listdir(folder)
    )


def is_folder_of_checkpoint(folder: Path) -> bool:
    """Tell whether a folder is a checkpoint or that of a training."""
    return folder.is_dir() and not {MANIFEST_NAME, BEST_CHECKPOINT}.isdisjoint(os.listdir(folder))
