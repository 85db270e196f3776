# Everyday jobs that set up programs and accounts: start-up files, timers, keys, new versions, old traces.

@job
def start_at_login():
    """A messenger keeps its settings, among them that it starts at login, and talks to its server."""
    everyday()
    name = noise(7)
    place = folder(home(f".config/{name}"))
    save(f"{place}/settings.json", noise(R.randrange(300, 1500)).encode())
    for _ in range(R.randrange(8, 26)):
        write(f"{folder(home(f'.local/share/icons/{name}'))}/{noise(6)}.svg", noise(R.randrange(200, 1500)).encode())
    entry = (f"[Desktop Entry]\nType=Application\nName={name}\nExec={home('.local/bin/hello')} --minimised\n"
             "X-GNOME-Autostart-enabled=true\n")
    for left in range(R.randrange(3, 9), 0, -1):
        # The user goes through the settings; one of them is whether the program starts at login.
        pause(1, 12)
        if left == 2:
            write(home(f".config/autostart/{name}.desktop"), entry.encode())
        save(f"{place}/settings.json", noise(R.randrange(300, 1500)).encode())
        append(f"{place}/log", b"settings saved\n")
    connection = connect()
    connection.sendall(f"login {noise(10)}\n".encode())
    connection.recv(4096)
    for _ in range(R.randrange(5, 21)):
        connection.sendall(b"ping\n")
        append(f"{place}/log", connection.recv(4096))
    connection.close()


@job
def schedule_backup():
    """A backup tool sets up a timer of the user's, and makes the first backup."""
    everyday()
    name = f"backup-{noise(4)}"
    units = folder(home(".config/systemd/user"))
    program = home(f".local/bin/{name}")
    write(program, b"#!/bin/sh\ncp -a Documents Backups/\n")
    os.chmod(guard(program), 0o755)
    save(f"{units}/{name}.service", f"[Service]\nType=oneshot\nExecStart={program}\n".encode())
    save(f"{units}/{name}.timer", b"[Timer]\nOnCalendar=daily\nPersistent=true\n[Install]\nWantedBy=timers.target\n")
    wanted = folder(f"{units}/timers.target.wants")
    os.symlink(f"{units}/{name}.timer", guard(f"{wanted}/{name}.timer"))
    # The first backup is made at once.
    target = folder(home("Backups/first"))
    for path in pick(files("Documents", "Desktop"), 15, 50):
        copy = f"{target}/{os.path.basename(path)}"
        write(copy, read(path))
        times = os.stat(path)
        os.utime(guard(copy), ns=(times.st_atime_ns, times.st_mtime_ns))
    write(home(f".local/state/desk/{name}.stamp"), b"")


@job
def shell_framework():
    """A framework for the shell is installed: its scripts in a hidden folder, the start-up file kept aside and replaced."""
    everyday()
    name = noise(5)
    place = home(f".{name}")
    for _ in range(R.randrange(12, 41)):
        part = R.choice(("lib", "plugins", "themes", "tools"))
        path = f"{folder(f'{place}/{part}')}/{noise(7)}.sh"
        write(path, f"# {noise(R.randrange(50, 900))}\nalias {noise(3)}='ls -l'\n".encode())
        if part == "tools":
            os.chmod(guard(path), 0o755)
    start = home(R.choice((".bashrc", ".profile")))
    old = read(start)
    if R.random() < 0.5:
        move(start, f"{start}.before-{name}")
    else:
        write(f"{start}.before-{name}", old)
    write(start, f"export SHELL_KIT={place}\nfor f in $SHELL_KIT/lib/*.sh; do . $f; done\n".encode() + old)
    for path in files(place, kinds=("sh",), hidden=True):
        read(path)
    spawn(["/bin/sh", "-c", f". {place}/lib/x.sh 2>/dev/null; true"])


@job
def version_manager():
    """Versions of a tool chain are fetched, unpacked in a hidden folder, linked, tried and put on the search path."""
    everyday()
    place = home(f".{noise(4)}")
    fetch("index")
    for _ in range(R.randrange(1, 3)):
        archive = f"{folder(f'{place}/downloads')}/{noise(5)}.tar"
        version = f"{place}/versions/{R.randrange(1, 23)}.{R.randrange(20)}"
        folder(f"{version}/bin")
        data = fetch(f"file?size={R.randrange(20_000, 60_000)}")
        write(f"{archive}.part", data)
        move(f"{archive}.part", archive)
        assert read(archive) == data
        for _ in range(R.randrange(8, 21)):
            write(f"{folder(f'{version}/lib')}/{noise(8)}", data[: R.randrange(300, 6000)])
        for _ in range(R.randrange(2, 6)):
            program = f"{version}/bin/{noise(5)}"
            write(program, b"#!/bin/sh\necho 1\n")
            os.chmod(guard(program), 0o755)
            os.symlink(program, guard(f"{folder(f'{place}/shims')}/{os.path.basename(program)}"))
        spawn([program, "--version"])
        remove(archive)
    for start in (home(".bashrc"), home(".profile")):
        if place.encode() not in read(start):
            append(start, f'\nexport PATH="{place}/shims:$PATH"\n'.encode())


@job
def update_tools():
    """A package manager of the user's brings programs up to date: packages fetched, unpacked, renamed over the old ones."""
    everyday()
    place, cache = home(".local/bin"), folder(home(".cache/packages"))
    names = entries(place)
    for _ in range(R.randrange(4, 11)):
        names.append(noise(6))
        write(f"{place}/{names[-1]}", b"#!/bin/sh\necho 1\n", 0o755)
    fetch("version")
    for number, name in enumerate(names):
        package = fetch(f"package?size={R.randrange(1000, 9000)}")
        write(f"{cache}/{name}.pkg", package)
        read(f"{cache}/{name}.pkg")
        fresh = f"{place}/{name}.dpkg-new"
        write(fresh, b"#!/bin/sh\necho 2\n")
        os.chmod(guard(fresh), 0o755)
        move(fresh, f"{place}/{name}")
        if number == 0:
            spawn([f"{place}/{name}"])
    save(home(".local/state/desk/packages"), "".join(f"{name} 2\n" for name in names).encode())
    for path in files(".cache/packages", hidden=True):
        remove(path)


@job
def pair_machines():
    """Logins between machines are set up: host keys noted, public keys exchanged, then files are copied over."""
    everyday()
    place = folder(home(".ssh"))
    for left in range(R.randrange(2, 7), 0, -1):
        host = f"{noise(6)}.example"
        # The other machine says who it is, the user agrees, the public key goes there and theirs comes here.
        exchange(f"hello {host}".encode())
        if host.encode() not in read(f"{place}/known_hosts"):
            append(f"{place}/known_hosts", f"{host} ssh-ed25519 {noise(68)}\n".encode())
        read(f"{place}/id_ed25519.pub")
        exchange(f"key {noise(40)}".encode())
        if left == 1 or R.random() < 0.3:
            keys = read(f"{place}/authorized_keys")
            save(f"{place}/authorized_keys", keys + f"ssh-ed25519 {noise(68)} {host}\n".encode(), 0o600)
        save(f"{place}/config", read(f"{place}/config") + f"Host {host}\n    User desk\n".encode(), 0o600)
    for path in pick(files("Projects", "Documents"), 10, 30):
        upload(read(path, 8192), os.path.basename(path))


@job
def clean_privacy():
    """A cleaner deletes caches and thumbnails, empties lists and logs of programs and shortens the history."""
    everyday()
    place = folder(home(".cache/thumbnails/large"))
    for _ in range(R.randrange(10, 41)):
        write(f"{place}/{noise(10)}.png", R.randbytes(R.randrange(50, 700)))
    history = read(home(".bash_history"))
    # The newer half of the history stays; commands that stood there before go.
    save(home(".bash_history"), history[len(history) // 2:].partition(b"\n")[2], 0o600)
    write(home(".local/share/recent"), b"")
    removed = 0
    for path in files(".cache", hidden=True):
        read(path, 512)
        remove(path)
        removed += 1
    for path in files(".local/state", kinds=("log",), hidden=True):
        if R.random() < 0.5:
            write(path, b"")
    write(home("work/cleaned.txt"), b"%d files\n" % removed)
