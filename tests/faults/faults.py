"""Where a command is struck: at a write on a local disk, or at a request that changes a bucket."""

import errno
import os
import signal
import threading
import time

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
_DELETIONS = {"os.remove", "os.rmdir"}


class DiskFault:
    """An audit hook that counts writes below a folder, and strikes at one of them.

    Counted are files opened for writing, made, moved and deleted.

    Args:
        root: the folder.
        kind: 'kill', 'full' (that write alone fails) or 'asleep' (all fail for a while).
        point: number of the write, from 1; 0: none.
        seconds: how long storage is asleep.

    Source: https://docs.python.org/3/library/audit_events.html
    """

    def __init__(self, root: str, kind: str, point: int, seconds: float) -> None:
        self.root, self.kind, self.point, self.seconds = root, kind, point, seconds
        self.count = 0
        self._until = 0.0

    def __call__(self, event: str, args: tuple) -> None:
        if event != "open" and event not in _CHANGES:
            return
        if event == "open" and not (args[2] or 0) & _WRITES:
            return
        if not str(args[0]).startswith(self.root):
            return
        self.count += 1
        if self.count == self.point:
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            self._until = time.monotonic() + self.seconds
        if self.kind == "full" and self.count == self.point and event not in _DELETIONS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind == "asleep" and time.monotonic() < self._until:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Bucket:
    """A server that speaks S3 in threads of this process, and strikes at a request."""

    def __init__(self) -> None:
        import logging

        import boto3
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self.arm("", "kill", 0, 0)
        server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        os.environ.update(self.env)
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket="bucket")

    def arm(self, folder: str, kind: str, point: int, seconds: float) -> None:
        """Count from here on the changes of a folder, and strike at one; see `DiskFault`."""
        self._folder, self._kind, self._point, self._seconds = folder, kind, point, seconds
        self._until, self.count = 0.0, 0
        self.pid: int | None = None

    def _serve(self, environ, start_response):
        ours = environ["PATH_INFO"].startswith(f"/bucket/{self._folder}")
        if ours and environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            self.count += 1
            if self.count == self._point:
                if self._kind == "kill":
                    os.kill(self.pid, signal.SIGKILL)
                self._until = time.monotonic() + self._seconds
        struck = self._kind == "kill" and 0 < self._point <= self.count
        if self.pid is not None and (struck or time.monotonic() < self._until):
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start_response)

    def files(self, folder: str) -> dict[str, bytes]:
        """Names and contents of the objects in a folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket="bucket", Prefix=f"{folder}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {
            key.removeprefix(f"{folder}/"): self.client.get_object(Bucket="bucket", Key=key)[
                "Body"
            ].read()
            for key in keys
            if not key.endswith("/")
        }
