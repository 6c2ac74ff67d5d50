"""Which resources the workers of a run get, and whether the cluster holds them."""

from rnntune.cluster.releases import has_elastic_training
from rnntune.cluster.resources import Resources
from rnntune.config.load import Config
from rnntune.errors import ConfigError

__all__ = ["place_workers", "worker_resources"]


def worker_resources(config: Config, cluster: Resources) -> tuple[bool, dict[str, float]]:
    """Whether to train on GPUs, and the least resources of a worker."""
    use_gpu = config.train.use_gpu
    gpu = cluster.total("GPU") > 0 if use_gpu == "auto" else use_gpu
    return gpu, {"CPU": 1.0, **({"GPU": 1.0} if gpu else {}), **config.train.resources_per_worker}


def place_workers(config: Config, cluster: Resources) -> tuple[bool, dict[str, float]]:
    """Whether to train on GPUs, and the resources of one worker; CPU workers share all CPUs.

    Raises:
        ClusterError: the cluster cannot hold the workers, with the numbers.
        ConfigError: the installed Ray knows no elastic training.
    """
    if isinstance(config.train.num_workers, tuple) and not has_elastic_training():
        raise ConfigError(
            f"train.num_workers: {list(config.train.num_workers)} needs a newer Ray than the one "
            "installed; give one number"
        )
    gpu, resources = worker_resources(config, cluster)
    if not gpu and not config.train.resources_per_worker:
        most = int(max((node.get("CPU", 0.0) for node in cluster.nodes), default=0))
        wanted = config.train.max_workers
        shares = (cpus for cpus in range(most, 0, -1) if cluster.room({"CPU": cpus}) >= wanted)
        resources["CPU"] = float(next(shares, 1))
    least = config.train.num_workers
    cluster.require(least[0] if isinstance(least, tuple) else least, resources)
    return gpu, resources
