"""What real clouds did to people: wrong bytes (1 to 5), boot flags (22, 23), names (24, 25), quotas and permissions."""

from __future__ import annotations

import lzma

import pytest

FURTHER = """
name: faults
vars:
  n: {type: int, default: 0}
  disk: {type: string}
  tpm: {type: string, default: v2.0}
steps:
  - download: {url: "file://{disk}"}
  - snapshot: {description: "faults {n}"}
  - register: {name: "faults-{n}", boot_mode: legacy-bios, tpm: "{tpm}"}
"""


def emi_scenario(number: int, words: str):
    """Mark a test as the scenario of that number."""
    return pytest.mark.behaviour("Faults, what hurts users", f"{number}", words)


@pytest.fixture
def publish(subject, tmp_path):
    """Run the recipe with bytes of our own in place of the disk; return how it ended and the calls that were made."""

    def run(data: bytes):
        disk = tmp_path / "other.raw"
        disk.write_bytes(data)
        position = subject.position()
        done = subject.emi("run", subject.recipe, "--var", f"disk={disk}", "--var", "n=1")
        return done, subject.effects(position)

    return run


@emi_scenario(1, "a compressed file is not published as if it were a disk: refused before anything is begun")
def test_01_a_compressed_file_is_no_disk(publish):
    done, made = publish(lzma.compress(bytes(1 << 20)))
    assert done.code == 3, done.err
    assert "xz" in done.err
    assert made["StartSnapshot"] == 0


@emi_scenario(2, "a VHD is not written as raw: refused before anything is begun")
def test_02_a_vhd_is_no_raw_disk(publish):
    footer = b"conectix" + bytes(504)
    done, made = publish(footer + bytes(1 << 20) + footer)
    assert done.code == 3, done.err
    assert "vhd" in done.err.lower() or "vpc" in done.err.lower()
    assert made["StartSnapshot"] == 0


@emi_scenario(
    3, "bytes that are wrong in the cloud, with checksums that fit them, are found before an image is registered"
)
def test_03_an_upload_is_verified_byte_by_byte(subject):
    subject.put({"effect": "corrupt", "matching": True, "call": "GetSnapshotBlock", "after": 5, "first": 1})
    position = subject.position()
    done = subject.run(3)
    assert done.code == 7
    assert "does not hold what was sent" in done.err
    assert subject.effects(position)["RegisterImage"] == 0
    assert subject.snapshots(3) == []
    assert subject.resume().code == 0
    subject.has_one_of_each(3)


@emi_scenario(3, "a block that is damaged on its way back is read again")
def test_03_a_block_damaged_on_the_way_is_read_again(subject):
    subject.put({"effect": "corrupt", "call": "GetSnapshotBlock", "every": 10})
    assert subject.run(30, **subject.patient).code == 0
    subject.has_one_of_each(30)


@emi_scenario(22, "a combination of TPM and boot mode that EC2 rejects is refused before the first call")
def test_22_tpm_without_uefi(subject, tmp_path):
    recipe = tmp_path / "tpm.yaml"
    recipe.write_text(FURTHER)
    position = subject.position()
    done = subject.emi("run", recipe, *subject.words(22))
    assert done.code == 2
    assert "`tpm: v2.0` needs `boot_mode: uefi`" in done.err
    assert subject.calls(position) == []


@emi_scenario(23, "the image demands IMDSv2 from its first moment")
def test_23_imdsv2_is_set_on_the_output(subject):
    assert subject.run(23).code == 0
    assert subject.images(23)[0]["ImdsSupport"] == "v2.0"


@emi_scenario(24, "a new image that no describe shows, and whose answer was lost, is adopted: not a duplicate name")
def test_24_the_new_image_is_not_found_and_its_name_is_taken(subject):
    lost = {"effect": "lost", "call": "RegisterImage", "first": 1}
    subject.put(lost, {"effect": "lag", "seconds": 3, "resource": "ami-*", "call": "Describe*"})
    position = subject.position()
    done = subject.run(24, **subject.patient)
    assert done.code == 0, done.err
    codes = [call.error for call in subject.calls(position) if call.action == "RegisterImage"]
    assert codes == ["", "InvalidAMIName.Duplicate"]
    assert subject.effects(position)["CreateTags"] == 0  # tags are set in the call itself
    assert {"emi:claim", "emi:recipe"} <= {tag["Key"] for tag in subject.images(24)[0]["Tags"]}
    subject.has_one_of_each(24)


@emi_scenario(25, "a name that is taken is found before anything is uploaded")
def test_25_a_taken_name_is_found_first(subject):
    (other,) = subject.images(0)
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": subject.snapshots(0)[0]["SnapshotId"]}}]
    taken = subject.ec2().register_image(
        Name="faults-25", RootDeviceName="/dev/xvda", BlockDeviceMappings=mapping, VirtualizationType="hvm"
    )["ImageId"]
    position = subject.position()
    done = subject.run(25)
    assert done.code == 7
    assert taken in done.err
    assert other["ImageId"] not in done.err
    assert subject.effects(position)["StartSnapshot"] == 0


@emi_scenario(26, "a quota at registering is not retried; the snapshot is kept, and resuming uploads nothing again")
def test_26_the_image_quota(subject):
    subject.put({"effect": "quota", "call": "RegisterImage"})
    position = subject.position()
    done = subject.run(26)
    assert done.code == 7
    assert "(ResourceLimitExceeded)" in done.err
    assert "Ask AWS Service Quotas for more, then `emi resume`" in done.err
    assert [call.action for call in subject.calls(position) if call.fault] == ["RegisterImage"]
    subject.clear()
    position = subject.position()
    assert subject.resume().code == 0
    assert subject.effects(position)["PutSnapshotBlock"] == 0
    subject.has_one_of_each(26)


@emi_scenario(28, "a tag policy's refusal is told as it is; tags are part of the calls that create")
def test_28_a_tag_policy(subject):
    words = {"code": "TagPolicyViolation", "message": "The tag policy does not allow the specified value for 'Team'."}
    subject.put({"effect": "refuse", "call": "RegisterImage", **words})
    done = subject.run(28)
    assert done.code == 7
    assert "does not allow the specified value for 'Team'. (TagPolicyViolation)" in done.err
    (snapshot,) = subject.snapshots(28)
    assert {"emi:claim", "emi:recipe"} <= {tag["Key"] for tag in snapshot["Tags"]}


@pytest.mark.parametrize(
    "call", ["ebs:StartSnapshot", "ebs:CompleteSnapshot", "ec2:RegisterImage", "ec2:DescribeImages"]
)
@emi_scenario(30, "a missing permission is named as IAM names it, whichever service refuses")
def test_30_the_missing_permission_is_named(subject, call):
    number, (service, action) = 300 + len(call), call.split(":")
    subject.put({"effect": "denied", "service": service, "call": action})
    done = subject.run(number)
    assert done.code == 7
    assert f"Grant {call} to these credentials, then `emi resume`." in done.err
