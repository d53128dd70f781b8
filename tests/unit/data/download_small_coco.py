"""Run `msdet data download coco` with one archive of the size, MD5 and mirror given as arguments."""

import sys

from experiments.data.download import archives
from experiments.data.download.archives import Archive
from msdet_cli.main import main

size, md5, url = int(sys.argv[1]), sys.argv[2], sys.argv[3]
archives.ARCHIVES = {
    "coco": (Archive("http://x/part.zip", size, size, md5, "the test", folders={"images": 2}),)
}
sys.argv = ["msdet", "data", "download", "coco", "--root", "set", "--mirror", url]
main()
