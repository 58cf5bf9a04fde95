"""Servers that tests of several rooms use."""

from servers.minio_server import bucket, minio, minio_for_session, own_minio

__all__ = ["bucket", "minio", "minio_for_session", "own_minio"]
