#!/usr/bin/env python3
"""Runs a program as two MPI processes on two network hosts that this machine pretends to be, and prints how long it took.

    scripts/mpi_network.py [--rate MBIT] [--delay MS] PROGRAM ARGUMENTS...

The hosts are network namespaces. All packets between them go through this script, which lets MBIT million bits a second through in
each direction and delivers each packet MS milliseconds later; without a number there is no limit. Needs root, /dev/net/tun,
iproute2 and Open MPI.
"""

import argparse
import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 65000
HOSTS = [("sparq-a", "10.93.0.1"), ("sparq-b", "10.93.0.2")]
AGENT = """#!/bin/sh
# HOST COMMAND...: runs the command on the second host.
shift
exec ip netns exec sparq-b unshare -u sh -c 'hostname sparq-b; exec sh -c "$*"' _ "$*"
"""


def run(*command):
    subprocess.run(command, check=True)


def in_namespace(name, action):
    """Calls `action` inside a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as here, open(f"/run/netns/{name}") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return action()
        finally:
            libc.setns(here.fileno(), CLONE_NEWNET)


def network_card(name, address):
    """A host with a network card; the card's other end as a file descriptor."""
    subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)
    run("ip", "netns", "add", name)

    def card():
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", b"card", IFF_TUN | IFF_NO_PI))
        return end

    end = in_namespace(name, card)
    run("ip", "-n", name, "addr", "add", address + "/24", "dev", "card")
    run("ip", "-n", name, "link", "set", "card", "mtu", str(MTU), "txqueuelen", "10000", "up")
    run("ip", "-n", name, "link", "set", "lo", "up")
    return end


class Wire:
    """One direction: packets wait for their turn at the rate, then for the delay."""

    def __init__(self, source, target, rate, delay):
        self.source, self.target, self.rate, self.delay = source, target, rate, delay
        self.free, self.bytes, self.waiting = 0.0, 0, collections.deque()

    def take(self, now):
        try:
            packet = os.read(self.source, MTU + 100)
        except BlockingIOError:
            return
        self.free = max(self.free, now) + (len(packet) / self.rate if self.rate else 0.0)
        self.bytes += len(packet)
        self.waiting.append((self.free + self.delay, packet))

    def give(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            try:
                os.write(self.target, self.waiting[0][1])
            except BlockingIOError:
                return
            self.waiting.popleft()


def forward(wires, done):
    while not done.is_set():
        due = [wire.waiting[0][0] for wire in wires if wire.waiting]
        patience = max(0.0, min(due) - time.monotonic()) if due else 0.1
        ready, _, _ = select.select([wire.source for wire in wires], [], [], min(patience, 0.1))
        now = time.monotonic()
        for wire in wires:
            if wire.source in ready:
                wire.take(now)
            wire.give(now)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.0, help="million bits a second")
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    first, second = (network_card(*host) for host in HOSTS)
    limits = options.rate * 1e6 / 8, options.delay / 1e3
    wires = [Wire(first, second, *limits), Wire(second, first, *limits)]
    done = threading.Event()
    forwarder = threading.Thread(target=forward, args=(wires, done))
    forwarder.start()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            agent = os.path.join(scratch, "agent")
            with open(agent, "w") as file:
                file.write(AGENT)
            os.chmod(agent, 0o755)
            hosts = ",".join(address for _, address in HOSTS)
            network = "10.93.0.0/24"
            mpirun = ["mpirun", "--mca", "plm_rsh_agent", agent, "--host", hosts, "-n", "2", "--bind-to", "none"]
            mpirun += ["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", network, "--mca", "oob_tcp_if_include", network]
            shell = 'hostname sparq-a; exec "$@"'
            allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
            command = ["ip", "netns", "exec", HOSTS[0][0], "unshare", "-u", "sh", "-c", shell, "_", *mpirun, *options.program]
            start = time.monotonic()
            status = subprocess.run(command, env={**os.environ, **allowed}).returncode
            seconds = time.monotonic() - start
    finally:
        done.set()
        forwarder.join()
        for name, _ in HOSTS:
            subprocess.run(["ip", "netns", "delete", name])
    there, back = (wire.bytes / 1e6 for wire in wires)
    print(f"{seconds:.1f} s; {there:.1f} MB one way, {back:.1f} MB the other", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
