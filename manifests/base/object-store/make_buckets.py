"""Make the buckets that are not there yet; runs in the pipeline image, which holds the client."""

import os
import time
from urllib.parse import urlsplit

from minio import Minio
from urllib3.exceptions import HTTPError

address = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"])
client = Minio(
    address.netloc,
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    secure=address.scheme == "https",
)
for _ in range(30):
    try:
        client.list_buckets()
        break
    except HTTPError:
        time.sleep(5)
for name in os.environ["BUCKETS"].split():
    if not client.bucket_exists(name):
        client.make_bucket(name)
