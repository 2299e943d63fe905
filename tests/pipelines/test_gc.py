"""emi gc: what each word of the journal makes of a thing in the cloud, and what is removed in which order."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.cloud.api import BlockDevice, ImageSpec
from builder.cloud.claims import RECIPE_TAG, Claim
from builder.cloud.wait import wait_until
from builder.errors import UsageError
from builder.sandbox import lifecycle
from pipelines import locks
from pipelines.artifact import MachineImage, Snapshot
from pipelines.gc import Asked, Collector, Judged
from pipelines.home import Home
from pipelines.journal import Journal
from pipelines.targets import SANDBOX, Target, open_target
from pipelines.verbs.gc import seconds
from pipelines.words import Abandon, Effect, Intent, Result, Word

NOW = Asked(older_than=0)
OWN = "its own id"  # stands in words for the id that the cloud gives


@dataclass(frozen=True, kw_only=True)
class Place:
    """A home with a journal and an account in a sandbox; each test makes things of its own in it."""

    home: Home
    journal: Journal
    target: Target

    @property
    def collector(self) -> Collector:
        return Collector(home=self.home, journal=self.journal, target=self.target)

    def snapshot(self, claim: Claim, recipe: str = "r") -> str:
        """Make a completed snapshot under a claim."""
        cloud = self.target.cloud
        made = cloud.start_snapshot(claim, volume_size=1, description="", tags={RECIPE_TAG: recipe}, parent=None)
        cloud.put_block(made.snapshot_id, 0, bytes(1 << 19), sha(bytes(1 << 19)))
        cloud.complete_snapshot(made.snapshot_id, changed_blocks=1, checksum=None)
        wait_until(
            lambda: cloud.describe_snapshot(made.snapshot_id), lambda seen: seen.status == "completed", what="it"
        )
        return made.snapshot_id

    def image(self, claim: Claim, snapshot_id: str) -> str:
        """Register an image of a snapshot under a claim."""
        device = BlockDevice(device_name="/dev/xvda", snapshot_id=snapshot_id)
        spec = ImageSpec(name=claim.key, block_devices=[device], tags={RECIPE_TAG: "r"})
        return self.target.cloud.register_image(claim, spec)

    def say(self, claim: Claim, *words: Word, status: str = "failed") -> None:
        """Write words about a claim, by a run of its own that ended so."""
        run = f"run-{secrets.token_hex(4)}"
        self.journal.begin(run, recipe="r", target=self.target.identity, request={})
        for word in words:
            self.journal.write(claim.key, claim.generation, word, run=run)
        self.journal.end(run, "ok" if status == "ok" else "failed")

    def judged(self, thing: str, asked: Asked = NOW) -> Judged:
        """Return what is thought of a thing."""
        return next(one for one in self.collector.inspect(asked).judged if one.thing.id == thing)

    def there(self, thing: str) -> bool:
        """Say whether the cloud still has it."""
        cloud = self.target.cloud
        look = cloud.describe_image if thing.startswith("ami-") else cloud.describe_snapshot
        return look(thing) is not None


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = Home(tmp_path_factory.mktemp("gc") / "home").make()
    yield Place(home=home, journal=Journal(home.journal), target=open_target(SANDBOX, home))
    lifecycle.stop(home.sandbox)


@pytest.fixture
def claim() -> Claim:
    return Claim(secrets.token_hex(16))


def of_snapshot(snapshot_id: str) -> Result:
    return Result(
        artifact=Snapshot(
            snapshot_id=snapshot_id, region="r", volume_size=1, content="blocks:" + "4" * 64, blocks=1, verified=True
        )
    )


INTENT, EFFECT, GIVEN_UP = Intent(at=1), Effect(resource=OWN), Abandon(why="broken")
DONE = of_snapshot(OWN)
TABLE: list[tuple[str, Sequence[Word], str, str, bool]] = [
    # what, words, status of the run, verdict, whether it goes unasked
    ("nobody's", [], "", "unclear", False),
    ("intended", [INTENT], "failed", "litter", True),
    ("begun", [INTENT, EFFECT], "failed", "litter", True),
    ("given up", [INTENT, EFFECT, GIVEN_UP], "failed", "litter", True),
    ("begun as another id", [INTENT, Effect(resource="snap-0123")], "failed", "unclear", False),
    ("finished", [INTENT, EFFECT, DONE], "ok", "in use", False),
    ("finished in a run that was not", [INTENT, EFFECT, DONE], "failed", "unclear", False),
    ("finished, then missed", [INTENT, EFFECT, DONE, GIVEN_UP], "ok", "unclear", False),
]


@pytest.mark.parametrize(("words", "status", "verdict", "goes"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_what_the_journal_makes_of_it(place, claim, words, status, verdict, goes) -> None:
    made = place.snapshot(claim)
    said = [_own(word, made) for word in words]
    if said:
        place.say(claim, *said, status=status)
    found = place.judged(made)
    assert (found.verdict, found.goes, found.thing.recipe) == (verdict, goes, "r")
    assert found.why
    young = place.judged(made, Asked(older_than=3600, all_=True))
    assert young.verdict == ("in use" if verdict == "in use" else "too young")
    assert not young.goes


def _own(word: Word, made: str) -> Word:
    if word == EFFECT:
        return replace(EFFECT, resource=made)
    return of_snapshot(made) if word == DONE else word


def test_an_attempt_that_another_followed_is_litter(place, claim) -> None:
    made = place.snapshot(claim)
    place.say(claim, INTENT)
    place.say(Claim(claim.key, 1), INTENT)
    assert place.judged(made).verdict == "litter"
    assert "superseded" in place.judged(made).why


def test_an_image_that_the_journal_knows_keeps_its_snapshot_whoever_made_that(place, claim) -> None:
    snapshot = place.snapshot(Claim(f"{claim.key}-snapshot"))
    image = place.image(claim, snapshot)
    result = Result(artifact=MachineImage(image_id=image, name="n", region="r", snapshot_ids=(snapshot,)))
    place.say(claim, INTENT, Effect(resource=image), result)
    asked = Asked(older_than=0, all_=True)
    assert [place.judged(one, asked).verdict for one in (image, snapshot)] == ["in use", "in use"]
    with pytest.raises(UsageError, match="in use"):
        place.collector.remove(Asked(older_than=0, ids=frozenset({snapshot})), lambda _: None)
    assert place.there(image)
    assert place.there(snapshot)


def test_a_registered_image_of_nobody_goes_by_its_id_only_and_its_snapshot_after_it(place, claim) -> None:
    snapshot = place.snapshot(Claim(f"{claim.key}-snapshot"))
    image = place.image(claim, snapshot)
    asked = Asked(older_than=0, all_=True)
    assert not place.judged(image, asked).goes
    assert (place.judged(snapshot, asked).verdict, place.judged(snapshot, asked).goes) == ("in use", False)
    told: list[str] = []
    done = place.collector.remove(Asked(older_than=0, ids=frozenset({image})), told.append)
    assert told == [one.thing.id for one in done.removed] == [image, snapshot]
    assert not place.there(image)
    assert not place.there(snapshot)


def test_a_snapshot_that_an_image_of_others_uses_stays(place, claim) -> None:
    snapshot = place.snapshot(claim)
    place.say(claim, INTENT)
    other = place.snapshot(Claim(f"{claim.key}-other"))
    image = place.image(Claim(f"{claim.key}-image"), snapshot)
    place.target.cloud._call("ec2", "DeleteTags", Resources=[image])
    assert place.judged(snapshot).verdict == "in use"
    assert image in place.judged(snapshot).why
    assert place.judged(other).verdict == "unclear"


def test_what_a_run_works_on_is_not_touched(place, claim) -> None:
    made = place.snapshot(claim, recipe="busy")
    place.say(claim, INTENT)
    with locks.hold(place.home.recipe_lock("busy", place.target.identity), what="it", wait=False) as sign:
        sign("run-7")
        found = place.judged(made)
        assert (found.verdict, found.goes) == ("in progress", False)
        assert "run-7" in found.why
        place.collector.remove(NOW, lambda _: None)
        assert place.there(made)
    assert place.judged(made).goes


def test_what_only_helpers_make_is_found_and_goes_too(place, claim) -> None:
    ask = place.target.cloud._call
    zone = ask("ec2", "DescribeAvailabilityZones")["AvailabilityZones"][0]["ZoneName"]
    tags = [{"Key": "emi:claim", "Value": claim.token}]
    near = [{"Key": "emi:claim", "Value": claim.token[:63]}]

    def make(name: str, marks: list[dict[str, str]]) -> tuple[str, str, str]:
        ask("ec2", "CreateKeyPair", KeyName=name, TagSpecifications=[{"ResourceType": "key-pair", "Tags": marks}])
        spec = [{"ResourceType": "volume", "Tags": marks}]
        volume = ask("ec2", "CreateVolume", Size=1, AvailabilityZone=zone, TagSpecifications=spec)["VolumeId"]
        wait_until(
            lambda: ask("ec2", "DescribeVolumes", VolumeIds=[volume])["Volumes"][0],
            lambda seen: seen["State"] == "available",
            what="it",
        )
        marked = [{"ResourceType": "security-group", "Tags": marks}]
        said = "emi helper, made at 2024-05-06T07:08:09Z"
        group = ask("ec2", "CreateSecurityGroup", GroupName=name, Description=said, TagSpecifications=marked)
        return str(volume), name, str(group["GroupId"])

    ours, theirs = make(f"{claim.key}-1", tags), make(f"{claim.key}-2", near)
    # The journal has the id of the instance that they were made with.
    place.say(claim, INTENT, Effect(resource="i-0123456789abcdef0"))
    assert [place.judged(one).goes for one in ours] == [True, True, True]
    assert place.judged(ours[2]).thing.created == 1714979289
    assert not {one.thing.id for one in place.collector.inspect(NOW).judged} & set(theirs)
    told: list[str] = []
    place.collector.remove(Asked(older_than=0, ids=frozenset(ours)), told.append)
    assert told == list(ours)
    left = {one["KeyName"] for one in ask("ec2", "DescribeKeyPairs")["KeyPairs"]}
    left |= {one["VolumeId"] for one in ask("ec2", "DescribeVolumes")["Volumes"] if one["State"] == "available"}
    left |= {one["GroupId"] for one in ask("ec2", "DescribeSecurityGroups")["SecurityGroups"]}
    assert set(theirs) <= left
    assert not set(ours) & left


def test_a_name_that_is_made_of_a_claim_tells_it_where_there_is_no_tag(place, claim) -> None:
    cloud, ask = place.target.cloud, place.target.cloud._call
    near = (f"emi-{claim.token[:63]}", f"emi-{claim.token}0", f"EMI-{claim.token}", claim.token)
    groups = {}
    for name in (f"emi-{claim.token}", *near):
        ask("ec2", "CreateKeyPair", KeyName=name)
        groups[name] = ask("ec2", "CreateSecurityGroup", GroupName=name, Description="a group")["GroupId"]
    place.say(claim, INTENT)
    ours = (f"emi-{claim.token}", groups[f"emi-{claim.token}"])
    found = {one.thing.id for one in place.collector.inspect(NOW).judged if one.thing.claim == claim.token}
    assert found == set(ours)
    assert place.judged(ours[1], Asked(older_than=60)).verdict == "too young"  # its age is not known
    place.collector.remove(Asked(older_than=0, ids=frozenset(ours)), lambda _: None)
    assert cloud.find_key_pair(claim) is None
    assert cloud.find_security_group(claim) is None
    left = {one["KeyName"] for one in ask("ec2", "DescribeKeyPairs")["KeyPairs"]}
    assert set(near) <= left


def test_a_whole_bundle_of_nobody_goes_by_its_id_only_parts_without_a_manifest_by_all(place, claim) -> None:
    s3, bucket = place.target.cloud.s3, f"b-{claim.key[:8]}"
    s3.ensure_bucket(bucket)
    for name, suffixes in (("whole", ("manifest.xml", "part.0", "part.1")), ("begun", ("part.0",))):
        for suffix in suffixes:
            marks = {"emi-claim": claim.token, "emi-manifest": f"{name}.manifest.xml", "emi-recipe": "emi-upload"}
            s3.put(bucket, f"{name}.{suffix}", b"not read as XML", metadata=marks)
    everything = Asked(older_than=0, all_=True)
    whole = [f"s3://{bucket}/whole.{suffix}" for suffix in ("manifest.xml", "part.0", "part.1")]
    assert [place.judged(one, everything).goes for one in whole] == [False, False, False]
    assert place.judged(f"s3://{bucket}/begun.part.0", everything).goes
    assert not place.judged(f"s3://{bucket}/begun.part.0").goes
    told: list[str] = []
    place.collector.remove(Asked(older_than=0, ids=frozenset({whole[0]})), told.append)
    assert told == whole
    assert [one.key for one in s3.objects(bucket)] == ["begun.part.0"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [(("snap-0f0f",), "nothing of that id"), (("ami-1", "snap-0f0f"), "nothing of that id")],
)
def test_an_id_that_is_not_there_is_refused(place, ids, said) -> None:
    with pytest.raises(UsageError, match=said):
        place.collector.inspect(Asked(older_than=0, ids=frozenset(ids)))


FAULTS = """
faults:
  - effect: denied
    service: ec2
    call: DeleteSnapshot
"""


def test_a_refusal_stops_only_what_it_concerns_and_a_kill_is_made_good(emi, tmp_path: Path) -> None:
    home = Home(emi.home).make()
    place = Place(home=home, journal=Journal(home.journal), target=open_target(SANDBOX, home))
    one, two, three = (Claim(secrets.token_hex(16)) for _ in range(3))
    snapshot, pending = place.snapshot(one), place.snapshot(two)
    image = place.image(three, snapshot)
    for claim in (one, two, three):
        place.say(claim, INTENT)
    shown = emi("gc", "--older-than", "0")
    assert shown.code == 0
    assert [line.split("\t")[:3] for line in shown.out.splitlines()[1:-1]] == [
        [image, "litter, goes", "image"],
        *sorted([[snapshot, "litter, goes", "snapshot"], [pending, "litter, goes", "snapshot"]]),
    ]
    assert shown.out.endswith("3 would be removed: say it again with --yes\n")

    killed = emi("gc", "--older-than", "0", "--yes", EMI_CRASH_AT="after ec2:DeregisterImage@1")
    assert killed.code == -9
    assert [place.there(each) for each in (snapshot, pending)] == [True, True]
    faults = tmp_path / "faults.yaml"
    faults.write_text(FAULTS)
    assert emi("sandbox", "faults", faults).code == 0
    refused = emi("gc", "--older-than", "0", "--yes", "--json")
    assert refused.code == 7
    told = json.loads(refused.out)
    assert {each["id"] for each in told["refused"]} == {snapshot, pending}
    assert "UnauthorizedOperation" in refused.err
    assert emi("sandbox", "faults", "--clear").code == 0
    last = emi("gc", "--older-than", "0", "--yes")
    assert last.code == 0, last.err
    assert last.out.splitlines()[-1] == "2 removed"
    assert place.collector.inspect(NOW).judged == []


@pytest.mark.parametrize(("age", "meant"), [("0", 0), ("90", 90), ("30m", 1800), ("12h", 43200), ("1d", 86400)])
def test_an_age(age, meant) -> None:
    assert seconds(age) == meant


@pytest.mark.parametrize("age", ["", "d", "-1d", "1.5h", "1y", "1 d h"])
def test_what_is_no_age(age) -> None:
    with pytest.raises(UsageError, match="no age"):
        seconds(age)
