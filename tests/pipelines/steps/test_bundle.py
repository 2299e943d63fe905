"""The step `bundle`: what comes out again, whose it is, which key it has, and what is refused before it is made."""

from __future__ import annotations

import gzip
import random
import shutil
import stat
from pathlib import Path

import pytest

from builder.bundle import keys, manifest, signature
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.unbundle import unbundle
from builder.cloud.aws import Aws, Settings
from builder.cloud.identity import BundlingIdentity
from builder.errors import InputError, UsageError
from builder.guest import overlay
from builder.progress import SILENT
from pipelines.artifact import Bundle, File, ImageFile
from pipelines.kinds import load
from pipelines.step import Foreseen, ForeseenBundle, Inputs, Outside, Work
from pipelines.steps.bundle import BundleOptions
from pipelines.store import FileStore
from pipelines.targets import Target

STEP = load("bundle")
KEYS = Path(__file__).parents[3] / "fixtures/bundles/keys"
MIB = 1 << 20
SIZE = 5 * MIB + 25 * 512  # no whole number of chunks
OPTIONS = {"name": "x", "part_size": 256 << 10}


def identity(who: str = "user") -> BundlingIdentity:
    return BundlingIdentity(
        account="123456789012",
        user_certificate=(KEYS / f"{who}.crt").read_bytes(),
        private_key=(KEYS / f"{who}.key").read_bytes(),
        cloud_certificate=(KEYS / "cloud.crt").read_bytes(),
    )


def outside(store: FileStore, folder: Path, bundling=identity) -> Outside:
    target = Target(name="t", identity="t", cloud=Aws(Settings(region="r")), bundling=bundling)
    return Outside(recipe_directory=folder, cache=folder / "cache", store=store, site=lambda _: target)


@pytest.fixture
def store(tmp_path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def data() -> bytes:
    """A root filesystem by its magic, a third of it data."""
    numbers = random.Random(4)
    made = bytearray(SIZE)
    made[0x438:0x43A] = b"\x53\xef"
    for start in (MIB, 3 * MIB + 77):
        made[start : start + MIB // 2] = numbers.randbytes(MIB // 2)
    return bytes(made)


@pytest.fixture
def image(store, data, tmp_path) -> ImageFile:
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    return store.seal_image(path, format="raw", virtual_size=SIZE)


def work(store: FileStore, folder: Path, options: BundleOptions, scratch: str = "scratch", **changes) -> Work:
    (folder / scratch).mkdir(exist_ok=True)
    around = changes.pop("outside", outside(store, folder))
    pins = changes.pop("pins", None) or STEP.pin(options, around)
    return Work(scratch=folder / scratch, outside=around, pins=pins, progress=SILENT, **changes)


def make(source, where: Work, **told) -> Bundle:
    made = STEP.build(BundleOptions(**{**OPTIONS, **told}), Inputs(source=source), where)
    assert isinstance(made, Bundle)
    return made


def inside(made: Bundle, store: FileStore, target: Path, who: str = "user") -> bytes:
    """Return the image in a bundle, taken out with somebody's private key."""
    read = manifest.read(store.path(made.manifest).read_bytes(), where="x")
    key = keys.decrypt(read, PrivateKey.load((KEYS / f"{who}.key").read_bytes(), who))
    unbundle(read, lambda index: store.path(made.parts[index]).open("rb"), key, target)
    return target.read_bytes()


@pytest.mark.parametrize("who", ["user", "cloud"])
def test_what_is_bundled_comes_out_again_with_either_key(store, image, data, tmp_path, who):
    given: list[tuple[str, File]] = []
    where = work(store, tmp_path, BundleOptions(**OPTIONS), early=lambda name, part: given.append((name, part)))
    made = make(image, where, kernel_id="eki-12345678", block_device_mappings={"ami": "sda1"}, product_codes=("p1",))
    assert (made.type, made.architecture, made.size) == ("machine", "x86_64", SIZE)
    assert [part.name for part in made.parts] == [f"x.part.{index:02}" for index in range(len(made.parts))]
    assert given == [("x.manifest.xml", part) for part in made.parts]
    assert len(made.parts) > 3
    assert store.holds(made)
    assert list(store.damaged()) == []
    assert inside(made, store, tmp_path / "out", who) == data
    written = store.path(made.manifest).read_bytes()
    read = manifest.read(written, where="x")
    assert (read.user, read.kernel_id, read.product_codes) == ("123456789012", "eki-12345678", ("p1",))
    assert [f"sha1:{part.sha1}" for part in read.parts] == [part.digest for part in made.parts]
    assert signature.verify(written, Certificate.load((KEYS / "user.crt").read_bytes(), "user")).holds


def test_a_part_of_a_disk_and_a_layer_over_it_are_read_without_a_copy(store, image, data, tmp_path):
    window = image.part(MIB, 3 * MIB)
    options = BundleOptions(**OPTIONS)
    assert inside(make(window, work(store, tmp_path, options)), store, tmp_path / "w") == data[MIB : 4 * MIB]
    target = tmp_path / "layer.qcow2"
    overlay.create(store.layer(window), target, backing_name=store.backing_name(window.digest))
    layered = store.seal_layer(target, window)
    assert inside(make(layered, work(store, tmp_path, options, "s2")), store, tmp_path / "l") == data[MIB : 4 * MIB]


@pytest.mark.parametrize("role", ["kernel", "ramdisk"])
def test_a_kernel_is_taken_as_it_is_whatever_it_begins_with(store, tmp_path, role):
    path = tmp_path / "initrd.gz"
    path.write_bytes(gzip.compress(b"initramfs" * 1000))
    content = path.read_bytes()
    file = store.seal_file(path, name="initrd.gz")
    made = make(file, work(store, tmp_path, BundleOptions(**OPTIONS)), name="vmlinuz-6", type=role)
    assert made.type == role
    assert inside(made, store, tmp_path / "out") == content
    assert f"<{role}_id>true</{role}_id>".encode() in store.path(made.manifest).read_bytes()


def test_the_key_outlives_a_kill_and_nothing_else_does(store, image, tmp_path):
    options = BundleOptions(**OPTIONS)
    first = make(image, work(store, tmp_path, options))
    kept = tmp_path / "scratch" / "content-key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    (tmp_path / "scratch" / "parts" / "x.part.00").write_bytes(b"cut off")
    again = make(image, work(store, tmp_path, options))
    assert again.parts == first.parts
    assert again.manifest != first.manifest  # RSA's padding is random
    shutil.rmtree(tmp_path / "scratch")
    assert make(image, work(store, tmp_path, options)).parts != first.parts


def test_reproducible_bundles_have_the_same_parts_for_the_same_people_only(store, image, tmp_path):
    options = BundleOptions(**OPTIONS, reproducible=True)
    first, again = (make(image, work(store, tmp_path, options, name), reproducible=True) for name in ("a", "b"))
    assert first.parts == again.parts
    assert not (tmp_path / "a" / "content-key").exists()
    target = tmp_path / "layer.qcow2"
    overlay.create(store.layer(image), target, backing_name=store.backing_name(image.digest))
    layer = store.seal_layer(target, image)  # the same content in another file
    assert make(layer, work(store, tmp_path, options, "l"), reproducible=True).parts == first.parts
    others = outside(store, tmp_path, lambda: identity("other"))
    assert make(image, work(store, tmp_path, options, "c", outside=others), reproducible=True).parts != first.parts


def test_whose_it_is_belongs_to_the_key_and_must_not_change_in_between(store, image, tmp_path):
    options = BundleOptions(**OPTIONS)
    around = outside(store, tmp_path)
    pins = STEP.pin(options, around)
    assert pins == {
        "account": "123456789012",
        "cloud_certificate": Certificate.load((KEYS / "cloud.crt").read_bytes(), "c").sha256,
        "user_certificate": Certificate.load((KEYS / "user.crt").read_bytes(), "u").sha256,
        "signed": True,
    }
    others = outside(store, tmp_path, lambda: identity("other"))
    with pytest.raises(UsageError, match="a certificate for bundles changed after this run began"):
        make(image, work(store, tmp_path, options, outside=others, pins=pins))
    assert not (tmp_path / "scratch" / "parts").exists()


def test_certificates_and_account_may_come_from_the_recipes_folder_and_nothing_is_asked_then(store, image, tmp_path):
    for name in ("other.crt", "other.key", "cloud.crt"):
        shutil.copy(KEYS / name, tmp_path)

    def asked() -> BundlingIdentity:
        raise UsageError("asked")

    told = {"account": "9876-5432-1098", "user_certificate": "other.crt", "private_key": "other.key"}
    around = outside(store, tmp_path, asked)
    with pytest.raises(UsageError, match="asked"):
        STEP.pin(BundleOptions(**OPTIONS, **told), around)
    options = BundleOptions(**OPTIONS, **told, cloud_certificate="cloud.crt")
    made = make(image, work(store, tmp_path, options, outside=around), **told, cloud_certificate="cloud.crt")
    assert manifest.read(store.path(made.manifest).read_bytes(), where="x").user == "987654321098"
    assert inside(made, store, tmp_path / "out", "other")
    (tmp_path / "link.crt").symlink_to("/etc/hostname")
    for name, words in (("link.crt", "leads out of the recipe's folder"), ("none.crt", "cannot be read")):
        with pytest.raises(UsageError, match=words):
            STEP.pin(BundleOptions(**OPTIONS, **told, cloud_certificate=name), around)


def test_an_unsigned_bundle_can_be_made_and_only_the_cloud_opens_it(store, image, data, tmp_path):
    def unsigned() -> BundlingIdentity:
        return BundlingIdentity(account="123456789012", cloud_certificate=(KEYS / "cloud.crt").read_bytes())

    options = BundleOptions(**OPTIONS)
    made = make(image, work(store, tmp_path, options, outside=outside(store, tmp_path, unsigned)))
    assert b"<signature>UNSIGNED</signature>" in store.path(made.manifest).read_bytes()
    assert inside(made, store, tmp_path / "out", "cloud") == data


def test_what_is_larger_than_the_cloud_takes_is_refused_before_the_first_part(store, tmp_path):
    path = tmp_path / "huge.raw"
    with open(path, "wb") as file:
        file.truncate((10 << 30) + 1)
    image = store.seal_image(path, format="raw", virtual_size=(10 << 30) + 1)
    with pytest.raises(InputError, match=r"measures 10\.0 GiB; the instance store takes at most 10 GiB") as caught:
        make(image, work(store, tmp_path, BundleOptions(**OPTIONS)))
    assert "`max_size` raises the limit" in caught.value.hint
    assert list((tmp_path / "scratch" / "parts").iterdir()) == []
    small = image.part(0, 2 * MIB)
    with pytest.raises(InputError, match=r"measures 2 MiB; the instance store takes at most 1 MiB"):
        make(small, work(store, tmp_path, BundleOptions(**OPTIONS)), max_size=MIB)


def test_an_image_of_no_bytes_is_refused(store, tmp_path):
    (tmp_path / "none").touch()
    file = store.seal_file(tmp_path / "none", name="none")
    with pytest.raises(InputError, match="0 bytes"):
        make(file, work(store, tmp_path, BundleOptions(**OPTIONS)), type="kernel")


def test_what_register_will_ask_for_is_foreseen():
    options = BundleOptions(name="x", type="machine", architecture="i386", kernel_id="eki-12345678")
    assert STEP.foresee(options, Foreseen()).bundle == ForeseenBundle(
        name="x", type="machine", architecture="i386", kernel=True, ramdisk=False
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "with space"}, "cannot name a bundle"),
        ({"name": "a/b"}, "cannot name a bundle"),
        ({"name": ".hidden"}, "cannot name a bundle"),
        ({"name": "vmlinuz-image"}, "as a kernel"),
        ({"name": "Initrd1"}, "as a ramdisk"),
        ({"kernel_id": "true"}, "no kernel's id, such as eki-"),
        ({"ramdisk_id": "eki-1"}, "no ramdisk's id, such as eri-"),
        ({"type": "kernel", "kernel_id": "eki-12345678"}, "leave `kernel_id` out"),
        ({"block_device_mappings": {"ebs1": "sdb"}}, "is no mapping"),
        ({"block_device_mappings": {"swap": "s&b"}}, "is no mapping"),
        ({"product_codes": ("<x>",)}, "product code"),
        ({"part_size": 1000}, "64 KiB to 5 GiB"),
        ({"account": "12345"}, "12 digits"),
        ({"cloud_certificate": "/etc/c.pem"}, "not a path inside the recipe's folder"),
        ({"cloud_certificate": "../c.pem"}, "not a path inside the recipe's folder"),
        ({"private_key": "k.pem"}, "belong together"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options, words):
    (problem,) = STEP.check(BundleOptions(**{"name": "good", **options}))
    assert words in problem


def test_good_options_pass():
    told = {"name": "Windows-1.0_x", "block_device_mappings": {"ami": "sda1", "ephemeral0": "/dev/sdb"}}
    assert STEP.check(BundleOptions(**told, kernel_id="aki-0123456789abcdef0")) == []
