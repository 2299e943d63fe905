"""The demo's image is a machine: it boots by BIOS and by UEFI to a login prompt, and behaves once somebody logs in."""

from __future__ import annotations

import pytest

LOGIN = r"^\S+ login: $"
PATIENCE = 300  # seconds; a boot takes 25 to 60 under TCG on an idle machine


def test_by_bios_without_any_cloud(demo, boot):
    console = boot(demo.disk, "bios")
    console.expect("SeaBIOS", within=60)
    console.expect(LOGIN, within=PATIENCE)
    assert "Command line: BOOT_IMAGE=/boot/vmlinuz-" in console.log
    assert " root=LABEL=rootfs ro console=tty0 console=ttyS0,115200\n" in console.log
    assert "efi: EFI v" not in console.log
    assert "[FAILED]" not in console.log
    assert "[DEPEND]" not in console.log


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_by_uefi_and_at_home(demo, boot):
    console = boot(demo.disk, "uefi", grown_to="6G", cloud_data=True)
    console.expect("efi: EFI v", within=PATIENCE)
    console.expect(LOGIN, within=PATIENCE)
    console.expect(r"Cloud-init v\. .* finished", within=PATIENCE)
    console.log_in("debian", "insecure", within=60)
    for command, wanted in (
        ("test -d /sys/firmware/efi && echo yes", "yes"),
        ("systemctl list-units --failed --plain --no-legend", ""),
        ("findmnt --noheadings --output SOURCE,FSTYPE,LABEL /", "/dev/vda1 ext4   rootfs"),
        ("findmnt --noheadings --output FSTYPE,LABEL /boot/efi", "vfat   UEFI"),
        ("df --output=size -BG / | tail -1", "6G"),
        ("cat /etc/hostname", "booted"),
        ("systemctl is-active ssh", "active"),
        ("test -s /etc/ssh/ssh_host_ed25519_key && echo yes", "yes"),
        ("ip -4 -o address show scope global | grep -o 10.0.2.15", "10.0.2.15"),
        ("grep -c . /etc/machine-id", "1"),
        # What upgrades of GRUB and of the kernel do: both loaders are installed anew, the menu keeps its console.
        ("sh /var/lib/dpkg/info/grub-cloud-amd64.postinst triggered x 2>&1 | grep -c 'No error reported'", "2"),
        ("update-grub 2>/dev/null; grep -q 'console=ttyS0,115200' /boot/grub/grub.cfg && echo yes", "yes"),
        ("dpkg --audit", ""),
    ):  # fmt: skip
        assert console.run(command, within=PATIENCE) == wanted, command
