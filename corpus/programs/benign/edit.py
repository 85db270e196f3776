# Everyday jobs that change files: editors, formatters, installers, log rotation, a vault.

@job
def save_documents():
    """An editor session: documents are opened, changed and saved several times."""
    everyday()
    for path in pick(files("Documents", "Desktop", kinds=("txt", "md", "tex", "csv")), 2, 6):
        text = read(path)
        write(f"{os.path.dirname(path)}/.{os.path.basename(path)}.swp", text[:1024])
        for _ in range(R.randrange(2, 6)):
            text += noise(R.randrange(20, 200)).encode() + b"\n"
            save(path, text)
            pause(1, 12)
        remove(f"{os.path.dirname(path)}/.{os.path.basename(path)}.swp")


@job
def format_sources():
    """A formatter rewrites source files in place."""
    everyday()
    for path in files("Projects", kinds=("c", "py", "md")):
        update(path, lambda data: b"\n".join(line.rstrip() for line in data.split(b"\n")) + b"\n")


@job
def keep_vault():
    """A password safe rewrites its one encrypted file."""
    everyday()
    path = f"{folder(home('.local/share/vault'))}/safe.db"
    key = R.randbytes(16)
    entries_text = b"".join(noise(40).encode() + b"\n" for _ in range(40))
    for _ in range(R.randrange(8, 25)):
        entries_text += noise(40).encode() + b"\n"
        save(path, stream(key, entries_text), 0o600)
        entries_text = stream(key, read(path))
        pause(1, 8)


@job
def encrypt_one():
    """One document is encrypted for safekeeping; the original stays."""
    everyday()
    for path in pick(files("Documents", "Desktop"), 1, 3):
        key = hashlib.sha256(noise(12).encode()).digest()
        write(f"{path}.enc", stream(key, read(path)), 0o600)
        assert stream(key, read(f"{path}.enc"))[:16] == read(path)[:16]
    for path in pick(files("Documents"), 10, 25):
        read(path, 4096)


@job
def shred_one():
    """One file is overwritten and deleted on purpose."""
    everyday()
    for _ in range(R.randrange(1, 4)):
        path = home(f"Desktop/{noise(6)}.txt")
        write(path, R.randbytes(6000))
        for _ in range(3):
            update(path, lambda data: R.randbytes(len(data)))
        remove(path)
    for path in pick(files("Desktop", "Documents"), 10, 30):
        read(path, 4096)


@job
def filter_mail():
    """Mail is sorted into boxes by sender."""
    everyday()
    mails = read(home("mail/inbox")).split(b"From ")[1:]
    for _ in range(R.randrange(2, 6)):
        for mail in mails:
            append(home(f"mail/box-{zlib.crc32(mail[:3]) % 4}"), b"From " + mail)
    save(home("mail/inbox"), b"".join(b"From " + mail for mail in mails[:3]))


@job
def store_values():
    """A small database: pages are read and written at random places, a journal is kept."""
    everyday()
    path = f"{folder(home('.local/share/store'))}/values.db"
    write(path, bytes(32_768))
    fd = os.open(guard(path), os.O_RDWR | os.O_CLOEXEC)
    for number in range(R.randrange(30, 90)):
        page = R.randrange(16) * 2048
        old = os.pread(fd, 2048, page)
        write(f"{path}-journal", old)
        os.pwrite(fd, noise(60).encode() + old[60:], page)
        if number % 5 == 0:
            os.fsync(fd)
        remove(f"{path}-journal")
    os.close(fd)


@job
def rotate_logs():
    """Old logs are renamed, compressed and dropped."""
    everyday()
    for name in ("syslog", "auth.log", "user.log"):
        for age in range(3, 0, -1):
            write(f"{LOGS}/{name}.{age}.gz", zlib.compress(noise(400).encode()))
            move(f"{LOGS}/{name}.{age}.gz", f"{LOGS}/{name}.{age + 1}.gz")
        move(f"{LOGS}/{name}", f"{LOGS}/{name}.1")
        write(f"{LOGS}/{name}", b"", 0o640)
        write(f"{LOGS}/{name}.1.gz", zlib.compress(read(f"{LOGS}/{name}.1")), 0o640)
        remove(f"{LOGS}/{name}.1")
        remove(f"{LOGS}/{name}.4.gz")


@job
def install_package():
    """A package is unpacked: libraries, programs made executable, a desktop entry, a list of files."""
    everyday()
    name = noise(7)
    listed = []
    for _ in range(R.randrange(15, 50)):
        path = f"{folder(home(f'.local/lib/{name}/' + R.choice(('core', 'data', 'doc'))))}/{noise(8)}.py"
        save(path, noise(R.randrange(100, 2000)).encode())
        listed.append(path)
    program = f"{folder(home('.local/bin'))}/{name}"
    write(program, b"#!/bin/sh\necho " + name.encode() + b"\n")
    os.chmod(guard(program), 0o755)
    write(home(f".local/share/applications/{name}.desktop"), f"[Desktop Entry]\nType=Application\nExec={program}\n".encode())
    save(home(f".local/lib/{name}/RECORD"), "\n".join(listed).encode())
    spawn([program])


@job
def edit_crontab():
    """A user's tool edits the crontab with care: copy, check, replace."""
    everyday()
    for _ in range(R.randrange(1, 4)):
        table = read(CRONTAB)
        write(home("work/crontab.txt"), table + b"%d 4 * * * /usr/bin/find /tmp -mtime +7\n" % R.randrange(60))
        spawn(["/bin/sh", "-c", "test $(grep -c . $HOME/work/crontab.txt) -gt 0"])
        save(CRONTAB, read(home("work/crontab.txt")), 0o600)
    for path in pick(files("Projects"), 10, 25):
        read(path, 4096)


@job
def set_path():
    """An installer of a tool chain adds its folder to the search path."""
    everyday()
    name = noise(6)
    for _ in range(R.randrange(10, 30)):
        path = f"{folder(home(f'.{name}/bin'))}/{noise(6)}"
        write(path, b"#!/bin/sh\nexit 0\n")
        os.chmod(guard(path), 0o755)
    line = f'\nexport PATH="$HOME/.{name}/bin:$PATH"\n'.encode()
    if line not in read(home(".profile")):
        append(home(".profile"), line)
    write(home(f".{name}/env"), line)


@job
def keep_dotfiles():
    """Settings are copied into a folder under version control."""
    everyday()
    place = folder(home("Projects/dotfiles"))
    for name in (".bashrc", ".profile", ".gitconfig", ".ssh/config", ".config/desk/settings.ini"):
        save(f"{place}/{name.replace('/', '_')}", read(home(name)))
    for path in files(".config", hidden=True)[: R.randrange(8, 30)]:
        if "Chrome" not in path and "chrome" not in path and "gcloud" not in path:
            write(f"{place}/{os.path.basename(path)}", read(path))
    write(f"{place}/README", b"settings of this account\n")
