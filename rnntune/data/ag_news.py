"""AG News from the network.

*Source:* addresses and checksums are those of `torchtext.datasets.ag_news` (torchtext 0.18).
"""

import os
import tempfile
from pathlib import Path

from rnntune import storage
from rnntune.data.download import download_file
from rnntune.errors import DataError
from rnntune.location import Location

__all__ = ["AG_NEWS_MD5", "AG_NEWS_URL", "download_ag_news"]
AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
AG_NEWS_MD5 = {
    "train.csv": "b1a00f826fdfbd249f79597b59e1dc12",
    "test.csv": "d52ea96a97a2d943681189a97654912d",
}


def download_ag_news(cache_dir: str) -> str:
    """Make sure that AG News is in the cache.

    `RNNTUNE_AG_NEWS_URL` in the environment names another place with the same two files.

    Args:
        cache_dir: a folder or URI.

    Returns:
        The folder or URI with `train.csv` and `test.csv`.

    Raises:
        DataError: it cannot be downloaded, or is not the file it should be.
    """
    base = os.environ.get("RNNTUNE_AG_NEWS_URL", AG_NEWS_URL).rstrip("/")
    folder = storage.join(cache_dir, "ag_news")
    for name, md5 in AG_NEWS_MD5.items():
        target, url = Location.parse(folder) / name, f"{base}/{name}"
        if storage.exists(str(target)):
            continue
        try:
            if target.is_remote:
                with tempfile.TemporaryDirectory() as aside:
                    local = Path(aside) / name
                    download_file(url, local, md5)
                    storage.write_bytes(str(target), local.read_bytes())
            else:
                download_file(url, Path(target.absolute().path), md5)
        except DataError as error:
            raise DataError(
                f"{error}; with the files in a folder of your own, use --data FOLDER"
            ) from error
    return folder
