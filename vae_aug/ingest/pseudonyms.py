"""Random pseudonyms of patients and files, kept in a table.

Some rules ask that a pseudonym be derived from nothing that is known of the person, for example 45
CFR 164.514(c)(1) (HIPAA). No hash fulfils that. The table is an SQLite database with one row an
identifier, which `sqlite3 FILE 'select * from pseudonyms'` prints. Whoever holds it knows every
patient, without guessing: it is a secret, as the salt is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from vae_aug.atomic import make_temporary_path
from vae_aug.errors import VAEAugError
from vae_aug.ingest.privacy import find_secrets_folder, link_new

TABLE_VARIABLE = "VAE_AUG_PSEUDONYMS"

WAIT_SECONDS = 60
"""How long a process waits for another one that writes the table."""

_SCHEMA = """
CREATE TABLE pseudonyms (
    kind TEXT NOT NULL,
    identifier BLOB NOT NULL,
    pseudonym TEXT NOT NULL UNIQUE,
    PRIMARY KEY (kind, identifier)
);
CREATE TABLE secret (row INTEGER PRIMARY KEY CHECK (row = 1), value BLOB NOT NULL);
"""
_FIND = "SELECT pseudonym FROM pseudonyms WHERE kind = ? AND identifier = ?"
_DRAW = "INSERT OR IGNORE INTO pseudonyms VALUES (?, ?, ?)"


@dataclasses.dataclass(frozen=True)
class PseudonymTable:
    """The pseudonyms that identifiers were given, and new ones for others.

    Attributes:
        path: The table.
        secret: Random bytes of the table, for keys that must tell nothing of names.
    """

    path: Path = dataclasses.field(repr=False)
    secret: bytes = dataclasses.field(repr=False)

    def make(self, kind: str, identifier: str) -> str:
        """Return the pseudonym of an identifier, which is drawn if it has none.

        Args:
            kind: What it identifies, e.g. `"patient"`.
            identifier: The identifier; `""` stands for unknown.

        Returns:
            16 hexadecimal digits, or `""` for `""`.

        Raises:
            VAEAugError: If the table can be neither read nor written.
        """
        if not identifier:
            return ""
        while not (pseudonym := self.find(kind, identifier)):
            self.draw([(kind, identifier)])
        return pseudonym

    def draw(self, names: Iterable[tuple[str, str]]) -> None:
        """Draw pseudonyms for identifiers that have none, all at once.

        A pseudonym that is another's already is left out: `make` draws again.

        Args:
            names: Kinds and identifiers.

        Raises:
            VAEAugError: If the table cannot be written.
        """
        rows = [(kind, _encode(name), secrets.token_hex(8)) for kind, name in names if name]
        with _open(self.path) as connection, connection:
            # Ignored where another process was faster.
            connection.executemany(_DRAW, rows)

    def find(self, kind: str, identifier: str) -> str:
        """Return the pseudonym of an identifier, or `""` if it has none.

        Raises:
            VAEAugError: If the table cannot be read.
        """
        with _open(self.path) as connection:
            row = connection.execute(_FIND, (kind, _encode(identifier))).fetchone()
        return row[0] if row else ""


def get_table_path() -> Path:
    """Return the path of the table: `$VAE_AUG_PSEUDONYMS`, else beside the salt."""
    configured = os.environ.get(TABLE_VARIABLE)
    return Path(configured) if configured else find_secrets_folder() / "pseudonyms.sqlite"


def open_table(*, make: bool = True) -> PseudonymTable:
    """Open the user's table.

    Args:
        make: Whether a table, readable by the user alone, is made if there is none.

    Returns:
        The table.

    Raises:
        VAEAugError: If it can be neither read nor made, or is empty.
    """
    path = get_table_path().absolute()
    if make and not path.exists():
        _make_table(path)
    with _open(path) as connection:
        (secret,) = connection.execute("SELECT value FROM secret").fetchone()
    return PseudonymTable(path, secret)


def _make_table(path: Path) -> None:
    """Make a table, whole or not at all; one that another process makes meanwhile stays."""
    temporary = make_temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with _open(temporary) as connection:
            connection.executescript(_SCHEMA)
            with connection:
                connection.execute("INSERT INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
        link_new(temporary, path)
    except OSError as error:
        raise _refuse(path, error.strerror) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Connect to a table that must be there; each use is a connection of its own."""
    # SQLite would make an empty one.
    if not path.is_file():
        raise _refuse(path, "no such file")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise _refuse(path, str(error)) from error
        raise VAEAugError(
            f"{path}: another process writes the table of pseudonyms for longer than "
            f"{WAIT_SECONDS} s. Run it again when that one is done."
        ) from error
    except sqlite3.Error as error:
        raise _refuse(path, str(error)) from error


def _refuse(path: Path, reason: str | None) -> VAEAugError:
    return VAEAugError(
        f"{path}: the table of pseudonyms can be neither read nor written ({reason}). Restore it, "
        f"fix its permissions, or name another by ${TABLE_VARIABLE}, which gives patients other "
        "pseudonyms."
    )


def _encode(identifier: str) -> bytes:
    """Encode a name, which on disk need not be text."""
    return identifier.encode("utf-8", "surrogateescape")
