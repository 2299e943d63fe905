"""Passes bytes between the connection that is our standard input and a socket of this host: `relay.py PLACE`.

qemu starts one for each connection of a guest to an address that is forwarded (slirp's `guestfwd=…-cmd:`), by its path
and without site packages, so it imports nothing of ours. PLACE is `unix:PATH` or `tcp:ADDRESS:PORT`. It ends when both
sides have said all, and at once when qemu is gone.
"""

from __future__ import annotations

import select
import socket
import sys


def connect(place: str) -> socket.socket:
    """Return a connection to the place. Raises OSError."""
    kind, _, where = place.partition(":")
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.connect(where)
        return made
    address, _, port = where.rpartition(":")
    return socket.create_connection((address, int(port)))


def relay(guest: socket.socket, host: socket.socket) -> None:
    """Pass bytes both ways; the end of one direction is passed on, and the other goes on."""
    poll, other = select.poll(), {guest.fileno(): host, host.fileno(): guest}
    ends = {guest.fileno(): guest, host.fileno(): host}
    for number in ends:
        poll.register(number, select.POLLIN)
    while ends:
        for number, event in poll.poll():
            if number == guest.fileno() and event & select.POLLHUP and not event & select.POLLIN:
                return  # not only its sending half: qemu closed it, or died
            data = ends[number].recv(1 << 18) if number in ends else b""
            if data:
                other[number].sendall(data)
                continue
            ends.pop(number, None)
            if number == host.fileno():
                return  # it has said all, and what the guest still says is for nobody
            poll.modify(number, 0)  # hang-ups are told all the same
            other[number].shutdown(socket.SHUT_WR)


def main() -> None:
    """Relay until either side ends."""
    guest = socket.socket(fileno=0)
    try:
        with connect(sys.argv[1]) as host:
            relay(guest, host)
    except OSError:
        sys.exit(1)


if __name__ == "__main__":
    main()
