# Everyday jobs with processes, memory and the network (loopback).

@job
def download_files():
    """Files are fetched and stored."""
    everyday()
    for number in range(R.randrange(4, 16)):
        data = fetch(f"file?size={R.randrange(2_000, 60_000)}")
        path = home(f"Downloads/{noise(6)}-{number}.zip")
        write(path + ".part", data)
        move(path + ".part", path)


@job
def upload_report():
    """One report is made of texts and sent."""
    everyday()
    lines = [f"{path} {len(read(path, 16_384))}" for path in pick(files("Documents", "Projects"), 15, 40)]
    write(home("work/report.txt"), "\n".join(lines).encode())
    upload(read(home("work/report.txt")), "report")


@job
def chat_client():
    """Messages go to and fro, a history is kept."""
    everyday()
    path = f"{folder(home('.local/share/chat'))}/history"
    connection = connect()
    connection.sendall(b"hello\n")
    for _ in range(R.randrange(15, 60)):
        connection.sendall(noise(R.randrange(5, 60)).encode() + b"\n")
        reply = connection.recv(4096)
        append(path, reply)
        if R.random() < 0.5:
            pause(1, 10)
    connection.close()


@job
def check_update():
    """A newer version is fetched, checked, installed beside the old one and tried."""
    everyday()
    fetch("version")
    for _ in range(R.randrange(1, 4)):
        data = fetch(f"package?size={R.randrange(5_000, 50_000)}")
        place = folder(home(f".local/lib/desk-{R.randrange(100)}"))
        write(f"{place}/package.new", data)
        if hashlib.sha256(read(f"{place}/package.new")).digest() == hashlib.sha256(data).digest():
            move(f"{place}/package.new", f"{place}/package")
        for _ in range(R.randrange(4, 12)):
            write(f"{place}/{noise(6)}.so", data[: R.randrange(500, 4000)])
    program = home(".local/bin/desk")
    save(program, b"#!/bin/sh\necho 4\n", 0o755)
    spawn([program])


@job
def check_services():
    """A monitor asks a few known services whether they are up."""
    everyday()
    for _ in range(R.randrange(5, 15)):
        for port in PORTS:
            connection = connect(port)
            if connection:
                connection.sendall(b"hello\n")
                connection.recv(64)
                connection.close()
        append(home(".local/state/desk/health.log"), b"up\n")
        pause(1, 10)


@job
def sync_folder():
    """A folder is synchronised with a server: lists compared, changed files sent, new ones fetched."""
    everyday()
    place = folder(home("Sync"))
    for _ in range(R.randrange(6, 14)):
        write(f"{place}/{noise(6)}.md", noise(R.randrange(200, 3000)).encode())
    exchange(b"list")
    for path in files("Sync"):
        if R.random() < 0.5:
            upload(read(path), os.path.basename(path))
        else:
            save(path, fetch(f"file?size={R.randrange(200, 4000)}"))
    save(home(".local/state/desk/sync.json"), noise(200).encode())


@job
def serve_pages():
    """A small web server and its visitor, both of them own processes."""
    everyday()
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen(8)
    port = listener.getsockname()[1]
    visits = R.randrange(6, 20)

    def server():
        pages = files("Documents", kinds=("txt", "md", "csv"))
        for number in range(visits):
            connection, _ = listener.accept()
            connection.recv(1024)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + read(pages[number % len(pages)]))
            connection.close()

    child = in_child(server, wait=False)
    for number in range(visits):
        connection = connect(port)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(CHUNK):
            pass
        connection.close()
        append(home("work/access.log"), b"GET / %d\n" % number)
    collect([child])


@job
def worker_pool():
    """Several processes compute over files and report through files."""
    everyday()
    paths = pick(files(*some_folders()), 20, 60)
    workers = R.randrange(2, 5)

    def work(k):
        lines = [f"{hashlib.sha256(read(path)).hexdigest()} {path}" for path in paths[k::workers]]
        write(home(f"work/part-{k}"), "\n".join(lines).encode())

    collect([in_child(lambda k=k: work(k), wait=False) for k in range(workers)])
    save(home("work/sums"), b"\n".join(read(home(f"work/part-{k}")) for k in range(workers)))
    for k in range(workers):
        remove(home(f"work/part-{k}"))


@job
def watch_system():
    """A monitor looks at processes, load and memory and draws a line per look."""
    everyday()
    os.uname()
    for _ in range(R.randrange(4, 12)):
        for name in entries("/proc"):
            if name.isdigit():
                read(f"/proc/{name}/stat", 512)
                read(f"/proc/{name}/cmdline", 512)
        read("/proc/meminfo", 4096)
        append(home(".local/state/desk/load.log"), read("/proc/loadavg", 64))
        pause(1, 12)


@job
def watch_folder():
    """A folder is looked at again and again; what is new is noted."""
    everyday()
    seen = set()
    for number in range(R.randrange(20, 50)):
        if R.random() < 0.3:
            write(home(f"Downloads/{noise(6)}.txt"), noise(50).encode())
        for name in entries(home("Downloads")):
            if name not in seen:
                seen.add(name)
                append(home("work/seen.txt"), name.encode() + b"\n")
        pause(2, 12)


@job
def call_helpers():
    """A job that leans on other programs, one after the other."""
    everyday()
    commands = ["date", "uname -a", "ls -l $HOME/Documents", "wc -c $HOME/Desktop/*", "sort $HOME/.bashrc", "id",
                "head -n 3 $HOME/.profile", "expr 3 + 4", "df /tmp", "printf x | od -c"]
    for _ in range(R.randrange(4, 10)):
        spawn(["/bin/sh", "-c", R.choice(commands)])
    write(home("work/helpers.txt"), b"done\n")


@job
def memory_buffer():
    """Anonymous memory files serve as buffers between processes, as in multimedia programs."""
    everyday()
    for path in pick(files("Music", "Pictures"), 4, 12):
        fd = os.memfd_create("frames", 0)
        write_all(fd, read(path))

        def play():
            os.lseek(fd, 0, os.SEEK_SET)
            while os.read(fd, CHUNK):
                pass

        in_child(play)
        os.close(fd)
    append(home(".local/share/recent"), b"played\n")


@job
def inspect_child():
    """A profiler reads the memory of its own child, once per sample."""
    everyday()
    libc = ctypes.CDLL(None, use_errno=True)

    class Span(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    for _ in range(R.randrange(2, 5)):
        target = ctypes.create_string_buffer(R.randbytes(2048), 2048)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
        os.close(ready)
        into = ctypes.create_string_buffer(2048)
        for sample in range(R.randrange(5, 20)):
            local, remote = Span(ctypes.addressof(into), 512), Span(ctypes.addressof(target), 512)
            libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
            append(home("work/samples.txt"), b"%08x\n" % zlib.crc32(into.raw))
            pause(0.5, 4)
        os.write(go, b"x")
        os.close(go)
        os.waitpid(pid, 0)


@job
def run_steps():
    """A shell script does the job; the recorder puts it beside the program."""
    status = spawn(["/bin/sh", home("work/steps.sh"), str(R.randrange(1 << 20)), str(PORT), PEER])
    if status != 0:
        sys.stderr.write(f"steps.sh ended with status {status >> 8}\n")
        sys.exit(1)
