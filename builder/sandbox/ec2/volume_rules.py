"""What EC2 allows of a volume: its type, size, IOPS and throughput (botocore's model, CreateVolume; the EBS guide)."""

from __future__ import annotations

from dataclasses import dataclass

from builder.sandbox.wire import Refusal


@dataclass(frozen=True, kw_only=True)
class _Type:
    """The limits of a volume type: sizes in GiB, IOPS, and IOPS per GiB."""

    sizes: tuple[int, int]
    iops: tuple[int, int] | None = None  # None: they cannot be chosen
    iops_per_gib: int = 0
    default_iops: int | None = None  # None, where they can be chosen: they must be


_TYPES = {
    "standard": _Type(sizes=(1, 1024)),
    "gp2": _Type(sizes=(1, 16384)),
    "gp3": _Type(sizes=(1, 65536), iops=(3000, 80000), iops_per_gib=500, default_iops=3000),
    "io1": _Type(sizes=(4, 16384), iops=(100, 64000), iops_per_gib=50),
    "io2": _Type(sizes=(4, 65536), iops=(100, 256000), iops_per_gib=1000),
    "st1": _Type(sizes=(125, 16384)),
    "sc1": _Type(sizes=(125, 16384)),
}
_THROUGHPUTS = (125, 2000)  # MiB/s, gp3
_IOPS_PER_THROUGHPUT = 4  # gp3: at most 0.25 MiB/s for each


@dataclass(frozen=True, kw_only=True)
class Performance:
    """A volume's type with the IOPS and the throughput (MiB/s) that it is described with."""

    volume_type: str
    iops: int | None
    throughput: int | None


def performance(volume_type: str, size: int, iops: int | None, throughput: int | None) -> Performance:
    """Return what a volume of `size` GiB gets, EC2's defaults filled in. Raises Refusal for what EC2 does not allow."""
    rules = _TYPES.get(volume_type)
    if rules is None:
        raise Refusal("UnknownVolumeType", f"Unsupported volume type '{volume_type}' for volume creation.")
    _check_size(volume_type, size, rules)
    given = _iops(volume_type, size, iops, rules)
    return Performance(
        volume_type=volume_type,
        iops=given,
        throughput=_throughput(volume_type, throughput, given),
    )


def _check_size(volume_type: str, size: int, rules: _Type) -> None:
    least, most = rules.sizes
    if size < least:
        raise Refusal("InvalidParameterValue", f"Volume of {size}GiB is too small; minimum is {least}GiB.")
    if size > most:
        message = f"Volume of {size}GiB is too large for volume type {volume_type}; maximum is {most}GiB."
        raise Refusal("InvalidParameterValue", message)


def _iops(volume_type: str, size: int, iops: int | None, rules: _Type) -> int | None:
    if rules.iops is None:
        if iops is not None:
            message = f"The parameter iops is not supported for {volume_type} volumes."
            raise Refusal("InvalidParameterCombination", message)
        # The baseline that gp2 volumes are described with: 3 for each GiB, 100 to 16,000.
        return min(max(100, 3 * size), 16000) if volume_type == "gp2" else None
    if iops is None:
        if rules.default_iops is None:
            raise Refusal("MissingParameter", f"The parameter iops must be specified for {volume_type} volumes.")
        return rules.default_iops
    least, most = rules.iops
    if iops < least:
        raise Refusal("InvalidParameterValue", f"Volume iops of {iops} is too low; minimum is {least}.")
    if iops > most:
        raise Refusal("InvalidParameterValue", f"Volume iops of {iops} is too high; maximum is {most}.")
    if iops > max(rules.iops_per_gib * size, rules.default_iops or 0):
        message = f"Iops to volume size ratio of {iops / size:.6f} is too high; maximum is {rules.iops_per_gib}.0."
        raise Refusal("InvalidParameterValue", message)
    return iops


def _throughput(volume_type: str, throughput: int | None, iops: int | None) -> int | None:
    if volume_type != "gp3":
        if throughput is not None:
            message = f"The parameter throughput is not supported for {volume_type} volumes."
            raise Refusal("InvalidParameterCombination", message)
        return None
    least, most = _THROUGHPUTS
    if throughput is None:
        return least
    if not least <= throughput <= most:
        limit = f"low; minimum is {least}" if throughput < least else f"high; maximum is {most}"
        raise Refusal("InvalidParameterValue", f"Throughput of {throughput} MiB/s is too {limit} MiB/s.")
    if iops is not None and throughput * _IOPS_PER_THROUGHPUT > iops:
        message = f"Throughput (MiBps) to iops ratio of {throughput / iops:.6f} is too high; maximum is 0.250000."
        raise Refusal("InvalidParameterValue", message)
    return throughput
