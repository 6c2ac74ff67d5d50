"""Peak memory of this process and of Ray's workers, for the benchmarks.

Memory is what a process does not share with others, which leaves out the object store.
"""

import threading

import psutil


class Memory(threading.Thread):
    """Watches the peak memory of this process and of the largest of Ray's workers."""

    def __init__(self, every_s: float = 0.1) -> None:
        super().__init__(daemon=True)
        self._every_s = every_s
        self._me = psutil.Process()
        self.start_bytes = self.driver_bytes = own_bytes(self._me)
        self.worker_bytes = 0
        self._reads: dict[int, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            self.driver_bytes = max(self.driver_bytes, own_bytes(self._me))
            workers = [p for p in self._me.children(recursive=True) if "ray::" in _name(p)]
            self.worker_bytes = max([self.worker_bytes, *map(own_bytes, workers)])
            for worker in workers:
                if "TrainWorker" in _name(worker):
                    before = self._reads.get(worker.pid, 0)
                    self._reads[worker.pid] = max(before, _read_bytes(worker))

    def rank_reads_mb(self) -> list[int]:
        """What each of Ray Train's workers has read of files, in megabytes."""
        return sorted(round(number / 1e6) for number in self._reads.values())

    def stop(self) -> dict[str, int]:
        """End, and give the figures in megabytes."""
        self._over.set()
        self.join()
        return {
            "driver_mb": round(self.driver_bytes / 1e6),
            "driver_growth_mb": round((self.driver_bytes - self.start_bytes) / 1e6),
            "worker_mb": round(self.worker_bytes / 1e6),
        }


def own_bytes(process: psutil.Process) -> int:
    """Memory of a process that it shares with no other; 0 once it is gone."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _read_bytes(process: psutil.Process) -> int:
    try:
        return int(process.io_counters().read_chars)
    except psutil.Error:
        return 0
