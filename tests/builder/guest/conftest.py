"""Small real disks, made by the real tools without root mounts, and one appliance that looks at all of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder import proc
from builder.guest.overlay import Layer, create
from builder.guest.session import Session

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """One partition to make: its filesystem with a label and the files in it (path -> bytes, or a symlink's target).

    A path that ends in a slash is a directory.
    """

    type: str
    size: int  # MiB
    label: str = ""
    files: dict[str, bytes | str] | None = None
    name: str = ""  # in the GPT
    uuid: str = ""
    code: str = ""  # the partition's type: sgdisk's word in a GPT, a hexadecimal byte in an MBR
    block: int = 0  # bytes of a block of ext2 to ext4; 4096 for a disk with such sectors


class Disks:
    """Makes disk images in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def filesystem(self, path: Path, part: Part) -> Path:
        """Make an image of one bare filesystem."""
        tree = path.with_name(f"{path.name}.tree")
        tree.mkdir()
        for name, content in (part.files or {}).items():
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                file.mkdir(exist_ok=True)
                continue
            file.symlink_to(content) if isinstance(content, str) else file.write_bytes(content)
        with open(path, "xb") as image:
            image.truncate(part.size * MIB)
        proc.run(self._mkfs(part, path, tree))
        if part.type == "vfat" and part.files:
            for top in tree.iterdir():
                proc.run(["mcopy", "-i", path, "-s", top, "::/"])
        return path

    def _mkfs(self, part: Part, path: Path, tree: Path) -> list[str | Path]:
        label = ["-L", part.label] if part.label else []
        uuid = ["-U", part.uuid] if part.uuid else []
        match part.type:
            case "ext2" | "ext3" | "ext4":
                block = ["-b", str(part.block)] if part.block else []
                return [f"mkfs.{part.type}", "-q", "-F", *block, *label, *uuid, "-d", tree, path]
            case "xfs":
                return ["mkfs.xfs", "-q", *label, "-p", self._prototype(tree), path]
            case "btrfs":
                return ["mkfs.btrfs", "-q", *label, *uuid, "--rootdir", tree, path]
            case "vfat":
                return ["mkfs.vfat", *(["-n", part.label] if part.label else []), path]
            case "swap":
                path.chmod(0o600)
                return ["mkswap", *label, *uuid, path]
        raise ValueError(part.type)

    def _prototype(self, tree: Path) -> Path:
        lines = ["/nothing", "0 0", "d--755 0 0"]

        def add(directory: Path) -> None:
            for path in sorted(directory.iterdir()):
                if path.is_dir():
                    lines.append(f"{path.name} d--755 0 0")
                    add(path)
                    lines.append("$")
                else:
                    lines.append(f"{path.name} ---644 0 0 {path}")

        add(tree)
        lines.append("$")
        prototype = tree.with_name(f"{tree.name}.proto")
        prototype.write_text("\n".join(lines) + "\n")
        return prototype

    def gpt(self, name: str, parts: list[Part]) -> Path:
        """Make a GPT disk; partitions follow each other from 1 MiB."""
        disk = self.directory / name
        with open(disk, "xb") as image:
            image.truncate((sum(part.size for part in parts) + 2) * MIB)
        words: list[str | Path] = ["sgdisk", "-a", "1"]
        start = MIB // 512
        starts = []
        for number, part in enumerate(parts, 1):
            starts.append(start)
            size = part.size * MIB // 512
            words += ["-n", f"{number}:{start}:{start + size - 1}"]
            words += ["-c", f"{number}:{part.name}"] if part.name else []
            words += ["-t", f"{number}:{part.code}"] if part.code else []
            start += size
        proc.run([*words, disk])
        self.put(disk, parts, starts)
        return disk

    def mbr(self, name: str, parts: list[Part], logical: list[Part] | None = None) -> Path:
        """Make an MBR disk: primary partitions from 1 MiB, then logical ones in an extended one."""
        disk = self.directory / name
        everything = [*parts, *(logical or [])]
        lines, starts, start = ["label: dos"], [], MIB // 512
        for number, part in enumerate(everything, 1):
            if number == len(parts) + 1:
                lines.append(f"start={start}, type=5")
            if number > len(parts):
                start += 2048  # room for the boot record of each logical partition
            starts.append(start)
            size = part.size * MIB // 512
            lines.append(f"start={start}, size={size}, type={part.code or '83'}")
            start += size
        with open(disk, "xb") as image:
            image.truncate(start * 512 + MIB)
        proc.run(["sfdisk", "-q", disk], stdin="\n".join(lines).encode())
        self.put(disk, everything, starts)
        return disk

    def native(self, name: str, parts: list[Part]) -> Path:
        """Make a GPT disk with sectors of 4096 bytes; partitions follow each other from 1 MiB."""
        disk = self.directory / name
        words, starts, start = ["g"], [], MIB // 4096
        with open(disk, "xb") as image:
            image.truncate((sum(part.size for part in parts) + 2) * MIB)
        for number, part in enumerate(parts, 1):
            starts.append(start * 8)
            end = start + part.size * MIB // 4096
            words += ["n", str(number), str(start), str(end - 1)]
            start = end
        proc.run(["fdisk", "-b", "4096", "-w", "never", "-W", "never", disk], stdin="\n".join([*words, "w\n"]).encode())
        self.put(disk, parts, starts)
        return disk

    def put(self, disk: Path, parts: list[Part], starts: list[int]) -> None:
        """Make the filesystems and put them at those sectors."""
        for number, (part, start) in enumerate(zip(parts, starts, strict=True), 1):
            image = self.filesystem(disk.with_name(f"{disk.name}.p{number}"), part)
            self.copy(image, disk, start)
            image.unlink()

    def copy(self, image: Path, disk: Path, start: int) -> None:
        """Copy what is not zero of a filesystem image to a sector of a disk."""
        words = ["dd", f"if={image}", f"of={disk}", "bs=512", f"seek={start}", "conv=notrunc,sparse", "status=none"]
        proc.run(words)

    def run(self, *words: str | Path) -> str:
        """Run a tool on a disk and return what it says."""
        return proc.run(words).stdout.decode()

    def overlay(self, base: Path) -> Layer:
        """Put a copy-on-write layer over a raw disk."""
        layer = Layer(path=base, format="raw")
        return create(layer, base.with_suffix(".qcow2"), backing_name=base.name)


@pytest.fixture(scope="module")
def module_disks(tmp_path_factory) -> Disks:
    """Disks for a whole module, where one launch serves one image."""
    return Disks(tmp_path_factory.mktemp("disks"))


@pytest.fixture(scope="session")
def part() -> type[Part]:
    return Part


@pytest.fixture
def disks(tmp_path) -> Disks:
    return Disks(tmp_path)


@pytest.fixture
def prepare(appliance, disks) -> Callable[..., None]:
    """Change a raw disk by appliance calls, for what no tool of the host makes without root."""

    def change(disk: Path, *calls: tuple) -> None:
        layer = disks.overlay(disk)
        appliance.attach(layer)
        try:
            for name, *arguments in calls:
                appliance.call(name, *arguments)
        finally:
            appliance.detach()
        flat = disk.with_suffix(".flat")
        proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer.path, flat])
        flat.rename(disk)
        layer.path.unlink()

    return change


class Lender:
    """Lends one appliance to module after module, and launches another only after one that left it in disorder."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def lend(self) -> Session:
        """Return an appliance with nothing plugged in; it has the network, for commands that ask for it."""
        self._session = self._session or Session(network=True)
        return self._session

    def take_back(self) -> None:
        """End the appliance that still has an image, or does not answer: the next module gets another."""
        assert self._session
        if self._session.ended or self._session.layer is not None:
            self.close()
        else:
            self._session.calls.clear()

    def close(self) -> None:
        """End it."""
        if self._session:
            self._session.close()
        self._session = None


@pytest.fixture(scope="session")
def lender() -> Iterator[Lender]:
    lender = Lender()
    yield lender
    lender.close()


@pytest.fixture(scope="module")
def appliance(lender) -> Iterator[Session]:
    """One launch for all layouts of all modules; images are plugged in and out."""
    yield lender.lend()
    lender.take_back()
