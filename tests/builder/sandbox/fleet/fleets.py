"""What all tests of sandboxes with machines do: images to launch, and a patient look at what becomes of it."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from builder.digest import BLOCK

sys.path.insert(0, str(Path(__file__).parents[1] / "machines"))  # guests.py
from guests import boot_sector

ROOT = "/dev/xvda"
ZONE = "us-east-1a"
_PATIENCE = 300  # seconds: a busy machine is slow
_NUMBERS = itertools.count()


def until(condition, patience=_PATIENCE):
    """Return what the condition gives, once it gives something; fail when it does not for very long."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.05)
    return found


class Account:
    """An account of a sandbox with machines, and what its tests do with it."""

    def __init__(self, running):
        self.running = running
        self.ec2 = running.client("ec2")

    def again(self):
        """Speak to the sandbox's next server."""
        self.running.restart()
        self.ec2 = self.running.client("ec2")

    def image(self, message=b"hello\n", then="halt"):
        """Register an image whose guest says the message on its console, and then does that."""
        first = boot_sector(message, then).ljust(BLOCK, b"\0")
        devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": self.running.raw().snapshot({0: first})}}]
        wish = {"Name": f"guest {next(_NUMBERS)}", "RootDeviceName": ROOT, "BlockDeviceMappings": devices}
        image_id = self.ec2.register_image(Architecture="x86_64", VirtualizationType="hvm", **wish)["ImageId"]
        self.ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 0.05})
        return image_id

    def run(self, image_id, **wish):
        """Launch an instance and return its id."""
        given = {"ImageId": image_id, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **wish}
        return self.ec2.run_instances(**given)["Instances"][0]["InstanceId"]

    def described(self, instance_id):
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return reservation["Instances"][0]

    def reaches(self, instance_id, state):
        """Return the instance once it is in that state."""
        until(lambda: self.described(instance_id)["State"]["Name"] == state)
        return self.described(instance_id)

    def says(self, instance_id, words, times=1):
        """Return once the instance has said the words that often."""
        until(lambda: self.ec2.get_console_output(InstanceId=instance_id).get("Output", "").count(words) >= times)

    def volume(self, **wish):
        """Make a volume and return its id when it is available."""
        given = {"AvailabilityZone": ZONE, **({} if "SnapshotId" in wish else {"Size": 1}), **wish}
        volume_id = self.ec2.create_volume(**given)["VolumeId"]
        until(lambda: self.volume_of(volume_id)["State"] == "available")
        return volume_id

    def volume_of(self, volume_id):
        return self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]

    def attachment(self, volume_id):
        """Return the state of a volume's attachment, or None."""
        found = self.volume_of(volume_id)["Attachments"]
        return found[0]["State"] if found else None
