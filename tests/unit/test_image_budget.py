"""What goes when images take too much, and what never does."""

import asyncio
from types import SimpleNamespace

import pytest
from test_image_store import Images

from pier.engine.events import Events
from pier.engine.image_budget import ImageBudget
from pier.engine.images import Images as EngineImages
from pier.engine.settings import parse
from pier.engine.tasks import Tasks
from pier.errors import InvalidParameter

SIZE = 100_000


@pytest.fixture
def images(tmp_path):
    images = Images(str(tmp_path / "data"))
    yield images
    images.close()


def container(image):
    state = SimpleNamespace(Status="exited")
    record = SimpleNamespace(
        Image=image.id, kept_layers=list(image.chain_ids), State=state, mounts=[]
    )
    return SimpleNamespace(id="c" * 64, record=record)


def keep(images, limit, *containers, grace_s=0.0):
    """Look at the budget once, and return the names that are left."""

    async def run():
        tasks = Tasks()
        services = SimpleNamespace(
            images=images.store, store=list(containers), events=Events(), tasks=tasks
        )
        engine = EngineImages(services)
        budget = ImageBudget(services, engine, limit, grace_s=grace_s)
        budget.open()
        for task in [t for t in asyncio.all_tasks() if t.get_name() == "image budget"]:
            await task
        engine.close()
        await tasks.close()

    asyncio.run(run())
    return sorted(tag for image in images.store.all() for tag in image.tags)


def make(images, *names):
    """Images of about 200 kB each: the layer's files and its blob."""
    return [images.make(f"{name}:v1", content=name.encode() * SIZE) for name in names]


def test_unused_for_longest_goes_first(images):
    a, *_ = make(images, "a", "b", "c")
    images.store.touch(a)
    images.root.settle()
    images.restart()
    assert images.store.disk_bytes() > 600_000
    assert keep(images, 450_000) == ["a:v1", "c:v1"]
    assert images.files() == (2, 4)
    assert keep(images, 450_000) == ["a:v1", "c:v1"]


def test_no_limit(images):
    make(images, "a", "b")
    assert keep(images, 0) == ["a:v1", "b:v1"]


def test_used_images_stay(images):
    a, b, _ = make(images, "a", "b", "c")
    child = images.make("child:v1", content=b"x", parent=b.id)
    assert keep(images, 1, container(a), container(child)) == ["a:v1", "b:v1", "child:v1"]


def test_what_came_a_moment_ago_stays(images):
    make(images, "a", "b")
    assert keep(images, 1, grace_s=600) == ["a:v1", "b:v1"]


@pytest.mark.parametrize(
    ("text", "size"), [("50GB", 50 * 10**9), ("1.5 tb", 15 * 10**11), ("700", 700), ("0", 0)]
)
def test_setting(tmp_path, text, size):
    flags = ["--config-file", str(tmp_path / "none.json"), "--image-budget", text]
    (tmp_path / "none.json").write_text("{}")
    assert parse(flags).settings.image_budget == size


def test_setting_that_is_no_size(tmp_path):
    (tmp_path / "none.json").write_text("{}")
    flags = ["--config-file", str(tmp_path / "none.json"), "--image-budget", "much"]
    with pytest.raises(InvalidParameter, match="invalid size: 'much'"):
        parse(flags)
