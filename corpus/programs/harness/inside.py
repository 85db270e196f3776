"""Runs one program under strace inside fresh namespaces; `cargo xtask record-corpus` starts it through unshare(1).

    inside.py SPEC OUT

SPEC is a JSON file (see `Spec` in xtask/src/record_corpus.rs). Written to OUT: NAME.strace and NAME.json.
Exit status 0: recorded; 3: the program failed (its status and its last words are printed).

What the program sees: the system's own /usr and /etc read-only, an empty /tmp, a made-up home, crontab spool and log
folder, no network but loopback, no process but its own, and an ordinary user.
"""

import ctypes
import fcntl
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import home as home_tree  # noqa: E402

UID = 1000
ROOTS = ("/home/user", "/var/spool/cron/crontabs", "/var/log")
PRIVATE = "/run/recorder"
# Top-level folders that a Debian system needs to run programs; all others are hidden.
KEPT = {"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "tmp", "usr", "var"}
TIME_LIMIT_S = 25

MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
ADDR_NO_RANDOMIZE = 0x0040000
PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


def call(result, what):
    """Raises when a libc call reported failure."""
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags=0, options=""):
    call(libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, options.encode()), f"mount {target}")


def tmpfs(target, owner=0, mode="755", size="64m"):
    mount("tmpfs", target, "tmpfs", MS_NOSUID, f"mode={mode},uid={owner},gid={owner},size={size}")


def furnish(out, names):
    """Mounts: a private folder for the recorder, empty folders for the user, everything else read-only or hidden."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    tmpfs("/run")
    os.mkdir(PRIVATE, 0o700)
    os.mkdir(f"{PRIVATE}/out")
    mount(out, f"{PRIVATE}/out", None, MS_BIND)
    for name, text in (("passwd", f"root:x:0:0:root:/:/bin/sh\nuser:x:{UID}:{UID}:User:/home/user:/bin/sh\n"),
                       ("group", f"root:x:0:\nuser:x:{UID}:\n"), ("hostname", "desk\n"), ("hosts", "127.0.0.1 localhost desk\n")):
        with open(f"{PRIVATE}/{name}", "w", encoding="ascii") as file:
            file.write(text)
        mount(f"{PRIVATE}/{name}", f"/etc/{name}", None, MS_BIND)
    for folder in ("/home", "/tmp", "/var/tmp", "/var/spool", "/var/log"):
        if os.path.isdir(folder):
            tmpfs(folder, 0, "1777" if folder.endswith("tmp") else "755")
    for name in sorted(os.listdir("/")):
        if name not in KEPT and os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
            tmpfs(f"/{name}", 0, "755", "1m")
    for name in names:
        os.makedirs(name, exist_ok=True)
        os.chown(name, UID, UID)
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    socket.sethostname("desk")
    # Loopback is down in a new network namespace.
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    probe.close()


def answer(connection, seed):
    """One peer for all programs of both classes: small files, a mailbox for uploads, lines to be answered, a remote prompt."""
    rng = random.Random(f"peer/{seed}")
    connection.settimeout(5)
    lines = connection.makefile("rwb", buffering=0)
    try:
        first = lines.readline(4096).split()
        verb = first[0] if first else b""
        if verb == b"GET":
            body = rng.randbytes(int(first[1].rsplit(b"=", 1)[-1])) if b"=" in first[1] else b"version 3\n"
            if b"script" in first[1]:
                body = b"#!/bin/sh\nuname -a\necho done > $HOME/work/answer\n"
            while lines.readline(4096).strip():
                pass
            head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            lines.write(head.encode() + body)
        elif verb in (b"PUT", b"POST"):
            http = len(first) == 3 and first[2].startswith(b"HTTP/")
            left = 0 if http else int(first[1])
            while http and (line := lines.readline(4096).strip()):
                if line.lower().startswith(b"content-length:"):
                    left = int(line.split(b":")[1])
            while left > 0:
                data = connection.recv(min(left, 65536))
                if not data:
                    break
                left -= len(data)
            lines.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n" if http else b"OK\n")
        elif verb == b"PROMPT":
            # A look around first, then what is worth taking.
            looks = ["id", "uname -a", "ls -la", "cat /etc/passwd", "ls Documents", "env", "cat /proc/version"]
            takes = ["cat .bash_history", "cat .ssh/id_ed25519", "head -n 5 .aws/credentials", "cat .netrc .git-credentials"]
            commands = rng.sample(looks, rng.randrange(2, 5)) + rng.sample(takes, rng.randrange(1, 4))
            for command in commands:
                lines.write(command.encode() + b"\n")
                while True:
                    line = lines.readline(65536)
                    if not line or line == b"--\n":
                        break
        else:
            line = first
            while line:
                lines.write(b"OK %d\n" % rng.randrange(1_000))
                line = lines.readline(4096)
    except (OSError, ValueError):
        # A program that hangs up early is part of the job, not a fault of the recording.
        pass
    finally:
        connection.close()


def serve(ports, seed):
    """Listens on the ports of this run, on all loopback addresses."""
    def loop(listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, seed), daemon=True).start()

    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(16)
        threading.Thread(target=loop, args=(listener,), daemon=True).start()


def as_user(action):
    """Runs `action` with the user's identity for files."""
    os.setegid(UID)
    os.seteuid(UID)
    try:
        return action()
    finally:
        os.seteuid(0)
        os.setegid(0)


def install(spec, program, steps):
    """Puts the program, and the script of a tool job, where the user has them."""
    def write():
        for path, data, mode in ((spec["program"], program, 0o755), ("/home/user/work/steps.sh", steps, 0o644)):
            with open(path, "wb") as out:
                out.write(data)
            os.chmod(path, mode)
        os.utime(spec["program"], (1_749_000_000, 1_749_000_000))
    as_user(write)


def limits():
    """What a recorded process may use at most; beyond that it is ended."""
    resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, 32 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The recorded heap and library addresses carry no information; fixed ones compress.
    libc.personality(ADDR_NO_RANDOMIZE)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(0o022)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    with open(spec["binary"], "rb") as file:
        program = file.read()
    with open(spec["steps"], "rb") as file:
        steps = file.read()
    seed = spec["seed"]
    furnish(os.path.abspath(sys.argv[2]), ROOTS)
    decoys = as_user(lambda: home_tree.build(ROOTS, seed))
    install(spec, program, steps)
    serve(spec["ports"], seed)
    name = spec["name"]
    trace = f"{PRIVATE}/out/{name}.strace"
    command = ["strace", "-f", "--seccomp-bpf", "-e", f"trace={spec['calls']}", "-yy", "-s", "512", "-xx",
               "--absolute-timestamps=unix,ns", "-u", "user", "-o", trace, *spec["argv"]]
    environment = {"HOME": "/home/user", "USER": "user", "LOGNAME": "user", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8",
                   "SHELL": "/bin/sh", "TERM": "dumb", "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             env=environment, cwd="/home/user/work", preexec_fn=limits)
    words = b""
    try:
        words = child.communicate(timeout=TIME_LIMIT_S)[1]
        status = child.returncode
    except subprocess.TimeoutExpired:
        child.kill()
        status = "timeout"
    # What stays behind (a job's own background process) ends with the namespace, before the log is read.
    sidecar = {key: spec[key] for key in ("episode_id", "label", "family", "technique", "seed", "language", "job", "sample_sha256")}
    sidecar.update(cwd="/home/user/work", home="/home/user", scratch="/home/user/work/", decoys=decoys, complete=True)
    with open(f"{PRIVATE}/out/{name}.json", "w", encoding="utf-8") as out:
        json.dump(sidecar, out, indent=0, sort_keys=True)
    if status != 0:
        print(f"status {status}: {words[-600:].decode(errors='replace')}", file=sys.stderr, flush=True)
        os._exit(3)
    os._exit(0)


main()
