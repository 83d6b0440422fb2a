"""Who a local server runs as, and how it gets at files that user could not reach.

PostgreSQL refuses to run as root, and a broker without a password should not. As root we therefore give the
server to an unprivileged account:

1. The account is the owner of the data that is there already, else `nobody`, else `postgres`. `nobody` comes
   first because every local user may use these servers, and `postgres` may own a production cluster.
2. Programs that the account cannot reach (a clone below /root) are copied to a fresh temporary directory.
3. Data stays where the caller wants it: the server enters its directory while still root and knows it as
   /proc/self/cwd, which needs no right to any directory above.
"""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from gateway.local.errors import LocalServerError

ACCOUNTS = ("nobody", "postgres")
CURRENT_DIRECTORY = Path("/proc/self/cwd")
NOT_NEEDED_TO_RUN = shutil.ignore_patterns("include", "__pycache__")


class PopenIdentity(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that change the user; empty when nobody has to change."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An unprivileged user and group, by number."""

    uid: int
    gid: int


def choose_account(data: Path) -> Account | None:
    """Return the account that shall own and serve `data`; None when we are not root and stay who we are."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (status := data.stat()).st_uid != 0:
        return Account(uid=status.st_uid, gid=status.st_gid)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    msg = "a local server cannot run as root, and this machine has no user named nobody or postgres"
    raise LocalServerError(msg)


def identity(account: Account | None) -> PopenIdentity:
    """Return what `subprocess.Popen` needs to become the account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def own(path: Path, account: Account | None) -> None:
    """Give a directory to the account, closed to all others."""
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def can_reach(path: Path, account: Account | None) -> bool:
    """Tell whether the account may enter every directory above `path`, judged by mode bits alone."""
    return account is None or all(_allows(parent, account, stat.S_IXOTH) for parent in path.resolve().parents)


def path_for(directory: Path, account: Account | None) -> Path:
    """Return the name by which a server started inside `directory` shall know it."""
    if can_reach(directory, account):
        return directory
    if CURRENT_DIRECTORY.exists():
        return CURRENT_DIRECTORY
    msg = f"{directory} lies below a directory that only root may enter: choose one that every user can reach"
    raise LocalServerError(msg)


def is_runnable(program: Path, account: Account | None) -> bool:
    """Tell whether the account may reach, read and execute the program where it is."""
    if account is None:
        return True
    return can_reach(program, account) and _allows(program, account, stat.S_IXOTH | stat.S_IROTH)


def stage(sources: Iterable[Path], account: Account | None) -> Path:
    """Copy files and directories side by side into a new directory that the account can reach; return it.

    The directory has an unpredictable name and belongs to us, so nobody else can put a program there. The
    caller removes it.
    """
    base = next((path for path in _temporary_directories() if can_reach(path / "x", account)), None)
    if base is None:
        msg = "found no temporary directory that an unprivileged user can reach: set TMPDIR to one"
        raise LocalServerError(msg)
    staged = Path(tempfile.mkdtemp(prefix="pushfan-", dir=base))
    for source in sources:
        _copy(source, staged / source.name)
    _open_to_all(staged)
    return staged


def _temporary_directories() -> tuple[Path, ...]:
    return Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")  # noqa: S108 (mkdtemp below makes it safe)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=NOT_NEEDED_TO_RUN)
    else:
        shutil.copy2(source, target)


def _open_to_all(directory: Path) -> None:
    """Let everyone read what an installation under a strict umask kept to its owner."""
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            continue
        is_executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if is_executable else 0o644)


def _allows(path: Path, account: Account, right_of_others: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        wanted = right_of_others << 6
    elif status.st_gid == account.gid:
        wanted = right_of_others << 3
    else:
        wanted = right_of_others
    return status.st_mode & wanted == wanted
