"""The boto3 client of a source, and what it signs with."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import BotoCoreError, ProfileNotFound

from modelparams.api.release import S3Source
from modelparams.errors import UsageError
from modelparams.store.contract import Credentials
from modelparams.store.s3_connection import watch_answers

_CONNECT_SECONDS, _SILENT_SECONDS = 5, 20
_HOW = "check endpoint, region and bucket, such as s3://BUCKET/PREFIX?endpoint=https://HOST&region=us-east-1"

_session_lock = threading.Lock()


def open_client(source: S3Source, credentials: Credentials | None) -> Any:
    """A client that tries once, and whose answers have a deadline.

    Raises:
        UsageError: no endpoint, region or bucket can be as written.
    """
    try:
        with _session_lock:  # boto3's default session makes clients one at a time
            client = boto3.client(
                "s3",
                endpoint_url=source.endpoint or None,
                region_name=source.region,
                config=_config(source),
                **_given(credentials),
            )
    except ProfileNotFound as error:
        raise UsageError(f"no S3 client for bucket {source.bucket}: {error}", hint="correct AWS_PROFILE") from error
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"no S3 client for bucket {source.bucket}: {error}", hint=_HOW) from error
    watch_answers(client._endpoint.http_session)
    return client


def signing_credentials(credentials: Credentials | None) -> Any:
    """As botocore's signers take them; without any given, what boto3's default session finds and renews, or None."""
    if credentials is None:
        return boto3.DEFAULT_SESSION.get_credentials()
    given = credentials.access_key_id, credentials.secret_access_key, credentials.session_token
    return BotoCredentials(*given)


def _config(source: S3Source) -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if source.endpoint else "auto"},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_SILENT_SECONDS,
        retries={"total_max_attempts": 1},  # `S3Store.tried` is the only one that tries again
        response_checksum_validation="when_required",  # ranges have none, and our own digests cover every byte
        max_pool_connections=32,
        tcp_keepalive=True,
    )


def _given(credentials: Credentials | None) -> dict[str, str | None]:
    if credentials is None:
        return {}
    return {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
    }
