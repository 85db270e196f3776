"""The home folder that every recorded program sees: made up, deterministic by seed, the same for both classes.

`build(roots, seed)` fills three folders (the home, the crontab spool, the log folder), puts a marker file into each, and
returns the paths that count as decoys. Every credential in it is random text; nothing here opens anything anywhere.
"""

import os
import random

MARKER = ".decoy-home"
MARKER_TEXT = "made-up files for recordings; programs of the corpus act below this folder only\n"

WORDS = (
    "account agenda alpine annual anchor apple april atlas autumn balance basic beacon berlin bicycle board book branch "
    "bridge budget cable camera canvas career castle catalog chart chess client cloud coast coffee column contract copy "
    "corner course credit culture daily data desk detail draft drawing dinner east energy estate event export family "
    "field final forest form garden glass goal green group guide harbor history holiday house index invoice island "
    "journal july kitchen label lake legal lesson letter library list local lunch manual march market master meeting "
    "memo menu model monthly morning motor music notes north office order paper partner payroll photo plan planet "
    "policy portrait poster price print product profile project quarter quote recipe record region report review river "
    "sales sample school season series sheet sketch sport spring staff station statement street studio summary summer "
    "table taxes team template theme ticket tour town travel trip unit update valley video village visit weather week "
    "winter wood work yearly"
).split()

# Every fourth file of the data folders is a decoy, besides the credentials.
DECOY_SHARE = 0.25


class Builder:
    """Writes the tree and remembers which of its files are decoys."""

    def __init__(self, home, seed):
        self.home = home
        self.rng = random.Random(f"home/{seed}")
        self.decoys = []

    def put(self, path, data, mode=0o644, decoy=False):
        """One file below the home (or at an absolute path), with the folders above it."""
        full = os.path.join(self.home, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as out:
            out.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(full, mode)
        # Files are between an hour and about two years old, counted from a fixed day.
        age = self.rng.randrange(3_600, 60_000_000)
        os.utime(full, (1_750_000_000 - age, 1_750_000_000 - age))
        if decoy:
            self.decoys.append(full)

    def name(self):
        """A file name of two words and sometimes a number."""
        number = f"-{self.rng.randrange(1, 60):02}" if self.rng.random() < 0.4 else ""
        return f"{self.rng.choice(WORDS)}-{self.rng.choice(WORDS)}{number}"

    def prose(self, size):
        """Text of about `size` bytes."""
        lines, total = [], 0
        while total < size:
            line = " ".join(self.rng.choices(WORDS, k=self.rng.randrange(6, 14)))
            lines.append(line)
            total += len(line) + 1
        return "\n".join(lines) + "\n"

    def table(self, rows):
        """Comma-separated rows with a heading."""
        lines = ["date,item,amount,city"]
        for _ in range(rows):
            day = f"2024-{self.rng.randrange(1, 13):02}-{self.rng.randrange(1, 29):02}"
            lines.append(f"{day},{self.rng.choice(WORDS)},{self.rng.randrange(100, 99999) / 100},{self.rng.choice(WORDS)}")
        return "\n".join(lines) + "\n"

    def secret(self, length):
        """Random letters that stand where a secret would."""
        alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        return "".join(self.rng.choices(alphabet, k=length))

    def data_folder(self, folder, count, kinds, depth=3):
        """`count` files of the given kinds in up to `depth` folders below `folder`."""
        folders = [folder] + [f"{folder}/{self.rng.choice(WORDS)}" for _ in range(depth)]
        for _ in range(count):
            kind = self.rng.choice(kinds)
            path = f"{self.rng.choice(folders)}/{self.name()}.{kind}"
            self.put(path, self.content(kind), decoy=self.rng.random() < DECOY_SHARE)

    def content(self, kind):
        """Bytes that look like the kind: text, tables, or a header and compressed-looking bytes."""
        rng = self.rng
        if kind in ("txt", "md", "tex", "eml"):
            return self.prose(rng.randrange(600, 6_000))
        if kind == "csv":
            return self.table(rng.randrange(20, 200))
        headers = {
            "jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
            "png": b"\x89PNG\r\n\x1a\n",
            "pdf": b"%PDF-1.5\n",
            "docx": b"PK\x03\x04",
            "xlsx": b"PK\x03\x04",
            "odt": b"PK\x03\x04",
            "mp3": b"ID3\x03\x00",
            "zip": b"PK\x03\x04",
        }
        return headers.get(kind, b"") + rng.randbytes(rng.randrange(1_500, 14_000))


def source_tree(b):
    """One or two small programs in C and Python that really build and run."""
    for project in b.rng.sample(WORDS, 2):
        top = f"Projects/{project}"
        units = b.rng.sample(WORDS, b.rng.randrange(3, 6))
        for unit in units:
            lines = [f"int {unit}(int x) {{", "    int total = 0;"]
            for k in range(b.rng.randrange(4, 24)):
                lines.append(f"    total += (x ^ {b.rng.randrange(1, 999)}) % {b.rng.randrange(2, 99)}; /* {b.rng.choice(WORDS)} {k} */")
            lines += ["    return total;", "}"]
            b.put(f"{top}/src/{unit}.c", "\n".join(lines) + "\n", decoy=b.rng.random() < 0.1)
        calls = " + ".join(f"{u}(n)" for u in units)
        protos = "\n".join(f"int {u}(int);" for u in units)
        b.put(f"{top}/src/main.c", f"#include <stdio.h>\n{protos}\nint main(void) {{ int n = 7; printf(\"%d\\n\", {calls}); return 0; }}\n")
        objects = " ".join(f"src/{u}.o" for u in units + ["main"])
        b.put(f"{top}/Makefile", f"CFLAGS = -O1\nprogram: {objects}\n\tcc -o $@ {objects}\nclean:\n\trm -f {objects} program\n")
        for module in b.rng.sample(WORDS, b.rng.randrange(2, 5)):
            body = "\n".join(f"def {w}(x):\n    return x * {b.rng.randrange(2, 99)}\n" for w in b.rng.sample(WORDS, 5))
            b.put(f"{top}/scripts/{module}.py", f'"""{b.prose(60).strip()}"""\n\n{body}\n')
        b.put(f"{top}/README.md", b.prose(700))
        b.put(f"{top}/notes.txt", b.prose(900), decoy=b.rng.random() < DECOY_SHARE)


def credentials(b):
    """Folders where programs keep secrets; what is in them is random text."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "\n".join(b.secret(70) for _ in range(6)) + "\n-----END OPENSSH PRIVATE KEY-----\n"
    b.put(".ssh/id_ed25519", key, 0o600, decoy=True)
    b.put(".ssh/id_ed25519.pub", f"ssh-ed25519 {b.secret(68)} user@desk\n", decoy=False)
    if b.rng.random() < 0.5:
        b.put(".ssh/id_rsa", key.replace("OPENSSH", "RSA"), 0o600, decoy=True)
    b.put(".ssh/known_hosts", "\n".join(f"{w}.example ssh-ed25519 {b.secret(68)}" for w in b.rng.sample(WORDS, 4)) + "\n")
    b.put(".ssh/authorized_keys", f"ssh-ed25519 {b.secret(68)} user@laptop\n", 0o600)
    b.put(".ssh/config", "Host *\n    ServerAliveInterval 60\n")
    b.put(".aws/credentials", f"[default]\naws_access_key_id = {b.secret(20).upper()}\naws_secret_access_key = {b.secret(40)}\n", 0o600, True)
    b.put(".aws/config", "[default]\nregion = eu-central-1\n")
    b.put(".config/gcloud/credentials.db", b.rng.randbytes(3_000), 0o600, True)
    b.put(".docker/config.json", f'{{"auths": {{"registry.example": {{"auth": "{b.secret(32)}"}}}}}}\n', 0o600, True)
    b.put(".kube/config", f"apiVersion: v1\nusers:\n- name: user\n  user:\n    token: {b.secret(48)}\n", 0o600, True)
    b.put(".netrc", f"machine files.example login user password {b.secret(12)}\n", 0o600, True)
    b.put(".git-credentials", f"https://user:{b.secret(20)}@git.example\n", 0o600, True)
    firefox = f".mozilla/firefox/{b.secret(8).lower()}.default"
    for name, size in (("logins.json", 900), ("key4.db", 6_000), ("cookies.sqlite", 8_000)):
        b.put(f"{firefox}/{name}", b.prose(size) if name.endswith("json") else b.rng.randbytes(size), 0o600, True)
    b.put(f"{firefox}/places.sqlite", b.rng.randbytes(9_000), 0o600)
    b.put(f"{firefox}/prefs.js", "\n".join(f'user_pref("{w}.{w}", true);' for w in b.rng.sample(WORDS, 20)) + "\n")
    b.put(".mozilla/firefox/profiles.ini", f"[Profile0]\nName=default\nPath={os.path.basename(firefox)}\n")
    for name in ("Login Data", "Cookies", "Web Data"):
        b.put(f".config/google-chrome/Default/{name}", b.rng.randbytes(5_000), 0o600, True)
    b.put(".config/google-chrome/Default/Preferences", f'{{"name": "{b.rng.choice(WORDS)}"}}\n')
    b.put(".local/share/keyrings/login.keyring", b.rng.randbytes(1_500), 0o600, True)
    b.put(".gnupg/pubring.kbx", b.rng.randbytes(900), 0o600)
    os.chmod(os.path.join(b.home, ".gnupg"), 0o700)
    os.chmod(os.path.join(b.home, ".ssh"), 0o700)


def settings(b):
    """Shell start-up files, application settings, caches and logs of an ordinary account."""
    b.put(".bashrc", "# ~/.bashrc\n" + "\n".join(f"alias {w}='ls -l {w}'" for w in b.rng.sample(WORDS, 5)) + "\n")
    b.put(".profile", '# ~/.profile\nPATH="$HOME/.local/bin:$PATH"\n')
    b.put(".bash_history", "\n".join(f"cd {b.rng.choice(WORDS)} && ls {b.rng.choice(WORDS)}" for _ in range(60)) + "\n", 0o600)
    b.put(".gitconfig", "[user]\n\tname = user\n\temail = user@desk.invalid\n[init]\n\tdefaultBranch = main\n")
    b.put(".config/desk/settings.ini", "\n".join(f"{w} = {b.rng.randrange(100)}" for w in b.rng.sample(WORDS, 30)) + "\n")
    for w in b.rng.sample(WORDS, 4):
        b.put(f".config/{w}/{w}.conf", "\n".join(f"{v} = {b.rng.randrange(100)}" for v in b.rng.sample(WORDS, 12)) + "\n")
    b.put(".config/autostart/panel.desktop", "[Desktop Entry]\nType=Application\nName=Panel\nExec=/usr/bin/true\n")
    b.put(".config/systemd/user/notes.service", "[Service]\nExecStart=/usr/bin/true\n")
    b.put(".local/share/applications/notes.desktop", "[Desktop Entry]\nType=Application\nName=Notes\nExec=/usr/bin/true\n")
    b.put(".local/state/desk/run.log", b.prose(1_500))
    b.put(".local/bin/hello", "#!/bin/sh\necho hello\n", 0o755)
    b.put(".cache/desk/state", b.prose(200))
    for _ in range(b.rng.randrange(8, 16)):
        b.put(f".cache/{b.rng.choice(('thumbs', 'pages', 'desk'))}/{b.secret(10).lower()}", b.rng.randbytes(b.rng.randrange(500, 4_000)))
    b.put("mail/inbox", "".join(f"From {w}@mail.invalid\nSubject: {b.name()}\n\n{b.prose(300)}\n" for w in b.rng.sample(WORDS, 12)))


def build(roots, seed):
    """Fills the home, spool and log folders and returns the decoys, sorted."""
    home, spool, logs = roots
    b = Builder(home, seed)
    for root in roots:
        b.put(os.path.join(root, MARKER), MARKER_TEXT)
    rng = b.rng
    b.data_folder("Documents", rng.randrange(50, 85), ("txt", "md", "csv", "pdf", "docx", "xlsx", "odt", "tex"))
    b.data_folder("Pictures", rng.randrange(20, 36), ("jpg", "jpg", "png"))
    b.data_folder("Music", rng.randrange(4, 9), ("mp3",), 1)
    b.data_folder("Desktop", rng.randrange(7, 15), ("txt", "pdf", "md", "csv"), 0)
    b.data_folder("Downloads", rng.randrange(8, 16), ("zip", "pdf", "jpg", "txt"), 0)
    source_tree(b)
    credentials(b)
    settings(b)
    b.put(os.path.join(spool, "user"), "# m h dom mon dow command\n15 3 * * 0 /usr/bin/true\n", 0o600)
    for name, lines in (("auth.log", 40), ("syslog", 60), ("user.log", 30), ("syslog.1", 50)):
        text = "".join(f"Jun {rng.randrange(1, 29):2} 10:{rng.randrange(60):02}:00 desk {rng.choice(WORDS)}: {b.prose(40)}" for _ in range(lines))
        b.put(os.path.join(logs, name), text, 0o640)
    b.put(os.path.join(logs, "wtmp"), rng.randbytes(1_152), 0o664)
    os.makedirs(os.path.join(home, "work"), exist_ok=True)
    return sorted(b.decoys)
