import pytest
import yaml
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest import cloudinit
from builder.guest.edits import Remove, Unchanged, WriteFile
from builder.guest.facts import KnownFacts
from pipelines.steps.cloud_init import CloudInit, CloudInitOptions

STEP = CloudInit()
BASE = b"users: [default]\nsystem_info:\n  default_user: {name: debian, groups: [sudo]}\n"
PYTHON = "/usr/lib/python3/dist-packages/cloudinit/sources"
INSTALLED = {
    "/etc/cloud/cloud.cfg": BASE,
    "/usr/bin/cloud-init": b"",
    "/usr/bin/growpart": b"",
    "/usr/lib/cloud-init/ds-identify": b"",
    **{f"{PYTHON}/DataSource{name}.py": b"" for name in ("Ec2", "NoCloud", "None", "OpenStack")},
}
STATE = {
    "/var/lib/cloud/instance": "/var/lib/cloud/instances/i-1",
    "/var/lib/cloud/instances/i-1/sem/config_ssh": b"",
    "/var/lib/cloud/seed/nocloud/meta-data": b"",
    "/var/log/cloud-init.log": b"x",
    "/var/log/cloud-init-output.log.1.gz": b"x",
    "/etc/netplan/50-cloud-init.yaml": b"macaddress: 52:54:00:00:00:01",
}
OURS = cloudinit.OURS


def decide(options: dict, files: dict):
    return STEP.edits(CloudInitOptions.model_validate(options, strict=False), KnownFacts(files=files), {})


def after(files: dict, edits) -> dict:
    """Return the files as the edits leave them."""
    left = dict(files)
    for edit in edits:
        if isinstance(edit, WriteFile):
            left[edit.path] = edit.data
        else:
            gone = tuple(edit.paths)
            left = {path: data for path, data in left.items() if not any(f"{path}/".startswith(f"{g}/") for g in gone)}
    return left


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"datasources": ["Ec2", "NoCloud", "None"]}, "datasource_list: [Ec2, NoCloud, None]\n"),
        (
            {"ec2": {"metadata_urls": ["http://169.254.169.254"], "max_wait": 10}},
            "datasource:\n  Ec2:\n    metadata_urls: ['http://169.254.169.254']\n    max_wait: 10\n",
        ),
        ({"growpart": True}, "growpart:\n  mode: auto\n  devices: [/]\nresize_rootfs: true\n"),
        ({"growpart": False}, "growpart:\n  mode: 'off'\nresize_rootfs: false\n"),
        (
            {"default_user": {"name": "admin", "sudo": ["ALL=(ALL) ALL"], "lock_passwd": True}},
            "system_info:\n  default_user:\n    name: admin\n    sudo: [ALL=(ALL) ALL]\n    lock_passwd: true\n",
        ),
    ],
)
def test_each_option_is_a_setting_in_one_file(options, expected):
    (edit,) = decide(options, INSTALLED)
    assert edit.path == OURS
    assert edit.data.decode().partition("\n")[2] == expected
    assert decide(options, after(INSTALLED, [edit])) == Unchanged(why=f"{OURS} says all of it already")


def test_what_an_earlier_step_wrote_stays():
    files = after(INSTALLED, decide({"datasources": ["Ec2"]}, INSTALLED))
    (edit,) = decide({"growpart": False}, files)
    assert yaml.safe_load(edit.data)["datasource_list"] == ["Ec2"]
    assert edit.why == f"{OURS} sets growpart.mode to off, resize_rootfs to false"


def test_the_settings_hold_as_cloud_init_merges_them():
    debian = {"/etc/cloud/cloud.cfg.d/90_dpkg.cfg": b"datasource_list: [ NoCloud, OpenStack ]\n"}
    files = INSTALLED | debian
    edits = decide({"datasources": ["Ec2"], "default_user": {"name": "admin"}}, files)
    settings = cloudinit.settings(KnownFacts(files=after(files, edits)))
    assert settings["datasource_list"] == ["Ec2"]
    assert settings["system_info"]["default_user"] == {"name": "admin", "groups": ["sudo"]}


def test_eucalyptus_is_found_although_its_firmware_does_not_say_so():
    write, identify = decide({"datasources": ["Ec2", "None"], "ec2": {"strict_id": False}}, INSTALLED)
    # ds-identify, a shell script, reads a line that is `strict_id: false` and nothing else, in a file named for ec2.
    assert "    strict_id: false" in write.data.decode().splitlines()
    assert "ec2" in write.path
    assert identify == WriteFile(
        path="/etc/cloud/ds-identify.cfg",
        data=b"policy: enabled\n",
        why="/etc/cloud/ds-identify.cfg sets policy enabled",
    )


@pytest.mark.parametrize(
    ("options", "before", "expected"),
    [
        ({"identify": True}, "# mine\npolicy: enabled", "# mine\npolicy: search\n"),
        ({"identify": False}, "datasource: NoCloud # why\n", "policy: enabled\n"),
        ({"identify": False}, "policy: enabled\n# so that it runs\n", None),
        ({"datasources": ["Ec2"]}, "datasource: NoCloud\npolicy: search\n", "policy: search\n"),
        ({"datasources": ["Ec2"]}, "datasource: 'Ec2'\n", None),
        ({"datasources": ["Ec2", "NoCloud"]}, "datasource: Ec2\n", ""),
        ({"datasources": ["Ec2"]}, "policy: search\n", None),
    ],
)
def test_ds_identify_follows(options, before, expected):
    files = INSTALLED | {"/etc/cloud/ds-identify.cfg": before.encode()}
    edits = decide(options, files)
    made = [] if isinstance(edits, Unchanged) else edits
    written = [edit.data.decode() for edit in made if edit.path.endswith("ds-identify.cfg")]
    assert written == ([] if expected is None else [expected])


def test_without_ds_identify_there_is_nothing_to_tell_it():
    files = {path: data for path, data in INSTALLED.items() if "ds-identify" not in path}
    assert [edit.path for edit in decide({"ec2": {"strict_id": False}}, files)] == [OURS]


def test_purge_removes_what_an_instance_left():
    (edit,) = decide({"purge": True}, INSTALLED | STATE)
    assert isinstance(edit, Remove)
    left = after(INSTALLED | STATE, [edit])
    assert left == INSTALLED
    assert decide({"purge": True}, left) == Unchanged(why="cloud-init has no state here")


def test_purge_leaves_the_seed_where_asked():
    left = after(INSTALLED | STATE, decide({"purge": True, "keep_seed": True}, INSTALLED | STATE))
    assert set(left) - set(INSTALLED) == {"/var/lib/cloud/seed/nocloud/meta-data"}


@pytest.mark.parametrize(
    "more", [{"/etc/cloud/cloud.cfg.d/99-n.cfg": b"network: {config: disabled}\n"}, {cloudinit.DISABLED: b""}]
)
def test_purge_leaves_a_network_that_cloud_init_would_not_write_again(more):
    files = INSTALLED | STATE | more
    assert "/etc/netplan/50-cloud-init.yaml" in after(files, decide({"purge": True}, files))


def test_a_disabled_cloud_init_is_enabled_with_its_datasources():
    _, enable = decide({"datasources": ["Ec2"]}, INSTALLED | {cloudinit.DISABLED: b""})
    assert enable.paths == (cloudinit.DISABLED,)


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("/boot/grub/grub.cfg", b"linux /vmlinuz root=LABEL=x ci.ds=NoCloud quiet\n", "ci.ds=NoCloud"),
        ("/boot/loader/entries/a.conf", b"options ds=nocloud;s=/ cloud-init=disabled\n", "cloud-init=disabled ds=no"),
        ("/etc/default/grub", b'GRUB_CMDLINE_LINUX="ids=1 noci.ds=x"\n', None),
    ],
)
def test_what_the_kernel_is_told_is_reported(path, data, expected):
    (edit,) = decide({"datasources": ["Ec2"]}, INSTALLED | {path: data})
    assert (expected in edit.why) if expected else ("kernel" not in edit.why)


@pytest.mark.parametrize(
    ("options", "files", "expected"),
    [
        ({"datasources": ["Ec2"]}, {}, "cloud-init is not installed in the guest .an unknown system."),
        ({"datasources": ["Ec2"]}, {"/etc/os-release": b"ID=flatcar\nNAME=Flatcar\n"}, "set up by Ignition"),
        ({"datasources": ["Vultr"]}, INSTALLED, "has no datasource Vultr; it has Ec2, NoCloud, None, OpenStack"),
        ({"growpart": True}, {"/etc/cloud/cloud.cfg": BASE}, "needs the program growpart"),
        (
            {"datasources": ["Ec2"]},
            INSTALLED | {"/etc/cloud/cloud.cfg.d/99_vendor.cfg": b"datasource_list: [Azure]\n"},
            "99_vendor.cfg in the guest says otherwise and is read after",
        ),
        (
            {"datasources": ["Ec2"]},
            INSTALLED | {"/etc/cloud/cloud.cfg.d/zz.cfg": b"a: [1\n"},
            "zz.cfg in the guest is not YAML: while parsing",
        ),
        ({"datasources": ["Ec2"]}, INSTALLED | {OURS: b"[" * 5000}, "is not YAML"),
        ({"datasources": ["Ec2"]}, INSTALLED | {OURS: b"\xff\x00"}, "is not YAML"),
    ],
)
def test_what_cannot_be_is_an_error(options, files, expected):
    with pytest.raises(GuestError, match=expected):
        decide(options, files)


def test_a_later_file_about_other_things_or_saying_the_same_is_none():
    later = {"/etc/cloud/cloud.cfg.d/99_z.cfg": b"datasource_list: [Ec2]\ngrowpart: {mode: auto}\n"}
    assert len(decide({"datasources": ["Ec2"]}, INSTALLED | later)) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["nothing is asked for"]),
        ({"default_user": {}}, ["nothing is asked for"]),
        ({"datasources": ["Ec2", "Ec2"]}, ["names one twice"]),
        ({"datasources": ["None", "Ec2"]}, ["`None` ends the search"]),
        ({"datasources": ["NoCloud"], "ec2": {"strict_id": False}}, ["that `datasources` does not name"]),
        ({"keep_seed": True, "growpart": True}, ["`keep_seed` is for `purge: true`"]),
        ({"purge": True}, []),
        ({"datasources": ["Ec2", "None"], "ec2": {"strict_id": False}}, []),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(CloudInitOptions.model_validate(options, strict=False))
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"datasources": ["EC2"]},
        {"datasources": []},
        {"default_user": {"name": "Über"}},
        {"default_user": {"name": "x", "password": "y"}},
        {"ec2": {"metadata_urls": ["169.254.169.254"]}},
    ],
)
def test_options_are_closed(options):
    with pytest.raises(ValidationError):
        CloudInitOptions.model_validate(options, strict=False)
