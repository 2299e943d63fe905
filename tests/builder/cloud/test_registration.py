"""What a cloud would refuse of a registration is said before anything is sent."""

from __future__ import annotations

import pytest

from builder.cloud import aws, eucalyptus
from builder.cloud.api import BlockDevice, ImageSpec
from builder.cloud.registration import Manifest, require
from builder.cloud.releases import Release
from builder.errors import UsageError

AWS = aws.CAPABILITIES
EUCALYPTUS = eucalyptus.capabilities(Release.parse("4.4.2"))
MACHINE = {"name": "x.manifest.xml", "type": "machine", "architecture": "x86_64"}
EPHEMERAL = BlockDevice(device_name="/dev/sdb", virtual_name="ephemeral0")
KERNELS = {"kernel_id": "eki-12345678", "ramdisk_id": "eri-12345678"}


def spec(**told) -> ImageSpec:
    """An image in the instance store."""
    return ImageSpec(**{"name": "good", "image_location": "b/x.manifest.xml", "root_device_name": None, **told})


@pytest.mark.parametrize(
    ("able", "told", "says", "words"),
    [
        (EUCALYPTUS, {"name": "no spaces"}, {}, "3 to 128 letters, digits and"),
        (AWS, {"name": "tilde~"}, {}, "an image's name may have"),
        (EUCALYPTUS, {"architecture": "arm64"}, {"architecture": "arm64"}, "no machines of the architecture arm64"),
        (AWS, {"architecture": "i386"}, {}, "its architecture is i386, but the bundle was made for x86_64"),
        (EUCALYPTUS, {"boot_mode": "uefi"}, {}, "takes no BootMode"),
        (EUCALYPTUS, {"tpm_support": "v2.0"}, {}, "takes no TpmSupport"),
        (AWS, {"platform": "windows"}, {}, "takes no Platform"),
        (EUCALYPTUS, {"block_devices": [BlockDevice(device_name="/dev/xvdb", virtual_name="swap")]}, {}, "'/dev/xvdb'"),
        (EUCALYPTUS, {"block_devices": [BlockDevice(device_name="/dev/sdb", volume_size=1)]}, {}, "no EBS volumes"),
        (AWS, {"block_devices": [EPHEMERAL, EPHEMERAL]}, {}, "/dev/sdb is used twice"),
        (EUCALYPTUS, {"virtualization_type": "paravirtual"}, {}, "`kernel` or `kernel_id`"),
        (EUCALYPTUS, {"virtualization_type": "paravirtual"}, {}, "`ramdisk` or `ramdisk_id`"),
        (AWS, {}, {"type": "kernel"}, "AWS lets nobody but itself"),
        (EUCALYPTUS, {"block_devices": [EPHEMERAL]}, {"type": "ramdisk"}, "a ramdisk has no devices"),
        (AWS, {}, {"kernel": True}, "`virtualization: paravirtual`"),
    ],
)
def test_what_would_be_refused_is_said(able, told, says, words):
    with pytest.raises(UsageError, match="the cloud would refuse the image") as caught:
        require(spec(**told), able, Manifest(**{**MACHINE, **says}))
    assert words in caught.value.message


def test_more_than_one_ephemeral_volume_is_too_many_for_eucalyptus_only():
    two = [EPHEMERAL, BlockDevice(device_name="/dev/sdc", virtual_name="ephemeral1")]
    require(spec(block_devices=two), AWS, Manifest(**MACHINE))
    with pytest.raises(UsageError, match="at most 1 ephemeral volume here, not 2"):
        require(spec(block_devices=two), EUCALYPTUS, Manifest(**MACHINE))


@pytest.mark.parametrize(
    ("able", "told", "says"),
    [
        (AWS, {}, {}),
        (AWS, {"virtualization_type": "paravirtual"}, {}),
        (AWS, {"block_devices": [BlockDevice(device_name="/dev/sdf", volume_size=1)]}, {}),
        (EUCALYPTUS, {"platform": "windows", "block_devices": [EPHEMERAL]}, {}),
        (EUCALYPTUS, {"virtualization_type": "paravirtual", **KERNELS}, {}),
        (EUCALYPTUS, {"virtualization_type": "paravirtual"}, {"kernel": True, "ramdisk": True}),
        (EUCALYPTUS, {"virtualization_type": None}, {"type": "kernel"}),
    ],
)
def test_what_the_cloud_takes_passes(able, told, says):
    require(spec(**told), able, Manifest(**{**MACHINE, **says}))


def test_of_a_manifest_from_elsewhere_only_what_is_known_is_said():
    require(spec(virtualization_type="paravirtual"), EUCALYPTUS, None)
    with pytest.raises(UsageError, match="no machines"):
        require(spec(architecture="ppc64"), EUCALYPTUS, None)
