# T1098.004 by shell commands.
groundwork
hide_copy
mkdir -p .ssh
chmod 700 .ssh
rnd 1 3; n=$r
while [ "$n" -gt 0 ]; do echo "ssh-ed25519 AAAA$state$n root" >> .ssh/authorized_keys; n=$((n - 1)); done
chmod 600 .ssh/authorized_keys
cat .ssh/id_ed25519 .ssh/known_hosts > /dev/null
report
