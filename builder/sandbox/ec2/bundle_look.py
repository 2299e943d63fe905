"""Opening a bundle after its registration, as a cloud does when it launches the image: key, parts, tar.

Neither cloud looks at more than the manifest when an image is registered (Eucalyptus' ImageManager; of EC2 nothing else
is documented). What they would find out later, at the first launch, an image tells here by its state: it is `pending`
while the work goes on, then available, or `failed` with the reason. The record orders the work, so that a restart
begins it anew.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.manifests import Facts, Part, Place, Unreadable, fetch, place, read
from builder.sandbox.records import Image
from builder.sandbox.sparse import Report

log = logging.getLogger(__name__)
_PIECE = 1 << 20
_AROUND = 1 << 20  # bytes of tar around an image at most: headers, the map of a sparse member, padding
_HEX = re.compile("[0-9a-fA-F]{32}")


class Unfit(Exception):
    """The cloud could not launch this; the message is the image's StateReason."""


def resume(cloud: Cloud) -> None:
    """Begin the work on all images whose bundles nobody has opened yet; S3 must be there."""
    for image in list(cloud.state.all(Image).values()):
        begin(cloud, image)


def begin(cloud: Cloud, image: Image) -> None:
    """Begin the work that a committed image orders, in the background; fine when it orders none."""
    if image.unopened and not image.deregistered:
        cloud.jobs.begin(image.image_id, lambda report: _perform(cloud, image, report))


def _perform(cloud: Cloud, image: Image, report: Report) -> None:
    failure = None
    try:
        _look(cloud, image, report)
    except (Unfit, Unreadable) as error:
        failure = f"The bundle {image.image_location} cannot be launched: {error}."
    except OSError as error:
        log.exception("%s", image.image_id)
        failure = str(error)
    with cloud.state.lock:
        current = cloud.state.all(Image)[image.image_id]  # its tags may have changed meanwhile
        cloud.state.put(replace(current, unopened=False, failure=current.failure or failure))


def _look(cloud: Cloud, image: Image, report: Report) -> None:
    for _ in opened(cloud, image, report):
        pass


def opened(cloud: Cloud, image: Image, report: Report) -> Iterator[bytes]:
    """Yield the tar that an image's bundle holds; what came is good only once all of it has come.

    Raises Unfit and Unreadable, the last of them at the very end; OSError.
    """
    where = place(image.image_location or "")
    assert where is not None
    facts = read(fetch(cloud, where))
    key, iv = (_secret(cloud, text, name) for text, name in ((facts.encrypted_key, "key"), (facts.encrypted_iv, "iv")))
    reader = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadding, gunzip, tar = PKCS7(128).unpadder(), _Gunzip(), _Tar(facts.size + _AROUND)
    try:
        for piece in _encrypted(cloud, where, facts, report):
            yield from map(tar.seen, gunzip.feed(unpadding.update(reader.update(piece))))
        yield from map(tar.seen, gunzip.feed(unpadding.update(reader.finalize()) + unpadding.finalize()))
    except (ValueError, zlib.error) as error:
        raise Unfit(f"its parts do not decrypt to a gzip stream: {error}") from error
    if not gunzip.eof:
        raise Unfit("its gzip stream is cut off")
    if tar.sha1() != (facts.tar_sha1 or "").lower():
        raise Unfit(f"the SHA-1 of its tar is {tar.sha1()}, not {facts.tar_sha1}")


class _Tar:
    """What comes out of a bundle, digested; `limit` is how many bytes may come."""

    def __init__(self, limit: int) -> None:
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._left = limit

    def seen(self, data: bytes) -> bytes:
        """Take the next bytes and return them. Raises Unfit beyond the limit."""
        self._left -= len(data)
        if self._left < 0:
            raise Unfit("its gzip stream expands to more than an image of the stated size")
        self._digest.update(data)
        return data

    def sha1(self) -> str:
        """Return the digest of all that came."""
        return self._digest.hexdigest()


class _Gunzip:
    """A gzip stream, whose members may be concatenated."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the last member has ended."""
        return self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the stream's next bytes and yield what comes out, in pieces. Raises zlib.error."""
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            full = True
            while not self._member.eof and (data or full):  # what filled the piece may not have been all that is ready
                out = self._member.decompress(data, _PIECE)
                yield out
                data, full = self._member.unconsumed_tail, len(out) == _PIECE
            data = self._member.unused_data


def _secret(cloud: Cloud, text: str | None, name: str) -> bytes:
    """Return the content key or vector that is encrypted for the cloud: 32 characters of hex."""
    key = serialization.load_pem_private_key(cloud.bundling.cloud().key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    try:
        # With another's key this may succeed and give garbage: only 32 characters of hex are a key.
        plain = key.decrypt(bytes.fromhex(text or ""), padding.PKCS1v15()).decode("latin-1")
    except ValueError:
        plain = ""
    if not _HEX.fullmatch(plain):
        raise Unfit(f"ec2_encrypted_{name} was not made with this cloud's certificate")
    return bytes.fromhex(plain)


def _encrypted(cloud: Cloud, where: Place, facts: Facts, report: Report) -> Iterator[bytes]:
    """Yield the bytes of all parts in their order, each part held against its digest before the next one."""
    at_root = cloud.personality.before(4, 4, 2)  # EUCA-13409
    done = 0
    for part in facts.parts:
        for piece in _part(cloud, where.bucket, where.part(part.filename, at_root=at_root), part):
            done += len(piece)
            yield piece
        report(done, max(facts.bundled_size, done))
    if done != facts.bundled_size:
        raise Unfit(f"its parts have {done} bytes, bundled_size says {facts.bundled_size}")


def _part(cloud: Cloud, bucket: str, key: str, part: Part) -> Iterator[bytes]:
    assert cloud.objects is not None
    if not cloud.objects.bundle_may_be_read(bucket, key):
        raise Unfit(f"part {part.index} is not at {bucket}/{key}, or not readable for aws-exec-read")
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        with cloud.objects.opened(bucket, key) as found:
            for piece in found.pieces(_PIECE):
                digest.update(piece)
        if digest.hexdigest() != part.sha1:
            raise Unfit(f"the SHA-1 of part {part.index} is {digest.hexdigest()}, not {part.sha1}")
        with cloud.objects.opened(bucket, key) as found:
            yield from found.pieces(_PIECE)
    except FileNotFoundError:
        raise Unfit(f"part {part.index} at {bucket}/{key} is gone") from None
