"""Servers that tests of several rooms use."""

from servers.http_server import bad_server
from servers.minio_server import bucket, minio, minio_for_session, own_minio

__all__ = ["bad_server", "bucket", "minio", "minio_for_session", "own_minio"]
