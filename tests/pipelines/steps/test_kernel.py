import pytest
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest.edits import CopyOut
from builder.guest.facts import KnownFacts
from pipelines.steps.kernel import Kernel, KernelOptions

STEP = Kernel()
DEBIAN = KnownFacts(
    files={
        "/boot/vmlinuz-6.1.0-9-amd64": b"nine",
        "/boot/initrd.img-6.1.0-9-amd64": b"nine's",
        "/boot/vmlinuz-6.1.0-10-amd64": b"ten",
        "/boot/initrd.img-6.1.0-10-amd64": b"ten's",
        "/boot/vmlinuz-6.1.0-11-amd64": b"",
    }
)


@pytest.mark.parametrize(
    ("version", "kernel", "told"),
    [
        (None, "6.1.0-10-amd64", "6.1.0-10-amd64, the newest of 2; /boot/vmlinuz-6.1.0-11-amd64 is empty or leads"),
        ("6.1.0-9-amd64", "6.1.0-9-amd64", "(6.1.0-9-amd64; "),
        ("6.1.0-9*", "6.1.0-9-amd64", "(6.1.0-9-amd64; "),
    ],
)
def test_kernel_and_initramfs_are_copied_out_and_nothing_else(version, kernel, told):
    first, second = STEP.edits(KernelOptions(version=version), DEBIAN, {})
    assert isinstance(first, CopyOut)
    assert (first.name, first.path) == ("kernel", f"/boot/vmlinuz-{kernel}")
    assert told in str(first)
    assert second == CopyOut(path=f"/boot/initrd.img-{kernel}", name="ramdisk")


def test_a_built_in_initramfs_is_told():
    (only,) = STEP.edits(KernelOptions(), KnownFacts(files={"/boot/flatcar/vmlinuz-a": b"x"}), {})
    assert only.name == "kernel"
    assert "its initramfs is built in: there is no ramdisk" in str(only)


def test_a_version_that_is_not_there_is_an_error():
    with pytest.raises(GuestError, match=r"no kernel of version 5\*; it has 6\.1\.0-9-amd64, 6\.1\.0-10-amd64"):
        STEP.edits(KernelOptions(version="5*"), DEBIAN, {})


@pytest.mark.parametrize("options", [{"version": ""}, {"version": 6.1}, {"kernel": "x"}])
def test_options_are_closed(options):
    with pytest.raises(ValidationError):
        KernelOptions(**options)
