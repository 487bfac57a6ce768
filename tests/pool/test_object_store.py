"""Promises of `models: object_store`: workers that share no disk with the controller, and memory with each other."""

import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from contracts.pool import finish
from PIL import Image
from test_merge_worker import SIZES, make_study, recipe, scored, values

from mergesearch.checkpoints.adapter import open_expert
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import DataError, PoolError
from mergesearch.pool.base import Job, Worker
from mergesearch.pool.parcels import pack, stand
from mergesearch.pool.profile import open_pool, parse_profile
from mergesearch.pool.worker import MergeWorker, ObjectiveSetup, WorkerSetup
from mergesearch.types import Scored, Split


@dataclasses.dataclass(frozen=True)
class WorkerOf:
    """A factory that says what its workers are built from, as studies have them."""

    setup: WorkerSetup

    def __call__(self) -> Worker:
        """A worker that reads the files where they are."""
        return MergeWorker(self.setup)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """A small study."""
    return make_study(tmp_path_factory.mktemp("sent"), "vit")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray of two cores."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield
    ray.shutdown()


def held(setup: WorkerSetup, folder: Path) -> MergeWorker:
    """The worker of a setup whose weights are in memory and whose other files were written to a folder."""
    parcel = pack(setup)
    for name, path in parcel.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    weights = {folder / name: np.fromfile(path, dtype=np.uint8) for name, path in parcel.weights.items()}
    for array in weights.values():
        array.flags.writeable = False
    return MergeWorker(stand(parcel.setup, folder), weights)


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_weights_in_memory_score_as_those_in_files(tmp_path: Path, kind: str) -> None:
    """To the bit, for images and texts, with no weight file and none of the data's own paths; and again after another
    candidate, so the bytes in memory were not written to."""
    setup = make_study(tmp_path / "study", kind)
    plain, sent = MergeWorker(setup), held(setup, tmp_path / "node")
    assert not list((tmp_path / "node").rglob("*.safetensors"))
    for seed in (0, 1, 0):
        work = recipe(setup, seed)
        assert values(scored(sent, work)) == values(scored(plain, work))
    assert values(scored(sent, work, Split.TEST)) == values(scored(plain, work, Split.TEST))


def test_a_checkpoint_in_memory_is_the_one_on_disk(vit: WorkerSetup) -> None:
    """Names, tensors and digest; its tensors are views of the memory that was given."""
    file = vit.base / "model.safetensors"
    memory = np.fromfile(file, dtype=np.uint8)
    disk, given = Checkpoint.open(vit.base), open_expert(vit.base)
    assert isinstance(given, Checkpoint)
    given = Checkpoint.open(vit.base, {file: memory})
    assert (given.names, given.digest, given.on_disk, disk.on_disk) == (disk.names, disk.digest, False, True)
    begin = memory.ctypes.data
    for name in disk.names:
        assert given.tensor(name).equal(disk.tensor(name))
        assert begin <= given.tensor(name).data_ptr() < begin + memory.nbytes


def test_images_of_a_table_travel_with_it(vit: WorkerSetup, tmp_path: Path) -> None:
    """Under the names that the table has for them; one that stands elsewhere is refused, with what to do."""
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "t.csv").write_text("image,label\npictures/0.png,0\npictures/1.png,1\n")
    objective = ObjectiveSetup("one", "image_classification", {"path": "t.csv", "sizes": SIZES}, "accuracy", "one")
    files = pack(dataclasses.replace(vit, root=tmp_path, objectives=(objective,))).files
    sent = {name.removeprefix("data/0/") for name in files if name.startswith("data")}
    assert sent == {"t.csv", "pictures/0.png", "pictures/1.png"}
    (tmp_path / "t.csv").write_text(f"image,label\n{tmp_path}/pictures/0.png,0\n")
    with pytest.raises(DataError, match="stands outside the table's folder"):
        pack(dataclasses.replace(vit, root=tmp_path, objectives=(objective,)))


def shared_and_private(pid: int) -> tuple[int, int]:
    """Bytes of the object store that a process has in its memory: shared with others, and its own."""
    shared = private = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if "-" in key.split(" ")[0] and " " in key:
            inside = "plasma" in line
        elif inside and key.startswith("Shared_"):
            shared += int(rest.split()[0]) * 1024
        elif inside and key.startswith("Private_"):
            private += int(rest.split()[0]) * 1024
    return shared, private


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_workers_of_a_node_hold_one_copy_and_need_no_disk(cluster: None, vit: WorkerSetup, tmp_path: Path) -> None:
    """Models and data are gone from the disk when the workers start; scores are those of files, and the weights lie in
    memory that the two processes share."""
    gone = tmp_path / "gone"
    shutil.copytree(vit.root, gone)
    setup = dataclasses.replace(vit, root=gone, base=gone / "base", experts={name: gone / name for name in vit.experts})
    plain = MergeWorker(vit)
    profile = parse_profile({"pool": "ray", "workers": 2, "cpus_per_worker": 0.5, "models": "object_store"}, "test")
    pool = open_pool(profile, WorkerOf(setup))
    try:
        pids: set[int] = set()
        end = time.monotonic() + 120
        while len(pids) < 2:  # one may be ready long before the other
            assert time.monotonic() < end
            for number in range(2):
                pool.submit(Job(number, Split.SEARCH, recipe(vit, number)))
                shutil.rmtree(gone, ignore_errors=True)
            results = finish(pool, 2, 60)
            for result in results:
                assert isinstance(result.outcome, Scored), result.outcome
                assert values(result.outcome) == values(scored(plain, recipe(vit, result.job.number)))
                pids.add(int(result.outcome.worker.rpartition(":")[2]))
        weights = sum(file.stat().st_size for file in vit.root.rglob("*.safetensors"))
        for pid in pids:
            shared, private = shared_and_private(pid)
            assert shared >= weights
            assert private < weights / 10
    finally:
        pool.close()


@pytest.mark.ray
def test_an_object_store_that_is_too_small_is_refused(cluster: None, vit: WorkerSetup, tmp_path: Path) -> None:
    """With both sizes and what to do; and a study of a function has no models to send."""
    setup = dataclasses.replace(vit, base=tmp_path / "big")
    shutil.copytree(vit.base, setup.base)
    with (setup.base / "notes.txt").open("wb") as file:
        file.truncate(2 * 10**8)
    profile = parse_profile({"pool": "ray", "workers": 1, "models": "object_store"}, "test")
    with pytest.raises(PoolError, match=r"needs 0\.\d+ GiB of object store on each node, one has 0\.09 GiB: start Ray"):
        open_pool(profile, WorkerOf(setup))
    with pytest.raises(PoolError, match="for studies of models; this one calls a function"):
        open_pool(profile, dict)  # type: ignore[arg-type]
