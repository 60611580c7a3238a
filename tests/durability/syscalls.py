#!/usr/bin/env python3
"""Shows that every acknowledgement comes after a sync: from the system calls, not from the code.

Runs the store's example `acknowledge` under strace. For each `ack KEY;` that it writes to its output,
these must have happened before, in this order:

1. the journal's name was made durable: fsync of the directory, begun after the journal was created;
2. the group with KEY was written to the journal;
3. fdatasync or fsync of that journal was begun after that write, and has returned 0.

Then it takes the syncs out of the same trace, and must find that the rest is not enough: a check that
cannot fail shows nothing. Ends with 0 only if all of that holds.

usage: syscalls.py [--count N] [--binary PATH] [--trace FILE]
Without --binary it builds the example with cargo. --trace judges a trace that was recorded before.
"""

import argparse
import codecs
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CALLS = "openat,write,pwrite64,writev,pwritev,fsync,fdatasync,sync_file_range,rename,unlink,ftruncate"
BEGIN = re.compile(r"^(\d+) +(\w+)\((.*)$", re.S)
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.S)
RESULT = re.compile(r"\) += (-?\d+)(?:<[^>]*>)?(?: .*)?$")
TARGET = re.compile(r"^\d+<([^>]*)>")
DATA = re.compile(r'"((?:[^"\\]|\\.)*)"')
RECORD_HEADER = 16
KEY = re.compile(r"k-\d\d-\d{5};")
JOURNAL = re.compile(r"/journal-\d+$")
SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "writev", "pwritev")


def decompressed(block, size):
    """An LZ4 block (lz4_Block_format.md): literals and copies of what came before, by turns."""

    def length(at, first):
        total = first
        while first == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return at, total

    out, at = bytearray(), 0
    while at < len(block):
        token = block[at]
        at, literals = length(at + 1, token >> 4)
        out += block[at : at + literals]
        at += literals
        if at >= len(block):
            break
        offset = int.from_bytes(block[at : at + 2], "little")
        at, copied = length(at + 2, token & 15)
        for _ in range(copied + 4):
            out.append(out[-offset])
    assert len(out) == size, f"{len(out)} bytes of {size}"
    return bytes(out)


def keys_of(arguments):
    """The keys in a group that is written to a journal (crates/store/src/journal.rs)."""
    shown = DATA.search(arguments)
    data = codecs.escape_decode(shown.group(1).encode())[0] if shown else b""
    if data.startswith(b"GURJ") or len(data) <= RECORD_HEADER + 4:
        return set()
    payload = data[RECORD_HEADER:]
    group = decompressed(payload[4:], int.from_bytes(payload[:4], "little"))
    return set(KEY.findall(group.decode("latin-1")))


class Unproven(Exception):
    """An acknowledgement that nothing in the trace stands behind."""


def events(lines):
    """The calls of a trace as ("begin" or "end", thread, call, arguments, result), in their order."""
    open_calls = {}
    for line in lines:
        line = line.rstrip("\n")
        if resumed := RESUMED.match(line):
            thread, call, rest = resumed.groups()
            arguments = open_calls.pop((thread, call), "") + rest
        elif begun := BEGIN.match(line):
            thread, call, arguments = begun.groups()
            yield "begin", thread, call, arguments, None
            if arguments.endswith("<unfinished ...>"):
                open_calls[(thread, call)] = arguments.removesuffix("<unfinished ...>")
                continue
        else:
            continue
        if result := RESULT.search(arguments):
            yield "end", thread, call, arguments, int(result.group(1))


class Judge:
    """What is durable, by what has been seen so far."""

    def __init__(self):
        self.written = {}  # journal: keys written to it and not known to be durable
        self.unnamed = {}  # directory: journals created in it since its last sync
        self.syncing = {}  # thread: what the sync that it has begun will make durable
        self.durable = set()
        self.acknowledged, self.journals, self.groups, self.syncs = 0, set(), 0, 0

    def see(self, edge, thread, call, arguments, result):
        if call == "openat" and edge == "end" and result >= 0 and "O_CREAT" in arguments and "O_EXCL" in arguments:
            path = arguments.split('"')[1]
            if JOURNAL.search(path):
                self.journals.add(path)
                self.unnamed.setdefault(os.path.dirname(path), set()).add(path)
        elif call in SYNCS:
            self.see_sync(edge, thread, call, arguments, result)
        elif call in WRITES:
            self.see_write(edge, arguments, result)

    def see_sync(self, edge, thread, call, arguments, result):
        target = TARGET.match(arguments)
        path = target.group(1) if target else ""
        if edge == "begin":
            self.syncing[thread] = (path, set(self.written.get(path, ())), set(self.unnamed.get(path, ())))
            return
        path, keys, names = self.syncing.pop(thread)
        if result != 0:
            raise Unproven(f"{call} of {path} failed with {result}")
        self.unnamed.setdefault(path, set()).difference_update(names)
        if JOURNAL.search(path) and keys:
            self.syncs += 1
            self.written[path] -= keys
            if path not in self.unnamed.get(os.path.dirname(path), ()):
                self.durable |= keys

    def see_write(self, edge, arguments, result):
        target = TARGET.match(arguments)
        path = target.group(1) if target else ""
        if JOURNAL.search(path):
            keys = keys_of(arguments) if edge == "end" else set()
            if keys:
                self.groups += 1
                self.written.setdefault(path, set()).update(keys)
        elif edge == "begin" and '"ack ' in arguments:
            for key in KEY.findall(arguments):
                self.acknowledged += 1
                if key not in self.durable:
                    raise Unproven(f"{key} was acknowledged, but no completed sync stands behind it")


def judge(lines):
    verdict = Judge()
    for event in events(lines):
        verdict.see(*event)
    return verdict


def must_fail(what, lines):
    try:
        judge(lines)
    except Unproven as unproven:
        print(f"  {what}: noticed ({unproven})")
        return
    sys.exit(f"this check is worth nothing: with {what} it still passes")


def without(lines, call, path):
    """The trace as it would be without the syncs of some path: begun, finished and resumed ones."""
    pattern, gone, kept = re.compile(rf"^(\d+) +{call}\(\d+<{path}>"), set(), []
    for line in lines:
        if begun := pattern.match(line):
            if "<unfinished" in line:
                gone.add(begun.group(1))
            continue
        resumed = RESUMED.match(line)
        if resumed and resumed.group(1) in gone and re.fullmatch(call, resumed.group(2)):
            gone.discard(resumed.group(1))
            continue
        kept.append(line)
    return kept


def build():
    command = ["cargo", "build", "--quiet", "--package", "gureum-store", "--example", "acknowledge"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "debug", "examples", "acknowledge")


def record(binary, count, folder):
    if shutil.which("strace") is None:
        sys.exit("strace is not installed")
    trace = os.path.join(folder, "trace")
    strace = ["strace", "-f", "-y", "-s", "16777216", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", trace]
    done = subprocess.run([*strace, binary, os.path.join(folder, "store"), str(count)], stdout=subprocess.PIPE, check=True)
    return trace, len(KEY.findall(done.stdout.decode()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--binary")
    parser.add_argument("--trace")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trace, said = arguments.trace, None
        if trace is None:
            trace, said = record(arguments.binary or build(), arguments.count, folder)
        with open(trace, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    try:
        seen = judge(lines)
    except Unproven as unproven:
        sys.exit(f"FAILED: {unproven}")
    if seen.acknowledged == 0 or (said is not None and said != seen.acknowledged):
        sys.exit(f"FAILED: {said} acknowledgements were received, {seen.acknowledged} are in the trace")
    if len(seen.journals) < 2:
        sys.exit("FAILED: the run went through no checkpoint; give a larger --count")
    print(f"{seen.acknowledged} acknowledgements, {seen.groups} groups, {seen.syncs} syncs of {len(seen.journals)} journals:")
    print("  each acknowledgement came after a completed sync of the journal that holds it")
    must_fail("no sync of the journals", without(lines, "fdatasync", r"[^>]*/journal-\d+"))
    must_fail("no sync of the directory", without(lines, "fsync", r"[^>]*/store"))


if __name__ == "__main__":
    main()
