"""Every error a user can meet, one tree; a class knows its exit code, whether a retry may help, and what to do next.

    EmiError                  1   anything below, when nothing more is known
    ├── UsageError            2   the command line, the recipe or a setting is wrong; nothing was started
    ├── InputError            3   an input is not what the recipe says: refused before anything is spent
    │   ├── ChecksumMismatch
    │   ├── SignatureInvalid
    │   ├── FormatRefused
    │   ├── ArchiveRefused
    │   └── BundleRefused
    ├── NetworkError          4   a server said no, or could not be reached
    │   └── NetworkTrouble    4   … for a reason that may pass (retried)
    ├── HostError             5   this machine cannot do it
    │   ├── ToolMissing
    │   ├── ToolFailed
    │   └── DiskFull
    ├── GuestError            6   the image's inside is not as the step needs it, or the appliance failed
    │   └── LintFailed        9   … as lint wants it
    ├── CloudError            7   the cloud refused, for good
    │   ├── CloudDenied           … for lack of permission or credentials
    │   ├── CloudNotFound         … because the resource does not exist
    │   ├── CloudFailed           … having accepted it first: what we began has ended in failure
    │   ├── CloudConflict         … because something of that name or token is already there
    │   └── CloudTrouble          … for now (throttling, 5xx, a cut connection; retried)
    ├── RemoteError          10   another machine, reached by SSH, refused or failed
    │   ├── RemoteDenied          … our key, or root's rights
    │   ├── HostKeyWrong          … to prove that it is the one we mean
    │   ├── RemoteFailed          … a command: its status and last lines are in the message
    │   ├── DeviceDoubtful        … to have one device that is surely the right one
    │   │   ├── DeviceAbsent      … or any that could be
    │   │   └── DeviceMoved       … under the name that it had: the machine was started anew
    │   ├── WriteLost             … to keep what it said it had written
    │   ├── RemoteAway            … to answer within the time it was given
    │   └── RemoteTrouble         … for now: not there yet, or the connection was cut (retried)
    ├── BusyError             8   another run holds what this one needs
    ├── Interrupted         130   Ctrl-C
    └── InternalError        70   a defect in emi itself

Foreign exceptions (botocore, OSError, guestfs, urllib) are translated once, at the door they come through,
with `raise … from`. The page docs/errors.md is generated from this file.
"""

from __future__ import annotations

import re
from typing import ClassVar

# Names and words of an untrusted image come into messages: what steers a terminal, and what no encoding can write.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class EmiError(Exception):
    """Something went wrong that emi has no finer word for."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    advice: ClassVar[str] = "Run the same command again with --json for every detail."

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float = 0) -> None:
        self.message = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", message)
        super().__init__(self.message)
        self.hint = hint or self.advice
        self.retry_after = retry_after  # seconds the other side asked us to wait before a retry (HTTP's Retry-After)


class UsageError(EmiError):
    """The command line, the recipe or a setting is wrong. Nothing was started."""

    exit_code = 2
    advice = "Correct it as the message says; `emi validate RECIPE` checks without running."


class InputError(EmiError):
    """An input is not what the recipe says it is; it was refused before anything was spent on it."""

    exit_code = 3
    advice = "Check the source named in the message, then run again."


class ChecksumMismatch(InputError):
    """The bytes that arrived do not have the checksum the recipe or its checksum file promises."""

    advice = "Compare the checksum with the publisher's page; a mirror may be stale. Nothing was kept."


class SignatureInvalid(InputError):
    """The signature does not verify against the recipe's keyring."""

    advice = "Check the keyring in the recipe's folder against the publisher's key. Nothing was kept."


class FormatRefused(InputError):
    """The image is not in the format it claims, or uses a feature that is unsafe in an untrusted image."""

    advice = "`emi inspect IMAGE` shows what the file really is."


class ArchiveRefused(InputError):
    """The archive is damaged, holds a dangerous member, or expands beyond its limit."""

    advice = "`max_size` raises the limit; a dangerous member is refused always."


class BundleRefused(InputError):
    """The bundle is damaged, incomplete, not signed by whom it should be, or its key does not open it."""

    advice = "`emi bundle-info MANIFEST` shows what the manifest says and what of it holds. Nothing was kept."


class NetworkError(EmiError):
    """A server refused the request for good (404, 403, a bad certificate, a name that does not exist)."""

    exit_code = 4
    advice = "Open the URL by hand; `--mirror PREFIX=URL` reads it from elsewhere."


class NetworkTrouble(NetworkError):
    """A server could not be reached or answered badly, for a reason that may pass. It was retried."""

    retryable = True
    advice = "Run the same command again: the download continues where it stopped."


class HostError(EmiError):
    """This machine cannot do what the step needs."""

    exit_code = 5
    advice = "`emi doctor` checks this machine and names the fix for each lack."


class ToolMissing(HostError):
    """A program that the step needs is not installed."""


class ToolFailed(HostError):
    """A program that the step started ended with an error; its command and last lines are in the message."""

    advice = "Paste the command from the message into a shell to see it fail by itself."


class DiskFull(HostError):
    """No space is left where emi keeps its files. Nothing half-written was kept."""

    advice = "`emi store prune` frees what no recipe needs; or point EMI_HOME at a larger disk. Then run again."


class GuestError(EmiError):
    """The inside of the image is not as the step needs it, or the appliance that opens it failed."""

    exit_code = 6
    advice = "`emi inspect IMAGE` shows its partitions, filesystems and labels; `emi doctor` tests the appliance."

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float = 0) -> None:
        # It may quote names of the guest, which can hold anything: what steers a terminal, what no file can be told.
        plain = (char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in message)
        super().__init__("".join(plain), hint=hint, retry_after=retry_after)


class LintFailed(GuestError):
    """Lint found in the image what keeps it from booting, or leaks out of it: see the message, or the list above it."""

    exit_code = 9
    advice = "`emi lint --fix IMAGE` prints the steps that mend it; docs/lint.md explains the rules."


class CloudError(EmiError):
    """The cloud refused a call for good; the message names the call and the cloud's own error code."""

    exit_code = 7
    advice = "Correct the cause in the cloud's own words above, then `emi resume`."
    code = ""  # the cloud's own word for it, where it gave one


class CloudDenied(CloudError):
    """The credentials are missing, expired or lack a permission; the message names the action."""

    advice = "Grant the action named above to these credentials, then `emi resume`."


class CloudNotFound(CloudError):
    """The cloud says that the resource named in the call does not exist."""


class CloudFailed(CloudError):
    """What we began in the cloud has ended in failure, for the reason the cloud gives; it will never be finished."""

    advice = "Correct the cause in the cloud's own words above, then `emi resume`: it begins anew."


class CloudConflict(CloudError):
    """Something of that name or token exists already and is not ours."""

    advice = "Choose another name in the recipe, or remove the other; emi never takes over what it did not make."


class CloudTrouble(CloudError):
    """The cloud throttled, failed or cut the connection; it was retried until the time limit."""

    retryable = True
    advice = "`emi resume` carries on where it stopped; nothing is uploaded twice."


class RemoteError(EmiError):
    """Another machine that emi works on over SSH refused, failed, or lacks what the step needs."""

    exit_code = 10
    advice = "Correct it on the machine named in the message, then `emi resume`."


class RemoteDenied(RemoteError):
    """The machine does not let our key in, or does not give root's rights without a password."""

    advice = "Log in by hand with the same key and try `sudo -n true`; or name another user."


class HostKeyWrong(RemoteError):
    """The machine that answered has another host key than the one that is pinned or known. Nothing was sent to it."""

    advice = "If the machine was made anew, replace its known key; if not, somebody else answers in its place."


class RemoteFailed(RemoteError):
    """A command on the other machine ended with an error, or not in time; it and its last lines are in the message."""

    advice = "Paste the command from the message into a shell on that machine to see it fail by itself."
    killed = False  # by a signal there, for want of memory perhaps: what is repeatable may be repeated
    status = 0  # its exit status, where it came to one


class DeviceDoubtful(RemoteError):
    """No block device there is surely the one that was meant, or it is in use or not empty. Nothing was written."""

    advice = "Compare the list in the message with the volumes attached to that machine; detach what is not needed."


class DeviceAbsent(DeviceDoubtful):
    """No block device there can be the volume: it has not appeared in the time it was given."""

    advice = "Look in the cloud whether the volume is attached to that machine, then run again."


class DeviceMoved(DeviceDoubtful):
    """The machine was started anew, or a device exchanged, while we worked on it: its name may mean another one now."""

    advice = "`emi resume` finds the device again by its serial; where it has none, attach a new volume."


class WriteLost(RemoteError):
    """What is read back from the device is not what was written: it lost writes, or somebody else writes to it."""

    advice = "Make another volume and write to that one; this one must not be trusted."


class RemoteAway(RemoteError):
    """The machine could not be reached over SSH, however often it was tried within the time it was given."""

    advice = "See its console output and its security groups; then `emi resume` carries on where it stopped."


class RemoteTrouble(RemoteError):
    """The machine could not be reached yet, or the connection was cut. It was retried."""

    retryable = True
    advice = "`emi resume` carries on where it stopped; what is there already is not sent again."


class BusyError(EmiError):
    """Another run holds the same recipe or the same files."""

    exit_code = 8
    advice = "Wait for it with --wait, or stop the process named above."


class Interrupted(EmiError):
    """Ctrl-C or SIGTERM. Finished work is kept."""

    exit_code = 130
    advice = "`emi resume` carries on from here."


class InternalError(EmiError):
    """A defect in emi itself; the report named in the message holds the trace."""

    exit_code = 70
    advice = "Please report it with the file named above; `emi resume` is safe."
