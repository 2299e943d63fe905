"""A bundle into a bucket: each part once, the manifest last, and never over what another put there."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import subprocess  # noqa: TID251 - hosts that stop between looking and writing
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builder import pool
from builder.cloud import bundles
from builder.cloud.api import Call
from builder.cloud.bundles import Delivery, Destination, Item, Marks
from builder.cloud.s3 import S3
from builder.cloud.settings import Settings
from builder.errors import CloudConflict, CloudDenied, CloudFailed
from builder.sandbox.faults import client

ACL = "aws-exec-read"
EXEC = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"  # whom that ACL lets read


@dataclass
class Bench:
    """A bucket of its own, files of a bundle, and a client whose calls are counted and may be preceded by others."""

    settings: Settings
    place: Path
    bucket: str = field(default_factory=lambda: f"emi-{secrets.token_hex(6)}")
    calls: pool.Tally = field(default_factory=pool.Tally)
    before: dict[tuple[str, int], Callable[[], object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.s3 = S3(self.settings, on_call=self._notice)
        self.other = S3(self.settings)  # somebody else, or our eyes

    def _notice(self, call: Call) -> None:
        self.before.get((call.action, self.calls.count(call.action)), lambda: None)()

    def item(self, name: str, data: bytes, *, algorithm: str = "sha1") -> Item:
        path = self.place / secrets.token_hex(8)
        path.write_bytes(data)
        digest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
        return Item(name=name, path=path, size=len(data), digest=f"{algorithm}:{digest}")

    def parts(self, count: int, seed: int = 1) -> list[Item]:
        numbers = random.Random(seed)
        return [self.item(f"x.part.{index:02}", numbers.randbytes(1000 + index)) for index in range(count)]

    def manifest(self, text: bytes = b"<manifest/>") -> Item:
        return self.item("x.manifest.xml", text, algorithm="sha256")

    def to(self, **changes: Any) -> Destination:
        return replace(Destination(bucket=self.bucket, prefix="images/", manifest="x.manifest.xml"), **changes)

    def delivery(
        self,
        *,
        claim: str = "mine",
        recipe: str = "ours",
        run: str = "run-1",
        is_over: Callable[[str], bool] = lambda _: False,
        **changes: Any,
    ) -> Delivery:
        marks = Marks(claim=claim, recipe=recipe, run=run, is_over=is_over)
        made = Delivery(self.s3, self.to(**changes), marks, acl=ACL)
        made.begin(None)
        return made

    def put(self, key: str, data: bytes = b"foreign", **metadata: str) -> None:
        self.other.put(self.bucket, key, data, metadata=metadata)

    def keys(self) -> list[str]:
        return [found.key for found in self.other.objects(self.bucket)]


@pytest.fixture
def bench(sandbox, tmp_path) -> Bench:
    return Bench(sandbox.settings, tmp_path)


@pytest.mark.parametrize(("root", "where"), [(False, "images/"), (True, "")])
def test_parts_go_first_the_manifest_last_and_each_says_whose_it_is(bench, root, where):
    parts, manifest, delivery = bench.parts(20), bench.manifest(), bench.delivery(root=root)
    assert delivery.send_all(parts) == 20
    assert bench.keys() == [f"{where}{part.name}" for part in parts]
    delivery.commit(manifest, {"mine"})
    delivery.check(parts)
    assert bench.calls == {
        "HeadBucket": 1, "CreateBucket": 1, "ListObjects": 2, "PutObject": 21, "HeadObject": 1
    }  # fmt: skip
    for name, digest in ((f"{where}x.part.00", parts[0].digest), ("images/x.manifest.xml", manifest.digest)):
        found = bench.other.head(bench.bucket, name)
        assert found.metadata == {
            "emi-digest": digest, "emi-acl": ACL, "emi-claim": "mine", "emi-recipe": "ours", "emi-run": "run-1",
            "emi-manifest": "images/x.manifest.xml",
        }  # fmt: skip
        granted = bench.other.call("GetObjectAcl", Bucket=bench.bucket, Key=name)["Grants"]
        assert {(one["Permission"], one["Grantee"]["ID"]) for one in granted} >= {("READ", EXEC)}
    assert list(bench.other.uploads(bench.bucket)) == []


def test_what_is_there_is_not_sent_again_and_gets_its_acl(bench):
    parts = bench.parts(5)
    bench.delivery().send_all(parts[:2])
    bench.put(f"images/{parts[2].name}", parts[2].path.read_bytes(), **{"emi-digest": parts[2].digest})
    bench.calls.clear()
    assert bench.delivery().send_all(parts) == 2
    assert bench.calls == {"HeadBucket": 1, "ListObjects": 1, "HeadObject": 3, "PutObjectAcl": 1, "PutObject": 2}


def test_an_empty_part_of_another_tools_bundle_travels_too(bench):
    parts = [*bench.parts(1), bench.item("x.part.01", b"")]
    delivery = bench.delivery()
    assert delivery.send_all(parts) == 2
    delivery.check(parts)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({}, "which something else than emi put there"),
        ({"emi-recipe": "theirs", "emi-run": "r", "emi-manifest": "images/x.manifest.xml"}, "recipe theirs put there"),
        ({"emi-recipe": "ours", "emi-run": "run-1", "emi-manifest": "images/y.manifest.xml"}, "recipe ours put there"),
        ({"emi-recipe": "ours", "emi-run": "r", "emi-manifest": "images/x.manifest.xml"}, "recipe ours put there"),
        ({"emi-recipe": "ours", "emi-manifest": "images/x.manifest.xml"}, "recipe ours put there"),
    ],
)
def test_a_part_of_another_is_never_replaced(bench, marks, words):
    delivery = bench.delivery()
    bench.put("images/x.part.00", **marks)
    with pytest.raises(CloudConflict, match=words):
        delivery.send_all(bench.parts(3))
    assert bench.other.read(bench.bucket, "images/x.part.00") == b"foreign"


def test_what_an_earlier_run_of_the_same_recipe_left_gives_way_but_not_to_what_is_sent_early(bench):
    bench.delivery(claim="earlier").send_all(bench.parts(3, seed=1))
    parts = bench.parts(3, seed=2)
    early = bench.delivery()
    early.list()
    with pytest.raises(CloudConflict, match="recipe ours put there in run run-1"):
        early.send(parts[0], replace=False)
    delivery = bench.delivery(run="run-2", is_over=lambda run: run == "run-1")
    assert delivery.send_all(parts) == 3
    delivery.check(parts)


# A host of its own: lists, waits for a word, then sends what its listing did not show.
HOST = """
import json, sys
from pathlib import Path
from builder.cloud.bundles import Delivery, Destination, Item, Marks
from builder.cloud.s3 import S3
from builder.cloud.settings import S3Dialect, Settings
from builder.errors import CloudConflict
said = json.loads(sys.argv[1])
ca_file = said["settings"].pop("ca_file")
dialect = S3Dialect(drops_conditions=said["drops"])
settings = Settings(**said["settings"], ca_file=Path(ca_file) if ca_file else None, s3=dialect)
items = [Item(name=name, path=Path(path), size=size, digest=digest) for name, path, size, digest in said["items"]]
to = Destination(bucket=said["bucket"], prefix="images/", manifest="x.manifest.xml")
marks = Marks(claim=said["run"], recipe="ours", run=said["run"])
delivery = Delivery(S3(settings), to, marks, acl="aws-exec-read")
delivery.begin(None)
delivery.manifest({marks.claim})
delivery.list()
print("listed", flush=True)
sys.stdin.readline()
try:
    for item in items[:-1]:
        delivery.send(item)
    delivery.commit(items[-1], {marks.claim})
    delivery.check(items[:-1])
    print("done")
except CloudConflict as error:
    print(error.message)
"""


@pytest.mark.parametrize("drops", [False, True])
def test_a_bundle_that_is_there_keeps_its_parts_from_a_host_that_looked_before_they_came(bench, drops):
    made = {run: [*bench.parts(3, seed=seed), bench.manifest(b"%d" % seed)] for seed, run in enumerate(("one", "two"))}
    with ExitStack() as stack:
        hosts = {}
        for run, items in made.items():
            known = {
                name: getattr(bench.settings, name) for name in ("region", "endpoint_url", "access_key", "secret_key")
            }
            said = {
                "settings": {**known, "ca_file": str(bench.settings.ca_file or "")}, "drops": drops,
                "bucket": bench.bucket, "run": run,
                "items": [(item.name, str(item.path), item.size, item.digest) for item in items],
            }  # fmt: skip
            command = [sys.executable, "-c", HOST, json.dumps(said)]
            pipe = subprocess.PIPE
            hosts[run] = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        assert [host.stdout.readline() for host in hosts.values()] == ["listed\n"] * 2
        assert hosts["one"].communicate("go\n")[0] == "done\n"
        assert "which the recipe ours put there in run one" in hosts["two"].communicate("go\n")[0]
    for item in made["one"]:
        assert bench.other.read(bench.bucket, f"images/{item.name}") == item.path.read_bytes()


def test_a_manifest_of_another_is_never_replaced_and_one_of_ours_is(bench):
    delivery = bench.delivery()
    bench.put("images/x.manifest.xml")
    with pytest.raises(CloudConflict, match="exists already: the manifest of another bundle, which something else"):
        delivery.commit(bench.manifest(), {"mine"})
    bench.put("images/x.manifest.xml", b"older", **{"emi-claim": "mine before", "emi-recipe": "ours", "emi-run": "r"})
    with pytest.raises(CloudConflict, match="which the recipe ours put there in run r"):
        delivery.commit(bench.manifest(), {"mine"})
    delivery.commit(bench.manifest(), {"mine", "mine before"})
    assert bench.other.read(bench.bucket, "images/x.manifest.xml") == b"<manifest/>"
    bench.calls.clear()
    delivery.commit(bench.manifest(), {"mine"})
    assert bench.calls == {"HeadObject": 1}


def test_a_manifest_that_comes_between_our_looking_and_our_writing_is_kept(bench):
    delivery = bench.delivery()
    bench.before["PutObject", 1] = lambda: bench.put("images/x.manifest.xml")
    with pytest.raises(CloudConflict, match="the manifest of another bundle"):
        delivery.commit(bench.manifest(), {"mine"})
    assert bench.other.read(bench.bucket, "images/x.manifest.xml") == b"foreign"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda bench: bench.other.delete(bench.bucket, "images/x.part.01"), r"x\.part\.01 is gone"),
        (lambda bench: bench.put("images/x.part.01", b"?" * 1001), r"x\.part\.01 holds other bytes"),
        (lambda bench: bench.put("images/x.part.01", b"?"), r"x\.part\.01 holds other bytes"),
    ],
)
def test_a_part_that_another_changed_meanwhile_is_found_out(bench, harm, words):
    parts, delivery = bench.parts(3), bench.delivery()
    delivery.send_all(parts)
    delivery.commit(bench.manifest(), {"mine"})
    harm(bench)
    with pytest.raises(CloudFailed, match=words):
        delivery.check(parts)


def test_it_is_present_as_long_as_its_manifest_is_the_same_and_its_parts_are_listed(bench):
    parts, manifest, delivery = bench.parts(3), bench.manifest(), bench.delivery()
    delivery.send_all(parts)
    keys = [f"images/{part.name}" for part in parts]
    there = (bench.s3, bench.bucket, "images/x.manifest.xml", manifest.digest.removeprefix("sha256:"), keys)
    assert not bundles.is_present(*there)
    delivery.commit(manifest, {"mine"})
    bench.calls.clear()
    assert bundles.is_present(*there)
    assert bench.calls == {"HeadObject": 1, "ListObjects": 1}
    bench.other.put(bench.bucket, "images/x.manifest.xml", b"other", metadata={"emi-digest": ""})
    assert not bundles.is_present(*there)  # without a digest it is read
    bench.other.put(bench.bucket, "images/x.manifest.xml", b"<manifest/>", metadata={"emi-digest": ""})
    assert bundles.is_present(*there)
    bench.other.delete(bench.bucket, keys[1])
    assert not bundles.is_present(*there)


def test_what_is_discarded_goes_manifest_first_and_nothing_else_goes(bench):
    parts, delivery = bench.parts(3), bench.delivery(root=True)
    delivery.send_all(parts)
    delivery.commit(bench.manifest(), {"mine"})
    bench.delivery(recipe="theirs", manifest="y.manifest.xml", root=True).send_all([bench.item("x.part.99", b"theirs")])
    bench.put("x.part.98")
    marked = {"emi-recipe": "ours", "emi-run": "elsewhere", "emi-manifest": "images/x.manifest.xml"}
    bench.put("x.part.97", **marked)  # of the same recipe on another host
    marks = Marks(claim="mine", recipe="ours", run="another", is_over=lambda run: run == "run-1")
    deleted: list[list[str]] = []
    bench.before["DeleteObjects", 1] = lambda: deleted.append(bench.keys())
    bundles.discard(bench.s3, bench.to(), marks)
    assert deleted == [["x.part.00", "x.part.01", "x.part.02", "x.part.97", "x.part.98", "x.part.99"]]
    assert bench.keys() == ["x.part.97", "x.part.98", "x.part.99"]
    bundles.discard(bench.s3, bench.to(), marks)  # fine when it is gone


def test_a_manifest_that_is_another_s_by_now_is_not_discarded(bench):
    bench.delivery()
    bench.put("images/x.manifest.xml", **{"emi-claim": "theirs"})
    bundles.discard(bench.s3, bench.to(), Marks(claim="mine", recipe="ours", run="r"))
    assert bench.keys() == ["images/x.manifest.xml"]


@pytest.mark.parametrize("effect", ["throttle", "internal-error", "reset", "lost"])
def test_a_cloud_in_trouble_takes_each_part_once_even_when_its_answers_are_lost(bench, sandbox, effect):
    parts, manifest, delivery = bench.parts(8), bench.manifest(), bench.delivery()
    client.put(sandbox.endpoint, [{"service": "s3", "call": "PutObject", "effect": effect, "every": 3, "first": 3}])
    sandbox.forget()
    try:
        assert delivery.send_all(parts) == 8
        delivery.commit(manifest, {"mine"})
    finally:
        client.clear(sandbox.endpoint)
    delivery.check(parts)
    assert sandbox.calls()["PutObject"] == 9  # the second of an answer that was lost is refused: it is there
    assert bench.other.read(bench.bucket, "images/x.manifest.xml") == b"<manifest/>"


def test_a_manifest_whose_answer_was_lost_is_known_as_ours(bench, sandbox):
    delivery = bench.delivery()
    client.put(sandbox.endpoint, [{"service": "s3", "call": "PutObject", "effect": "lost", "first": 1}])
    try:
        delivery.commit(bench.manifest(), {"mine"})
    finally:
        client.clear(sandbox.endpoint)
    assert bench.calls["PutObject"] == 2  # the second was refused: there is one
    assert bench.other.head(bench.bucket, "images/x.manifest.xml").metadata["emi-claim"] == "mine"


def test_not_implemented_is_told_as_the_missing_permission_that_it_is(script, tmp_path):
    body = b"<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality</Message></Error>"
    server = script((200, {}, b"<ListBucketResult/>"), (501, {}, body), (404, {}, b""), (501, {}, body))
    bench = Bench(Settings(region="r", endpoint_url=server.url, access_key="a", secret_key="s"), tmp_path)
    delivery = Delivery(bench.s3, bench.to(), Marks(claim="c", recipe="r", run="n"), acl=ACL)
    with pytest.raises(CloudDenied, match="these credentials lack s3:PutObjectAcl") as caught:
        delivery.send_all(bench.parts(1))
    assert caught.value.hint == "Grant s3:PutObjectAcl to these credentials, then `emi resume`."
    assert "A header you provided" in caught.value.message


@pytest.mark.parametrize("there", [False, True])
def test_a_service_that_refuses_the_condition_is_asked_before_each_put(script, tmp_path, there):
    refused = b"<Error><Code>NotImplemented</Code><Message>If-None-Match</Message></Error>"
    absent, put = (404, {}, b""), (200, {}, b"")
    foreign = (200, {"ETag": '"0"', "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT"}, b"")
    scenes = [foreign] if there else [absent, put, absent, put]
    server = script((200, {}, b"<ListBucketResult/>"), (501, {}, refused), *scenes)
    bench = Bench(Settings(region="r", endpoint_url=server.url, access_key="a", secret_key="s"), tmp_path)
    delivery = Delivery(bench.s3, bench.to(), Marks(claim="c", recipe="r", run="n"), acl=ACL)
    with pytest.raises(CloudConflict, match="which something else than emi put there") if there else nullcontext():
        delivery.send_all(bench.parts(2), workers=1)
    calls = [f"{method} {dict(headers).get('If-None-Match', '')}".strip() for method, _, headers, _ in server.heard]
    assert calls == ["GET", "PUT *", *(["HEAD", "HEAD"] if there else ["HEAD", "PUT", "HEAD", "PUT"])]
