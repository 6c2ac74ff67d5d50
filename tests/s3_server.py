"""A server on this machine that speaks S3, for tests: fixtures to import."""

import dataclasses
import logging
import uuid

import boto3
import pytest
from moto.server import ThreadedMotoServer

__all__ = ["Served", "bucket_uri", "s3_env", "s3_served"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """A request that the server answered: its method, its path and the bytes of the answer."""

    method: str
    path: str
    num_bytes: int


_SERVED: list[Served] = []


def _noting(app):
    def noted(environ, start_response):
        body = list(app(environ, start_response))
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        _SERVED.append(Served(method=method, path=path, num_bytes=sum(map(len, body))))
        return body

    return noted


@pytest.fixture(scope="module")
def s3_env():
    """The variables by which processes find the server; they are set in this one too."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    server._server.app = _noting(server._server.app)
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield env
    server.stop()


@pytest.fixture
def bucket_uri(s3_env):
    """A new folder in the server's bucket."""
    return f"s3://bucket/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def s3_served(s3_env):
    """The requests that the server answered since; a test may clear them."""
    _SERVED.clear()
    return _SERVED
