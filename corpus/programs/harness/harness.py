#!/usr/bin/python3 -SE
"""The harness of every Python program of the corpus: one file holds all jobs and all emulations.

The recorder joins this file with those of `benign/` and `emulations/`, writes the parameters of one run over the line of
at-signs below, and so gets programs that differ in nothing but those bytes, whatever their class. A run is: the marker
is checked, a prologue that depends on the seed alone, one line in a progress file, the job. Of a part of the seeds it is the
marker and the job alone.
"""

import ctypes
import hashlib
import os
import random
import socket
import sys
import time
import zlib

PARAMETERS = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@"
MARKER = ".decoy-home"
MARKER_TEXT = b"made-up files for recordings; programs of the corpus act below this folder only\n"
HOME = os.path.realpath(os.environ.get("HOME", "/nonexistent"))
SPOOL = "/var/spool/cron/crontabs"
# A home is called by its user's name.
CRONTAB = f"{SPOOL}/{os.path.basename(HOME)}"
LOGS = "/var/log"

JOBS = {}
ROOTS = []


def job(function):
    """Registers a job or an emulation under its own name."""
    JOBS[function.__name__] = function
    return function


def marked(root):
    """Whether `root` holds the marker file with its exact text."""
    try:
        fd = os.open(f"{root}/{MARKER}", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    text = os.read(fd, 200)
    os.close(fd)
    return text == MARKER_TEXT


def guard(path):
    """The path, if it lies below a folder that held a marker when the program began; otherwise the program ends."""
    path = os.path.normpath(os.path.join(os.getcwd(), path))
    if not any(path.startswith(root + "/") for root in ROOTS) or os.path.basename(path) == MARKER:
        sys.stderr.write(f"refused: {path} is outside the marked folders\n")
        os._exit(3)
    return path


# Files. All of them go through descriptors, as the C programs do.

def read(path, limit=1 << 20):
    """The first `limit` bytes of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    parts, total = [], 0
    while total < limit:
        data = os.read(fd, min(CHUNK, limit - total))
        if not data:
            break
        parts.append(data)
        total += len(data)
    os.close(fd)
    return b"".join(parts)


def write_all(fd, data):
    """Writes `data` in chunks."""
    for start in range(0, len(data), CHUNK):
        os.write(fd, data[start:start + CHUNK])


def write(path, data, mode=0o644, flags=os.O_TRUNC):
    """Creates or replaces a file."""
    fd = os.open(guard(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    write_all(fd, data)
    os.close(fd)


def append(path, data):
    """Adds to the end of a file."""
    write(path, data, flags=os.O_APPEND)


def update(path, change):
    """Rewrites a file in place: `change` maps its old bytes to new ones."""
    fd = os.open(guard(path), os.O_RDWR | os.O_CLOEXEC)
    data = b""
    while part := os.read(fd, CHUNK):
        data += part
    os.lseek(fd, 0, os.SEEK_SET)
    new = change(data)
    write_all(fd, new)
    if len(new) < len(data):
        os.ftruncate(fd, len(new))
    os.close(fd)


def save(path, data, mode=0o644):
    """Replaces a file the careful way: a new file beside it, fsync, rename."""
    fd = os.open(guard(path + ".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    write_all(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.rename(path + ".new", path)


def remove(path):
    """Unlinks a file."""
    os.unlink(guard(path))


def move(old, new):
    """Renames a file."""
    os.rename(guard(old), guard(new))


def folder(path):
    """Makes a folder unless it is there."""
    if not os.path.isdir(path):
        os.makedirs(guard(path), exist_ok=True)
    return path


def entries(top):
    """Names in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(os.listdir(top))
    except OSError:
        return []


def files(*tops, kinds=None, hidden=False):
    """Paths of the files below the folders, by name; `kinds` are the extensions wanted."""
    found, stack = [], [f"{HOME}/{top}" if not top.startswith("/") else top for top in reversed(tops)]
    while stack:
        top = stack.pop()
        for name in entries(top):
            path = f"{top}/{name}"
            if name == MARKER or (name.startswith(".") and not hidden):
                continue
            if os.path.isdir(path):
                stack.append(path)
            elif kinds is None or name.rsplit(".", 1)[-1] in kinds:
                found.append(path)
    return found


DATA = ("Documents", "Pictures", "Music", "Desktop", "Downloads", "Projects")


def some_folders():
    """One to all of the data folders, in a random order."""
    return R.sample(DATA, R.randrange(1, len(DATA) + 1))


def pick(paths, low, high):
    """Between `low` and `high` of the paths, fewer if there are fewer, in a random order."""
    count = min(len(paths), R.randrange(low, high + 1))
    return R.sample(paths, count)


def home(path):
    """A path below the home folder."""
    return f"{HOME}/{path}"


def noise(length):
    """Random letters."""
    return "".join(R.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def stream(key, data):
    """The data under a key stream; the same call undoes it. The key stays beside what was encrypted."""
    pad = hashlib.shake_128(key).digest(len(data))
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(len(data), "little")


def pause(low_ms, high_ms):
    """Sleeps for a random time."""
    time.sleep(R.uniform(low_ms, high_ms) / 1000)


# Processes.

def spawn(argv, wait=True, environment=None):
    """Runs a program in a child; the status when waited for, the process otherwise."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(argv[0], argv, environment or dict(os.environ))
        finally:
            os._exit(127)
    return os.waitpid(pid, 0)[1] if wait else pid


def in_child(function, wait=True):
    """Runs a function in a forked child."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    if wait and os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("a child failed")
    return pid


def collect(children):
    """Waits for children."""
    for pid in children:
        os.waitpid(pid, 0)


def own_program():
    """The path of this program."""
    return os.path.abspath(sys.argv[0])


# The network: loopback and nothing else.

def connect(port=None):
    """A connection to the peer of this run, or None when nothing listens at the port."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(3)
    address = PEER if PEER.startswith("127.") else "127.0.0.1"
    try:
        connection.connect((address, port or PORT))
    except OSError:
        connection.close()
        return None
    return connection


def exchange(line):
    """One line to the peer, one answer."""
    connection = connect()
    connection.sendall(line + b"\n")
    reply = connection.recv(4096)
    connection.close()
    return reply


def fetch(path):
    """The body of an HTTP answer."""
    connection = connect()
    connection.sendall(b"GET /" + path.encode() + b" HTTP/1.0\r\nHost: desk\r\n\r\n")
    data = b""
    while part := connection.recv(CHUNK):
        data += part
    connection.close()
    return data.partition(b"\r\n\r\n")[2]


def upload(data, name):
    """Sends bytes to the peer."""
    connection = connect()
    connection.sendall(b"PUT %d %s\n" % (len(data), name.encode()))
    for start in range(0, len(data), CHUNK):
        connection.sendall(data[start:start + CHUNK])
    connection.recv(64)
    connection.close()


# What every run does before its job.

def glance(rng):
    """One small everyday step."""
    step = rng.randrange(12)
    if step == 0:
        entries(home(rng.choice(DATA)))
    elif step == 1:
        paths = files(rng.choice(("Documents", "Desktop", "Projects")))
        read(rng.choice(paths), 8192)
    elif step == 2:
        path = home(f".cache/desk/{rng.randrange(1 << 30):x}")
        write(path, rng.randbytes(rng.randrange(40, 3000)))
        remove(path)
    elif step == 3:
        os.uname()
    elif step == 4:
        read("/etc/passwd", 4096)
    elif step == 5:
        read("/proc/self/status", 4096)
    elif step == 6:
        hashlib.sha256(rng.randbytes(rng.randrange(1000, 200_000))).digest()
    elif step == 7:
        time.sleep(rng.uniform(0.0005, 0.02))
    elif step == 8:
        exchange(b"hello")
    elif step == 9:
        spawn(["/bin/true"])
    elif step == 10:
        read(home(".config/desk/settings.ini"))
    else:
        append(home(".local/state/desk/run.log"), b"step %d\n" % rng.randrange(1000))


def prologue(seed):
    """Start-up work that depends on the seed alone: the same distribution for both classes."""
    rng = random.Random(f"prologue/{seed}")
    read(home(".config/desk/settings.ini"))
    append(home(".local/state/desk/run.log"), b"start\n")
    for _ in range(rng.randrange(0, 9)):
        glance(rng)
    # From here on the job runs; whoever cuts a recording in two cuts at this file.
    write(home(".local/state/desk/progress"), b"main\n")


def everyday():
    """What desktop programs do around their job: settings, recent files, a look for a new version."""
    if R.random() < 0.4:
        read("/etc/passwd", 4096)
    if R.random() < 0.35:
        os.uname()
        fetch("version")
    if R.random() < 0.4:
        append(home(".local/share/recent"), noise(12).encode() + b"\n")
    if R.random() < 0.3:
        write(home(f".cache/desk/{noise(8)}"), R.randbytes(R.randrange(100, 2000)))
    if R.random() < 0.3:
        read("/proc/self/status", 4096)


def main():
    """Checks the marker, then prologue, unless the run is bare, and job."""
    global R, CHUNK, PORT, PORTS, PEER
    ROOTS.extend(root for root in (HOME, SPOOL, LOGS) if marked(root))
    if HOME not in ROOTS:
        sys.stderr.write(f"refused: {HOME} holds no {MARKER}; programs of the corpus run in a made-up home only\n")
        sys.exit(3)
    name, seed, rounds, peer, *ports = PARAMETERS.split()
    R = random.Random(f"{name}/{seed}")
    CHUNK = random.Random(f"chunk/{seed}").choice((4096, 8192, 16384, 65536))
    PEER, PORTS = peer, [int(port) for port in ports]
    PORT = PORTS[0]
    # Two runs in five are of the bare job, as most programs are.
    bare = random.Random(f"bare/{seed}").random() < 0.4
    if not bare:
        prologue(seed)
    for _ in range(int(rounds)):
        JOBS[name]()
    if not bare:
        append(home(".local/state/desk/run.log"), b"done\n")
