"""What has no public way in Ray, each with the reason and the call that would replace it.

No other module of the package names anything private of Ray's; a test holds it so.
"""

import contextlib
import json
import os
from collections.abc import Iterator

__all__ = ["has_autoscaler", "silence_node_messages", "spilled_bytes", "submission_id"]


def spilled_bytes() -> int:
    """What the object stores of the connected cluster have moved to disk since it started.

    Private: `ray._private.internal_api.get_memory_info_reply` and `ray._private.state.state`. The
    public ways are the text of `ray memory --stats-only`, and metrics of the dashboard's agent,
    which a local cluster does not have. `ray.util.state.summarize_objects` would replace it if it
    gave the spilled bytes and needed no dashboard.
    """
    import grpc  # type: ignore[import-untyped]
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    with contextlib.suppress(grpc.RpcError):
        return int(get_memory_info_reply(state).store_stats.spilled_bytes_total)
    return 0


def has_autoscaler() -> bool:
    """Whether the second version of Ray's autoscaler answers; it does not say how far it goes.

    Not private by its name, but without documentation: `ray.autoscaler.v2.sdk.get_cluster_status`.
    `ray.autoscaler.sdk`, which is documented, only requests resources; a call of it that gave the
    status would replace this one.
    """
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    return int(status.stats.autoscaler_version or 0) > 0


@contextlib.contextmanager
def silence_node_messages() -> Iterator[None]:
    """Keep what Ray says of nodes that died, and the end of their logs, from the standard output.

    Ray prints it whatever `ray.init(log_to_driver=False)` says, which would replace this function
    if it held for these messages too.
    """
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    if before is None:
        yield
        return
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def submission_id() -> str | None:
    """The id by which `rnntune jobs` knows this process; None: it is not the driver of a job.

    Ray hands a job its metadata in this variable; the public way to one's own id,
    `ray.get_runtime_context().get_job_id()`, gives another id and needs a connection.
    """
    try:
        metadata = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]
        return str(metadata["job_submission_id"])
    except (KeyError, TypeError, ValueError):
        return None
