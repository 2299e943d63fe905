"""What runs on machines without Python: texts for POSIX sh with dd, head and sha256sum, twins of worker.py.

dd is GNU's or busybox': only bs, count, skip, seek, conv=notrunc and iflag=fullblock are used. `$1` is the path.
"""

from __future__ import annotations

# What blockdev cannot drop (no root, a regular file), GNU dd can, by posix_fadvise; one of them must have worked.
# conv=fsync is for this one file, where sync would wait for everybody's.
SETTLE = """\
dd if=/dev/null of="$1" conv=notrunc,fsync 2>/dev/null || sync
if [ -b "$1" ] && blockdev --flushbufs "$1" 2>/dev/null; then exit 0; fi
dd if="$1" iflag=nocache count=0 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && echo 3 2>/dev/null >/proc/sys/vm/drop_caches; then exit 0; fi
echo "the kernel's copy of $1 cannot be dropped here: neither blockdev nor root's rights nor GNU dd" >&2
exit 1
"""

# $2 size, $3 grain, $4 the SHA-256 of a grain of zeros
SURVEY = """\
size=$2 grain=$3 zero=$4
whole=$((size / grain))
while read -r index count; do
    end=$((index + count))
    while [ "$index" -lt "$end" ]; do
        if [ "$index" -lt "$whole" ]; then
            sum=$(dd if="$1" bs="$grain" skip="$index" count=1 2>/dev/null | sha256sum)
        else
            rest=$((size - index * grain))
            sum=$({ dd if="$1" bs="$grain" skip="$index" count=1 2>/dev/null | head -c "$rest"
                head -c $((grain - rest)) /dev/zero; } | sha256sum)
        fi
        sum=${sum%% *}
        [ "${#sum}" = 64 ] || exit 1
        [ "$sum" = "$zero" ] || echo "$index $sum"
        index=$((index + 1))
    done
done
echo end
"""

# read takes single bytes of a pipe, so dd begins right after the line; its fullblock makes it take no more and no less.
# Each range is synced, so that a machine which loses its power has lost little of what was sent.
WRITE = """\
path=$1
put() { # OFFSET LENGTH
    unit=1
    for larger in 512 65536; do
        [ $(($1 % larger)) -ne 0 ] || [ $(($2 % larger)) -ne 0 ] || unit=$larger
    done
    said=$(dd of="$path" bs="$unit" seek=$(($1 / unit)) count=$(($2 / unit)) iflag=fullblock conv=notrunc,fsync 2>&1)
    status=$?
    [ "$status" = 0 ] || { echo "dd: $said" >&2; exit "$status"; }
}
while read -r what offset length; do
    case $what in
        w) put "$offset" "$length" ;;
        z) put "$offset" "$length" </dev/zero ;;
        e)
            said=$(dd if=/dev/null of="$path" conv=notrunc,fsync 2>&1) || { echo "dd: $said" >&2; exit 1; }
            echo end
            exit 0
            ;;
        *) break ;;
    esac
done
echo "the stream of bytes ended early, or is damaged" >&2
exit 1
"""

# What a device's name means here and now: `$1` under its own name, its size, the kernel's count of it, its serial, and
# which start of the machine this is. Where it prints something else than before, the name may be another disk's.
MARK = """\
n=$(readlink -f "$1"); n=/sys/class/block/${n##*/}
[ -e "$n" ] || n=/sys/block/${n##*/}  # where only whole disks are
echo "$n" $(cat "$n/size" "$n/diskseq" "$n/serial" "$n/device/serial" /proc/sys/kernel/random/boot_id 2>/dev/null |
    tr -cd '[:print:]\\n')
"""
MOVED = 75  # the exit status of what has found another mark: EX_TEMPFAIL of sysexits.h

# Prints `device SIZE NAME` or `file SIZE -`; before it a device's mark, or `new` for a file that is made, of $2 bytes.
PREPARE = f"""\
if [ -b "$1" ]; then
    name=$(readlink -f "$1")
    sectors=$(cat "/sys/class/block/${{name##*/}}/size" 2>/dev/null || cat "/sys/block/${{name##*/}}/size") || exit 1
    printf 'mark %s\\n' "$({MARK})"
    echo "device $((sectors * 512)) ${{name##*/}}"
else
    [ -e "$1" ] || echo new
    dd if=/dev/null of="$1" bs=1 count=0 seek="$2" 2>&1 || exit 1
    echo "file $2 -"
fi
"""
