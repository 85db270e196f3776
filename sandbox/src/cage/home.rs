//! A made-up home: documents, keys, a browser's profile, folders that start programs, logs. Like the home of the recordings
//! that ship, a function of its seed, and full of files whose loss is noticed.

use super::{Identity, Placed};
use crate::draw::Draw;

/// A home with the crontab and the logs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its files, with absolute paths, in the order in which they are written.
    pub files: Vec<Placed>,
    /// Paths of those that count as decoys, sorted: every credential and a quarter of the data.
    pub decoys: Vec<String>,
}

/// One of a hundred files of the data folders is a decoy this often.
const DECOYS_IN_A_HUNDRED: u64 = 25;

/// The day from which ages of files are counted back, in seconds since 1970.
const TODAY_S: i64 = 1_750_000_000;

/// What makes programs of the corpus believe that a home may be damaged; they refuse to run without.
const MARKER: (&str, &str) =
    (".decoy-home", "made-up files for recordings; programs of the corpus act below this folder only\n");

impl Home {
    /// The home of a user, drawn from a seed.
    pub fn draw(seed: u64, identity: &Identity) -> Home {
        let mut builder = Builder {
            home: identity.home(),
            identity,
            draw: Draw::new(seed, "decoy home"),
            made: Home { files: Vec::new(), decoys: Vec::new() },
        };
        builder.data();
        builder.sources();
        builder.credentials();
        builder.settings();
        builder.logs();
        builder.made.decoys.sort();
        builder.made
    }

    /// Puts the markers beside the files, without which programs of the corpus refuse to run. Other samples need none, and
    /// could tell by them where they are.
    #[must_use]
    pub fn marked(mut self, identity: &Identity) -> Home {
        for folder in [identity.home().as_str(), super::root::KEPT[1], super::root::KEPT[2]] {
            let (path, bytes) = (format!("{folder}/{}", MARKER.0), MARKER.1.as_bytes().to_vec());
            self.files.push(Placed { path, bytes, mode: 0o644, modified_s: Some(TODAY_S) });
        }
        self
    }
}

struct Builder<'a> {
    home: String,
    identity: &'a Identity,
    draw: Draw,
    made: Home,
}

impl Builder<'_> {
    fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.place(path, bytes.into(), 0o644, false);
    }

    fn decoy(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.place(path, bytes.into(), 0o600, true);
    }

    /// A file below the home, or at an absolute path; between an hour and about two years old. A path that is drawn twice
    /// names the first file.
    fn place(&mut self, path: &str, bytes: Vec<u8>, mode: u32, decoy: bool) {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.home) };
        let modified_s = Some(TODAY_S - self.draw.number(3_600, 60_000_000) as i64);
        if self.made.files.iter().any(|file| file.path == path) {
            return;
        }
        if decoy {
            self.made.decoys.push(path.clone());
        }
        self.made.files.push(Placed { path, bytes, mode, modified_s });
    }

    fn data(&mut self) {
        const OFFICE: &[&str] = &["txt", "md", "csv", "pdf", "docx", "xlsx", "odt", "tex"];
        for (folder, least, end, kinds, depth) in [
            ("Documents", 50, 85, OFFICE, 3),
            ("Pictures", 20, 36, &["jpg", "jpg", "png"], 3),
            ("Music", 4, 9, &["mp3"], 1),
            ("Desktop", 7, 15, &["txt", "pdf", "md", "csv"], 0),
            ("Downloads", 8, 16, &["zip", "pdf", "jpg", "txt"], 0),
        ] {
            let mut folders = vec![folder.to_owned()];
            folders.extend((0..depth).map(|_| format!("{folder}/{}", self.draw.word())));
            for _ in 0..self.draw.number(least, end) {
                let kind = self.draw.pick(kinds);
                let at = self.draw.number(0, folders.len() as u64) as usize;
                let path = format!("{}/{}.{kind}", folders[at], self.draw.name());
                let bytes = self.content(kind);
                let decoy = self.draw.chance(DECOYS_IN_A_HUNDRED);
                self.place(&path, bytes, 0o644, decoy);
            }
        }
    }

    /// Bytes that look like the kind: text, a table, or a head and bytes that look compressed.
    fn content(&mut self, kind: &str) -> Vec<u8> {
        let head: &[u8] = match kind {
            "txt" | "md" | "tex" => {
                let size = self.draw.number(600, 6_000);
                return self.draw.prose(size).into_bytes();
            }
            "csv" => {
                let rows = self.draw.number(20, 200);
                return self.draw.table(rows).into_bytes();
            }
            "jpg" => b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
            "png" => b"\x89PNG\r\n\x1a\n",
            "pdf" => b"%PDF-1.5\n",
            "mp3" => b"ID3\x03\x00",
            _ => b"PK\x03\x04",
        };
        [head, &self.draw.bytes(1_500, 14_000)].concat()
    }

    /// Two small programs in C and Python that really build and run.
    fn sources(&mut self) {
        for project in self.draw.words(2) {
            let top = format!("Projects/{project}");
            let count = self.draw.number(3, 6);
            let units = self.draw.words(count);
            for unit in &units {
                let mut text = format!("int {unit}(int x) {{\n    int total = 0;\n");
                for at in 0..self.draw.number(4, 24) {
                    let (a, b, word) = (self.draw.number(1, 999), self.draw.number(2, 99), self.draw.word());
                    text.push_str(&format!("    total += (x ^ {a}) % {b}; /* {word} {at} */\n"));
                }
                text.push_str("    return total;\n}\n");
                let decoy = self.draw.chance(10);
                self.place(&format!("{top}/src/{unit}.c"), text.into_bytes(), 0o644, decoy);
            }
            let declared: String = units.iter().map(|unit| format!("int {unit}(int);\n")).collect();
            let calls = units.iter().map(|unit| format!("{unit}(n)")).collect::<Vec<_>>().join(" + ");
            let objects: String = units.iter().chain(&["main"]).map(|unit| format!(" src/{unit}.o")).collect();
            let main = format!(
                "#include <stdio.h>\n{declared}int main(void) {{ int n = 7; printf(\"%d\\n\", {calls}); return 0; }}\n"
            );
            self.put(&format!("{top}/src/main.c"), main);
            let rules =
                format!("CFLAGS = -O1\nprogram:{objects}\n\tcc -o $@{objects}\nclean:\n\trm -f{objects} program\n");
            self.put(&format!("{top}/Makefile"), rules);
            let count = self.draw.number(2, 5);
            for module in self.draw.words(count) {
                let mut text = format!("\"\"\"{}\"\"\"\n", self.draw.prose(60).trim());
                for name in self.draw.words(5) {
                    text.push_str(&format!("\ndef {name}(x):\n    return x * {}\n", self.draw.number(2, 99)));
                }
                self.put(&format!("{top}/scripts/{module}.py"), text);
            }
            let (readme, notes) = (self.draw.prose(700), self.draw.prose(900));
            let decoy = self.draw.chance(DECOYS_IN_A_HUNDRED);
            self.put(&format!("{top}/README.md"), readme);
            self.place(&format!("{top}/notes.txt"), notes.into_bytes(), 0o644, decoy);
        }
    }

    /// Where programs keep secrets; what is in them is random text.
    fn credentials(&mut self) {
        let Identity { host_name, user, .. } = self.identity;
        let lines: Vec<String> = (0..6).map(|_| self.draw.secret(70)).collect();
        let (begin, end) = ("-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----");
        let key = format!("{begin}\n{}\n{end}\n", lines.join("\n"));
        self.decoy(".ssh/id_ed25519", key.clone());
        let public = format!("ssh-ed25519 {} {user}@{host_name}\n", self.draw.secret(68));
        self.put(".ssh/id_ed25519.pub", public);
        if self.draw.chance(50) {
            self.decoy(".ssh/id_rsa", key.replace("OPENSSH", "RSA"));
        }
        let known: String =
            (0..4).map(|_| format!("{}.example ssh-ed25519 {}\n", self.draw.word(), self.draw.secret(68))).collect();
        self.put(".ssh/known_hosts", known);
        let authorized = format!("ssh-ed25519 {} {user}@laptop\n", self.draw.secret(68));
        self.place(".ssh/authorized_keys", authorized.into_bytes(), 0o600, false);
        self.put(".ssh/config", "Host *\n    ServerAliveInterval 60\n");
        let (id, secret) = (self.draw.secret(20).to_uppercase(), self.draw.secret(40));
        self.decoy(
            ".aws/credentials",
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
        );
        self.put(".aws/config", "[default]\nregion = eu-central-1\n");
        let secret = self.draw.secret(32);
        self.decoy(
            ".docker/config.json",
            format!("{{\"auths\": {{\"registry.example\": {{\"auth\": \"{secret}\"}}}}}}\n"),
        );
        let secret = self.draw.secret(48);
        self.decoy(".kube/config", format!("apiVersion: v1\nusers:\n- name: {user}\n  user:\n    token: {secret}\n"));
        let secret = self.draw.secret(12);
        self.decoy(".netrc", format!("machine files.example login {user} password {secret}\n"));
        let secret = self.draw.secret(20);
        self.decoy(".git-credentials", format!("https://{user}:{secret}@git.example\n"));
        let profile = format!("{}.default", self.draw.secret(8).to_lowercase());
        let logins = self.draw.prose(900);
        self.decoy(&format!(".mozilla/firefox/{profile}/logins.json"), logins);
        for (path, bytes, decoy) in [
            (".config/gcloud/credentials.db".to_owned(), 3_000, true),
            (format!(".mozilla/firefox/{profile}/key4.db"), 6_000, true),
            (format!(".mozilla/firefox/{profile}/cookies.sqlite"), 8_000, true),
            (format!(".mozilla/firefox/{profile}/places.sqlite"), 9_000, false),
            (".config/google-chrome/Default/Login Data".to_owned(), 5_000, true),
            (".config/google-chrome/Default/Cookies".to_owned(), 5_000, true),
            (".config/google-chrome/Default/Web Data".to_owned(), 5_000, true),
            (".local/share/keyrings/login.keyring".to_owned(), 1_500, true),
            (".gnupg/pubring.kbx".to_owned(), 900, false),
        ] {
            let content = self.draw.bytes(bytes, bytes + 1);
            self.place(&path, content, 0o600, decoy);
        }
        let preferences: String =
            self.draw.words(20).iter().map(|word| format!("user_pref(\"{word}.{word}\", true);\n")).collect();
        self.put(&format!(".mozilla/firefox/{profile}/prefs.js"), preferences);
        self.put(".mozilla/firefox/profiles.ini", format!("[Profile0]\nName=default\nPath={profile}\n"));
        let name = self.draw.word();
        self.put(".config/google-chrome/Default/Preferences", format!("{{\"name\": \"{name}\"}}\n"));
    }

    /// Start-up files of the shell, settings of programs, caches and logs of an ordinary account.
    fn settings(&mut self) {
        let Identity { host_name, user, .. } = self.identity;
        let aliases: String = self.draw.words(5).iter().map(|word| format!("alias {word}='ls -l {word}'\n")).collect();
        self.put(".bashrc", format!("# ~/.bashrc\n{aliases}"));
        self.put(".profile", "# ~/.profile\nPATH=\"$HOME/.local/bin:$PATH\"\n");
        let history: String =
            (0..60).map(|_| format!("cd {} && ls {}\n", self.draw.word(), self.draw.word())).collect();
        self.place(".bash_history", history.into_bytes(), 0o600, false);
        self.put(
            ".gitconfig",
            format!("[user]\n\tname = {user}\n\temail = {user}@{host_name}.invalid\n[init]\n\tdefaultBranch = main\n"),
        );
        let values = |draw: &mut Draw, count: u64| -> String {
            draw.words(count).iter().map(|word| format!("{word} = {}\n", draw.number(0, 100))).collect()
        };
        let text = values(&mut self.draw, 30);
        self.put(".config/desk/settings.ini", text);
        for word in self.draw.words(4) {
            let text = values(&mut self.draw, 12);
            self.put(&format!(".config/{word}/{word}.conf"), text);
        }
        let entry = |name: &str| format!("[Desktop Entry]\nType=Application\nName={name}\nExec=/usr/bin/true\n");
        self.put(".config/autostart/panel.desktop", entry("Panel"));
        self.put(".config/systemd/user/notes.service", "[Service]\nExecStart=/usr/bin/true\n");
        self.put(".local/share/applications/notes.desktop", entry("Notes"));
        let (log, state) = (self.draw.prose(1_500), self.draw.prose(200));
        self.put(".local/state/desk/run.log", log);
        self.place(".local/bin/hello", b"#!/bin/sh\necho hello\n".to_vec(), 0o755, false);
        self.put(".cache/desk/state", state);
        for _ in 0..self.draw.number(8, 16) {
            let folder = self.draw.pick(&["thumbs", "pages", "desk"]);
            let path = format!(".cache/{folder}/{}", self.draw.secret(10).to_lowercase());
            let bytes = self.draw.bytes(500, 4_000);
            self.put(&path, bytes);
        }
        let mut inbox = String::new();
        for sender in self.draw.words(12) {
            let (subject, text) = (self.draw.name(), self.draw.prose(300));
            inbox.push_str(&format!("From {sender}@mail.invalid\nSubject: {subject}\n\n{text}\n"));
        }
        self.put("mail/inbox", inbox);
    }

    fn logs(&mut self) {
        let Identity { host_name, user, .. } = self.identity;
        let [_, crontabs, logs] = super::root::KEPT;
        let crontab = "# m h dom mon dow command\n15 3 * * 0 /usr/bin/true\n";
        self.place(&format!("{crontabs}/{user}"), crontab.as_bytes().to_vec(), 0o600, false);
        for (name, lines) in [("auth.log", 40), ("syslog", 60), ("user.log", 30), ("syslog.1", 50)] {
            let mut text = String::new();
            for _ in 0..lines {
                let (day, minute, word) = (self.draw.number(1, 29), self.draw.number(0, 60), self.draw.word());
                text.push_str(&format!("Jun {day:2} 10:{minute:02}:00 {host_name} {word}: {}", self.draw.prose(40)));
            }
            self.place(&format!("{logs}/{name}"), text.into_bytes(), 0o640, false);
        }
        let records = self.draw.bytes(1_152, 1_153);
        self.place(&format!("{logs}/wtmp"), records, 0o664, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_home_is_a_function_of_its_seed() {
        let identity = Identity::default();
        assert_eq!(Home::draw(3, &identity), Home::draw(3, &identity));
        assert_ne!(Home::draw(3, &identity), Home::draw(4, &identity));
    }

    #[test]
    fn decoys_are_files_of_the_home_and_hold_every_credential() {
        for seed in 0..50 {
            let home = Home::draw(seed, &Identity::default());
            let paths: BTreeSet<&str> = home.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths.len(), home.files.len(), "no path twice");
            assert!(home.decoys.iter().all(|decoy| paths.contains(decoy.as_str())));
            assert!(home.decoys.len() >= 20, "{}", home.decoys.len());
            for name in [".ssh/id_ed25519", ".aws/credentials", ".config/google-chrome/Default/Login Data"] {
                assert!(home.decoys.contains(&format!("/home/user/{name}")), "{name}");
            }
            let bytes: usize = home.files.iter().map(|file| file.bytes.len()).sum();
            assert!(bytes < 4 << 20, "{bytes}");
            // A path is never a folder of another one.
            assert!(!paths.iter().any(|path| paths.contains(path.rsplit_once('/').map_or("", |(folder, _)| folder))));
        }
    }
}
