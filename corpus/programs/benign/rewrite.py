# Everyday jobs that rewrite what a user has: documents, pictures, mail, databases.

def encoded(data):
    """What an encoder makes of a compressed file: the head stays, the rest is other bytes, up to a quarter fewer of them."""
    head = min(12, len(data))
    return data[:head] + R.randbytes((len(data) - head) * R.randrange(75, 101) // 100)


@job
def office_session():
    """Office documents are opened with a lock beside them and saved through temporary files."""
    everyday()
    backups = folder(home(".config/office/user/backup"))
    for path in pick(files("Documents", kinds=("docx", "xlsx", "odt")), 3, 8):
        content = read(path)
        place, name = os.path.split(path)
        lock = f"{place}/.~lock.{name}#"
        write(lock, f",desk,{noise(12)};\n".encode())
        append(home(".local/share/recent"), path.encode() + b"\n")
        for _ in range(R.randrange(1, 5)):
            pause(1, 12)
            write(f"{backups}/{name}.bak", read(path))
            content = encoded(content)
            fresh = f"{place}/lu{noise(8)}.tmp"
            write(fresh, content)
            move(fresh, path)
            remove(f"{backups}/{name}.bak")
        remove(lock)
    save(home(".config/office/user/settings.xml"), noise(R.randrange(800, 4000)).encode())


@job
def shrink_pictures():
    """Pictures are encoded anew; those that get smaller take the place of the old ones, with their times."""
    everyday()
    report = []
    for path in files("Pictures", "Downloads", kinds=("jpg", "png")):
        old = read(path)
        small = encoded(old)
        report.append(f"{path} {len(old)} {len(small)}")
        if len(small) + len(old) // 20 > len(old):
            continue
        fresh = f"{os.path.dirname(path)}/shrink-{noise(6)}"
        write(fresh, small, 0o600, os.O_EXCL)
        os.chmod(guard(fresh), 0o644)
        times = os.stat(path)
        os.utime(guard(fresh), ns=(times.st_atime_ns, times.st_mtime_ns))
        move(fresh, path)
    write(home("work/shrunk.txt"), "\n".join(report).encode())


@job
def strip_metadata():
    """What cameras note is taken out of pictures; the originals are kept beside them or removed at the end."""
    everyday()
    keep = R.random() < 0.6
    kept = []
    for path in pick(files("Pictures", "Downloads", kinds=("jpg", "png")), 10, 30):
        data = read(path)
        cut = 0 if len(data) < 400 else R.randrange(60, 301)
        write(f"{path}_tmp", data[:12] + data[12 + cut:])
        move(path, f"{path}_original")
        move(f"{path}_tmp", path)
        kept.append(f"{path}_original")
    if not keep:
        for path in kept:
            remove(path)


@job
def replace_text():
    """A word is searched in texts and sources and replaced wherever it stands, in place or through temporary files."""
    everyday()
    tops = ("Projects", "Documents") if R.random() < 0.5 else ("Documents", "Desktop")
    paths = files(*tops, kinds=("txt", "md", "tex", "csv", "c", "py"))
    # What is looked for stands in one of the files at least.
    word = R.choice([word for word in read(R.choice(paths)).replace(b",", b" ").split() if len(word) > 2] or [b"the"])
    in_place = R.random() < 0.4
    changed = 0
    for path in paths:
        data = read(path)
        if word not in data:
            continue
        changed += 1
        if in_place:
            write(path, data.replace(word, word.swapcase()))
            continue
        fresh = f"{os.path.dirname(path)}/sed{noise(6)}"
        write(fresh, data.replace(word, word.swapcase()), 0o600, os.O_EXCL)
        os.chmod(guard(fresh), 0o644)
        move(fresh, path)
    append(home(".local/share/recent"), b"replaced %s in %d files\n" % (word, changed))


@job
def refresh_documents():
    """A cloud client brings documents up to date: newer ones come and replace the old, changed ones go."""
    everyday()
    state = f"{folder(home('.local/share/cloud'))}/state.db"
    known = b""
    exchange(b"list")
    paths = pick(files("Documents", "Desktop"), 12, 35)
    for number, path in enumerate(paths):
        data = read(path)
        place, name = os.path.split(path)
        lot = R.randrange(100)
        if lot < 40:
            data = fetch(f"file?size={R.randrange(400, 9000)}")
            fresh = f"{place}/.{name}.~{R.randrange(1 << 16):04x}"
            write(fresh, data)
            if lot < 8:
                move(path, f"{place}/{name} (conflicted copy)")
            times = os.stat(home(".profile"))
            os.utime(guard(fresh), ns=(times.st_atime_ns, times.st_mtime_ns))
            move(fresh, path)
        elif lot < 60:
            upload(read(path), name)
        known += f"{path} {zlib.crc32(data):08x}\n".encode()
        if number % 8 == 7:
            append(f"{state}-wal", known)
            append(home(".local/state/desk/cloud.log"), b"%d\n" % number)
    save(state, known, 0o600)
    if len(paths) > 7:
        remove(f"{state}-wal")


def store_object(repository, kind, data):
    """A file in the repository: written under another name, synchronised, renamed, never changed again."""
    name = hashlib.sha256(data + R.randbytes(8)).hexdigest()[:32]
    place = folder(f"{repository}/{kind}/{name[:2]}" if kind == "data" else f"{repository}/{kind}")
    fresh = f"{place}/{name}-tmp-{noise(6)}"
    fd = os.open(guard(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    write_all(fd, data)
    os.fsync(fd)
    os.close(fd)
    move(fresh, f"{place}/{name}")
    os.chmod(guard(f"{place}/{name}"), 0o400)


@job
def backup_chunks():
    """A backup into an encrypted repository of packs, with an index, a snapshot and a lock."""
    everyday()
    repository = folder(home("Backups/repository"))
    key = R.randbytes(16)
    store_object(repository, "keys", stream(key, noise(300).encode()))
    lock = f"{folder(f'{repository}/locks')}/{noise(20)}"
    write(lock, stream(key, noise(120).encode()))
    paths = pick(files(*some_folders()), 15, 50)
    in_pack = R.randrange(2, 7)
    for start in range(0, len(paths), in_pack):
        pack = b"".join(zlib.compress(read(path)) for path in paths[start:start + in_pack])
        store_object(repository, "data", stream(key, pack))
    store_object(repository, "index", stream(key, zlib.compress("\n".join(paths).encode())))
    store_object(repository, "snapshots", stream(key, noise(250).encode()))
    remove(lock)


PAGE = 1024


def change_pages(fd, path, pages):
    """One transaction: old pages into the journal, new ones into the database, the journal removed."""
    log = os.open(guard(f"{path}-journal"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for _ in range(R.randrange(2, 6)):
        place = PAGE * R.randrange(pages)
        page = bytearray(os.pread(fd, PAGE, place))
        write_all(log, bytes(page))
        for _ in range(R.randrange(1, 5)):
            if len(page) > 80:
                start = R.randrange(len(page) - 64)
                page[start:start + 40] = noise(40).encode()
        os.pwrite(fd, page, place)
    os.fsync(log)
    os.close(log)
    os.fsync(fd)
    remove(f"{path}-journal")


@job
def compact_database():
    """Databases are changed page by page, then copied without their gaps and written back, shorter."""
    everyday()
    paths = [path for path in files(".mozilla", hidden=True) if path.endswith("/places.sqlite")]
    calendar = f"{folder(home('.local/share/calendar'))}/local.sqlite"
    write(calendar, noise(PAGE * R.randrange(6, 17)).encode())
    for path in [*paths, calendar]:
        fd = os.open(guard(path), os.O_RDWR | os.O_CLOEXEC)
        size = 0
        while part := os.read(fd, CHUNK):
            size += len(part)
        pages = (size + PAGE - 1) // PAGE
        for _ in range(R.randrange(3, 9)):
            if pages:
                change_pages(fd, path, pages)
        # The compact copy, and from it back over the database.
        compacted = b""
        for number in range(pages):
            page = os.pread(fd, PAGE, number * PAGE)
            if R.random() < 0.8:
                compacted += page
        write(f"{path}-vacuum", compacted)
        for start in range(0, len(compacted), PAGE):
            os.pwrite(fd, compacted[start:start + PAGE], start)
        os.ftruncate(fd, len(compacted))
        os.fsync(fd)
        os.close(fd)
        remove(f"{path}-vacuum")


@job
def compact_mail():
    """New mail is fetched, then each box is written anew without what was deleted, and renamed over the old one."""
    everyday()
    inbox = home("mail/inbox")
    exchange(b"hello")
    for _ in range(R.randrange(3, 13)):
        mail = fetch(f"mail?size={R.randrange(300, 2500)}")
        append(inbox, f"From {noise(6)}@mail.invalid\nSubject: {noise(12)}\n\n".encode())
        append(inbox, mail)
        append(inbox, b"\n")
    for _ in range(R.randrange(4, 15)):
        text = noise(R.randrange(100, 900))
        append(home(R.choice(("mail/sent", "mail/archive"))), f"From me@mail.invalid\nSubject: {noise(9)}\n\n{text}\n".encode())
    for path in (inbox, home("mail/sent"), home("mail/archive")):
        if not os.path.exists(path):
            continue
        mails = (b"\n" + read(path)).split(b"\nFrom ")[1:]
        fd = os.open(guard(home("mail/nstmp")), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        index = b""
        for mail in mails:
            if R.random() < 0.85:
                write_all(fd, b"From " + mail + b"\n")
                index += b"%08x\n" % zlib.crc32(mail)
        os.fsync(fd)
        os.close(fd)
        move(home("mail/nstmp"), path)
        write(f"{path}.msf", index)


@job
def seal_folder():
    """A few documents go into one archive with a pass phrase, which is checked before the originals are deleted."""
    everyday()
    place = os.path.dirname(R.choice(files("Documents")))
    archive = home(f"Documents/{noise(7)}.7z")
    key = R.randbytes(16)
    paths = pick(files(place), 4, 12)
    fd = os.open(guard(f"{archive}.tmp"), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    packed = b""
    for path in paths:
        part = stream(key, zlib.compress(read(path)))
        write_all(fd, part)
        packed += part
    os.fsync(fd)
    os.close(fd)
    move(f"{archive}.tmp", archive)
    assert read(archive) == packed
    for path in paths:
        remove(path)
    for path in pick(files("Documents", "Desktop"), 10, 30):
        read(path, 4096)
