"""A bundle of an image file, where an earlier one was killed."""

from __future__ import annotations

from builder.bundle.bundle_file import Owner, Said, bundle_file
from builder.bundle.records import Shape


def test_what_a_killed_bundling_left_is_removed_by_the_next(cloud, tmp_path):
    left = tmp_path / ".emi-bundle-left"
    left.mkdir()
    (left / "x.part.00").write_bytes(b"?")
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"kernel")
    owner = Owner(account="123456789012", cloud=cloud.certificate)
    path, says = bundle_file(image, tmp_path, Shape(name="x"), owner, Said(type="kernel"))
    assert set(tmp_path.iterdir()) == {image, path, *(tmp_path / part.filename for part in says.parts)}
