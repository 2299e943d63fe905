"""Instance-store bundles: an image as an encrypted stream in parts, and the manifest that describes them."""
