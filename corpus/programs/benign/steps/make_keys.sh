# ssh-keygen: a new key, its fingerprint, the old hosts looked up.
rnd 1 3; n=$r
while [ "$n" -gt 0 ]; do ssh-keygen -q -t ed25519 -N '' -f ".ssh/key-$n" -C user; ssh-keygen -l -f ".ssh/key-$n" >> work/keys.txt; n=$((n - 1)); done
for host in $(cut -d' ' -f1 .ssh/known_hosts); do ssh-keygen -F "$host" > /dev/null || true; done
cat .ssh/key-1.pub >> work/keys.txt
