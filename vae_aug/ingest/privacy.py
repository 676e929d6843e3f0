"""Identifiers of patients and files, replaced by salted hashes.

A plain hash of a patient's number is found by hashing all numbers. The salt is therefore a
secret: whoever holds it can link records to patients, and nobody else. Runs that shall give the
same patient the same hash need the same salt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from vae_aug.atomic import make_temporary_path, sync_file
from vae_aug.errors import VAEAugError

SALT_VARIABLE = "VAE_AUG_SALT"


@dataclasses.dataclass(frozen=True)
class SaltedHashes:
    """Pseudonyms that are hashes.

    Attributes:
        secret: The salt.
    """

    secret: bytes = dataclasses.field(repr=False)

    def make(self, kind: str, identifier: str) -> str:
        """Return the hash of an identifier, as `hash_identifier`."""
        return hash_identifier(kind, identifier, self.secret)

    find = make


def find_secrets_folder() -> Path:
    """Return the folder of the user's secrets, `$XDG_CONFIG_HOME/vae-aug` or below `~/.config`.

    Reference:
        XDG Base Directory Specification: a relative path in the variable is to be ignored.
    """
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    root = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    return root / "vae-aug"


def get_salt_path() -> Path:
    """Return the user's key file."""
    return find_secrets_folder() / "salt"


def read_salt(salt: str | None = None) -> bytes:
    """Find the salt: the argument, else `$VAE_AUG_SALT`, else the user's key file.

    The key file is made with a random salt, readable by the user alone, when there is none.

    Args:
        salt: The salt, of at least 1 character.

    Returns:
        The salt.

    Raises:
        ValueError: If the salt given, or that of the key file, is empty.
        VAEAugError: If the key file can be neither read nor made.
    """
    if salt is None:
        salt = os.environ.get(SALT_VARIABLE)
    if salt is not None:
        if not salt:
            raise ValueError(f"the salt (argument or ${SALT_VARIABLE}) must not be empty.")
        return salt.encode()
    path = get_salt_path()
    try:
        if not path.exists():
            _make_salt_file(path)
        stored = path.read_bytes().strip()
    except OSError as error:
        raise VAEAugError(
            f"{path}: the key file can be neither read nor made ({error.strerror}); pass a salt "
            f"or set ${SALT_VARIABLE}."
        ) from error
    if not stored:
        raise ValueError(f"{path}: the key file is empty; restore it, or delete it for a new one.")
    return stored


def _make_salt_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = make_temporary_path(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        link_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link_new(temporary: Path, path: Path) -> None:
    """Give a secret its name, unless another process was faster: its secret counts then."""
    try:
        os.link(temporary, path)  # fails, unlike a rename, if the name is taken
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        temporary.rename(path)
    sync_file(path.parent)


def hash_identifier(kind: str, identifier: str, salt: bytes) -> str:
    """Hash an identifier with HMAC-SHA-256, cut to 64 bits.

    Args:
        kind: What it identifies, e.g. `"patient"`; equal texts of two kinds differ in the hash.
        identifier: The identifier; `""` stands for unknown.
        salt: The secret.

    Returns:
        16 hexadecimal digits, or `""` for `""`. Among a million identifiers the chance that
        any two collide is below 1 in 10 million.

    Example:
        >>> hash_identifier("patient", "", b"secret")
        ''
    """
    if not identifier:
        return ""
    message = f"{kind}\0{identifier}".encode("utf-8", "surrogateescape")
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:16]
