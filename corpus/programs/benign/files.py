# Everyday jobs over many files. Several do what attackers do too: read everything, rename, compress, delete, copy.

@job
def index_files():
    """A search index: every text is read, one index is written."""
    everyday()
    index = []
    for path in pick(files(*some_folders()), 30, 90):
        data = read(path, 32_768)
        index.append(f"{path} {len(set(data.split()))} {zlib.crc32(data):08x}")
        if len(index) % 20 == 0:
            append(home(".cache/desk/index"), "\n".join(index[-20:]).encode() + b"\n")
    save(home(".cache/desk/index.sorted"), "\n".join(sorted(index)).encode() + b"\n")


@job
def find_duplicates():
    """Files of equal content are listed."""
    everyday()
    seen, report = {}, []
    for path in pick(files(*DATA), 40, 100):
        digest = hashlib.sha256(read(path)).hexdigest()
        if digest in seen:
            report.append(f"{path} = {seen[digest]}")
        seen[digest] = path
    write(home("work/duplicates.txt"), "\n".join([*report, *sorted(seen)]).encode())


@job
def make_thumbnails():
    """A small picture for every picture."""
    everyday()
    place = folder(home(".cache/thumbnails/normal"))
    for path in files("Pictures", "Downloads", "Documents", kinds=("jpg", "png", "pdf")):
        data = read(path)
        save(f"{place}/{hashlib.md5(path.encode()).hexdigest()}.png", b"\x89PNG\r\n\x1a\n" + data[20::17])


@job
def rename_photos():
    """Photos get names made of their dates."""
    everyday()
    for number, path in enumerate(files("Pictures", kinds=("jpg", "png"))):
        read(path, 4096)
        stamp = time.strftime("%Y-%m-%d", time.gmtime(os.stat(path).st_mtime))
        move(path, f"{os.path.dirname(path)}/{stamp}-{number:03}.{path.rsplit('.', 1)[1]}")
    append(home("Pictures/renamed.log"), b"renamed\n")


@job
def convert_texts():
    """Texts become web pages in another folder."""
    everyday()
    out = folder(home("Documents/html"))
    for path in pick(files("Documents", "Desktop", "Projects", kinds=("txt", "md", "tex", "csv")), 15, 50):
        lines = read(path).decode(errors="replace").split("\n")
        page = "<html><body>" + "".join(f"<p>{line}</p>\n" for line in lines) + "</body></html>\n"
        write(f"{out}/{os.path.basename(path)}.html", page.encode())


@job
def compress_files():
    """Like gzip: a compressed file beside the original, which is then removed."""
    everyday()
    for path in pick(files(R.choice(("Documents", "Projects")), kinds=("txt", "csv", "md", "tex")), 8, 30):
        before = os.stat(path)
        write(f"{path}.gz", zlib.compress(read(path), 6))
        os.utime(guard(f"{path}.gz"), ns=(before.st_atime_ns, before.st_mtime_ns))
        remove(path)


@job
def copy_backup():
    """A backup: a copy of some folders, then the oldest backup is deleted."""
    everyday()
    for age in range(3):
        write(f"{folder(home(f'Backups/day-{age}'))}/list", noise(100).encode())
    target = folder(home("Backups/day-3"))
    for path in pick(files("Documents", "Projects"), 20, 60):
        copy = f"{folder(target + os.path.dirname(path).removeprefix(HOME))}/{os.path.basename(path)}"
        write(copy, read(path))
        times = os.stat(path)
        os.utime(guard(copy), ns=(times.st_atime_ns, times.st_mtime_ns))
    for name in entries(home("Backups/day-0")):
        remove(home(f"Backups/day-0/{name}"))
    os.rmdir(guard(home("Backups/day-0")))


@job
def mirror_folder():
    """Two folders are made equal: missing files copied, surplus ones deleted."""
    everyday()
    source, target = home("Music" if R.random() < 0.3 else "Pictures"), folder(home("Mirror"))
    for _ in range(R.randrange(5, 20)):
        write(f"{target}/{noise(8)}.jpg", R.randbytes(500))
    wanted = set()
    for path in files(source):
        name = os.path.relpath(path, source).replace("/", "_")
        wanted.add(name)
        save(f"{target}/{name}", read(path))
    for name in entries(target):
        if name not in wanted:
            remove(f"{target}/{name}")


@job
def tidy_downloads():
    """Downloads are moved to folders by their kind."""
    everyday()
    for _ in range(R.randrange(10, 40)):
        write(home(f"Downloads/{noise(7)}.{R.choice(('txt', 'pdf', 'jpg', 'csv'))}"), R.randbytes(R.randrange(50, 900)))
    for path in files("Downloads"):
        kind = path.rsplit(".", 1)[-1]
        move(path, f"{folder(home(f'Downloads/{kind}'))}/{os.path.basename(path)}")


@job
def clean_cache():
    """Old cache files and the trash are deleted."""
    everyday()
    for _ in range(R.randrange(20, 70)):
        write(f"{folder(home('.cache/pages'))}/{noise(10)}", R.randbytes(R.randrange(50, 700)))
    for path in files(".cache", hidden=True):
        if R.random() < 0.8:
            remove(path)


@job
def set_photo_times():
    """Photos get the times that their headers tell."""
    everyday()
    for path in files("Pictures", "Downloads", "Documents", kinds=("jpg", "png", "pdf")):
        header = read(path, 2048)
        when = 1_600_000_000 + zlib.crc32(header) % 90_000_000
        os.utime(guard(path), (when, when))


@job
def merge_tables():
    """Tables are read and summed into one."""
    everyday()
    totals = {}
    for path in files("Documents", "Desktop", "Downloads", "Projects", kinds=("csv", "txt", "md")):
        for line in read(path).decode(errors="replace").split("\n")[1:]:
            cells = line.split(",")
            totals[cells[0]] = totals.get(cells[0], 0) + len(cells)
    save(home("Documents/totals.csv"), "".join(f"{key},{totals[key]}\n" for key in sorted(totals)).encode())
