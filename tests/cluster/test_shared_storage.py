import os
import re
import time

import pytest
from clusters import ROOT, Node, ended, num_nodes, ray_head, rnntune, tiny, wait_until

from rnntune.cluster import shared_storage
from rnntune.cluster.shared_storage import (
    PROBE_PREFIX,
    _nodes,
    check_shared_storage,
    check_storage,
)
from rnntune.config.load import Config
from rnntune.errors import ClusterError, RnntuneError
from rnntune.training.run_folder import RunFolder

pytestmark = pytest.mark.ray


def test_one_node_needs_only_to_write(ray_session, tmp_path):
    (tmp_path / "run").mkdir()
    check_shared_storage([str(tmp_path / "run"), str(tmp_path / "new" / "cache")])
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert not list((tmp_path / "run").iterdir())


def test_a_place_that_cannot_be_written(ray_session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RnntuneError, match=f"{tmp_path}/file/run"):
        check_shared_storage([f"{tmp_path}/file/run"])


def test_what_killed_probes_left_goes_after_an_hour(tmp_path):
    for age_s in (1_800, 7_200):
        file = tmp_path / f"{PROBE_PREFIX}{age_s}" / "driver"
        file.parent.mkdir()
        file.write_text("")
        os.utime(file, (time.time() - age_s,) * 2)
    check_storage([str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [f"{PROBE_PREFIX}1800"]


def test_what_a_killed_probe_leaves_does_not_make_a_run_of_the_folder(tmp_path):
    (tmp_path / f"{PROBE_PREFIX}1" / "driver").mkdir(parents=True)
    with RunFolder(str(tmp_path)) as folder:
        folder.begin(Config(), overwrite=False)


def test_a_node_that_left_meanwhile_is_no_problem(ray_session, monkeypatch, tmp_path):
    nodes = _nodes()
    monkeypatch.setattr(shared_storage, "_nodes", lambda: {**nodes, "e" * 56: "10.9.9.9 (gone)"})
    with pytest.raises(ClusterError, match=r"node 10\.9\.9\.9 \(gone\) cannot be asked"):
        check_shared_storage([str(tmp_path)])
    answers = iter([{**nodes, "e" * 56: "10.9.9.9 (gone)"}, nodes])
    monkeypatch.setattr(shared_storage, "_nodes", lambda: next(answers))
    check_shared_storage([str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_storage_that_only_one_node_can_see(tmp_path):
    shared, private = tmp_path / "shared", tmp_path / "private"
    private.mkdir()
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs tmpfs {private} && exec "$@"', "sh"]
    with ray_head(num_cpus=1, RAY_AUTH_MODE="disabled", PYTHONPATH=str(ROOT)) as head:
        node = Node(head, wrapper=hide, PYTHONPATH=str(ROOT))
        try:
            wait_until(lambda: num_nodes(head) == 2 or node.process.poll() is not None, 60)
            if node.process.poll() is not None:
                pytest.skip("this machine does not let a process have mounts of its own")
            unshared = [("train", private, shared), ("train", shared, private)]
            for verb, output, cache in [*unshared, ("tune", private, shared)]:
                uris = [f"--output={output}/run", f"--data.cache_dir={cache}/cache"]
                run = rnntune(verb, *tiny(), *uris, RAY_ADDRESS=head.address)
                _, err = ended(run, status=2)
                (line,) = err.splitlines()
                uri = f"{private}/{'run' if output == private else 'cache'}"
                assert re.match(rf"rnntune: node [\d.]+ \(.*\) cannot use {uri}: what", line)
            assert not list(private.iterdir())
            assert not shared.exists()
            both = [f"--output={shared}/run", f"--data.cache_dir={shared}/cache"]
            out, _ = ended(rnntune("train", *tiny(), *both, RAY_ADDRESS=head.address))
            assert "test" in out
        finally:
            node.kill()
