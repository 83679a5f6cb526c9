"""Object stores: `s3://bucket/prefix?endpoint=…&region=…` and `file:///directory`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from modelparams.api.release import S3Source
from modelparams.errors import InvalidSpec, ObjectMissing, UsageError
from modelparams.store.contract import Credentials, ObjectStore
from modelparams.store.file import FileStore

__all__ = ["Credentials", "FileStore", "ObjectStore", "existing_store", "open_store", "require_directory", "source_of"]

_HOW = "write s3://BUCKET/PREFIX?endpoint=URL&region=REGION, or file:///DIRECTORY, or a directory's path"
_OPTIONS = {"endpoint", "region"}
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,29}")


def open_store(place: str | Path | S3Source, credentials: Credentials | None = None) -> ObjectStore:
    """Open the store at `place`; without `credentials`, S3 asks boto3's own chain (AWS_* variables, profiles, roles).

    Raises:
        UsageError: `place` is no store's address.
    """
    if isinstance(place, Path):
        return _file_store(place)
    if isinstance(place, str) and not place.startswith("s3://"):
        return _file_store(_directory(place))
    from modelparams.store.s3 import S3Store  # boto3 takes 0.2 s and 25 MB, which file stores need not pay

    return S3Store.from_source(place if isinstance(place, S3Source) else source_of(place), credentials)


def existing_store(place: str | Path) -> ObjectStore:
    """Open a store to read from. A bucket that is not there says so itself, when it is asked.

    Raises:
        UsageError: `place` is no store's address.
        ObjectMissing: it is a directory, and not there.
    """
    store = open_store(place)
    require_directory(store, hint="check --store; 'publish' makes a new one")
    return store


def require_directory(store: ObjectStore, *, hint: str) -> None:
    """Refuse to read from a directory that is not there, whose versions would each be said to be missing.

    Raises:
        ObjectMissing: so it is.
    """
    if isinstance(store, FileStore) and store.is_new:
        raise ObjectMissing(f"there is no directory {store}", hint=hint)


def source_of(url: str) -> S3Source:
    """Read `s3://bucket/prefix?endpoint=…&region=…`.

    Raises:
        UsageError: it is no such address.
    """
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    if parts.scheme != "s3" or not parts.netloc or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"{_shown(url)!r} is no S3 store", hint=_HOW)
    options = _known(_shown(url), given)
    try:
        return S3Source.parse({**options, "bucket": parts.netloc, "prefix": parts.path.strip("/")})
    except InvalidSpec as error:
        raise UsageError(f"{_shown(url)!r} is no S3 store: {error.message}", hint=_HOW) from error


def _shown(url: str) -> str:
    """As much of an address as surely holds no secret: no query or fragment, and nothing where there may be a user."""
    scheme, mark, rest = url.partition("://") if "://" in url else url.partition(":")
    where = re.split("[?#]", rest, maxsplit=1)[0]
    return f"{scheme}{mark}…" if "@" in rest or ":" in where.partition("/")[0] else f"{scheme}{mark}{where}"


def _known(store: str, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The address's parameters. A refusal repeats no value, which may be a secret; nor a name that may be one."""
    for name, _ in given:
        if name not in _OPTIONS:
            called = repr(name) if _WORD.fullmatch(name) else "one that is no word"
            known = " and ".join(sorted(_OPTIONS))
            raise UsageError(f"{store} takes {known} as parameters, and was given {called}", hint=_HOW)
    options = dict(given)
    if len(options) != len(given):
        raise UsageError(f"{store} was given a parameter twice", hint=_HOW)
    return options


def _file_store(directory: Path) -> FileStore:
    with suppress(PermissionError):  # then the first access says so, as it does of every other failure
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory} is a file, and a store is a directory", hint=_HOW)
    return FileStore(directory)


def _directory(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file" and (parts.query or parts.fragment):
        raise UsageError(f"{_shown(url)!r} takes no parameters", hint=_HOW)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    if parts.scheme or not url:
        raise UsageError(f"{_shown(url)!r} is no store", hint=_HOW)
    return Path(url)
