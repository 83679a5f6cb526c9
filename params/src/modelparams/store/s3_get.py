"""GETs past boto3's request machinery: its parameters, endpoint rules, hooks and parsers cost 1.2 ms of CPU time each.

A pull of blobs of 8 MB spent a seventh of its CPU time there. boto3 still says where the bucket is, and its
connections, certificates and proxies are used; botocore signs. Refusals and redirects are left to boto3, which asks
again, follows or names the cause.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.response import StreamingBody

_NAME = "name"


class DirectGet:
    """Signed GETs of one bucket's objects.

    Args:
        client: a boto3 client for S3; it finds the bucket.
        credentials: botocore's, which renews them where they run out.

    Raises:
        BotoCoreError: `client` has no usable credentials, or cannot address such a bucket.
    """

    def __init__(self, client: Any, bucket: str, credentials: Any) -> None:
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _NAME})
        self._base = url.partition("?")[0].removesuffix(_NAME)
        self._credentials, self._region = credentials, client.meta.region_name
        self._connections = client._endpoint.http_session

    def open(self, name: str, part: str) -> dict[str, Any] | None:
        """Begin a GET of an object.

        Args:
            name: its full name in the bucket.
            part: the value of a Range header; empty for all of it.

        Returns:
            Body, ContentLength and ContentRange as boto3's `get_object` has them; None when boto3 must be asked.

        Raises:
            BotoCoreError: the connection failed.
            ClientError: the server cannot answer now. To ask one twice that has too much to do would be no help.
        """
        request = AWSRequest("GET", self._base + quote(name), headers={"Range": part} if part else {})
        request.stream_output = True
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
        answer = self._connections.send(request.prepare())
        length = answer.headers.get("content-length", "")
        if answer.status_code == (206 if part else 200) and length.isdecimal():
            body = StreamingBody(answer.raw, length)
            return {"Body": body, "ContentLength": int(length), "ContentRange": answer.headers.get("content-range", "")}
        if answer.status_code >= 500:
            raise ClientError(_error_in(answer), "GetObject")
        answer.raw.close()
        return None


def _error_in(answer: Any) -> Any:
    said = {"status_code": answer.status_code, "headers": answer.headers, "body": answer.content, "context": {}}
    return create_parser("rest-xml").parse(said, None)
