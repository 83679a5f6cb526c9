"""Object stores: `s3://bucket/prefix?endpoint=…&region=…` and `file:///directory`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from modelparams.api.release import S3Source
from modelparams.errors import InvalidSpec, UsageError
from modelparams.store.contract import Credentials, ObjectStore
from modelparams.store.file import FileStore

__all__ = ["Credentials", "FileStore", "ObjectStore", "open_store", "source_of"]

_HOW = "write s3://BUCKET/PREFIX?endpoint=URL&region=REGION, or file:///DIRECTORY, or a directory's path"
_OPTIONS = {"endpoint", "region"}


def open_store(place: str | Path | S3Source, credentials: Credentials | None = None) -> ObjectStore:
    """Open the store at `place`; without `credentials`, S3 asks boto3's own chain (AWS_* variables, profiles, roles).

    Raises:
        UsageError: `place` is no store's address.
    """
    if isinstance(place, Path):
        return FileStore(place)
    if isinstance(place, str) and not place.startswith("s3://"):
        return FileStore(_directory(place))
    from modelparams.store.s3 import S3Store  # boto3 takes 0.2 s and 25 MB, which file stores need not pay

    return S3Store.from_source(place if isinstance(place, S3Source) else source_of(place), credentials)


def source_of(url: str) -> S3Source:
    """Read `s3://bucket/prefix?endpoint=…&region=…`.

    Raises:
        UsageError: it is no such address.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "s3" or not parts.netloc or parts.fragment or options.keys() - _OPTIONS or "@" in parts.netloc:
        raise UsageError(f"{url.partition('?')[0]!r} is no S3 store", hint=_HOW)
    try:
        return S3Source.parse({**options, "bucket": parts.netloc, "prefix": parts.path.strip("/")})
    except InvalidSpec as error:
        raise UsageError(f"{url.partition('?')[0]!r} is no S3 store: {error.message}", hint=_HOW) from error


def _directory(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    if parts.scheme or not url:
        raise UsageError(f"{url.partition('?')[0]!r} is no store", hint=_HOW)
    return Path(url)
